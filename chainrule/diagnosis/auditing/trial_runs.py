"""Runs a person's test again and again from the same state, and sees with which arguments it calls their code."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chainrule.diagnosis.report import Report
from chainrule.recording.names import is_person, is_person_file

_DEPTH = 6  # how far below a function's names its state is looked for
_PASSES_ON = (KeyboardInterrupt, GeneratorExit)


class State:
    """Tensors, their gradients, lists, dicts and attributes that some code can reach, and the random numbers."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}  # kept alive, so that an id stays that of one object
        self.add(roots)
        self._random = _random_state()
        self._bare: list[torch.Tensor] = []

    def add(self, roots: Iterable[Any]) -> None:
        level = list(roots)
        for _ in range(_DEPTH):
            below: list[Any] = []
            for value in level:
                if id(value) not in self._seen and not isinstance(value, str | bytes | int | float | complex | None):
                    self._seen[id(value)] = value
                    below.extend(self._note(value))
            level = below

    def restore(self) -> None:
        """Everything as it was when it was noted."""
        for undo in self._undo:
            undo()
        for undo in self._random:
            undo()
        for tensor in self._bare:
            _drop_gradients(tensor)

    def without_gradients(self, tensors: Iterable[torch.Tensor]) -> None:
        """From now on `restore` leaves no gradient on these tensors: one from an earlier run hides a missing one."""
        self._bare = list(tensors)

    def _note(self, value: Any) -> Iterable[Any]:
        """Remember how `value` is; what can be reached from it."""
        if isinstance(value, torch.Tensor):
            self._undo.append(_tensor(value))
            return ()
        if isinstance(value, types.MethodType):
            return value.__func__, value.__self__
        if isinstance(value, types.FunctionType):
            return _read_by(value) if is_person(value.__code__) else ()
        if isinstance(value, types.ModuleType):
            return list(vars(value).values()) if is_person_file(getattr(value, "__file__", None) or "<") else ()
        if isinstance(value, type):
            own = is_person_file(getattr(sys.modules.get(value.__module__), "__file__", None) or "<")
            return [getattr(v, "__func__", v) for v in vars(value).values()] if own else ()
        if isinstance(value, list):
            kept = list(value)
            self._undo.append(lambda: None if _same(value, kept) else value.__setitem__(slice(None), kept))
            return kept
        if isinstance(value, dict):
            self._undo.append(_dictionary(value))
            return list(value.values())
        if isinstance(value, tuple | set | frozenset):
            return list(value)
        return self._note_object(value)

    def _note_object(self, value: Any) -> Iterable[Any]:
        if isinstance(value, torch.Generator):
            drawn = value.get_state()
            self._undo.append(lambda: _ignored(value.set_state(drawn)))
            return ()
        if isinstance(value, random.Random):
            own = value.getstate()
            self._undo.append(lambda: value.setstate(own))
            return ()
        bits = getattr(value, "bit_generator", None)
        if bits is not None:
            held = copy.deepcopy(bits.state)
            self._undo.append(lambda: setattr(bits, "state", copy.deepcopy(held)))
            return ()
        space = getattr(value, "__dict__", None)
        if not isinstance(space, dict):
            return ()
        self._undo.append(_dictionary(space))
        return [type(value), *space.values()]


def _ignored(value: Any) -> None:
    pass


def _read_by(function: types.FunctionType) -> list[Any]:
    """What a function reads by name: globals, what it closes over, its defaults."""
    names = {name for code in _codes_in(function.__code__) for name in code.co_names}
    found = [function.__globals__[n] for n in sorted(names) if n in function.__globals__]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    wrapped = getattr(function, "__wrapped__", None)
    return [*found, *(function.__defaults__ or ()), *([wrapped] if wrapped is not None else [])]


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for held in code.co_consts:
        if isinstance(held, types.CodeType):
            yield from _codes_in(held)


def _tensor(tensor: torch.Tensor) -> Callable[[], None]:
    with torch._C.DisableTorchFunction(), torch.no_grad():
        numbers = tensor.detach().clone()
        needs, grad, g = tensor.requires_grad, tensor.grad if tensor.is_leaf else None, tensor.__dict__.get("g")
        kept = {id(held): held.detach().clone() for held in (grad, g) if isinstance(held, torch.Tensor)}

    def undo() -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            _put(tensor, numbers)
            for held in (grad, g):
                if isinstance(held, torch.Tensor):
                    _put(held, kept[id(held)])
            if tensor.is_leaf:
                if tensor.requires_grad != needs:
                    tensor.requires_grad_(needs)
                tensor.grad = grad
            if g is None:
                tensor.__dict__.pop("g", None)
            else:
                tensor.__dict__["g"] = g

    return undo


def _drop_gradients(tensor: torch.Tensor) -> None:
    tensor.__dict__.pop("g", None)
    with torch._C.DisableTorchFunction():
        if tensor.is_leaf:
            tensor.grad = None


def _put(tensor: torch.Tensor, numbers: torch.Tensor) -> None:
    if tensor.shape == numbers.shape and not torch.equal(tensor.detach(), numbers):
        tensor.detach().copy_(numbers)


def _dictionary(space: dict[Any, Any]) -> Callable[[], None]:
    kept = dict(space)

    def undo() -> None:
        if list(space) != list(kept) or not _same(list(space.values()), list(kept.values())):
            space.clear()
            space.update(kept)

    return undo


def _same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True))


def _random_state() -> list[Callable[[], None]]:
    cpu, own = torch.get_rng_state(), random.getstate()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    found: list[Callable[[], None]] = [
        lambda: torch.set_rng_state(cpu),
        lambda: random.setstate(own),
        lambda: torch.set_default_dtype(dtype),  # a test that fails half-way leaves its settings behind
        lambda: torch._C._set_grad_enabled(grad),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        cuda = torch.cuda.get_rng_state_all()
        found.append(lambda: torch.cuda.set_rng_state_all(cuda))
    if (numpy := sys.modules.get("numpy")) is not None:
        numbers = numpy.random.get_state()
        found.append(lambda: numpy.random.set_state(numbers))
    return found


def passes(test: Callable[[], Any], state: State) -> tuple[bool, str]:
    """Whether the test passes from the state given, and what it said where it does not."""
    state.restore()
    silent = io.StringIO()
    try:
        # the warnings are recorded, not filtered: where the person's settings make them errors, they fail the test
        with (
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
            warnings.catch_warnings(record=True),
        ):
            said = test()
    except _PASSES_ON:
        raise
    except BaseException as error:  # pytest.fail and exit() are no Exceptions
        first = str(error).strip().split("\n")[0]
        return False, f"{type(error).__name__}: {first}" if first else type(error).__name__
    if inspect.iscoroutine(said):
        said.close()
        return False, "it is a coroutine, which nothing awaits"
    return (False, f"it returned {said}") if _is_false(said) else (True, "")


def _is_false(said: Any) -> bool:
    if isinstance(said, bool | Report):
        return not said
    return str(getattr(said, "dtype", "")) in ("bool", "torch.bool") and not bool(said.all())


Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def calls_of(code: types.CodeType | None) -> Iterator[list[Call]]:
    """While open, the arguments of the call of `code` with the most numbers are kept, copied: at most one entry."""
    found: list[Call] = []
    if code is None:
        yield found
        return
    before: Any = sys.getprofile()
    largest = -1

    def seen(frame: types.FrameType, event: str, argument: Any) -> None:
        nonlocal largest
        if callable(before):
            before(frame, event, argument)
        if event == "call" and frame.f_code is code:
            args, kwargs = _arguments(frame)
            size = sum(v.numel() for v in _tensors([*args, *kwargs.values()]))
            if size > largest:
                largest = size
                found[:] = [(_copied(args), _copied(kwargs))]

    sys.setprofile(seen)
    try:
        yield found
    finally:
        sys.setprofile(before if callable(before) else None)
        if hasattr(before, "enable"):  # cProfile's own object, which sys.setprofile does not take
            before.enable()


def _arguments(frame: types.FrameType) -> Call:
    code, held = frame.f_code, frame.f_locals
    names, rest, named = inspect.getargs(code)
    args = tuple(held[n] for n in names[: code.co_argcount]) + tuple(held.get(rest or "", ()))
    return args, {n: held[n] for n in names[code.co_argcount :]} | dict(held.get(named or "", {}))


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _copied(value: Any) -> Any:
    """Tensors as leaves of their own; other things as deep a copy as they allow."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (tuple, list):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(held) for key, held in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:  # a generator, a non-leaf tensor in an object: the thing itself
        return value
