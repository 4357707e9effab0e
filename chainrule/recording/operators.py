"""Operators that are registered with torch.library, as the torch.autograd.Functions that they are to autograd."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS, CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from chainrule.recording.dispatch import plain

_TORCH = frozenset(("aten", "prim", "prims", "_prims", "quantized", "c10d", "_c10d_functional", "higher_order"))


def overload_of(code: Any) -> OpOverload | None:
    """The registered operator that `code` is, torch's own apart; of several overloads, the only one.

    >>> overload_of(torch.ops.aten.sin) is None, overload_of(len) is None
    (True, True)
    """
    if isinstance(code, CustomOpDef):
        code = code._opoverload
    if isinstance(code, OpOverloadPacket):
        names = code.overloads()  # type: ignore[no-untyped-call]
        code = getattr(code, names[0]) if len(names) == 1 else None
    return code if isinstance(code, OpOverload) and code.namespace not in _TORCH else None


def called(overload: OpOverload) -> Callable[..., Any]:
    """The operator as a function with its name and its parameters."""

    @functools.wraps(_kernel(overload))
    def call(*args: Any, **kwargs: Any) -> Any:
        return overload(*args, **kwargs)

    return call


def opened(function: Any) -> Callable[..., Any] | None:
    """What to run in place of a registered operator, so that its kernel and its backward are seen: the Function of the two,
    or the kernel where it has no backward; None for anything else. What it runs gives NotImplemented for an operator
    whose derivative is not written in Python."""
    overload = overload_of(function)
    return None if overload is None else functools.partial(_applied, overload)


def _applied(overload: OpOverload, *args: Any, **kwargs: Any) -> Any:
    found = function_of(overload, args, kwargs)
    if found is not None:
        function, positional = found
        return function.apply(*positional)
    if (known := definition_of(overload)) is None or known._backward_fn is not None:
        return NotImplemented
    positional, named = _bound(overload, args, kwargs)
    return _kernel(overload)(*positional, **named)


def function_of(overload: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any]] | None:
    """The torch.autograd.Function of a call of a registered operator, and what to apply it to; None for an operator that has
    no backward in Python, or takes a list of tensors."""
    positional, named = _bound(overload, plain(args), plain(kwargs))
    if any(isinstance(a, list) and any(isinstance(t, torch.Tensor) for t in a) for a in positional):
        return None  # an autograd.Function takes no lists of tensors
    info = definition_of(overload) or _registered(overload, positional, named)
    if info is None or info._backward_fn is None:
        return None
    return _function(overload, info, named), positional


def definition_of(overload: Any) -> CustomOpDef | None:
    """What torch.library.custom_op made of an operator's kernel; None for one that was registered otherwise."""
    return OPDEFS.get(f"{overload.namespace}::{overload._opname}")


def _bound(overload: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in the order of the schema, defaults filled in, and those that are given by name alone."""
    given, positional, named = dict(kwargs), [], {}
    for place, argument in enumerate(overload._schema.arguments):
        value = args[place] if place < len(args) else given.pop(argument.name, argument.default_value)
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    return positional, named


def _registered(overload: OpOverload, positional: list[Any], named: dict[str, Any]) -> Any:
    """What torch.library.register_autograd was told of an operator that has a kernel elsewhere: it stands behind the node
    that autograd makes for a call."""
    leaves = [a.detach().clone().requires_grad_() if _is_floating(a) else a for a in positional]
    with torch._C.DisableTorchFunction(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        out = overload(*leaves, **named)
    made = [o.grad_fn for o in (out if isinstance(out, tuple | list) else (out,)) if isinstance(o, torch.Tensor)]
    generated = next((getattr(type(node), "_forward_cls", None) for node in made if node is not None), None)
    backward = getattr(generated, "backward", None)
    cells = inspect.getclosurevars(backward).nonlocals if inspect.isfunction(backward) else {}
    return cells.get("info") if cells.get("op") is overload else None


def _function(overload: OpOverload, info: Any, named: dict[str, Any]) -> Any:
    """The torch.autograd.Function of a registered operator: its kernel, with what it takes by name alone, and the backward
    and setup_context that were registered for it. The same class for the same operator."""
    key = (overload, info._backward_fn, info._setup_context_fn, repr(named))
    if key not in _MADE:
        kernel = _kernel(overload)

        @functools.wraps(kernel)
        def forward(*args: Any) -> Any:
            return kernel(*args, **named)

        whole = inspect.signature(kernel)
        placed = [p for p in whole.parameters.values() if p.name not in named]
        forward.__signature__ = whole.replace(parameters=placed)  # type: ignore[attr-defined]

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            if info._setup_context_fn is not None:
                more = {"keyword_only_inputs": named} if named else {}
                info._setup_context_fn(ctx=ctx, inputs=inputs, output=output, **more)

        members = {"forward": forward, "setup_context": setup_context, "backward": info._backward_fn}
        own = {name: staticmethod(member) for name, member in members.items()}
        _MADE[key] = type(overload._opname, (torch.autograd.Function,), {**own, "operator": overload, "named": named})
    return _MADE[key]


_MADE: dict[Any, Any] = {}


def _kernel(overload: OpOverload) -> Callable[..., Any]:
    """The operator below autograd: what was registered as its implementation."""
    known = definition_of(overload)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        device = next(a.device.type for a in args if isinstance(a, torch.Tensor))
        if known is not None and device not in known._backend_fns:
            return known._init_fn(*args, **kwargs)
        key = torch._C._parse_dispatch_key(torch._C._dispatch_key_for_device(device))
        assert key is not None
        return overload.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)

    if known is not None:
        return functools.wraps(known._init_fn)(kernel)
    kernel.__name__ = overload._opname
    kernel.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(
            a.name,
            inspect.Parameter.KEYWORD_ONLY if a.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=a.default_value if a.has_default_value() else inspect.Parameter.empty,
        )
        for a in overload._schema.arguments
    ])  # fmt: skip
    return kernel


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point
