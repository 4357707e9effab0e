"""Which value of a run is the loss."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import torch
from torch import fx

from chainrule.arrays.values import as_tensors
from chainrule.diagnosis.reading.forms import names_a_backward
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.source import assignment_at, span_of
from chainrule.errors import ChainruleError, Untold
from chainrule.program import differentiable
from chainrule.reached import reached_from
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
    if not isinstance(asked, str) and (dropped := _returned_by_a_call(recorder)) is not None:
        return dropped
    plain = {f"its local `{local}`": named}
    if not isinstance(asked, str):
        given = [result, *scalars]
        plain["what it returns"] = next((v for v in given if _is_plain(v) and type(v) is not int), None)  # a count
    for where, number in plain.items():
        if _is_plain(number):
            raise Untold(_of_plain_numbers(recorder, name, where, number))
    raise Untold(
        f"no loss was found in {name}: it returned {type(result).__name__} and has no local tensor `{local}`; "
        "return the loss, or call the local that holds it `loss`, or name it with loss="
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | Tracked) and not isinstance(value, bool)


def _of_plain_numbers(recorder: Recorder, name: str, where: str, value: Any) -> str:
    """What is said of a loss that is there, as a number of Python's own."""
    number = value.plain() if isinstance(value, Tracked) else value
    head = (
        f"no loss was found in {name} that depends on a tensor or an array: {where} is the plain number {number:.6g}; "
    )
    if any(differentiable(n) for n in recorder.inputs):
        return head + "compute it from them without float(...), .item() or the like on the way"
    return head + (
        "give the parameters as arguments that are arrays, np.array(0.3) or np.array([0.1, 0.2]), or name those that are "
        'numbers, wrt=["w"]'
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


def _returned_by_a_call(recorder: Recorder) -> torch.Tensor | None:
    """What the one called function gave that returns a scalar which nothing else is computed from: `self.loss(x, t)`."""
    nodes = [n for n in recorder.graph.nodes if n.meta["phase"] == "forward" and differentiable(n)]
    given = [n for n in nodes if n.op == "placeholder"]
    reached = set(reached_from(given, recorder.graph))
    found = [
        n
        for n in nodes
        if n in reached
        and n.op != "placeholder"
        and n.meta["val"].numel() == 1
        and not any(user in reached for user in n.users)
        and _is_returned(n)
    ]
    return found[0].meta["val"] if len(found) == 1 else None


_LOSS = re.compile("loss|cost|objective|criterion|energy|nll|entropy", re.IGNORECASE)


def _is_returned(node: fx.Node) -> bool:
    """Whether a function, no backward pass, returns a value alone: `return loss`, `return -np.sum(...)`."""
    spot = node.meta.get("spot")
    if spot is None or spot.span is None or names_a_backward(spot.code.co_name):
        return False
    if not _LOSS.search(spot.code.co_qualname):  # a metric, or a penalty that is printed, is a scalar, too
        return False
    function, assigned = function_of(spot.code), assignment_at(spot.span)
    for statement in ast.walk(function) if function is not None else ():
        value = statement.value if isinstance(statement, ast.Return) else None
        if isinstance(value, ast.Name) and assigned is not None and value.id == assigned.target:
            return True
        whole = value is not None and not isinstance(value, ast.Tuple | ast.List | ast.Dict)
        if value is not None and whole and spot.span.within(span_of(value, spot.file)):
            return True
    return False


def scalars_in(result: Any) -> list[Any]:
    return [r for r in result if _is_scalar(r)] if isinstance(result, tuple | list) else []


def _is_scalar(value: Any) -> bool:
    return (
        isinstance(value, Tracked) or type(value) is float or (isinstance(value, torch.Tensor) and value.numel() == 1)
    )
