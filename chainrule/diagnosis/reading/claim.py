"""A claim: that a hand-written value is the gradient of another; and the values of a run by their names."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.aliases import node_for
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.spots import Spot
from chainrule.recording import Recorder
from chainrule.run import needed

_PREFIX = re.compile(r"(?:d[jl]_?d|d(?:loss|cost)_?d|grad_?|delta_?|nabla_?|d_?|g_?)(.+)", re.IGNORECASE)
_SUFFIX = re.compile(r"(.+?)(?:_gradient|_grad|_g|_bar|_d|\.grad|\.g|grad)", re.IGNORECASE)


@dataclass(eq=False)
class Claim:
    """A hand-written value that says it is the gradient of `value`."""

    value: fx.Node
    node: fx.Node  # the node that computed it
    tensor: torch.Tensor  # in the person's dtype
    name: str  # of the value
    target: str  # as the person writes it: "w.g", "dw"
    spot: Spot | None  # where it was computed, or set
    explicit: bool = True  # told by the code, not guessed from a name


def guessed(node: fx.Node, value: fx.Node, name: str) -> Claim:
    """`node` as the gradient of `value`, which no code tells."""
    told = str(node.meta.get("name") or f"the gradient of {name}")
    return Claim(value, node, node.meta["val"], name, told, node.meta.get("spot"), False)


def names_meant(name: str) -> list[str]:
    """The names of which `name` may be the gradient, as people write it.

    >>> names_meant("dW1"), names_meant("out_grad"), names_meant("w.g")
    (['W1'], ['out'], ['w'])
    """
    found = [m.group(1) for p in (_SUFFIX, _PREFIX) if (m := p.fullmatch(name)) is not None]
    return list(dict.fromkeys(found))


class Values:
    """The values of a run, and what a name says that is the gradient of one of them."""

    def __init__(self, hand: Handwritten, names: dict[fx.Node, str], forward: Set[fx.Node]) -> None:
        self.hand, self.names, self.forward = hand, names, forward
        self.recorder: Recorder = hand.recorder
        self.by_name = {name.casefold(): node for node, name in reversed(names.items())}
        output = self._output()
        self.used = set(needed([output])) if output is not None else set[fx.Node]()
        latest = list(names.items())[::-1]
        for node, name in sorted(latest, key=lambda item: item[0] not in self.used):  # not m["w"], a momentum
            if not (last := name.split(".")[-1]).isdigit():  # `g0` is not the gradient of the first of a list
                self.by_name.setdefault(last.casefold(), node)

    def _meant(self, name: str, shape: tuple[int, ...] | None) -> fx.Node | None:
        """The forward value of which `name` says that it is the gradient."""
        for candidate in [*names_meant(name), *([name] if shape is None else [])]:
            node = self.by_name.get(candidate.casefold())
            bound_again = candidate == name and self.recorder.locals.get(name) is not None  # d = loss.backward()
            if node is None or (bound_again and node.op != "placeholder"):
                continue
            if shape is None or tuple(node.meta["val"].shape) == shape:
                return node
        return None

    def _claim(self, value: fx.Node, label: str, tensor: torch.Tensor) -> Claim:
        node = self._node(tensor)
        name = self.names.get(value, value.name)
        held = [text for text, known in self.recorder.locals.items() if tensor_in(known) is tensor]
        node = node_for(self.recorder.graph, [label, *held], node, self.forward) or node
        return Claim(value, node, tensor, name, label or f"the gradient of {name}", node.meta.get("spot"))

    def _node(self, tensor: torch.Tensor) -> fx.Node:
        entry = self.recorder.entry(tensor)
        return entry.node if entry is not None else self.recorder.leaf(tensor, name="g")

    def _output(self) -> fx.Node | None:
        entry = self.recorder.entry(self.hand.output)
        return entry.node if entry is not None else None


def before_step(node: fx.Node, gradient: fx.Node) -> fx.Node:
    """A parameter as it was before a step along its gradient: `self.w = self.w - lr * self.dw`."""
    before = node.args[0] if node.args else None
    step = node.meta["operation"] in ("sub", "add") and isinstance(before, fx.Node) and gradient.op != "placeholder"
    return before if step and gradient in needed([node]) else node  # type: ignore[return-value]


def tensor_in(value: Any) -> Any:
    return value if isinstance(value, torch.Tensor) else getattr(value, "tensor", value)


def alike(found: torch.Tensor, shape: torch.Size, right: torch.Tensor) -> bool:
    """Whether a gradient of a value of this shape is about the right one."""
    if found.shape != shape or right.shape != shape:
        return False
    with torch._C.DisableTorchFunction():
        return torch.allclose(right, found.to(right.dtype), rtol=1e-3, atol=1e-3 * float(right.abs().max()))
