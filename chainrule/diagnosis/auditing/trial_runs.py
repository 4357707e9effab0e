"""Runs a person's test again and again from the same state, and sees with which arguments it calls their code."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.report import Report

_PASSES_ON = (KeyboardInterrupt, GeneratorExit)


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
