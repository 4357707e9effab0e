"""What an audit changes: runs of a person's backward code that can be repeated, each with arguments of its own."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from chainrule.diagnosis.auditing.trial_runs import Call
from chainrule.diagnosis.functions.as_pair import pair
from chainrule.diagnosis.reading.forms import is_function_class
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.errors import ChainruleError


@dataclass(frozen=True)
class Subject:
    """Hand-written gradients, computed once more by every call of `again`."""

    name: str
    again: Callable[[], Handwritten]


def subjects(asked: Asked) -> list[Subject]:
    """One for the code, or one for each torch.autograd.Function that it calls."""
    code = asked.code
    if is_function_class(code):
        return [_of_function(code, asked.args)]
    if isinstance(code, type):
        asked = replace(asked, code=_made(code))
    hand = run_handwritten(asked)
    if hand.regions and not hand.writes and not asked.forward:
        regions = {r.function: r for r in reversed(hand.regions)}
        return [_of_function(function, region.values) for function, region in reversed(regions.items())]
    return [Subject(asked.name, lambda: run_handwritten(asked))]


def _of_function(function: Any, values: Any) -> Subject:
    """The forward and backward of a torch.autograd.Function as an ordinary pair of functions."""
    args = tuple(v.detach().clone() if isinstance(v, torch.Tensor) else v for v in values)
    for arg, given in zip(args, values, strict=True):
        if isinstance(arg, torch.Tensor) and isinstance(given, torch.Tensor) and given.requires_grad:
            arg.requires_grad_()

    return Subject(function.__name__, lambda: run_handwritten(pair(function, args)))


def _made(kind: type) -> Any:
    try:
        return kind()
    except TypeError as error:
        raise ChainruleError(
            f"{kind.__name__} needs arguments to be made; give audit an instance, or no arguments, so that the one that "
            "the test makes is used"
        ) from error


def called(asked: Asked) -> types.CodeType | None:
    """The code whose arguments the code's example inputs are, where it was asked for without any; else None."""
    if asked.args or asked.kwargs:
        return None
    code = asked.forward or asked.code
    entry = _entry(code)
    if entry is None:
        return None
    takes = [p for p in inspect.signature(entry).parameters.values() if p.default is p.empty]
    bound = isinstance(code, types.MethodType) or not isinstance(code, types.FunctionType | type)
    made = isinstance(code, type) and not is_function_class(code)
    return entry.__code__ if len(takes) > bound or made else None


def _entry(code: Any) -> types.FunctionType | None:
    """The Python function that a call of the code runs."""
    if is_function_class(code):
        found = code.forward
    elif isinstance(code, types.FunctionType | types.MethodType):
        found = code
    else:
        kind = code if isinstance(code, type) else type(code)
        called = "forward" if isinstance(code, type | torch.nn.Module) or "__call__" not in dir(kind) else "__call__"
        found = getattr(kind, called, None)
    found = getattr(found, "__func__", found)
    return found if isinstance(found, types.FunctionType) else None


def with_call(asked: Asked, call: Call) -> Asked:
    """The code with the arguments with which the test called it."""
    args, kwargs = call
    code: Any = asked.forward or asked.code
    if is_function_class(code):
        own_context = code.setup_context is torch.autograd.Function.setup_context
        return replace(asked, args=args[1:] if own_context else args, kwargs=kwargs)
    if isinstance(code, type):
        return replace(asked, code=args[0], args=args[1:], kwargs=kwargs)
    return replace(asked, args=args if isinstance(code, types.FunctionType) else args[1:], kwargs=kwargs)
