"""Which value of a run is the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.arrays.values import as_tensors
from chainrule.errors import ChainruleError
from chainrule.program import differentiable
from chainrule.recording import Recorder
from chainrule.recording.numbers import Tracked


def loss_of(recorder: Recorder, result: Any, asked: Any, name: str, any_shape: bool) -> torch.Tensor:
    """The loss: what was asked for, what the code returned, or its local variable `loss`.

    `asked` is a name, a tensor or None, `name` that of the code. Raises ChainruleError where there is none."""
    local = asked if isinstance(asked, str) else "loss"
    named = recorder.locals.get(local)
    scalars = scalars_in(result)
    scalars = [r for r in scalars if r is named] or scalars
    several = [r for r in result if isinstance(r, torch.Tensor)][:1] if any_shape and isinstance(result, tuple) else []
    candidates = [named] if isinstance(asked, str) else [asked, result, named, *scalars[:1], *several]
    for candidate in candidates:
        value = as_tensors(tensor_behind(recorder, candidate))
        if isinstance(value, torch.Tensor):
            if value.numel() != 1 and not any_shape:
                if value is result and isinstance(named, torch.Tensor) and named.numel() == 1:
                    continue
                raise ChainruleError(
                    f"{name} returned shape {tuple(value.shape)}, not a scalar; "
                    "return the loss, or call the local that holds it `loss`, or name it with loss="
                )
            if recorder.entry(value) is not None:
                return value
    raise ChainruleError(
        f"no loss was found in {name}: it returned {type(result).__name__} and has no local tensor `{local}`; "
        "return the loss, or call the local that holds it `loss`, or name it with loss="
    )


def tensor_behind(recorder: Recorder, value: Any) -> Any:
    """The tensor of which a person took the number: `loss.item()` remembers it, `float(loss)` is equal to it."""
    if isinstance(value, Tracked):
        operand = value.node().args[0]
        return operand.meta["val"] if isinstance(operand, fx.Node) else None
    if type(value) is not float:
        return value
    tensors = (n.meta.get("val") for n in reversed(recorder.graph.nodes) if differentiable(n))
    with torch._C.DisableTorchFunction():
        return next((t for t in tensors if t.numel() == 1 and float(t) == value), value)


def scalars_in(result: Any) -> list[Any]:
    return [r for r in result if _is_scalar(r)] if isinstance(result, tuple | list) else []


def _is_scalar(value: Any) -> bool:
    return (
        isinstance(value, Tracked) or type(value) is float or (isinstance(value, torch.Tensor) and value.numel() == 1)
    )
