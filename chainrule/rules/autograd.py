"""Where rules and autograd meet: one step taken from autograd, for an operation that no rule covers and for a
person's own torch.autograd.Function, printed and reported as such; and a rule as one step of autograd's."""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.recording import Recorder, Region
from chainrule.rules.book import Rule
from chainrule.rules.broadcast import unbroadcast
from chainrule.run import filled, step


class AutogradStep:
    """The vector-Jacobian product of one recorded call, by `torch.func.vjp`.

    Called with the values that the call reads, floating ones first, and then the upstream gradient of
    each floating output; gives one gradient for each floating value.
    """

    def __init__(self, name: str, reads: list[fx.Node], output: Any, asked: Container[fx.Node]) -> None:
        inputs = list(dict.fromkeys(reads))
        self.floating = [n for n in inputs if _is_floating(n.meta["val"]) and n in asked]
        self.others = [n for n in inputs if n not in self.floating]
        self.outputs = (
            [i for i, v in enumerate(output) if _is_floating(v)] if isinstance(output, tuple | list) else None
        )
        self.__name__ = f"vjp_{name}"

    def evaluate(self, values: dict[fx.Node, Any]) -> Any:
        raise TypeError("evaluate is written by the kinds of step")

    def spell_call(self, names: dict[fx.Node, str]) -> str:
        raise TypeError("spell_call is written by the kinds of step")

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        k, n = len(self.floating), len(self.floating) + len(self.others)
        others = dict(zip(self.others, values[k:n], strict=True))
        leaves = [v.detach().requires_grad_() for v in values[:k]]
        with torch.enable_grad(), torch._C.DisableTorchFunction():
            out = self.evaluate(dict(zip(self.floating, leaves, strict=True)) | others)
            outs = [out] if self.outputs is None else [out[i] for i in self.outputs]
            kept = [(o, g) for o, g in zip(outs, values[n:], strict=True) if o.requires_grad]
            found = torch.autograd.grad([o for o, _ in kept], leaves, [g for _, g in kept], allow_unused=True)
        return tuple(torch.zeros_like(v) if g is None else g for v, g in zip(leaves, found, strict=True))

    def spell_step(self, python: Any, args: Any) -> str:
        """`torch.autograd.functional.vjp(lambda x: torch.foo(x), (x,), out_g)[1]`, as emitted code calls it."""
        texts = [python.text(a) for a in args]
        k, n = len(self.floating), len(self.floating) + len(self.others)
        names = [t if t.isidentifier() else f"t{i}" for i, t in enumerate(texts[:k])]
        call = self.spell_call(dict(zip([*self.floating, *self.others], [*names, *texts[k:n]], strict=True)))
        if self.outputs is not None:
            call = f"tuple(o for i, o in enumerate({call}) if i in {self.outputs})"
        given = f"({', '.join(texts[:k])}{',' if k == 1 else ''})"
        upstream = texts[n] if self.outputs is None else f"({', '.join(texts[n:])},)"
        return f"torch.autograd.functional.vjp(lambda {', '.join(names)}: {call}, {given}, {upstream})[1]"


class CallStep(AutogradStep):
    """For a call of torch's."""

    def __init__(self, call: fx.Node, asked: Container[fx.Node]) -> None:
        super().__init__(call.meta["operation"], call.all_input_nodes, call.meta["val"], asked)
        self.call = call

    def evaluate(self, values: dict[fx.Node, Any]) -> Any:
        return step(self.call, values)

    def spell_call(self, names: dict[fx.Node, str]) -> str:
        from chainrule.show.python import Python

        return Python(names.get).expression(self.call)[0]


class FunctionStep(AutogradStep):
    """For a call of a person's torch.autograd.Function: its own backward is used."""

    def __init__(self, region: Region, output: Any, asked: Container[fx.Node]) -> None:
        self.function, self.arguments = region.function, region.arguments
        super().__init__(region.function.__name__, region.reads, output, asked)

    def evaluate(self, values: dict[fx.Node, Any]) -> Any:
        return self.function.apply(*filled(self.arguments, values))

    def spell_call(self, names: dict[fx.Node, str]) -> str:
        from chainrule.show.python import Python

        return f"{self.function.__name__}.apply({', '.join(Python(names.get).text(a) for a in self.arguments)})"


def _positions(region: Region, nodes: list[fx.Node]) -> list[int | None]:
    """Which output of the region's autograd.Function each of `nodes` is; None for the only one."""
    values = region.values
    with torch.no_grad(), torch._C.DisableTorchFunction():
        again = region.function.apply(*values)
    if not isinstance(again, tuple):
        return [None for _ in nodes]
    found: list[int | None] = []
    for node in nodes:
        value = node.meta["val"]
        fits = [i for i, o in enumerate(again) if isinstance(o, torch.Tensor) and _same(o, value)]
        number = value.output_nr if value.grad_fn is not None else fits[0] if len(fits) == 1 else None
        if number is None:
            raise ChainruleError(
                f"{region.function.__name__} returns several tensors {tuple(value.shape)} that cannot be told apart; "
                "give it inputs that require gradients",
                node.meta.get("site"),
            )
        found.append(number)
    return found


def autograd_step(
    node: fx.Node, out: Any, recorder: Recorder, asked: Container[fx.Node]
) -> dict[fx.Node, torch.Tensor]:
    """The gradient that autograd gives to each floating value that the call `node` reads and that is asked for."""
    made = CallStep(node, asked)
    with torch.no_grad(), torch._C.DisableTorchFunction():
        again = step(node, {n: n.meta["val"] for n in node.all_input_nodes})
    if not _same(again, node.meta["val"]):
        raise ChainruleError(
            f"{node.meta['operation']} draws random numbers inside, which cannot be recorded; "
            "draw them outside (a mask, a noise tensor) and pass them in, or call it in eval mode",
            node.meta.get("site"),
        )
    outs = [out] if made.outputs is None else [out[i] for i in made.outputs]
    return _recorded(made, [o.g if hasattr(o, "g") else torch.zeros_like(o) for o in outs], recorder)


def function_step(
    nodes: list[fx.Node], region: Region, recorder: Recorder, asked: Container[fx.Node]
) -> dict[fx.Node, torch.Tensor]:
    """The gradient that a torch.autograd.Function gives to each floating argument that is asked for, from the
    upstream gradients of those of its outputs that have one."""
    positions = _positions(region, nodes)
    for node, position in zip(nodes, positions, strict=True):
        node.meta["output"] = position
    several = positions[0] is not None
    made = FunctionStep(region, tuple(n.meta["val"] for n in nodes) if several else nodes[0].meta["val"], asked)
    if several:
        made.outputs = sorted(p for p in positions if p is not None)
        nodes = sorted(nodes, key=lambda n: n.meta["output"])
    return _recorded(made, [n.meta["g"] for n in nodes], recorder)


def _recorded(made: AutogradStep, upstream: list[torch.Tensor], recorder: Recorder) -> dict[fx.Node, torch.Tensor]:
    reads = [*made.floating, *made.others]
    call = recorder.graph.call_function(made, (*reads, *recorder.to_nodes(upstream, [], None)))
    call.meta.update(operation="autograd_step", phase="backward")
    gradients = made(*(n.meta["val"] for n in reads), *upstream)
    recorder.keep(gradients, call)
    found = {}
    for index, (read, gradient) in enumerate(zip(made.floating, gradients, strict=True)):
        part = recorder.graph.call_function(operator.getitem, (call, index))
        part.meta.update(operation="part", phase="backward")
        recorder.keep(gradient, part)
        found[read] = gradient
    return found


class RuleInAutograd(torch.autograd.Function):
    """A rule as autograd sees it: the given output forward, the rule backward."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, out: torch.Tensor, *args: Any) -> torch.Tensor:
        ctx.rule, ctx.out, ctx.args = rule, out, args
        return out.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        def with_slot(value: Any) -> Any:
            return value.detach() if isinstance(value, torch.Tensor) else value

        out, slots = ctx.out.detach(), [with_slot(a) for a in ctx.args]
        out.g = g
        ctx.rule.backward(out, *slots)
        found = [getattr(s, "g", None) if isinstance(s, torch.Tensor) else None for s in slots]
        return None, None, *(None if f is None else unbroadcast(f, s) for f, s in zip(found, slots, strict=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return not isinstance(a, torch.Tensor) or torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)
