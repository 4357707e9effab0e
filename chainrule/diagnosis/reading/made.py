"""Data and parameters that a run makes itself: drawn, or filled with a number. Where their gradients are written by hand,
or where nothing else is given, they are inputs as an argument is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from chainrule.program import differentiable
from chainrule.reached import reached_from
from chainrule.recording import Recorder
from chainrule.recording.names import HELD
from chainrule.rules import BOOK
from chainrule.run import needed, overwritten, step


def take_as_inputs(recorder: Recorder, output: fx.Node, owners: Iterable[fx.Node | None], meant: set[str]) -> None:
    """Make inputs of the made values that lead to `output`: those that `owners` (values with a gradient) are or are
    computed from, those whose name is among `meant`, and all where no input leads there.

    A value is made where it was drawn or computed from no tensor, outside the backward pass.
    """
    used = needed([output])
    made = [n for n in used if differentiable(n) and _is_made(n)]
    if not made:
        return
    given = [n for n in recorder.inputs if n.meta["operation"] == "input" and differentiable(n) and n in set(used)]
    if given and output in reached_from(given, recorder.graph):
        claimed = {n for owner in owners if owner is not None for n in _behind(owner)}
        made = [n for n in made if n in claimed or _last(n.meta.get("name")) in meant]
    for node in made:
        _take(recorder, node)


def is_parameter_of_an_object(node: fx.Node) -> bool:
    """Whether a value was computed in a constructor: `self.w = 0.1 * torch.randn(3, 4)`."""
    spot = node.meta.get("spot")
    return spot is not None and spot.code.co_name in ("__init__", "__post_init__")


def is_given(node: fx.Node) -> bool:
    """Whether a value is an input, or one that was only scaled and shifted by numbers: `w = 0.1 * torch.randn(3, 4)`."""
    while node.op != "placeholder" and node.meta.get("operation") in ("add", "sub", "mul", "div"):
        tensors = [n for n in node.all_input_nodes if differentiable(n)]
        if len(tensors) != 1 or any(
            n is not tensors[0] and getattr(n.meta["val"], "ndim", 0) for n in node.all_input_nodes
        ):
            return False
        node = tensors[0]
    return node.op == "placeholder"


def name_parameters(recorder: Recorder, objects: Iterable[tuple[Any, str]]) -> None:
    """Give parameters that were made in constructors the names under which the objects keep them, those that were stepped
    since, and those that share a name, as two layers do whose methods say `self.w`."""
    names = Counter(n.meta.get("name") for n in recorder.inputs)
    for owner, path in objects:
        for attribute, held in vars(owner).items():
            tensor = HELD.get(type(held), lambda value: value)(held)
            entry = recorder.entry(tensor) if isinstance(tensor, torch.Tensor) else None
            node = None if entry is None else _before_a_step(entry.node)
            name = None if node is None else node.meta.get("name")
            if node is not None and (is_parameter_of_an_object(node) or not name or names[name] > 1):
                whole = f"{path}.{attribute}".removeprefix("self.")
                node.meta["name"] = re.sub(r"\[['\"]?(\w+)['\"]?\]", r".\1", whole)


def _before_a_step(node: fx.Node) -> fx.Node:
    """A parameter before the last `w -= lr * w_grad`, or as it is."""
    before = node.args[0] if node.args and node.meta.get("written") else node
    return before if isinstance(before, fx.Node) else node


def _is_made(node: fx.Node) -> bool:
    if node.op == "placeholder":
        return bool(node.meta["operation"] == "drawn")
    operation = node.meta.get("operation")
    if node.meta.get("written") and operation in ("full_like", "zeros_like"):  # whatever it was before
        return True
    return operation in BOOK.constants and operation != "detach" and not any(map(differentiable, node.all_input_nodes))


def _behind(owner: fx.Node) -> list[fx.Node]:
    """What a parameter is made of: itself, or what is scaled and shifted by numbers alone."""
    found = needed([owner])
    return found if not any(n.op == "placeholder" and n.meta["operation"] == "input" for n in found) else [owner]


def _last(name: str | None) -> str:
    return (name or "").split(".")[-1].casefold()


def _take(recorder: Recorder, node: fx.Node) -> None:
    value = node.meta["val"]
    if node.op != "placeholder":
        if overwritten(node):
            inputs = {n: n.meta["val"] for n in node.all_input_nodes}
            node.meta.update(given=value, val=step(node, inputs))
        node.op, node.target, node.args, node.kwargs = "placeholder", node.name, (), {}
        recorder._first(node)
    node.meta.update(operation="input", made=True)
    node.meta.setdefault("name", node.name)
    node.meta.pop("constant", None)
