"""Arguments that are plain numbers: checked as inputs, where the code leaves a gradient of them."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import Function, lines_that_set, steps_in_a_loop
from chainrule.diagnosis.reading.numbers import (
    keys_kept,
    labels_kept,
    names_in,
    parameters_of,
    plain_numbers,
    with_inputs,
    with_values,
)
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.report import Finding, Report, Row
from chainrule.diagnosis.truth.case import Case
from chainrule.diagnosis.truth.plain_numbers import Compared, compared
from chainrule.errors import ChainruleError

Reported = Callable[[Asked], Report]
Place = tuple[str | None, int | None]


def by_gradients(asked: Asked, report: Reported) -> Report:
    """The report on the code, given a number as an input where it leaves a gradient of it: `b=0.3`, and `db`. Numbers of
    which it leaves none (lr, eps) stay numbers."""
    numbers = plain_numbers(asked)
    if not numbers:
        return report(asked)
    wanted = set(names_in(asked.wrt))
    likely = wanted | {n for label in labels_kept(asked) for n in names_meant(label)}
    found = _left(asked, [n for n in numbers if n in likely], report, wanted)
    if found is not None:
        return found
    state = _state(asked)
    try:
        return report(asked)
    except ChainruleError:  # gradients that are told by their order, of numbers too, or by the parameter's own name
        state.restore()
        required = [n for n, p in parameters_of(asked).items() if p.default is p.empty]
        keys = set(keys_kept(asked))
        for every in ([n for n in numbers if n in keys], [n for n in required if n in numbers]):
            found = None if wanted or set(every) <= likely else _left(asked, every, report, set(every))
            if found is not None:
                return found
        plain = _by_differences(asked, [n for n in numbers if n in likely | keys])
        if plain is not None:
            return plain
        raise


def _state(asked: Asked) -> State:
    return State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference])


def _left(asked: Asked, names: list[str], report: Reported, wanted: set[str]) -> Report | None:
    """The report with some numbers as inputs, or with those among them that have a gradient; None where none has, or not
    all that are `wanted`."""
    state = _state(asked) if names else None
    while names and state is not None:
        try:
            found = report(with_inputs(asked, names))
        except Exception:  # of theirs, too: an array does not do all that a number does
            state.restore()
            if wanted & set(names_in(asked.wrt)):
                raise
            return None
        scalars = [row for row in found.rows if row.status != "missing" and row.expected_shape == ()]
        told = {_last(row.name): row for row in scalars}
        having = [n for n in names if n in told]
        if having == names:
            return found if found.ok else _as_numbers(asked, found, {n: told[n] for n in names}, state)
        state.restore()
        names = having if not wanted & set(names) - set(having) else []
    return None


def _as_numbers(asked: Asked, found: Report, rows: dict[str, Row], state: State) -> Report:
    """The report, of which the run with numbers as they are has the last word: where its slopes are those gradients, they
    are right, and where they are others than the derived ones, the way from the number was lost."""
    state.restore()
    slopes = _compared(asked, [n for n, row in rows.items() if row.status not in ("right", "close")])
    derived = _derived(asked, list(rows), state) if slopes else {}
    for name, one in slopes.items():
        row = rows[name]
        lost = row.status == "wrong shape" or (name in derived and not one.is_slope(derived[name]))
        if one.right or lost:
            found.rows[found.rows.index(row)] = _row(row.name, one, place := _place(asked, one.label))
            found.findings = [f for f in found.findings if _last(f.name) != name]
            found.findings += [] if one.right else [_finding(row.name, one, place)]
            found.notes.append(
                f"{one.label} is compared with a numeric difference: an array for {name} is taken otherwise"
            )
    return found


def _derived(asked: Asked, names: list[str], state: State) -> dict[str, float]:
    """The derivatives along numbers of a run that takes them as arrays."""
    try:
        case = Case(run_handwritten(with_inputs(asked, names)))
        return {_last(c.name): float(t) for c in case.claims if (t := case.here.truth(c.value)).numel() == 1}
    finally:
        state.restore()


def _by_differences(asked: Asked, names: list[str]) -> Report | None:
    """The report of a run whose numbers cannot be arrays; None where it leaves no gradient of them, or steps them."""
    slopes = _compared(asked, names)
    written = _written(asked)
    if not slopes or written is None or any(steps_in_a_loop(name, written) for name in slopes):
        return None
    report = Report([], notes=["compared with numeric differences: the code takes no arrays for its numbers"])
    for name, one in slopes.items():
        report.rows.append(_row(f"{name}.g", one, place := _place(asked, one.label)))
        report.findings += [] if one.right else [_finding(f"{name}.g", one, place)]
    return report


def _written(asked: Asked) -> Function | None:
    code = getattr(getattr(asked.code, "__func__", asked.code), "__code__", None)
    return function_of(code) if code is not None else None


def _place(asked: Asked, label: str) -> Place:
    """The file, and the last line that sets a gradient of this name."""
    code, written = getattr(getattr(asked.code, "__func__", asked.code), "__code__", None), _written(asked)
    lines = lines_that_set(label.strip('[]"'), written) if written is not None else []
    return (code.co_filename if code is not None else None), max(lines, default=None)


def _compared(asked: Asked, names: list[str]) -> dict[str, Compared]:
    plain = isinstance(asked.loss, str | None) and asked.forward is None and asked.reference is None
    numbers = plain_numbers(asked)
    return compared(asked, {n: numbers[n] for n in names}, lambda v: with_values(asked, dict(v))) if plain else {}


def _last(name: str) -> str:
    return name.removesuffix(".g").rpartition(".")[2]


def _row(name: str, one: Compared, place: Place) -> Row:
    off = abs(one.got - one.slope)
    relative = off / abs(one.slope) if one.slope else 0.0 if one.right else float("inf")
    return Row(name, "right" if one.right else "wrong", off, relative, (), (), place[1], place[0])


def _finding(name: str, one: Compared, place: Place) -> Finding:
    ratio = one.got / one.slope if one.everywhere else None
    cause = "unknown" if ratio is None else "sign" if abs(ratio + 1) < 1e-5 else "wrong-scale"
    how = f"off by {abs(one.got - one.slope):.3g}" if ratio is None else f"it is {ratio:g} times the right gradient"
    file, line = place
    text = source.line_at(file, line) if file and line else ""
    return Finding(name, line, cause, f"{one.label} is wrong: {how}, by numeric differences", "", False, file, text)
