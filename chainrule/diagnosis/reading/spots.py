"""Spots: where in the person's source a value was computed, and what every name in reach stood for then."""

from __future__ import annotations

import dis
import functools
import linecache
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from chainrule.recording import Recorder
from chainrule.recording.numbers import Tracked

HELD = 32  # entries of a list or dict that are looked at
_LENGTH = re.compile(r"\blen\([\w.\[\]]+\)")
_HIDDEN = (types.ModuleType, types.FunctionType, type, str, bytes)


@dataclass(frozen=True)
class Span:
    """A stretch of source: lines from 1, columns in bytes from 0, as `ast` counts them."""

    file: str
    line: int
    end_line: int
    column: int
    end_column: int

    def within(self, other: Span) -> bool:
        mine = (self.line, self.column), (self.end_line, self.end_column)
        theirs = (other.line, other.column), (other.end_line, other.end_column)
        return self.file == other.file and theirs[0] <= mine[0] and mine[1] <= theirs[1]


@dataclass
class Spot:
    """One place in one call of the person's function."""

    code: types.CodeType
    index: int  # of the instruction
    order: int  # counts the spots of a run
    call: int = 0  # counts the calls of the person's functions
    names: dict[str, Any] = field(repr=False, default_factory=dict)  # text -> tensor node, tensor, or number
    space: dict[str, Any] = field(repr=False, default_factory=dict)  # the globals of the person's module
    arrays: bool = False  # whether the code there computes with NumPy
    caller: tuple[types.CodeType, int] | None = None  # the code that called this one, and its instruction

    @property
    def called_from(self) -> Spot | None:
        """The place of the call, without the names there."""
        return Spot(*self.caller, self.order, space=self.space) if self.caller is not None else None

    @property
    def line(self) -> int:
        return _positions(self.code)[self.index][0] or self.code.co_firstlineno

    @property
    def file(self) -> str:
        return self.code.co_filename

    @property
    def span(self) -> Span | None:
        line, end_line, column, end_column = _positions(self.code)[self.index]
        if line is None or end_line is None or column is None or end_column is None:
            return None
        return Span(self.file, line, end_line, column, end_column)


@functools.lru_cache(maxsize=512)
def _positions(code: types.CodeType) -> list[tuple[int | None, int | None, int | None, int | None]]:
    return list(code.co_positions())


@functools.lru_cache(maxsize=512)
def _instruction(code: types.CodeType) -> list[int]:
    """To which instruction each place belongs: a call that became quick stands at the end of its own."""
    starts = {i.offset // 2 for i in dis.get_instructions(code)}
    found: list[int] = []
    for place in range(len(code.co_code) // 2):
        found.append(place if place in starts else found[-1])
    return found


class Spots:
    """Gives every node that the recorder writes its spot, in `node.meta["spot"]`."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.count = 0
        self.arrays = False  # while NumPy code runs
        self._last: tuple[types.FrameType, int, int] | None = None
        self._names: dict[str, Any] = {}
        self._lengths: dict[str, set[str]] = {}  # by file
        self._calls: dict[int, tuple[types.FrameType, int]] = {}  # kept alive, so that no id comes twice

    def __call__(self, node: fx.Node, frame: types.FrameType) -> None:
        node.meta["spot"] = self.of(frame)

    def of(self, frame: types.FrameType) -> Spot:
        """The spot at which `frame` stands now."""
        self.count += 1
        last, self._last = self._last, (frame, frame.f_lineno, frame.f_lasti)
        if last is None or last[0] is not frame or last[1] != frame.f_lineno or last[2] >= frame.f_lasti:
            self._names = self._in_reach(frame)
        return Spot(
            frame.f_code,
            _instruction(frame.f_code)[frame.f_lasti // 2],
            self.count,
            self._call(frame),
            self._names,
            frame.f_globals,
            self.arrays,
            _caller(frame),
        )

    def _call(self, frame: types.FrameType) -> int:
        known = self._calls.get(id(frame))
        if known is None or known[0] is not frame:
            known = self._calls[id(frame)] = (frame, len(self._calls))
        return known[1]

    def forget(self) -> None:
        """Let go of the frames, and of what they hold."""
        self._last = None
        self._calls.clear()

    def moved(self) -> None:
        """A name was bound in a way that no recorded operation shows."""
        self._last = None

    def _in_reach(self, frame: types.FrameType) -> dict[str, Any]:
        found: dict[str, Any] = {}
        code = frame.f_code
        read = {n: frame.f_globals[n] for n in code.co_names if n in frame.f_globals}
        constants = {n: v for n, v in frame.f_globals.items() if type(v) is float and not n.startswith("_")}
        space = {**constants, **read, **frame.f_locals}
        lengths = self._lengths_in(code.co_filename)
        for name, value in space.items():
            for text, held in held_in(name, value):
                if not text.startswith("len(") or text in lengths:
                    found.setdefault(text, self._known(held))
        return found

    def _lengths_in(self, file: str) -> set[str]:
        """The lengths that the person's code asks for: `len(self.layers)`."""
        if file not in self._lengths:
            self._lengths[file] = {m[0] for line in linecache.getlines(file) for m in _LENGTH.finditer(line)}
        return self._lengths[file]

    def _known(self, held: Any) -> Any:
        if not isinstance(held, torch.Tensor):
            return held
        entry = self.recorder.entry(held)
        return held if entry is None else entry.node


def _caller(frame: types.FrameType) -> tuple[types.CodeType, int] | None:
    """Where code of the same file called that of a frame."""
    back = frame.f_back
    if back is None or back.f_code.co_filename != frame.f_code.co_filename:
        return None
    return back.f_code, _instruction(back.f_code)[back.f_lasti // 2]


def held_in(name: str, value: Any, depth: int = 2) -> Iterator[tuple[str, Any]]:
    """The tensors and numbers that can be had from a name: itself, its `.g`, attributes, entries, how many these are."""
    if isinstance(value, torch.Tensor):
        yield name, value
        for attribute in ("g", "grad"):
            held = value.__dict__.get(attribute)
            if isinstance(held, torch.Tensor):
                yield f"{name}.{attribute}", held
    elif isinstance(value, Tracked | np.ndarray) or type(value) in (int, float):
        yield name, value
    elif isinstance(tensor := getattr(value, "tensor", None), torch.Tensor) and not isinstance(value, _HIDDEN):
        yield name, tensor  # an array that a tensor stands behind
    elif depth and isinstance(value, dict):
        for key, held in list(value.items())[:HELD]:
            if isinstance(key, str | int):
                yield from held_in(f"{name}[{key!r}]".replace("'", '"'), held, depth - 1)
    elif depth and isinstance(value, list | tuple):
        yield f"len({name})", len(value)
        for index, held in enumerate(value[:HELD]):
            yield from held_in(f"{name}[{index}]", held, depth - 1)
    elif depth and not isinstance(value, _HIDDEN) and isinstance(space := getattr(value, "__dict__", None), dict):
        kept = {**space.get("_parameters", {}), **space.get("_buffers", {}), **space}
        for key, held in list(kept.items())[:HELD]:
            if isinstance(key, str) and not key.startswith("_"):
                yield from held_in(f"{name}.{key}", held, depth - 1)


def span_of(node: fx.Node) -> Span | None:
    """Where the source of a node stands; of what was saved, its argument in the call."""
    spot: Spot | None = node.meta.get("spot")
    return node.meta.get("span") or (None if spot is None else spot.span)
