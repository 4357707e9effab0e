"""Runs a person's forward and backward pass under the recorder, and collects the `.g` that it leaves."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.deriving import arguments_of, new_recorder, record_call
from chainrule.errors import ChainruleError
from chainrule.recording import Recorder, Region
from chainrule.recording.names import caller, reachable
from chainrule.recording.numbers import Tracked
from chainrule.run import needed, restore


@dataclass
class Handwritten:
    """A recorded run: the loss (or an output with a random upstream), and the gradients found."""

    recorder: Recorder
    output: torch.Tensor
    upstream: torch.Tensor | None
    gradients: dict[fx.Node, torch.Tensor]  # forward value -> the `.g` that the person's code left on it
    functions: list[Region]
    stale: list[fx.Node]  # inputs whose `.g` is still the one from before the run
    code: Any

    @cached_property
    def nodes(self) -> dict[fx.Node, fx.Node]:
        """Forward value -> the node that computed its hand-written gradient."""
        found = {}
        for value, g in self.gradients.items():
            entry = self.recorder.entry(g)
            found[value] = entry.node if entry is not None else self.recorder.leaf(g, name="g")
        return found


def run_handwritten(code: Any, args: Any, loss: Any, kwargs: Any, seed: int = 0) -> Handwritten:
    """Run `code` once; everything that it computes, its hand-written gradients too, is recorded."""
    recorder = new_recorder()
    recorder.every_path = True
    recorder.forward = code
    recorder.arguments = arguments_of(code, args, kwargs, caller(1))
    before = {id(t): getattr(t, "g", None) for t in reachable(recorder.arguments, code)}
    upstream: list[torch.Tensor | None] = [None]
    functions: list[Region] = []

    def both() -> Any:
        out = code(*args, **kwargs)
        if _has_backward(code):
            if isinstance(out, torch.Tensor) and out.numel() != 1:
                generator = torch.Generator().manual_seed(seed)
                upstream[0] = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
                out.g = upstream[0]  # type: ignore[attr-defined]
            code.backward()
        functions.extend(r for r in recorder.regions if r.function is not None)
        return out

    with torch.enable_grad():
        result = record_call(recorder, both, (), {})
    output = _loss(recorder, result, loss, code, bool(functions))
    if output is result and output.numel() != 1 and upstream[0] is None:
        upstream[0] = torch.randn(output.shape, dtype=output.dtype)
    found = _gradients(recorder, before)
    entry = recorder.entry(output)
    if upstream[0] is not None and entry is not None:
        found.pop(entry.node, None)
    passed = {id(v) for v in recorder.arguments.values()}  # data, which often has a .g from elsewhere
    held = {n: id(n.meta.get("given", n.meta["val"])) for n in recorder.inputs}
    stale = [n for n, at in held.items() if before.get(at) is not None and at not in passed and n not in found]
    if entry is not None:
        _as_it_was(entry.node)
    return Handwritten(recorder, output, upstream[0], found, functions, stale, code)


def _as_it_was(output: fx.Node) -> None:
    """Give the forward values back what they were when the loss was computed, if the code overwrote any since."""
    nodes = needed([output])
    for node in nodes:
        node.meta.pop("overwritten", None)
    restore(output)


def _has_backward(code: Any) -> bool:
    plain = isinstance(code, types.FunctionType | types.MethodType | type | torch.nn.Module)
    return not plain and callable(getattr(code, "backward", None))


def _loss(recorder: Recorder, result: Any, loss: Any, code: Any, any_shape: bool) -> torch.Tensor:
    """The loss: what was asked for, what the code returned, or its local variable `loss`."""
    name = loss if isinstance(loss, str) else "loss"
    named = recorder.locals.get(name)
    candidates = [named] if isinstance(loss, str) else [loss, result, named]
    for candidate in candidates:
        value = candidate
        if isinstance(candidate, Tracked):  # loss.item() remembers its tensor
            operand = candidate.node().args[0]
            value = operand.meta["val"] if isinstance(operand, fx.Node) else None
        if isinstance(value, torch.Tensor):
            if value.numel() != 1 and not any_shape and not _has_backward(code):
                raise ChainruleError(
                    f"{_name(code)} returned shape {tuple(value.shape)}, not a scalar; "
                    "return the loss, or call the local that holds it `loss`, or name it with loss="
                )
            if recorder.entry(value) is not None:
                return value
    raise ChainruleError(
        f"no loss was found in {_name(code)}: it returned {type(result).__name__} and has no local tensor `{name}`; "
        "return the loss, or call the local that holds it `loss`, or name it with loss="
    )


def _name(code: Any) -> str:
    return getattr(code, "__name__", None) or type(code).__name__


def _gradients(recorder: Recorder, before: dict[int, Any]) -> dict[fx.Node, torch.Tensor]:
    found: dict[fx.Node, torch.Tensor] = {}
    inputs = [(n.meta.get("given", n.meta["val"]), n) for n in recorder.inputs]
    made = [(e.tensor, e.node) for e in recorder.entries.values() if e.node.op != "placeholder"]
    for tensor, node in [*made, *inputs]:
        g = getattr(tensor, "g", None)
        if isinstance(g, torch.Tensor) and (g is not before.get(id(tensor)) or _was_written(recorder, g)):
            found[node] = g
    given = {id(t): n for t, n in inputs}
    for tensor, node in made:  # an input that was updated in place keeps its first node
        if id(tensor) in given and node in found:
            del found[node]
    return found


def _was_written(recorder: Recorder, g: Any) -> bool:
    entry = recorder.entry(g)
    return entry is not None and bool(entry.node.meta.get("written"))
