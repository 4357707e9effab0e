"""Runs emitted code as it stands and compares it with the verified gradients, before anybody sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from chainrule.checking.difference import close
from chainrule.checking.oracles import copier, derived_gradients, same_output
from chainrule.checking.other_libraries import LIBRARIES, confirm_in_library
from chainrule.errors import ChainruleError
from chainrule.program import Program
from chainrule.rules.autograd import FunctionStep
from chainrule.show.dialects import called, executed
from chainrule.show.layer_classes import parameters
from chainrule.show.layout import Layout

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


def confirm_source(d: Derivation, source: str, style: str) -> None:
    """Raise unless `source`, executed alone, gives the gradients of the verified program."""
    if style in LIBRARIES:
        return confirm_in_library(d, source, style)
    program = d.program
    inputs = {n: n.meta["val"].detach() for n in program.inputs}
    upstream = torch.ones_like(d.output) if program.upstream is None else program.upstream.meta["val"]
    truth = derived_gradients(program, inputs, upstream, convert=lambda value: value, of=d)
    copied = copier(program)
    given = [copied(inputs[n]) for n in d._arguments()]  # running statistics are not to move
    found = _RUNNERS[style](d, executed(source, own_functions(program)), given, upstream)
    for node, gradient in zip(program.wanted, found, strict=True):
        if not close(gradient, truth[node]):
            raise ChainruleError(
                f'the emitted code (style "{style}") gives another gradient of {d._names[node]} '
                f"{tuple(node.meta['val'].shape)} than the verified program; please report it"
            )


def own_functions(program: Program) -> dict[str, Any]:
    """The person's autograd.Functions, which the emitted code calls by name."""
    steps = [n.target for n in program.graph.nodes if isinstance(n.target, FunctionStep)]
    return {step.function.__name__: step.function for step in steps}


def _run_dotg(d: Derivation, space: dict[str, Any], given: list[Any], upstream: torch.Tensor) -> list[Any]:
    names = Layout(d.program, dotted=True).variables
    fresh = dict(zip(d._arguments(), given, strict=True))
    with torch.no_grad():
        exec(space["__code__"], space | {names[n]: v for n, v in fresh.items() if n in names} | {"out_g": upstream})
    return [getattr(fresh[n], "g", None) for n in d.program.wanted]


def _run_function(d: Derivation, space: dict[str, Any], given: list[Any], upstream: torch.Tensor) -> list[Any]:
    explicit = [] if d.program.upstream is None else [upstream]
    with torch.no_grad():
        _, gradients = called(d.program, space["forward_and_backward"], d._arguments(), [*given, *explicit])
    return [gradients[d._names[n]] for n in d.program.wanted]


def _run_autograd(d: Derivation, space: dict[str, Any], given: list[Any], upstream: torch.Tensor) -> list[Any]:
    wanted = set(d.program.wanted)
    leaves = [v.requires_grad_(n in wanted) for n, v in zip(d._arguments(), given, strict=True)]
    with torch.enable_grad():
        output = space["Derived"].apply(*leaves)
        if output.requires_grad:
            output.backward(upstream)
    found = dict(zip(d._arguments(), leaves, strict=True))
    return [found[n].grad for n in d.program.wanted]


def _run_layers(d: Derivation, space: dict[str, Any], given: list[Any], upstream: torch.Tensor) -> list[Any]:
    fresh = dict(zip(d._arguments(), given, strict=True))
    held = parameters(d.program, d._arguments())
    with torch.no_grad():
        model = space["Model"](*(fresh[n] for n in held))
        same_output(d, model(*(v for n, v in fresh.items() if n not in held)))
        model.backward(*([] if d.program.upstream is None else [upstream]))
    return [getattr(fresh[n], "g", None) for n in d.program.wanted]


_RUNNERS = {"dotg": _run_dotg, "function": _run_function, "autograd": _run_autograd, "layers": _run_layers}
