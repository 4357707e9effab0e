"""What layers hand to one another: the calls `y = layer.forward(x)` and `dx = layer.backward(dy)` of one object, or
`y, cache = f(x)` and `dx = f_backward(dy, cache)` of two functions."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from chainrule.arrays.array import Array
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.aliases import alias_at, node_for
from chainrule.diagnosis.reading.spots import Spot, Spots, _positions
from chainrule.recording import Recorder
from chainrule.recording.entries import Entry, version_of
from chainrule.recording.names import is_method, is_person, is_person_file
from chainrule.recording.unseen import under_way


@dataclass(eq=False)
class Call:
    """One call of a method or function: the tensors that it was given, and those that it returned."""

    owner: Any  # the object whose method it is; None for a function
    code: types.CodeType
    spot: Spot  # of the call
    given: list[fx.Node]
    places: list[fx.Node | None] = field(default_factory=list)  # what it returned: None for what is no tensor
    kept: list[Any] = field(default_factory=list)  # what else a function returned: its cache
    asked: bool = False  # whether it is what is checked, called by no code of theirs
    forward: Call | None = None  # the call of which this one is the backward pass
    began: int = 0  # the first and the last spot inside
    ended: int = 0
    done: bool = False

    @property
    def returned(self) -> list[fx.Node]:
        return [node for node in self.places if node is not None]


class Calls:
    """The calls of methods in one run. What a backward pass is given, and what it returns as it came, stands under nodes
    of its own: a mistake may stand there."""

    def __init__(self, recorder: Recorder, spots: Spots) -> None:
        self.recorder, self.spots = recorder, spots
        self.made: list[Call] = []
        self._open: dict[types.FrameType, Call] = {}

    def seen(self, frame: types.FrameType, event: str, returned: Any) -> None:
        """What sys.setprofile tells."""
        if event == "call":
            self._entered(frame)
        elif event == "return" and (call := self._open.pop(frame, None)) is not None:
            self._left(frame, call, returned)

    def _entered(self, frame: types.FrameType) -> None:
        code = frame.f_code
        near, asked = _caller(frame)
        if not _is_own(code) or not code.co_varnames or (near is None and not asked):
            return
        if not under_way() or under_way()[-1] is not self.recorder:
            return
        held = frame.f_locals
        names = list(code.co_varnames[: code.co_argcount])
        rest = held.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount]) if code.co_flags & _REST else ()
        first = held.get(names[0]) if names else None
        method = _is_layer(first) and is_method(code, type(first))
        owner = first if method else None
        if method and any(c.owner is owner for c in self._open.values()):
            return  # a call inside of another one of the same object is no step of its own
        named = [(n, held.get(n)) for n in names[method:]] + [("", value) for value in rest or ()]
        given = [(n, t) for n, v in named if (t := _tensor(v)) is not None and self.recorder.entry(t)]
        spot = self.spots.of(near or frame)
        call = Call(owner, code, spot, [self._node(t) for _, t in given], began=self.spots.count, asked=asked)
        tensors = [t for _, t in given]
        call.forward = (
            self._forward_of(call, tensors) if method else self._kept_by(call, [v for _, v in named], tensors)
        )
        self.made.append(call)
        self._open[frame] = call
        if call.forward is None or near is not frame.f_back:
            return
        changed: dict[str, Any] = {}
        for place, (name, tensor) in enumerate(given):
            argument = source.argument_at(spot.span, names.index(name) - method) if spot.span and name else None
            if argument is None or (not method and place):
                continue
            fresh = self._alias(tensor, call.given[place], spot)
            node = call.given[place] = self._node(fresh)
            node.meta.update(span=argument, handed=call, name=name)
            changed[name] = fresh if isinstance(held[name], torch.Tensor) else Array(fresh)
        if changed:  # the frame takes back what its f_locals hold when the profiler returns
            frame.f_locals.update(changed)

    def _forward_of(self, call: Call, given: list[torch.Tensor]) -> Call | None:
        """The call whose backward pass this one is: the last by another method of the object that has none yet, and
        whose result has the shape of what is given."""
        taken = {c.forward for c in self.made}
        for other in reversed(self.made):
            if other.owner is not call.owner or other in taken or other.forward is not None or not other.returned:
                continue
            if other.code is call.code or not other.done or not other.given:
                return None
            with torch._C.DisableTorchFunction():  # a question of ours is no operation of theirs
                result = other.returned[0].meta["val"]
                alike = bool(given) and given[0].shape == result.shape
                return other if alike or (not given and result.numel() == 1) else None
        return None

    def _kept_by(self, call: Call, values: list[Any], given: list[torch.Tensor]) -> Call | None:
        """The call of another function that returned the cache which this one is given."""
        taken = {c.forward for c in self.made}
        for other in reversed(self.made):
            if other.owner is not None or other in taken or other.forward is not None or other.code is call.code:
                continue
            kept = (call.asked and other.asked) or any(v is held for v in values[1:] for held in other.kept)
            if not kept or not given or not other.returned:
                continue
            with torch._C.DisableTorchFunction():
                return other if given[0].shape == other.returned[0].meta["val"].shape else None
        return None

    def _left(self, frame: types.FrameType, call: Call, returned: Any) -> None:
        results = list(returned) if isinstance(returned, tuple | list) else [returned]
        tensors = [_tensor(r) for r in results]
        call.kept = [r for r in results[1:] if r is not None and not isinstance(r, int | float | str)]
        spot: Spot | None = None
        origins: dict[int, fx.Node] = {}  # of one tensor at several places, what it was before the first
        for place, tensor in enumerate(tensors):
            if tensor is None or self.recorder.entry(tensor) is None:
                call.places.append(None)
                continue
            node = origins.setdefault(id(tensor), self._node(tensor))
            spot = spot or self.spots.of(frame)
            made: Spot | None = node.meta.get("spot")
            found = made is None or made.call != spot.call or bool(node.users)  # as it came, or as others read it too
            if call.forward is not None and found:
                here = _returned_at(spot, place)
                name = source.text_at(here.span) if here is not None and here.span is not None else ""
                bound = node_for(self.recorder.graph, [name], node, set()) if name else None  # db = dout; return db
                if bound is not None:
                    node = bound
                elif here is not None:
                    node = alias_at(self.recorder.graph, node, here)
                    node.meta["span"] = here.span
                if here is not None:
                    node.meta["handed"] = call
                    self.recorder.entries[id(tensor)] = Entry(tensor, node, version_of(tensor))
            call.places.append(node)
        call.ended, call.done = self.spots.count, True

    def _alias(self, tensor: torch.Tensor, node: fx.Node, spot: Spot) -> torch.Tensor:
        """Another object on the same memory, under a node that stands at `spot`."""
        with torch._C.DisableTorchFunction():
            fresh = tensor.detach()
        made = alias_at(self.recorder.graph, node, spot)
        self.recorder.entries[id(fresh)] = Entry(fresh, made, version_of(fresh))
        self.recorder.memory.saw(torch.ops.aten.alias.default, "alias", (tensor,), {}, fresh)
        return fresh

    def _node(self, tensor: torch.Tensor) -> fx.Node:
        return self.recorder.node_of(tensor, [], None)


_REST = 0x04  # of a code object with *args
_RUNS = tuple(f"{__name__.rpartition('.')[0]}.{file}" for file in ("running", "pairs"))
_THROUGH = "__call__", "_wrapped_call_impl", "_call_impl"  # what `self.layer(x)` goes through


def _returned_at(spot: Spot, place: int) -> Spot | None:
    """The spot of one value that a `return` gives, where it is a plain name."""
    statement = source.statement_at(spot.span) if spot.span is not None else None
    if not isinstance(statement, ast.Return) or statement.value is None:
        return None
    parts = statement.value.elts if isinstance(statement.value, ast.Tuple | ast.List) else [statement.value]
    if place >= len(parts):
        return None
    part = source.span_of(parts[place], spot.file)
    wanted = part.line, part.end_line, part.column, part.end_column
    index = next((i for i, held in enumerate(_positions(spot.code)) if held == wanted), None)
    return None if index is None else replace(spot, index=index)


def _is_own(code: types.CodeType) -> bool:
    return is_person(code) and is_person_file(code.co_filename)


def apart(recorder: Recorder, result: Any, calls: list[Call]) -> Any:
    """What the checked call returned, where one tensor that it returned several times is several of them."""
    asked = next((c for c in reversed(calls) if c.asked and c.done), None)
    if asked is None or type(result) not in (tuple, list) or len(result) != len(asked.places):
        return result
    found: list[Any] = []
    for value, node in zip(result, asked.places, strict=True):
        again = any(value is other for other in found)
        found.append(recorder.alias(value, node) if again and node is not None else value)
    return type(result)(found)


def _caller(frame: types.FrameType) -> tuple[types.FrameType | None, bool]:
    """The frame of the person's that called this one, through what calls a module (`self.layer(x)`), or none, and whether the
    call is the one that is checked: made by what runs their code."""
    back = frame.f_back
    while back is not None and not _is_own(back.f_code):
        if back.f_globals.get("__name__") in _RUNS:
            return None, True
        if back.f_code.co_name not in _THROUGH:
            return None, False
        back = back.f_back
    return back, False


def _is_layer(owner: Any) -> bool:
    return hasattr(owner, "__dict__") and not isinstance(owner, torch.Tensor | type | types.ModuleType | torch.Size)


def _tensor(value: Any) -> torch.Tensor | None:
    value = value.tensor if isinstance(value, Array) else value
    return value if isinstance(value, torch.Tensor) else None


@contextmanager
def followed(recorder: Recorder, spots: Spots, following: bool) -> Iterator[list[Call]]:
    """While open, the calls of the methods of the person's objects are noted, if that is asked for."""
    calls = Calls(recorder, spots)
    if not following:
        yield calls.made
        return
    before: Any = sys.getprofile()

    def seen(frame: types.FrameType, event: str, argument: Any) -> None:
        if callable(before):
            before(frame, event, argument)
        calls.seen(frame, event, argument)

    sys.setprofile(seen)
    try:
        yield calls.made
    finally:
        sys.setprofile(before if callable(before) else None)
        if hasattr(before, "enable"):  # cProfile's own object, which sys.setprofile does not take
            before.enable()
