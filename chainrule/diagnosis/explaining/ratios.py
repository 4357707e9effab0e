"""Numbers that a gradient, or one of its terms, should be multiplied by, and how a person would write them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, WRAPPED, Mutation
from chainrule.diagnosis.reading.paths import lost_from
from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.sketch import is_size, is_tensor, value_of

if TYPE_CHECKING:
    from chainrule.diagnosis.explaining.search import Search, Trial

_SCALES = 6  # ways of writing one ratio that are tried


def ratio_of(search: Search, nodes: list[fx.Node], trial: Trial) -> float | None:
    """The number by which the values of `nodes` must be multiplied for the root to be right."""
    values = [trial.values.get(node) for node in nodes]
    if not all(isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values):
        return None
    pairs: list[tuple[fx.Node, Any]] = list(zip(nodes, values, strict=True))
    without = search.outcome([(n, torch.zeros_like(v)) for n, v in pairs], trial)
    now = trial.values.get(search.root)
    if not isinstance(without, torch.Tensor) or not isinstance(now, torch.Tensor):
        return None
    if without.shape != trial.goal.shape or now.shape != trial.goal.shape:
        return None
    part = now - without
    length = float((part * part).sum())
    if not length or not math.isfinite(length):
        return None
    number = float(((trial.goal - without) * part).sum()) / length
    number = round(number, 12) if abs(number) > 1e-9 else 0.0
    return number if same(search.outcome([(n, v * number) for n, v in pairs], trial), trial.goal) else None


def scaled(search: Search, group: list[fx.Node]) -> Iterator[Mutation]:
    """The value of an operation, in all turns of a loop, times the number with which the root is right."""
    node = group[-1]
    if node.meta["phase"] != "forward" and node.meta.get("operation") == "ones_like":
        return
    ratio = ratio_of(search, group, search.trials[0])
    if ratio is None or abs(ratio - 1) < 1e-9:
        return
    ratio = -1.0 if abs(ratio + 1) < 1e-9 else ratio
    whole = is_whole(search, group)
    repairs = ("sign" if ratio == -1 else "wrong-scale") if whole else "wrong-term-scale"
    makes = repairs
    feeds = [u for u in node.users if u in search.position]
    adds = bool(feeds) and node in search.around.carries and all(u.meta["operation"] == "add" for u in feeds)
    if not whole and abs(ratio - 0.5) < 1e-9 and adds:
        repairs = "double-counted-path"
    if not whole and ratio == 0:
        repairs, makes = "double-counted-path", lost_from(u for u in node.users if u in search.position)
    elif not whole and ratio == 2 and any(u.meta.get("accumulated") for u in node.users):
        makes = "double-counted-path"
    sketches = search.around.sketches
    if ratio == -1:
        yield Mutation(node, sketches.operation("neg", node), repairs, WRAPPED + 0.4, makes)
    for place, literal in enumerate(node.args):
        yield from _other_number(search, node, place, literal, ratio, repairs, makes)
    if ratio == 0 and node is not search.root:
        yield Mutation(node, sketches.operation("mul", 0, node), repairs, WRAPPED + 1, makes)
    more = 0.2 if search.scales.stands_in_the_forward_pass(ratio) else 0.01  # than another number that is equal here
    for far, times in enumerate(islice(search.scales.scaled(node, ratio, search.trials[0].values), _SCALES)):
        yield Mutation(node, times, repairs, WRAPPED + 0.5 + more * far, makes)


def scaled_operands(search: Search, node: fx.Node) -> Iterator[Mutation]:
    """A value that is read in several places, times a number in one of them."""
    sketches, trial = search.around.sketches, search.trials[0]
    now = trial.values.get(search.root)
    for place, value in enumerate(node.args):
        if (
            not isinstance(value, fx.Node)
            or not is_tensor(value)
            or sum(value in r.all_input_nodes for r in search.nodes) < 2
        ):
            continue

        def read_as(by: fx.Node, place: int = place) -> fx.Node:
            return sketches.like(node, (*node.args[:place], by, *node.args[place + 1 :]))

        without = search.outcome([(node, read_as(sketches.operation("mul", 0, value)))], trial)
        if (
            not isinstance(without, torch.Tensor)
            or not isinstance(now, torch.Tensor)
            or without.shape != trial.goal.shape
        ):
            continue
        part = now - without
        length = float((part * part).sum())
        ratio = round(float(((trial.goal - without) * part).sum()) / length, 12) if length else 0.0
        if ratio and abs(ratio - 1) > 1e-9:
            for far, times in enumerate(islice(search.scales.scaled(value, ratio, trial.values), _SCALES)):
                yield Mutation(node, read_as(times), "wrong-term-scale", WRAPPED + 0.7 + 0.01 * far)


def is_proportional(search: Search, trial: Trial) -> bool:
    """Whether what should be there is what is there, times a number."""
    return ratio_of(search, [search.root], trial) is not None


def is_whole(search: Search, nodes: list[fx.Node]) -> bool:
    """Whether the root, or what the person's line gives, is proportional to the values of `nodes`."""
    return _vanishes(search, nodes, search.root) or _is_whole_line(search, nodes[-1])


def _is_whole_line(search: Search, node: fx.Node) -> bool:
    spot = node.meta.get("spot")
    place = (spot.code, spot.line) if spot is not None else None
    line = [n for n in search.nodes if (s := n.meta.get("spot")) and (s.code, s.line) == place]
    return bool(line) and search.root not in line and _vanishes(search, [node], line[-1])


def _vanishes(search: Search, nodes: list[fx.Node], to: fx.Node) -> bool:
    """Whether `to` is zero where `nodes` are."""
    trial = search.trials[0]
    zero = search.outcome([(n, torch.zeros_like(trial.values[n])) for n in nodes], trial, to)
    return isinstance(zero, torch.Tensor) and not bool(zero.any())


def _other_number(
    search: Search, node: fx.Node, place: int, literal: Any, ratio: float, repairs: str, makes: str
) -> Iterator[Mutation]:
    """Another number in a product: `2 * diff`, `/ n`."""
    if node.meta["operation"] not in ("mul", "div") or is_tensor(literal) or not ratio:
        return
    values = search.trials[0].values
    number = literal if not isinstance(literal, fx.Node) else value_of(literal, values)
    if not isinstance(number, int | float) or isinstance(number, bool):
        return
    wanted = number / ratio if node.meta["operation"] == "div" and place == 1 else number * ratio
    more = 0.2 if search.scales.stands_in_the_forward_pass(wanted) else 0.01
    for far, other in enumerate(search.scales.numbers(wanted, values, literal if is_size(literal) else None)):
        if other == 1 and len(node.args) == 2 and is_tensor(node.args[1 - place]):
            yield Mutation(node, node.args[1 - place], repairs, REPLACED + 0.1, makes)  # type: ignore[arg-type]
            continue
        args = (*node.args[:place], other, *node.args[place + 1 :])
        yield Mutation(node, search.around.sketches.like(node, args), repairs, REPLACED + 0.2 + more * far, makes)


def shifted(search: Search, group: list[fx.Node]) -> Iterator[Mutation]:
    """Another size, or another number that has a name, in a sum: `quad - k`. (Plain numbers are tried one by one.)"""
    node, trial = group[-1], search.trials[0]
    places = [k for k, a in enumerate(node.args) if not is_tensor(a)]
    now, values = trial.values.get(search.root), [trial.values.get(n) for n in group]
    if node.meta["operation"] not in ("add", "sub") or len(places) != 1 or not isinstance(now, torch.Tensor):
        return
    if not all(isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values):
        return
    literal = node.args[places[0]]
    number: Any = value_of(literal, trial.values) if isinstance(literal, fx.Node) else literal
    moved = search.outcome([(n, v + 1) for n, v in zip(group, values, strict=True)], trial)  # type: ignore[operator]
    if type(number) not in (int, float) or not isinstance(moved, torch.Tensor) or moved.shape != trial.goal.shape:
        return
    part = moved - now
    length = float((part * part).sum())
    less = -1 if node.meta["operation"] == "sub" and places[0] == 1 else 1
    wanted = number + less * float(((trial.goal - now) * part).sum()) / length if length else 0.0
    if abs(wanted - number) <= 1e-9 * max(1, abs(wanted)):
        return
    for far, other in enumerate(islice(search.scales.numbers(wanted, trial.values, node), _SCALES)):
        near = REPLACED if any(abs(wanted - n) <= 1e-9 for n in search.around.counted) else REPLACED + 0.2
        by = search.around.sketches.like(node, (*node.args[: places[0]], other, *node.args[places[0] + 1 :]))
        yield Mutation(node, by, "wrong-factor", near + 0.01 * far)


def scaled_together(search: Search, group: list[fx.Node]) -> Iterator[Mutation]:
    """The value of one piece of source that stands in a loop, times a number in every turn."""
    value = search.trials[0].values.get(group[-1])
    if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
        return
    sketches = search.around.sketches
    for number in (-1, 2, 0.5, 0):
        changes = [
            (n, sketches.operation("mul", number, n) if number != -1 else sketches.operation("neg", n)) for n in group
        ]
        cause = "sign" if number == -1 else "double-counted-path" if number == 0 else "wrong-scale"
        at, by = changes[-1]
        yield Mutation(at, by, cause, WRAPPED + 0.6, "lost-path" if number == 0 else cause, changes)
