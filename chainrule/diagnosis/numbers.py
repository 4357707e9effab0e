"""Arguments that are plain numbers: checked as inputs, where the code leaves a gradient of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import Function, lines_that_set, steps_in_a_loop
from chainrule.diagnosis.reading.numbers import (
    keys_in,
    lists_of_numbers,
    meant_in,
    names_given,
    names_in,
    parameters_taken,
    plain_numbers,
    with_inputs,
    with_values,
)
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.report import Finding, Report, Row
from chainrule.diagnosis.truth.case import Case, same
from chainrule.diagnosis.truth.plain_numbers import Compared, compared
from chainrule.errors import ChainruleError, Untold

Reported = Callable[[Asked], Report]
Place = tuple[str | None, int | None]


def by_gradients(asked: Asked, report: Reported) -> Report:
    """The report on the code, given a number as an input where it leaves a gradient of it: `b=0.3`, and `db`. Numbers of
    which it leaves none (lr, eps) stay numbers. What was changed by a run with inputs for numbers is as before."""
    found = _by_gradients(asked, report)
    looked_at = {_last(row.name) for row in found.rows}
    lists = [n for n in lists_of_numbers(asked) if n not in looked_at]
    left = sorted(meant_in(asked, lists)) if lists and asked.wrt is None else []
    if left:
        found.notes.append(
            f"nothing is said of {', '.join(left)}: the gradient of a list of numbers is not looked at; make an array of it"
        )
    return found


def _by_gradients(asked: Asked, report: Reported) -> Report:
    numbers = plain_numbers(asked)
    if not numbers:
        return report(asked)
    wanted = set(names_in(asked.wrt))
    meant = wanted | meant_in(asked, numbers)
    state = _state(asked)
    found = _left(asked, [n for n in numbers if n in meant], report, wanted, state)
    if found is not None:
        return found
    try:
        return report(asked)
    except ChainruleError as error:  # gradients that are told by their order, or by the parameter's own name
        state.restore()
        required = {n for n, p in parameters_taken(asked).items() if p.default is p.empty}
        keys = keys_in(asked)
        for names in (keys, meant | required, required):
            every = [n for n in numbers if n in names]
            found = None if wanted or set(every) <= meant else _left(asked, every, report, set(every), state)
            if found is not None and (found.ok or set(every) <= keys or not _holds_others(asked)):
                return found
        plain = _by_differences(asked, [n for n in numbers if n in meant | keys], meant)
        if plain is not None:
            return plain
        alone = not any(hasattr(v, "dtype") for v in (*asked.args, *asked.kwargs.values()))
        if isinstance(error, Untold) and alone and meant - wanted:
            raise Untold(
                f"{asked.name} computes with plain numbers ({', '.join(sorted(meant))}), and what it returns has no names to "
                "tell the loss and their gradients by; write `return loss, dw, db`, or give the numbers as np.array(0.3)"
            ) from error
        raise


def _holds_others(asked: Asked) -> bool:
    """Whether an argument holds numbers that may be the parameters, rather than those that are arguments themselves."""
    given = (*asked.args, *asked.kwargs.values())
    return any(isinstance(v, list | tuple | dict) or dataclasses.is_dataclass(v) for v in given)


def _state(asked: Asked) -> State:
    return State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference])


def _left(asked: Asked, names: list[str], report: Reported, wanted: set[str], state: State) -> Report | None:
    """The report with some numbers as inputs, or with those among them that have a gradient; None where none has, or not
    all that are `wanted`."""
    first = names
    while names:
        try:
            found = report(with_inputs(asked, names))
        except Exception:  # of theirs, too: an array does not do all that a number does
            if wanted & set(names_in(asked.wrt)):
                raise
            return None
        finally:
            state.restore()
        scalars = [row for row in found.rows if row.status != "missing" and row.expected_shape == ()]
        told = {_last(row.name): row for row in scalars}
        having = [n for n in names if n in told]
        derived = {} if found.ok else _derived(asked, names, state)
        having = [n for n in having if n not in derived or derived[n].is_of(plain_numbers(asked)[n])]
        if having == names:
            found = found if found.ok else _as_numbers(asked, found, {n: told[n] for n in names}, derived)
            return _with_the_rest(asked, found, [n for n in first if n not in names])
        names = having if not wanted & set(names) - set(having) else []
    return None


@dataclass
class _Derived:
    """A gradient of a number that an array stood for, and the derivative."""

    label: str
    got: torch.Tensor
    truth: torch.Tensor
    reached: bool  # whether the loss depends on the number

    def is_of(self, number: float) -> bool:
        """Whether it may be meant as the gradient: not of a count, `b = 4` rows, where db is that of another value."""
        return self.reached and not (self.got.shape and number.is_integer() and number > 1)


def _derived(asked: Asked, names: list[str], state: State) -> dict[str, _Derived]:
    """What a run gives, and should give, that takes numbers as arrays."""
    try:
        case = Case(run_handwritten(with_inputs(asked, names)))
        here = case.here
        return {
            _last(c.name): _Derived(
                c.target.split(".")[-1].split('["')[-1].strip('"]'),
                here.values[c.node],
                here.truth(c.value),
                case.base.gradients.get(c.value) is not None,
            )
            for c in case.claims
        }
    except Exception:  # of theirs, too
        return {}
    finally:
        state.restore()


def _as_numbers(asked: Asked, found: Report, rows: dict[str, Row], derived: dict[str, _Derived]) -> Report:
    """The report, of which the run with numbers as they are has the last word on what is wrong for these numbers: where
    the code computes otherwise with an array, or the way from the number is lost in one."""
    wrong = {n: d for n, d in derived.items() if n in rows and not same(d.got, d.truth)}
    slopes = _compared(asked, list(wrong), {n: d.label for n, d in wrong.items()})
    for name, one in slopes.items():
        row, here = rows[name], wrong[name]
        lost = not one.is_slope(float(here.truth))
        alike = here.got.numel() == 1 and one.got is not None and one.is_slope(one.slope + float(here.got) - one.got)
        if not lost and (one.got is None or alike):
            continue
        found.findings = [f for f in found.findings if _last(f.name) != name]
        place = found.rows.index(row)
        if one.got is None:
            del found.rows[place]
            found.notes.append(f"nothing is said of {one.label}: the code computes otherwise with an array for {name}")
            continue
        found.rows[place] = _row(row.name, one, at := _place(asked, one.label))
        found.findings += [] if one.right else [_finding(row.name, one, at)]
        found.notes.append(f"{one.label} is compared with a numeric difference: an array for {name} is taken otherwise")
    return found


def _with_the_rest(asked: Asked, found: Report, names: list[str]) -> Report:
    """The report with the gradients of numbers that are none of arrays: a count, a number without a path to the inputs."""
    slopes = {n: one for n, one in _compared(asked, names, {}).items() if one.got is not None} if names else {}
    for name, one in slopes.items():
        if not _steps(asked, name):
            found.rows.append(_row(f"{name}.g", one, at := _place(asked, one.label)))
            found.findings += [] if one.right else [_finding(f"{name}.g", one, at)]
    return found


def _by_differences(asked: Asked, names: list[str], meant: set[str]) -> Report | None:
    """The report of a run whose numbers cannot be arrays; None where it leaves no gradient of them, or not all that are
    `meant`, or steps them."""
    slopes = {n: one for n, one in _compared(asked, names, {}).items() if one.got is not None}
    others = meant_in(asked, names_given(asked)) - set(slopes)  # of lists of numbers, too
    if not slopes or others or meant - set(slopes) or any(_steps(asked, name) for name in slopes):
        return None
    note = "compared with numeric differences: the code takes no arrays for its numbers"
    return _with_the_rest(asked, Report([], notes=[note]), names)


def _steps(asked: Asked, name: str) -> bool:
    written = _written(asked)
    return written is None or steps_in_a_loop(name, written)


def _written(asked: Asked) -> Function | None:
    code = getattr(getattr(asked.code, "__func__", asked.code), "__code__", None)
    return function_of(code) if code is not None else None


def _place(asked: Asked, label: str) -> Place:
    """The file, and the last line that sets a gradient of this name."""
    code, written = getattr(getattr(asked.code, "__func__", asked.code), "__code__", None), _written(asked)
    lines = lines_that_set(label.strip('[]"'), written) if written is not None else []
    return (code.co_filename if code is not None else None), max(lines, default=None)


def _compared(asked: Asked, names: list[str], labels: dict[str, str]) -> dict[str, Compared]:
    plain = isinstance(asked.loss, str | None) and asked.forward is None and asked.reference is None
    numbers = {n: plain_numbers(asked)[n] for n in names}
    return compared(asked, numbers, labels, lambda v: with_values(asked, dict(v))) if plain and names else {}


def _last(name: str) -> str:
    return name.removesuffix(".g").rpartition(".")[2]


def _row(name: str, one: Compared, place: Place) -> Row:
    off = abs((one.got or 0.0) - one.slope)
    relative = off / abs(one.slope) if one.slope else 0.0 if one.right else float("inf")
    return Row(name, "right" if one.right else "wrong", off, relative, (), (), place[1], place[0])


def _finding(name: str, one: Compared, place: Place) -> Finding:
    got = one.got or 0.0
    ratio = got / one.slope if one.everywhere else None
    cause = "unknown" if ratio is None else "sign" if abs(ratio + 1) < 1e-5 else "wrong-scale"
    how = f"off by {abs(got - one.slope):.3g}" if ratio is None else f"it is {ratio:g} times the right gradient"
    file, line = place
    text = source.line_at(file, line) if file and line else ""
    return Finding(name, line, cause, f"{one.label} is wrong: {how}, by numeric differences", "", False, file, text)
