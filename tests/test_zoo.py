"""The menagerie through every invariant."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from agreement import Leaves, assert_close, assert_gradients, identifier, namespace_of
from torch import Tensor
from zoo import ENTRIES, SEED, Entry

import chainrule as cr
from chainrule.run import needed, run

DERIVED_AT = 5
STYLES = ("dotg", "function", "autograd")
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
smooth_entries = pytest.mark.parametrize("entry", [e for e in ENTRIES if e.smooth], ids=lambda e: e.name)
OTHER_BATCHES = [pytest.param(e, b, id=f"{e.name}-{b}") for e in ENTRIES for b in e.batches]
other_batches = pytest.mark.parametrize(("entry", "batch"), OTHER_BATCHES)


@dataclass
class Case:
    """An entry derived at a batch size, and what autograd says of the entry itself."""

    d: cr.Derivation
    args: tuple[Any, ...]
    upstream: Tensor | None
    truth: dict[str, Tensor | None]

    @property
    def inputs(self) -> list[Tensor]:
        """Copies of what the emitted function takes, in order."""
        return [self.d[name].value.clone() for name in self.d.inputs]

    @property
    def explicit(self) -> list[Tensor]:
        return [] if self.upstream is None else [self.upstream.clone()]


@cache
def case(entry: Entry, batch: int = DERIVED_AT) -> Case:
    args = entry.arguments(batch)
    with torch.no_grad():
        output = entry(*args)
    upstream = None if output.ndim == 0 else torch.randn(output.shape, dtype=output.dtype)
    torch.manual_seed(SEED)
    d = cr.derive(entry.function, *args, upstream=upstream)
    with Leaves(d) as leaves:
        output = entry(*args)
        assert_close(d.output, output)
        found = leaves.gradients(output, upstream)
    return Case(d, args, upstream, dict(zip(d.grads, found, strict=True)))


def test_the_menagerie_is_large() -> None:
    assert len(ENTRIES) >= 70


@every_entry
def test_gradients_are_those_of_autograd(entry: Entry) -> None:
    c = case(entry)
    assert_gradients(c.d.grads, c.truth)
    assert any(g is not None for g in c.truth.values())


@every_entry
def test_no_step_is_taken_from_autograd(entry: Entry) -> None:
    assert case(entry).d.fallbacks == []


@every_entry
def test_emitted_lines_run_alone(entry: Entry) -> None:
    c = case(entry)
    names = [identifier(name) for name in c.d.inputs]
    space: dict[str, Any] = dict(zip(names, c.inputs, strict=True))
    if c.upstream is not None:
        space["out_g"] = c.upstream.clone()
    exec(compile(c.d.source("dotg"), "<emitted>", "exec"), space)
    for name, truth in c.truth.items():
        assert_close(getattr(space[identifier(name)], "g", None), truth)


@every_entry
def test_emitted_function_runs_alone(entry: Entry) -> None:
    c = case(entry)
    forward_and_backward = namespace_of(c.d.source("function"))["forward_and_backward"]
    output, grads = forward_and_backward(*c.inputs, *c.explicit)
    assert_close(output, c.d.output)
    assert_gradients(grads, c.truth)


@every_entry
def test_emitted_autograd_function_runs_alone(entry: Entry) -> None:
    c = case(entry)
    Derived = namespace_of(c.d.source("autograd"))["Derived"]
    inputs = dict(zip(c.d.inputs, c.inputs, strict=True))
    for name in c.truth:
        inputs[name].requires_grad_(True)
    output = Derived.apply(*inputs.values())
    assert_close(output, c.d.output)
    factor = 1 if c.upstream is not None else 3
    output.backward(torch.full_like(output, 3) if c.upstream is None else c.upstream)
    for name, truth in c.truth.items():
        assert_close(inputs[name].grad, None if truth is None else factor * truth)


@every_entry
def test_simplified_equals_unsimplified(entry: Entry) -> None:
    c = case(entry)
    plain = c.d._base.seeded(c.upstream is not None)
    known = {node: node.meta["val"].detach() for node in plain.inputs}
    if plain.upstream is not None:
        known[plain.upstream] = c.upstream
    with torch.no_grad():
        values = run(needed([*plain.gradients.values(), plain.output]), known)
    for wanted, (name, ours) in zip(plain.wanted, c.d.grads.items(), strict=True):
        gradient = values[plain.gradients[wanted]] if wanted in plain.gradients else None
        assert_close(ours, gradient)
        assert_close(gradient, c.truth[name])


@other_batches
def test_emitted_function_at_another_batch_size(entry: Entry, batch: int) -> None:
    c, other = case(entry), case(entry, batch)
    assert c.d.inputs == other.d.inputs
    forward_and_backward = namespace_of(c.d.source("function"))["forward_and_backward"]
    try:
        output, grads = forward_and_backward(*other.inputs, *other.explicit)
    except AssertionError:
        if not entry.pattern:
            raise
        return
    assert_close(output, other.d.output)
    assert_gradients(grads, other.truth)


@every_entry
def test_second_derivative(entry: Entry) -> None:
    c = case(entry)
    forward_and_backward = namespace_of(c.d.source("function"))["forward_and_backward"]
    mix = {name: torch.randn_like(c.d[name].value) for name in c.truth}
    with Leaves(c.d) as leaves:
        upstream = None if c.upstream is None else c.upstream.clone().requires_grad_(True)
        first = leaves.gradients(entry(*c.args), upstream, create_graph=True)
        mixed = [(g * m).sum() for g, m in zip(first, mix.values(), strict=True) if g is not None and g.requires_grad]
        if not mixed:
            return  # the first derivative is constant
        wrt = [*leaves.tensors, *([] if upstream is None else [upstream])]
        truth = torch.autograd.grad(torch.stack(mixed).sum(), wrt, allow_unused=True)
    asked = dict(zip([*c.truth, "out_g"], truth, strict=False))

    def mixture(*given: Tensor) -> Tensor:
        gradients = forward_and_backward(*given)[1]
        total = sum((g * mix[name]).sum() for name, g in gradients.items() if g is not None)
        assert isinstance(total, Tensor)
        return total

    given = dict(zip([*c.d.inputs, "out_g"], [*c.inputs, *c.explicit], strict=False))
    d2 = cr.derive(mixture, *given.values(), wrt=[given[name] for name in asked if depends(asked[name])])
    assert d2.fallbacks == []
    found = {id(tensor): gradient for tensor, gradient in d2.pairs()}
    for name, expected in asked.items():
        if depends(expected):
            assert_close(found[id(given[name])], expected, 1e-9)


def depends(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


@smooth_entries
def test_verified_by_three_oracles(entry: Entry) -> None:
    verdict = case(entry).d.verify()
    assert verdict, str(verdict)


@pytest.mark.parametrize("style", STYLES)
@every_entry
def test_emitted_code_is_well_formed(entry: Entry, style: str) -> None:
    source = case(entry).d.source(style)
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert {m.split(".")[0] for m in modules} == {"torch"}
    assert [line for line in source.splitlines() if len(line) > 100] == []
    assert [line for line in source.splitlines() if line != line.rstrip()] == []
    assert "\t" not in source
    assert source.endswith("\n")
    assert not source.endswith("\n\n")
    assigned = [t.id for n in ast.walk(tree) if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    returned = re.findall(r"return (\w+), \{", case(entry).d.source("function"))
    assert set(assigned) - read - set(returned) == set(), "a value that nothing reads"
