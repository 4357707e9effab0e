"""One step taken from autograd, for an operation that no rule covers. Printed and reported as such."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from chainrule.record import Recorder
from chainrule.run import step


class AutogradStep:
    """The vector-Jacobian product of one recorded call, by `torch.func.vjp`.

    Called with the values that the call reads, floating ones first, and then the upstream gradient of
    each floating output; gives one gradient for each floating value.
    """

    def __init__(self, call: fx.Node) -> None:
        self.call = call
        inputs = list(dict.fromkeys(call.all_input_nodes))
        self.floating = [n for n in inputs if _is_floating(n.meta["val"])]
        self.others = [n for n in inputs if n not in self.floating]
        value = call.meta["val"]
        self.outputs = [i for i, v in enumerate(value) if _is_floating(v)] if isinstance(value, tuple | list) else None
        self.__name__ = f"vjp_{call.meta['operation']}"

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        k, n = len(self.floating), len(self.floating) + len(self.others)
        others = dict(zip(self.others, values[k:n], strict=True))

        def function(*tensors: torch.Tensor) -> Any:
            out = step(self.call, dict(zip(self.floating, tensors, strict=True)) | others)
            return out if self.outputs is None else tuple(out[i] for i in self.outputs)

        upstream = values[n] if self.outputs is None else tuple(values[n:])
        with torch.enable_grad():
            gradients: tuple[Any, ...] = torch.func.vjp(function, *values[:k])[1](upstream)
        return gradients

    def spell_step(self, python: Any, args: Any) -> str:
        """`torch.func.vjp(lambda x: torch.foo(x), x)[1](out_g)`, as emitted code calls it."""
        from chainrule.show.python import Python

        texts = [python.text(a) for a in args]
        k, n = len(self.floating), len(self.floating) + len(self.others)
        names = [t if t.isidentifier() else f"t{i}" for i, t in enumerate(texts[:k])]
        inner = dict(zip([*self.floating, *self.others], [*names, *texts[k:n]], strict=True))
        call = Python(inner.get).expression(self.call)[0]
        if self.outputs is not None:
            call = f"[o for i, o in enumerate({call}) if i in {self.outputs}]"
        upstream = texts[n] if self.outputs is None else "[" + ", ".join(texts[n:]) + "]"
        return f"torch.func.vjp(lambda {', '.join(names)}: {call}, {', '.join(texts[:k])})[1]({upstream})"


def autograd_step(node: fx.Node, out: Any, recorder: Recorder) -> dict[fx.Node, torch.Tensor]:
    """The gradient that autograd gives to each floating value that `node` reads."""
    made = AutogradStep(node)
    outs = [out] if made.outputs is None else [out[i] for i in made.outputs]
    upstream = [o.g if hasattr(o, "g") else torch.zeros_like(o) for o in outs]
    reads = [*made.floating, *made.others]
    call = recorder.graph.call_function(made, (*reads, *recorder._to_nodes(upstream, [], None)))  # type: ignore[arg-type]
    call.meta.update(operation="autograd_step", phase="backward")
    with torch._C.DisableTorchFunction():
        gradients = made(*(n.meta["val"] for n in reads), *upstream)
    gradients = tuple(g.detach() for g in gradients)
    recorder._keep(gradients, call)
    found = {}
    for index, (read, gradient) in enumerate(zip(made.floating, gradients, strict=True)):
        part = recorder.graph.call_function(operator.getitem, (call, index))
        part.meta.update(operation="part", phase="backward")
        recorder._keep(gradient, part)
        found[read] = gradient
    return found


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)
