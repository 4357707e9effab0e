"""The numbers of a program under recording: sizes and what `.item()` gives, as nodes of the graph."""

from __future__ import annotations

import functools
import operator
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.recording import calls, names
from chainrule.recording.dispatch import plain
from chainrule.recording.hidden import is_hidden
from chainrule.recording.numbers import Tracked, TrackedSize, track
from chainrule.recording.sizes import LENT_LEN

if TYPE_CHECKING:
    from chainrule.recording.recorder import Recorder


class Numbers:
    """Answers questions about sizes with numbers that carry their node, and notes what the program asked of them."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._shapes: dict[fx.Node, fx.Node] = {}
        self._answers: set[tuple[Any, ...]] = set()

    def ask(self, function: Any, operation: str, args: Any, kwargs: Any, frame: Any, frames: Any) -> Any:
        value = function(*plain(args), **plain(kwargs))
        tensor = args[0]
        known = self.recorder.entry(tensor)
        if known is None and operation in ("__bool__", "__int__", "__float__", "item"):
            return value  # asked of a tensor outside the program
        node = self.recorder.node_of(tensor, frames, names.site_of(frame))
        if operation == "shape" or (operation == "size" and isinstance(value, torch.Size)):
            return self.tracked_shape(self.shape_node(node), value)
        if operation == "size":
            axis = args[1] if len(args) > 1 else kwargs["dim"]
            size = tuple.__getitem__(self.tracked_shape(self.shape_node(node), tensor.shape), axis)
            self.taken(size, frame)
            return size
        if operation in ("numel", "item", "nelement"):
            method = "numel" if operation == "nelement" else operation
            number = track(self, value, lambda: self._method(method, node, value))
            if isinstance(number, Tracked):
                self.taken(number, frame)
            return number
        if operation == "__len__":  # len() makes a plain int of what it is given
            self.pinned(track(self, value, lambda: self.shape_entry(self.shape_node(node), 0, value)))
        elif operation == "__bool__" and names.is_person(frame.f_code):
            truth = self._method("item", node, value)
            self.recorder.assume(truth if value else self.number(operator.not_, (truth,), True), names.site_of(frame))
        elif operation in ("__int__", "__float__") and names.is_person(frame.f_code):
            cut = operation == "__int__" and tensor.is_floating_point()  # 3.6 becomes 3
            read = self._method("trunc", node, tensor.detach().trunc()) if cut else node
            self.pinned(track(self, value, lambda: self._method("item", read, value)))
        return value

    def shape_node(self, node: fx.Node) -> fx.Node:
        if node not in self._shapes:
            shape = self.recorder.graph.call_function(getattr, (node, "shape"))
            shape.meta.update(operation="shape", phase=self.recorder.phase, val=node.meta["val"].shape)
            self._shapes[node] = shape
        return self._shapes[node]

    def tracked_shape(self, shape: fx.Node, value: torch.Size) -> Any:
        return TrackedSize(
            track(self, size, functools.partial(self.shape_entry, shape, axis, size), (shape, axis))
            for axis, size in enumerate(value)
        )

    def shape_entry(self, shape: fx.Node, axis: int | slice, size: Any) -> fx.Node:
        node = self.recorder.graph.call_function(operator.getitem, (shape, axis))
        node.meta.update(operation="shape_entry", phase=self.recorder.phase, val=size)
        return node

    def _method(self, method: str, node: fx.Node, value: Any) -> fx.Node:
        made = self.recorder.graph.call_method(method, (node,))
        made.meta.update(operation=method, phase=self.recorder.phase, val=value)
        return made

    def number(self, function: Callable[..., Any], operands: tuple[Any, ...], value: Any) -> fx.Node:
        """The node of arithmetic between tracked numbers."""
        node = self.recorder.graph.call_function(function, tuple(self.recorder.to_nodes(o, [], None) for o in operands))
        node.meta.update(
            operation=calls.SYNONYMS.get(function.__name__, function.__name__), phase=self.recorder.phase, val=value
        )
        return node

    def compared(self, function: Callable[..., Any], left: Any, right: Any, value: bool) -> None:
        """The program asked how two numbers compare: the path that it took holds for that answer."""
        frame = sys._getframe(2)
        asked_by_rule = self.recorder.phase == "backward" and frame.f_code is self.recorder.rule_code
        if not asked_by_rule and (self.recorder.phase != "forward" or not names.is_person(frame.f_code)):
            return
        site = names.site_of(frame)
        key = (function, _identity(left), _identity(right), site)
        if key not in self._answers:
            self._answers.add(key)
            node = self.number(function, (left, right), value)
            self.recorder.assume(node if value else self.number(operator.not_, (node,), True), site)

    def taken(self, number: Any, frame: types.FrameType, index: int | None = None) -> None:
        """The code in `frame` reads a size (that at `index` of several); where Python will hide it, the derived code
        holds for it alone."""
        reader = frame.f_back if frame.f_code is LENT_LEN else frame
        read = self.recorder.phase == "forward" and reader is not None and names.is_person(reader.f_code)
        if read and is_hidden(reader, index):  # type: ignore[arg-type]
            self.recorder.assume(self.number(operator.eq, (number, number.plain()), True), names.site_of(reader))

    def pinned(self, number: Any) -> None:
        """A size became a plain number (`len`, `math.sqrt`, `float`): the code holds for this size."""
        site = names.site_of(sys._getframe(2))
        if self.recorder.phase == "forward" and site is not None:
            self.recorder.assume(self.number(operator.eq, (number, number.plain()), True), site)


def _identity(number: Any) -> Any:
    """What tells two numbers apart: where they come from, not what they happen to be."""
    return (number.origin or number.node()) if isinstance(number, Tracked) else repr(number)


def whole_shape(value: tuple[Any, ...]) -> fx.Node | None:
    """The node that a tuple of sizes came from: a shape, or all of a shape from an axis on (`x.shape[2:]`)."""
    origins = [v.origin if isinstance(v, Tracked) else None for v in value]
    if not origins or origins[0] is None:
        return None
    shape, first = origins[0]
    if origins != [(shape, axis) for axis in range(first, len(shape.meta["val"]))]:
        return None
    if first == 0:
        return shape
    home: Numbers = value[0].home
    return home.shape_entry(shape, slice(first, None), shape.meta["val"][first:]) if len(value) > 1 else None
