"""The menagerie in other libraries: what is emitted runs alone there and gives torch's gradients, or is refused.

JAX is slow to trace: it has a part of the menagerie each day.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

import pytest
import torch
from agreement import assert_close, namespace_of
from sweeps import of_today
from test_zoo import DERIVED_AT, case, other_batches
from torch import Tensor
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.checking.other_libraries import LIBRARIES
from chainrule.errors import ChainruleError
from chainrule.show.styles import written

TARGETS = ("numpy", "jax")
SHARE = 0.95
TODAY = of_today(ENTRIES, 12)
in_each_target = pytest.mark.parametrize(
    ("entry", "style"),
    [
        pytest.param(entry, style, id=f"{entry.name}-{style}")
        for style, entries in (("numpy", ENTRIES), ("jax", TODAY))
        for entry in entries
    ],
)


@cache
def emitted(entry: Entry, style: str) -> str:
    """The code, or the sentence with which it is refused."""
    try:
        return case(entry).d.source(style)
    except ChainruleError as error:
        return str(error)


def is_code(text: str) -> bool:
    return text.startswith("import")


def run(source: str, style: str, inputs: list[Tensor], jit: bool = False) -> tuple[Tensor, dict[str, Tensor | None]]:
    """What the emitted function gives, called with arrays of its library."""
    with LIBRARIES[style]() as (there, back):
        function = namespace_of(source)["forward_and_backward"]
        if jit:
            import jax

            function = jax.jit(function)
        output, gradients = function(*map(there, inputs))
        return back(output), {name: None if g is None else back(g) for name, g in gradients.items()}


def assert_same(ours: tuple[Tensor, dict[str, Tensor | None]], output: Tensor, truth: dict[str, Tensor | None]) -> None:
    assert_close(ours[0], output.detach())
    assert sorted(ours[1]) == sorted(truth)
    largest = max((float(g.abs().max()) for g in truth.values() if g is not None and g.numel()), default=1.0)
    for name, expected in truth.items():
        found = ours[1][name]
        assert (found is None) == (expected is None)
        if expected is not None and found is not None:
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13 * max(largest, 1.0), equal_nan=True)


@pytest.mark.parametrize("style", TARGETS)
def test_nearly_all_is_covered(style: str) -> None:
    refused = []
    for entry in ENTRIES:
        try:
            written(case(entry).d, style)
        except ChainruleError:
            refused.append(entry.name)
    assert len(refused) <= (1 - SHARE) * len(ENTRIES), refused


@in_each_target
def test_it_agrees_or_is_refused(entry: Entry, style: str) -> None:
    c, text = case(entry), emitted(entry, style)
    if is_code(text):
        assert_same(run(text, style, [*c.inputs, *c.explicit]), c.d.output, c.truth)
    else:
        operations = {n.meta["operation"] for n in c.d.graph.nodes}
        assert text.split()[0] in operations
        assert re.search(r"\(\w+\.py:\d+\)$", text)
        assert "\n" not in text


@other_batches
def test_other_batch_sizes(entry: Entry, batch: int) -> None:
    text, other = emitted(entry, "numpy"), case(entry, batch)
    if not is_code(text):
        return
    try:
        found = run(text, "numpy", [*other.inputs, *other.explicit])
    except AssertionError:
        if not entry.pattern:
            raise
        return
    assert_same(found, other.d.output, other.truth)


@pytest.mark.parametrize("entry", TODAY, ids=lambda e: e.name)
def test_jit(entry: Entry) -> None:
    c, text = case(entry), emitted(entry, "jax")
    if is_code(text):
        assert_same(run(text, "jax", [*c.inputs, *c.explicit], jit=True), c.d.output, c.truth)


@pytest.mark.parametrize("style", TARGETS)
@pytest.mark.parametrize("entry", TODAY, ids=lambda e: e.name)
def test_float32_stays_float32(entry: Entry, style: str) -> None:
    if not is_code(emitted(entry, style)):
        return
    args = as_float32(entry.arguments(DERIVED_AT))
    try:
        with torch.no_grad():
            entry(*args)
    except RuntimeError:  # its parameters are float64
        return
    upstream = as_float32(case(entry).upstream)
    d = cr.derive(entry.function, *args, upstream=upstream)
    inputs = [*(d[name].value for name in d.inputs), *([] if upstream is None else [upstream])]
    _, gradients = run(d.source(style), style, inputs)
    assert {k: g if g is None else g.dtype for k, g in gradients.items()} == {
        k: g if g is None else g.dtype for k, g in d.grads.items()
    }


def as_float32(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: as_float32(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_float32(v) for v in value)
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value


@in_each_target
def test_the_code_is_well_formed(entry: Entry, style: str) -> None:
    text = emitted(entry, style)
    if not is_code(text):
        return
    imported = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import)]
    modules = {a.name.split(".")[0] for n in imported for a in n.names}
    assert modules <= {"math", "numpy"} if style == "numpy" else modules == {"jax"}
    assert [line for line in text.splitlines() if len(line) > 92 or line != line.rstrip()] == []
    assert not re.search(r"\btorch\b|keepdim=|\bdim=|\.pow\(|<class", text)
    assert text.endswith("\n") and not text.endswith("\n\n")


def by_sign(x: Tensor, w: Tensor) -> Tensor:
    return (2 * (x @ w) if x.sum() > 0 else x @ w).mean()


def by_size(x: Tensor, w: Tensor) -> Tensor:
    return ((x @ w) * 2 if x.shape[0] > 2 else x @ w).mean()


def of_classes(x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(x, y)


def of_log_probabilities(x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.nll_loss(x, y)


X, W = (torch.rand(*shape, dtype=torch.float64) + 0.1 for shape in ((3, 4), (4, 2)))
Y = torch.tensor([2, 0, 1])


@pytest.mark.parametrize("style", TARGETS)
@pytest.mark.parametrize(
    ("function", "args", "others"),
    [
        (by_sign, (X, W), (-X, W)),
        (by_size, (X, W), (X[:2], W)),
        (of_classes, (X, Y), (X, torch.tensor([2, -100, 1]))),
        (of_log_probabilities, (X, Y), (X, torch.tensor([2, -100, 1]))),
    ],
)
def test_where_the_code_does_not_hold_it_raises(style: str, function: Any, args: Any, others: Any) -> None:
    text = cr.derive(function, *args).source(style)
    run(text, style, list(args))
    with pytest.raises((AssertionError, IndexError)):
        run(text, style, list(others))


def test_under_jit_only_what_depends_on_values_is_not_held_to() -> None:
    by_value, by_shape = (cr.derive(f, X, W).source("jax") for f in (by_sign, by_size))
    output, _ = run(by_value, "jax", [-X, W], jit=True)
    assert_close(output, -by_sign(X, W))
    with pytest.raises(AssertionError):
        run(by_shape, "jax", [X[:2], W], jit=True)


def named_as_a_module(jax: Tensor, math: Tensor) -> Tensor:
    return (torch.erf(jax.sigmoid()) @ math).sum()


def named_as_numpy(np: Tensor, jnp: Tensor) -> Tensor:
    return (np.softmax(1) @ jnp).sum()


def layer(self: Tensor, w: Tensor) -> Tensor:
    return (self @ w).sin()


def named_self(self: Tensor, w: Tensor) -> Tensor:
    return layer(self, w).sum()


def named_self_on_the_way(x: Tensor, w: Tensor) -> Tensor:
    self = x @ w
    t = self.sin()
    return (self * t).sum()


@pytest.mark.parametrize("style", ["numpy", "jax", "layers", "autograd", "function"])
@pytest.mark.parametrize("function", [named_as_a_module, named_as_numpy, named_self, named_self_on_the_way])
def test_names_that_the_code_needs_for_itself_are_written_otherwise(style: str, function: Any) -> None:
    d = cr.derive(function, X, W)
    text = d.source(style)  # has run it
    if style in TARGETS:
        assert_same(run(text, style, [X, W]), d.output, d.grads)
