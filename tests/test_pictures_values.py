"""Pictures of values, of Jacobians and of products: the numbers that they show."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from agreement import normal
from pictured import derived, parsed, words
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.errors import ChainruleError
from chainrule.pictures import grid
from chainrule.pictures.factors import PRODUCTS, product_of
from chainrule.pictures.heat import of_tensors

# -- heat maps -----------------------------------------------------------------------------------


@every_entry
def test_a_heat_map_of_every_value(entry: Entry) -> None:
    d = case(entry).d
    for name in d.names:
        if d[name].value.numel():
            picture = d.picture(name)
            said = words(parsed(picture))
            assert f"{name} {tuple(d[name].shape)}" in said
            g = d[name].g
            assert (f"{name}.g {tuple(d[name].shape)}" if g is not None else f"{name} has no gradient") in said


def test_small_values_are_written_and_signs_are_marked() -> None:
    d = derived()
    said = words(parsed(d.picture("w1")))
    for value in [*d["w1"].value.flatten(), *d.grads["w1"].flatten()]:  # type: ignore[union-attr]
        assert any(math.isclose(float(t), float(value), rel_tol=0.06, abs_tol=1e-9) for t in said if _is_number(t))
    assert d.picture("w1.g").svg == d.picture("w1").svg
    assert "stroke-width" in derived(200).picture("l1").svg


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) is not None


def test_a_large_value_is_reduced_by_means_and_says_so() -> None:
    d = derived(1000)
    small = grid.reduced(d["l1"].value)
    assert small.values.shape == (32, 5) and small.note == "each cell is the mean of 32 elements"
    blocks = d["l1"].value.split(32)
    assert torch.allclose(small.values, torch.stack([b.mean(0) for b in blocks]))
    assert small.note in words(parsed(d.picture("l1")))
    conv = grid.reduced(torch.arange(2 * 70 * 3.0).view(2, 70, 3))
    assert conv.note == "(2, 70, 3) as 2 rows of 210; each cell is the mean of 7 elements"
    assert float(conv.values[1, 0]) == 213.0


def test_the_sides_of_a_heat_map_bear_indices() -> None:
    said = words(parsed(of_tensors({"w": torch.rand(3, 4)}, "w")))
    assert [w for w in said if w.isdigit()][:7] == ["0", "1", "2", "3", "0", "1", "2"]
    reduced = [int(w) for w in words(parsed(of_tensors({"w": torch.rand(5, 80)}, "w"))) if w.isdigit()]
    assert {0, 1, 2, 3, 4} <= set(reduced) and 60 < max(reduced) < 80


def test_negative_factors_are_in_parentheses_on_both_sides() -> None:
    a, b = torch.tensor([[-1.0, -2.0, 3.0]]), torch.tensor([[-4.0], [5.0], [-6.0]])
    said = words(parsed(cr.derive(lambda a, b: (a @ b).sum(), a, b).picture("matmul", at=(0, 0))))
    assert "= -1·(-4) + (-2)·5 + 3·(-6) = -24" in said


def test_zero_is_in_the_middle_and_sides_differ() -> None:
    assert grid.colour(0.0, 1.0) == "#f4f4f2"
    for size in (0.1, 0.5, 1.0):
        colours = grid.colour(size, 1.0), grid.colour(-size, 1.0)
        light = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in colours]
        assert colours[0] != colours[1] and max(light) < 3 * 0xF4
    negative = "".join(grid.cells(torch.full((20, 20), -1.0), 0, 0, 8, 8, 1.0))
    positive = "".join(grid.cells(torch.full((20, 20), 1.0), 0, 0, 8, 8, 1.0))
    assert negative.count("h") > 400 > positive.count("<path")
    assert negative.count("<rect") == 401


def test_numbers_that_are_none_are_crossed_out() -> None:
    values = torch.tensor([[math.nan, 1.0], [math.inf, -2.0]])
    assert grid.largest(values) == 2.0
    text = "".join(grid.cells(values, 0, 0, 8, 8, 2.0))
    assert text.count(grid.LOST) == 2


# -- Jacobians -----------------------------------------------------------------------------------


def test_a_jacobian_bears_the_names_of_its_elements() -> None:
    d = derived()
    j = d.jacobian("l1", "w1")
    said = words(parsed(j.picture()))
    assert {"l1[0, 0]", "l1[3, 4]", "w1[0, 0]", "w1[2, 4]"} <= set(said)
    assert j._repr_svg_() in j._repr_html_()
    large = words(parsed(derived(300).jacobian("l1", "x").picture()))
    assert any("bears the names of the first" in text for text in large)
    none = d.jacobian("l1", "targ")
    assert none.note in words(parsed(none.picture()))


# -- products ------------------------------------------------------------------------------------


@every_entry
def test_every_product_is_the_sum_that_it_shows(entry: Entry) -> None:
    d = case(entry).d
    t = d.trace()
    for step in t:
        if step.phase == "input" or not step.value.numel() or step.value.is_complex():
            continue
        at = tuple(n - 1 for n in step.shape)
        try:
            product = product_of(d, step.name, at)
        except ChainruleError as error:
            assert re.search("is made by no product|has no line of its own", str(error)), error
            continue
        total = float(product.left[product.row] @ product.right[:, product.column])
        assert math.isclose(total, float(product.out[product.row, product.column]), rel_tol=1e-9, abs_tol=1e-12)
        assert math.isclose(product.value, float(step.value[at]), rel_tol=1e-12)
        if product.whole:
            assert math.isclose(total, product.value, rel_tol=1e-9, abs_tol=1e-12)
        root = parsed(d.picture(step.name, at))
        assert any(product.element in text for text in words(root))


def test_products_of_every_kind() -> None:
    x, w, v, b = normal(2, 3), normal(4, 3), normal(3), normal(4)
    calls = {
        "linear": lambda: torch.nn.functional.linear(x, w, b),
        "matmul": lambda: x @ w.T,
        "mv": lambda: w.mv(v),
        "addmm": lambda: torch.addmm(b, x, w.T),
        "dot": lambda: v.dot(v + 1),
        "outer": lambda: torch.outer(v, b),
        "bmm": lambda: torch.bmm(x.expand(2, 2, 3), w.T.expand(2, 3, 4)),
    }
    assert set(calls) <= PRODUCTS
    for kind, call in calls.items():

        def forward(call: Any = call) -> Tensor:
            made = call()
            return made.sin().sum()

        d = cr.derive(forward)
        at = tuple(n - 1 for n in d["made"].shape)
        p = product_of(d, "made", at)
        rest = float(b[-1]) if kind in ("linear", "addmm") else 0.0
        assert math.isclose(float(p.out[p.row, p.column]) + rest, float(d["made"].value[at])), kind
        assert p.whole == (not rest), kind
        parsed(d.picture("made", at))


def test_the_sum_of_products_and_the_rest_of_the_line() -> None:
    d = derived()
    said = words(parsed(d.picture("l1", (1, -1))))
    assert "(x @ w1)[1, 4] = sum over k of x[1, k] · w1[k, 4], 3 terms" in said
    assert f"with the rest of the line, l1[1, 4] = {d['l1'].value[1, 4]:.5g}" in said
    gradient = words(parsed(d.picture("w1.g", at=(0, 2))))
    assert "w1.g[0, 2] = sum over k of x.T[0, k] · l1.g[k, 2], 4 terms" in gradient
    assert any(t.startswith("= ") and t.endswith(f"= {d.grads['w1'][0, 2]:.5g}") for t in gradient)  # type: ignore[index]


def test_a_large_product_shows_the_row_and_the_column() -> None:
    said = words(parsed(derived(1000).picture("l1", (500, 3))))
    assert {"500", "0", "999", "⋮"} <= set(said) and "(1000, 3)" in " ".join(said)


@pytest.mark.parametrize(
    "name, at, message",
    [
        ("l2", (0, 0), r"l2 \(4, 5\) = l1 \* mask is made by no product of matrices; those are l1, "),
        ("x", (0, 0), r"x \(4, 3\) is an input, so no product made it"),
        ("l9", (0, 0), "no value is named 'l9'"),
        ("l9", None, "no value is named 'l9'"),
        ("l1", (9, 0), r"l1 has shape \(4, 5\), in which at=\(9, 0\) is no element; give 2 indices"),
        ("l1", 1, "at=1 is no element"),
        ("l1", ("a", 0), "is no element"),
    ],
)
def test_what_is_refused(name: str, at: Any, message: str) -> None:
    with pytest.raises(ChainruleError, match=message):
        derived().picture(name, at)
