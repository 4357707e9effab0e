"""Mistakes that the given data hide: a scale of ones, biases of zeros, a mask that lets everything through, reg=0.0."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Run
from chainrule.diagnosis.report import Report
from chainrule.diagnosis.truth import points
from chainrule.diagnosis.truth.case import RIGHT, Case, Point, errors, same
from chainrule.diagnosis.truth.reruns import Again, Moves, Reruns, wrong
from chainrule.program import differentiable
from chainrule.recording import Recorder
from chainrule.run import double, needed

_NUMBERS = {0.0: 0.3, 1.0: 0.7}  # Python numbers that hide a term or a factor, and what is tried instead


def revealed(found: Report, located: Located, again: Again, report: Callable[[Handwritten, Run], Report]) -> Report:
    """What the given data hide of code whose gradients are right for them: the report on a run with other values, where
    a gradient is wrong there; for data, which may be all that the code is meant for, a note.

    Told first from the recorded program, then by a run of the person's code, so that nothing is said of what the
    recorder did not see.
    """
    reruns = Reruns(located, again)
    for hiding in _candidates(located, reruns):
        if reruns.as_given is None:
            break
        other = reruns.report(hiding.moves, report)
        if other is None or all(row.status in ("right", "close", "missing") for row in other.rows):
            continue
        if hiding.data:
            found.notes.insert(0, _of_other_data(hiding, other))
            continue
        for finding in other.findings:
            finding.message += f"; hidden by the given data, in which {hiding.said}"
        other.notes.insert(0, f"all is right where {hiding.said}; shown is a run with other values there")
        return other
    return found


@dataclass
class _Hiding:
    """Other values for which a gradient is wrong, and what of the given ones hides it."""

    moves: Moves
    said: str
    data: str = ""  # the name of the argument that is data; parameters and numbers have none


def _of_other_data(hiding: _Hiding, report: Report) -> str:
    head = f"all is right where {hiding.said}; with other values of {hiding.data}, "
    if not report.findings:
        row = next(r for r in report.rows if r.status not in ("right", "close", "missing"))
        return f"{head}the gradient of {row.name}{f' (line {row.line})' if row.line else ''} would be wrong"
    finding = report.findings[0]
    place = f" (line {finding.line})" if finding.line else ""
    subject, _, rest = finding.message.partition(" is wrong")
    return f"{head}{subject.partition(' (')[0]}{place} would be wrong{rest}"


def _candidates(located: Located, reruns: Reruns) -> Iterator[_Hiding]:
    for nodes, kinds, data in _constant(located.case):
        tried = [(known, _is_wrong(located, known)) for kind in kinds if (known := kind(nodes))]
        runs = [(known, differs) for known, differs in tried if differs is not None]
        if not runs or not all(differs for _, differs in runs):
            continue
        known = runs[0][0]
        alone = [n for n in nodes if _is_wrong(located, {n: known[n]})] if len(nodes) > 1 else []
        name = located.case.names.get(nodes[0], nodes[0].name) if data else ""
        yield _Hiding(_moves(located.case.recorder, known), _said(located.case, alone or nodes), name)
    yield from _numbers(located, reruns)


def _is_wrong(located: Located, known: dict[fx.Node, Any]) -> bool | None:
    """Whether a gradient is wrong for other values of some inputs; None where the program does not run for them."""
    point = located.case.at(known)
    if point is None:
        return None
    return any(_differs(located, claim, point) for claim in located.case.claims)


def _differs(located: Located, claim: Claim, point: Point) -> bool:
    got = point.values.get(claim.node)
    if got is None or not located.case.tracked(claim) or located.rows[claim].status not in ("right", "close"):
        return False
    truth = point.truth(claim.value)
    return errors(got, truth)[1] > RIGHT and not (got.shape == truth.shape and located.is_rounding(claim, point))


def _moves(recorder: Recorder, known: dict[fx.Node, Any]) -> Moves:
    places = {n: i for i, n in enumerate(recorder.inputs)}
    was = {n: n.meta["val"].detach().clone() for n in known}
    return Moves({places[n]: (was[n], v.to(was[n].dtype)) for n, v in known.items()})


# -- tensors that are the same everywhere --------------------------------------------------------

_Kind = Callable[[list[fx.Node]], dict[fx.Node, Any]]


def _constant(case: Case) -> Iterator[tuple[list[fx.Node], list[_Kind], bool]]:
    """The inputs that are one number everywhere, with the kinds of values that each may have, and whether it is data:
    parameters, which may be any numbers, together; each argument that is data, a mask or labels, by itself.

    What is neither, a constant of the program, it may rely on."""
    used, claimed = set(needed([case.base.output])), {c.value for c in case.claims}
    nodes = [n for n in case.recorder.inputs if n in used and n is not case.base.upstream and _is_constant(n)]
    nodes = [n for n in nodes if n.meta["operation"] == "input"]
    parameters = [n for n in nodes if n in claimed or (n.meta.get("given", n.meta["val"]).requires_grad)]
    parameters = [n for n in parameters if differentiable(n)]
    if parameters:
        yield parameters, [_any_numbers], False
    passed = {id(t) for v in case.recorder.arguments.values() for t in _tensors_in(v)}
    for node in nodes:
        if node not in parameters and id(node.meta.get("given", node.meta["val"])) in passed:
            yield [node], [_any_numbers, _other_value, _other_sign], True


def _tensors_in(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [t for v in held for t in _tensors_in(v)]


def _is_constant(node: fx.Node) -> bool:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor) or value.dtype.is_complex or not value.numel():
        return False
    first = value.flatten()[0]
    if value.numel() == 1 and (not value.is_floating_point() or float(first) not in (0.0, 1.0)):
        return False
    return bool(torch.isfinite(first)) and bool((value == first).all())


def _any_numbers(nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """Real numbers near those given."""
    real = [n for n in nodes if n.meta["val"].is_floating_point()]
    return {n: points.varied(double(n.meta["val"].detach()), _generator(i)) for i, n in enumerate(real)}


def _other_value(nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """A mask that hides something, labels of several classes."""
    return {n: v for i, n in enumerate(nodes) if (v := _mixed(n.meta["val"].detach(), _generator(i))) is not None}


def _other_sign(nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """Labels 1 and -1."""
    found = {n: double(n.meta["val"].detach()) for n in nodes if n.meta["val"].is_floating_point()}
    found = {n: v for n, v in found.items() if abs(float(v.flatten()[0])) == 1.0}
    return {n: torch.where(_some(v, _generator(i)), -v, v) for i, (n, v) in enumerate(found.items())}


def _mixed(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    first = value.flatten()[0]
    if value.dtype == torch.bool:
        return value.logical_xor(_some(value, generator))
    if float(first) not in (0.0, 1.0) and (value.is_floating_point() or first < 0):
        return None
    other = 1 - first if float(first) in (0.0, 1.0) else first - 1
    mixed = torch.where(_some(value, generator), other, value)
    return double(mixed) if value.is_floating_point() else mixed


def _some(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some of the elements, not all."""
    drawn = torch.rand(value.shape, generator=generator).to(value.device)
    return drawn <= drawn.flatten().sort().values[(value.numel() - 1) // 2]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _said(case: Case, nodes: list[fx.Node]) -> str:
    """`norm.g is 1 everywhere`."""
    values = {case.names.get(n, n.name): n.meta["val"].flatten()[0].item() for n in nodes}
    said = [f"{name} is {f'{value:g}' if isinstance(value, float) else value}" for name, value in values.items()]
    return f"{' and '.join([', '.join(said[:-1]), said[-1]] if len(said) > 1 else said)} everywhere"


# -- Python numbers ------------------------------------------------------------------------------


def _numbers(located: Located, reruns: Reruns) -> Iterator[_Hiding]:
    """Arguments that are 0.0 or 1.0, each by itself: a label may be 0 or 1 alone, so that gradient must be wrong for
    the one that it is not, too."""
    for place, name, value in _zeros_and_ones(located.case.hand.asked):
        other = reruns.run(moves := Moves(numbers={place: _NUMBERS[value]}))
        near = Moves(numbers={place: value + (_NUMBERS[value] - value) / 100})
        if other is None or not wrong(other) or not _counts(reruns, other, near):
            continue
        flipped = reruns.run(Moves(numbers={place: 1.0 - value}))
        if flipped is None or wrong(flipped):
            yield _Hiding(moves, f"{name} is {value:g}")


def _counts(reruns: Reruns, other: Located, slightly: Moves) -> bool:
    """Whether a number is part of the loss, and of the true gradient that is wrong with another number. If not, it is an
    option of the backward pass, such as a weight decay beside the loss; where the loss jumps with it, a switch."""
    given = reruns.as_given
    if given is None:
        return False
    moved = _loss_moves(given, other)
    near = reruns.run(slightly) if 0 < moved < math.inf else None
    if near is None or _loss_moves(given, near) > 0.1 * moved:
        return False
    truths = {c.name: given.case.here.truth(c.value) for c in given.case.claims}
    return any(c.name in truths and not same(other.case.here.truth(c.value), truths[c.name]) for c in wrong(other))


def _loss_moves(given: Located, other: Located) -> float:
    """By how much the loss, or the output, is another one."""
    then, now = (loc.case.here.values[loc.case.base.output] for loc in (given, other))
    return 0.0 if same(now, then) else errors(now, then)[0]


def _zeros_and_ones(asked: Asked) -> Iterator[tuple[int | str, str, float]]:
    """The arguments that are, with their places and names; defaults too."""
    code = asked.forward or asked.reference or asked.code
    code = code if callable(code) else getattr(code, "forward", code)
    try:
        parameters = inspect.signature(code).parameters
    except (TypeError, ValueError):
        parameters = types.MappingProxyType({})
    names = list(parameters)
    for i, value in enumerate(asked.args):
        if type(value) is float and value in _NUMBERS:
            yield i, names[i] if i < len(names) else f"argument {i + 1}", value
    given = {**{k: p.default for k, p in list(parameters.items())[len(asked.args) :]}, **asked.kwargs}
    for name, value in given.items():
        if type(value) is float and value in _NUMBERS:
            yield name, name, value
