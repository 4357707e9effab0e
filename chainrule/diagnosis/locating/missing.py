"""Inputs that should have a gradient, and have none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.renewed import renewed_from
from chainrule.diagnosis.truth.case import Case
from chainrule.program import differentiable
from chainrule.run import needed

_CONTRACTIONS = frozenset(("matmul", "mm", "bmm", "mv", "linear", "einsum", "conv1d", "conv2d", "conv3d"))
_STEPS = 2  # values on the way that have a gradient, where a person goes through all of the network
_TURNS = frozenset(("t", "T", "mT", "transpose", "permute"))


def missing_inputs(case: Case) -> list[fx.Node]:
    """Inputs without a gradient that require one, had one, or stand where others have theirs. Where no tensor says that
    it requires one: parameters too, if all else has its gradient, the data and the values on the way."""
    claimed = {c.value for c in case.claims}
    if case.hand.asked.wrt is not None:
        return [n for n in _asked_for(case) if n not in claimed]
    if case.hand.asked.function:
        return _not_returned(case)
    given = {n for c in case.claims for n in (c.node, c.node.meta.get("same_as"))}  # a gradient itself: y.g = up
    used = set(needed([case.base.output]))
    roles = {role for value in claimed if value.op == "placeholder" for role in _roles(value, used)}
    given |= {before(n) for n in claimed for before in (_before_writes, renewed_from)}
    given |= {n for n in case.base.inputs if n is case.base.upstream or n.meta.get("weighs")}
    inputs = [n for n in case.base.inputs if n in case.base.gradients and n not in claimed | given]
    inputs = [n for n in inputs if n.meta["operation"] == "input" and differentiable(n)]
    asked = [n for n in inputs if _requires(n) or n in case.hand.stale]
    given_in = [n for n in inputs if n not in asked and not n.meta.get("made")]  # of noise nobody wants a gradient
    told = any(_requires(n) for n in case.base.inputs)
    marked = told and all(
        _requires(n) for n in claimed if n.op == "placeholder"
    )  # what is trained says so: no other is
    beside = [n for n in given_in if not marked and not _is_data(case, n, used, claimed)]
    alike = [n for n in beside if roles & _roles(n, used) or _is_kept_like(case, n, claimed)]
    steps = [n for n in claimed if n.op != "placeholder"]
    guessed = (
        [] if told or len(steps) < _STEPS else _parameters(inputs, claimed, used) or _of_layers(case, claimed, used)
    )
    none = _returned_as_none(case)  # of data it may be left out on purpose
    nothing = [n for n in inputs if n.meta["name"] in none and _is_parameter(n, used)]
    return list(dict.fromkeys([*asked, *alike, *nothing])) or guessed


def of_data_alone(case: Case, missing: Iterable[fx.Node]) -> set[fx.Node]:
    """What is computed of inputs alone that have no gradient, and need none: a row of the targets."""
    wanted, found = {*(c.value for c in case.claims), *missing}, set[fx.Node]()
    for node in case.forward:
        read = node.all_input_nodes
        given = node.op == "placeholder" if not read else all(n in found for n in read)
        if given and node not in wanted:
            found.add(node)
    return found


def _asked_for(case: Case) -> list[fx.Node]:
    """The inputs that `wrt` names, or that it holds."""
    wrt = case.hand.asked.wrt
    items = [wrt] if isinstance(wrt, str | torch.Tensor) else list(wrt)
    tensors = {id(t) for t in items if isinstance(t, torch.Tensor)}
    names = {n for n in items if isinstance(n, str)}
    inputs = [n for n in case.base.inputs if n in case.base.gradients and n.meta["operation"] == "input"]
    return [n for n in inputs if n.meta["name"] in names or id(n.meta.get("given", n.meta["val"])) in tensors]


def _before_writes(node: fx.Node) -> fx.Node:
    """The input that a value was before it was written into: `w.mul_(0.5)`, and the gradient of w is that of the result."""
    while node.meta.get("written") and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def not_looked_at(case: Case, missing: list[fx.Node]) -> list[str]:
    """Notes that name the parameters that have no gradient, where nothing says that they should have one, and the numbers
    that are returned beside the gradients and are of none of them."""
    if case.hand.asked.wrt is not None or case.hand.asked.function:
        return []
    returned = list(case.noted)
    returned += (
        [f"nothing is said of {', '.join(case.unsaid)}, which is the gradient of no input by name"]
        if case.unsaid
        else []
    )
    if case.hand.left_out:
        left = ", ".join(case.hand.left_out)
        returned.append(f"nothing is said of {left}: no output is called so, and the default was taken")
    if case.untouched:
        returned.append(f"nothing was written into {', '.join(case.untouched)}: what the code left is kept elsewhere")
    used, claimed = set(needed([case.base.output])), {renewed_from(c.value) for c in case.claims}
    inputs = [n for n in case.base.inputs if n in case.base.gradients and n not in claimed and n not in missing]
    behind = set(needed(claimed))  # what a parameter with a gradient was made of
    inputs = [n for n in inputs if n.meta["operation"] == "input" and differentiable(n)]
    inputs = [n for n in inputs if not (n.meta.get("made") and n in behind)]
    names = [case.names.get(n, n.name) for n in _entering_as_parameters(inputs, used)]
    if names:
        returned.append(
            f"nothing is said of {', '.join(names)}: the loss depends on that, and the code leaves it no gradient"
        )
    return returned


def _not_returned(case: Case) -> list[fx.Node]:
    """Arguments of an autograd.Function for which its backward gives None: all, or those that require a gradient."""
    given = [n for n in case.hand.given_to_function() if n is not None]
    asked = [n for n in given if _requires(n)] or given
    claimed = {c.value for c in case.claims}
    return [n for n in asked if n not in claimed and n in case.base.gradients and bool(case.here.truth(n).any())]


def _requires(node: fx.Node) -> bool:
    return bool(node.meta.get("given", node.meta["val"]).requires_grad)


def _returned_as_none(case: Case) -> set[str]:
    """The names of values whose gradient is returned, as None: under its key, or in a variable named after it."""
    result = case.hand.returned
    if isinstance(result, dict):
        labels = [str(key) for key, value in result.items() if value is None]
    else:
        empty = isinstance(result, tuple | list) and any(value is None for value in result)
        labels = [name for name, value in case.recorder.locals.items() if value is None] if empty else []
    return {meant for label in labels for meant in names_meant(label)}


def _holder(case: Case, node: fx.Node) -> str:
    """What an input is a part of: `params` of `params.w`; nothing, where it is an argument itself."""
    return case.names.get(node, node.name).rpartition(".")[0].partition(".")[0]


_OF_DATA = re.compile(r"x\d*|inputs?|data|(node_?)?feat(ure)?s?", re.IGNORECASE)


def _is_data(case: Case, value: fx.Node, used: set[fx.Node], claimed: set[fx.Node]) -> bool:
    """Whether it is combined with data alone, `adjacency @ x`, and stands apart from the parameters that have gradients, or
    is told by its name, or by square data that are applied to other values, too."""
    readers = list(_readers(value, used))
    others = [r.args[0] for r, place in readers if r.meta["operation"] in _CONTRACTIONS and place == 1]
    data = [a for a in others if isinstance(a, fx.Node) and a.op == "placeholder" and a not in claimed]
    if not readers or len(data) < len(readers):
        return False
    holders = {_holder(case, n) for n in claimed if n.op == "placeholder"}
    if not _holder(case, value) and "" not in holders:  # `x` beside `params`
        return True
    told = _OF_DATA.fullmatch(case.names.get(value, "")) is not None
    square = all(_of(a).ndim > 1 and _of(a).shape[-1] == _of(a).shape[-2] for a in data)
    return square and (told or all(len(list(_readers(a, used))) > 1 for a in data))


def _is_kept_like(case: Case, node: fx.Node, claimed: set[fx.Node]) -> bool:
    """Whether an object holds this value beside others that have their gradients: a layer's weight and bias."""
    if case.hand.of_object is None or not case.hand.began or node.meta["val"].numel() < 2:
        return False
    given = node.meta["name"].split(".")[0] in case.hand.parameters
    inputs = [n for n in claimed if n.op == "placeholder"]
    return not given and any(n.meta["name"].split(".")[0] not in case.hand.parameters for n in inputs)


def _roles(value: fx.Node, used: set[fx.Node]) -> set[tuple[str, int]]:
    """As what a value enters the forward pass: the second operand of a matmul, say."""
    readers = [
        u
        for u in value.users
        if u in used and u.meta["phase"] == "forward" and u.meta["operation"] not in ("mul", "sub")
    ]
    return {(u.meta["operation"], i) for u in readers for i, a in enumerate(u.args) if a is value and i > 0}


def _parameters(inputs: list[fx.Node], claimed: set[fx.Node], used: set[fx.Node]) -> list[fx.Node]:
    """Those that enter as parameters do, if another such has its gradient, and if all inputs that enter before others
    have theirs, or are such: a person who asked for some of them asked for all."""
    if not any(n.op == "placeholder" and _is_parameter(n, used) for n in claimed):
        return []
    found = _entering_as_parameters(inputs, used)
    entering = {n for n in claimed if n.op == "placeholder"} | set(found)
    data = [n for n in inputs if n not in found and _enters_before(n, entering, used)]
    return found if not data and len(entering) > len(found) else []


def _of_layers(case: Case, claimed: set[fx.Node], used: set[fx.Node]) -> list[fx.Node]:
    """The weights of all layers `h @ w + b` where all biases have their gradient, and no weight has; or the biases where
    all weights have. A person may train one kind alone, but in several layers, with the values between them, leaving out
    the other is likelier forgotten: `wrt` says what is asked for."""
    layers = list(dict.fromkeys(pair for value in case.base.inputs for pair in _layers(value, used)))
    for kind, other in ((0, 1), (1, 0)):
        missing, had = ([pair[k] for pair in layers] for k in (kind, other))
        if len(set(missing)) > 1 and claimed.issuperset(had) and claimed.isdisjoint(missing):
            return [n for n in dict.fromkeys(missing) if n in case.base.gradients]
    return []


def _layers(weight: fx.Node, used: set[fx.Node]) -> Iterable[tuple[fx.Node, fx.Node]]:
    """A weight, with each bias that is added to a product with it."""
    for product, place in _readers(weight, used):
        if product.meta["operation"] not in _CONTRACTIONS or not place:
            continue
        added = [a for u in product.users if u in used and u.meta["operation"] == "add" for a in u.all_input_nodes]
        biases = [*added, *product.all_input_nodes[2:]]
        yield from ((weight, b) for b in biases if b.op == "placeholder" and _of(b).ndim == 1 and differentiable(b))


def _entering_as_parameters(inputs: list[fx.Node], used: set[fx.Node]) -> list[fx.Node]:
    """Those that surely are parameters, and those that enter as they do."""
    surely = [n for n in inputs if _is_parameter(n, used)]
    roles = {role for n in surely for role in _roles(n, used)}
    return [n for n in inputs if n in surely or roles & _roles(n, used)]


def _is_parameter(value: fx.Node, used: set[fx.Node]) -> bool:
    return any(_takes_parameter(reader, place, value) for reader, place in _readers(value, used))


def _takes_parameter(reader: fx.Node, place: int, value: fx.Node) -> bool:
    """Whether an operation applies `value` to something computed: `h @ w`, or `h + b` and `h * g` for a vector."""
    others = [a for a in reader.all_input_nodes if a is not reader.args[place] and isinstance(_of(a), torch.Tensor)]
    if not others or any(a.op == "placeholder" for a in others):
        return False
    if reader.meta["operation"] in _CONTRACTIONS:
        return place > 0
    stretched = value.meta["val"].ndim == 1 and all(_of(a).ndim > 1 for a in others)
    return reader.meta["operation"] in ("add", "mul") and stretched


def _readers(value: fx.Node, used: set[fx.Node]) -> Iterable[tuple[fx.Node, int]]:
    """The operations that read a value, or its transpose, and its place among their operands."""
    for user in value.users:
        if user in used and user.meta["operation"] in _TURNS:
            yield from _readers(user, used)
        elif user in used:
            yield from ((user, i) for i, a in enumerate(user.args) if a is value)


def _enters_before(value: fx.Node, others: set[fx.Node], used: set[fx.Node]) -> bool:
    """Whether one of the `others` is combined with what was computed from `value`, or with it."""
    reached, stack = {value}, [value]
    while stack:
        for user in stack.pop().users:
            if user in used and user not in reached:
                reached.add(user)
                stack.append(user)
    return any(user in reached for other in others for user, _ in _readers(other, used))


def _of(node: fx.Node) -> Any:
    return node.meta.get("val")
