"""The person's names: which variable a tensor is bound to, and on which line it was made.

Names are read from the local variables of the running frames, between one operation and the next.
The outermost name wins (`l1 = lin(x, w, b)` is `l1`, whatever `lin` calls it inside).
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from chainrule.errors import Site

_OTHERS = tuple(os.path.dirname(m) + os.sep for m in (torch.__file__, os.path.dirname(__file__)))
_RULES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "rules") + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
HELD: dict[type, Callable[[Any], Any]] = {}  # for what stands for a tensor: how to get it
_DEPTH = 10  # objects inside of objects: a layer of a block in a list of a network's
_is_person: dict[str, bool] = {}  # by file: equal functions of two files have equal code


def is_person(code: types.CodeType) -> bool:
    """Whether the code is the person's: not torch's, not chainrule's, not the standard library's."""
    file = code.co_filename
    known = _is_person.get(file)
    if known is None:
        library = file.startswith(_OTHERS) or (file.startswith(_STANDARD) and "site-packages" not in file)
        known = _is_person[file] = not library and not file.startswith("<frozen")
    return known


def _itself(value: Any) -> Any:
    return value


def is_rule(code: types.CodeType) -> bool:
    """Whether the code stands in the rule book, as what is run in place of another function does."""
    return code.co_filename.startswith(_RULES)


@functools.cache
def is_person_file(file: str) -> bool:
    """Whether a module in this file is the person's own, rather than installed."""
    return not file.startswith((*_OTHERS, _STANDARD)) and "site-packages" not in file


@functools.lru_cache(maxsize=4096)
def _site(file: str, line: int, function: str) -> Site:
    return Site(file, line, function)


def site_of(frame: types.FrameType | None) -> Site | None:
    """The innermost line of the person's code, seen from `frame`."""
    while frame is not None:
        if is_person(frame.f_code):
            return _site(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


class FrameWatch:
    """Looks at the frames between the root and the operation, and reports new bindings.

    `bound(tensor, name, depth)` is called for each tensor found under a local name.
    """

    def __init__(
        self,
        bound: Callable[[torch.Tensor, str, int], None],
        watched: Callable[[types.CodeType], bool] = is_person,
    ) -> None:
        self.bound, self.watched = bound, watched
        self.root: types.FrameType | None = None
        self.inclusive = False
        self.live: list[types.FrameType] = []

    def start(self, root: types.FrameType | None, inclusive: bool) -> None:
        """Names come from the frames called by `root`, and from `root` itself if `inclusive`."""
        self.root, self.inclusive = root, inclusive

    def frames(self, frame: types.FrameType | None) -> list[types.FrameType]:
        """The watched frames, the person's, from the outermost to the one that runs."""
        found = []
        while frame is not None and frame is not self.root:
            if self.watched(frame.f_code):
                found.append(frame)
            frame = frame.f_back
        if self.inclusive and frame is not None:
            found.append(frame)
        return found[::-1]

    def look(self, frame: types.FrameType | None) -> list[types.FrameType]:
        """Read the frames that moved on since the last look; returns the frames that are live."""
        now = self.frames(frame)
        same = 0
        while same < min(len(now), len(self.live)) and now[same] is self.live[same]:
            same += 1
        for depth, finished in enumerate(self.live[same:], same):
            self._read(finished, depth)  # a finished frame still holds its last bindings
        for depth in range(max(same - 1, 0), len(now)):  # a frame whose callee is the same stood still
            self._read(now[depth], depth)
        self.live = now
        return now

    def finish(self) -> dict[str, Any]:
        """Read what is left and let go of the frames; returns the locals of the outermost frame."""
        outermost: dict[str, Any] = {}
        for depth, frame in enumerate(self.live):
            self._read(frame, depth)
            if depth == 0:
                outermost = dict(frame.f_locals)
        self.live = []
        return outermost

    def _read(self, frame: types.FrameType, depth: int) -> None:
        code = frame.f_code
        given = code.co_varnames[: code.co_argcount] if self.watched is is_rule else ()  # the person's values
        for name, value in frame.f_locals.items():
            value = HELD.get(type(value), _itself)(value)
            if isinstance(value, torch.Tensor) and name not in given:
                if not name.startswith("_") or name.strip("_"):
                    self.bound(value, name, depth)
            elif name == _first(code) and is_method(code, type(value)) and hasattr(value, "__dict__"):
                for attribute, held in vars(value).items():
                    if isinstance(held, torch.Tensor):
                        self.bound(held, attribute, depth + 1000)  # any variable's name is preferred


def name_of_leaf(
    tensor: torch.Tensor, arguments: Mapping[str, Any], forward: Any, frames: list[types.FrameType]
) -> str:
    """The name of a tensor that the program reads: an argument, an attribute, a global, a local."""
    spaces = _spaces(arguments, forward)
    for frame in frames:
        spaces.append(frame.f_locals)
        spaces.append(_named_globals(frame.f_code, frame.f_globals))
    for space in spaces:
        path = _find(tensor, space)
        if path is not None:
            return path
    return "t"


def _spaces(arguments: Mapping[str, Any], forward: Any) -> list[Mapping[str, Any]]:
    """Where a function finds tensors: arguments, its object's attributes, its closure, its globals."""
    spaces: list[Mapping[str, Any]] = [arguments]
    owner = forward if isinstance(forward, torch.nn.Module) else getattr(forward, "__self__", None)
    if owner is None and hasattr(forward, "__dict__") and not isinstance(forward, types.FunctionType):
        owner = forward
    if owner is not None and not isinstance(owner, types.ModuleType):
        spaces.append(_attributes(owner))
    code = getattr(forward, "__code__", None)
    if code is not None:
        cells = zip(code.co_freevars, forward.__closure__ or (), strict=False)
        spaces.append({name: cell.cell_contents for name, cell in cells if _filled(cell)})
        spaces.append(_named_globals(code, forward.__globals__))
    return spaces


def reachable(arguments: Mapping[str, Any], forward: Any, depth: int = _DEPTH) -> Iterator[torch.Tensor]:
    """Every tensor that `forward` can find by name."""
    level: list[Any] = [v for space in _spaces(arguments, forward) for v in space.values()]
    visited: set[int] = set()
    for _ in range(depth):
        below: list[Any] = []
        for value in level:
            if isinstance(value, torch.Tensor):
                yield value
            elif id(value) not in visited:
                visited.add(id(value))
                below.extend(child for _, child in _children(value))
        level = below


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _named_globals(code: types.CodeType, space: Mapping[str, Any]) -> dict[str, Any]:
    return {name: space[name] for name in code.co_names if name in space}


def _attributes(owner: Any) -> dict[str, Any]:
    if isinstance(owner, torch.nn.Module):
        named = dict(owner.named_parameters(remove_duplicate=False)) | dict(owner.named_buffers(remove_duplicate=False))
        return named | {k: v for k, v in vars(owner).items() if not k.startswith("_") and k != "training"}
    return dict(getattr(owner, "__dict__", {}))


def _find(tensor: torch.Tensor, space: Mapping[str, Any], depth: int = _DEPTH) -> str | None:
    """The path to `tensor` below `space`, shortest first: `w1`, `layers.0.w`, `params.w2`."""
    level: list[tuple[str, Any]] = [(k, v) for k, v in space.items() if isinstance(k, str)]
    visited: set[int] = set()
    for _ in range(depth):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            if value is tensor or HELD.get(type(value), _itself)(value) is tensor:
                return path
            if id(value) not in visited:
                visited.add(id(value))
                below.extend((f"{path}.{key}", child) for key, child in _children(value))
        level = below
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if not tells_its_class(value):
        return
    if isinstance(value, torch.Tensor | str | bytes | type | types.ModuleType | types.FunctionType):
        return
    if isinstance(value, Mapping):
        yield from ((str(k), v) for k, v in list(value.items())[:2000])
    elif isinstance(value, list | tuple):
        yield from ((str(i), v) for i, v in enumerate(value[:2000]))
    elif not type(value).__module__.startswith(("torch.fx", "chainrule.recording", "chainrule.rules", "builtins")):
        yield from _attributes(value).items()


def is_method(code: types.CodeType, kind: type) -> bool:
    """Whether code is that of a method of a class, whatever it calls its first parameter.

    >>> class Layer:
    ...     def forward(layer, x): return x
    >>> is_method(Layer.forward.__code__, Layer), is_method(Layer.forward.__code__, int)
    (True, False)
    """
    if _first(code) == "self":
        return True
    own = [vars(base).get(code.co_name) for base in kind.__mro__]
    return any(getattr(f, "__code__", None) is code for f in own if not isinstance(f, staticmethod))


def _first(code: types.CodeType) -> str | None:
    return code.co_varnames[0] if code.co_argcount else None


def tells_its_class(value: Any) -> bool:
    """Whether a person's variable may be asked what it is: not a proxy of an object that is gone.

    >>> tells_its_class(3)
    True
    """
    try:
        isinstance(value, type)
    except Exception:  # whatever its __class__ raises
        return False
    return True


def caller(depth: int = 1) -> types.FrameType:
    """The frame `depth` calls above the function that asks."""
    return sys._getframe(depth + 1)
