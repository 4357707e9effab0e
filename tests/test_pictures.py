"""Pictures: well-formed, titled, small; boxes that do not overlap; the numbers that they show."""

from __future__ import annotations

import itertools
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from agreement import normal
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.errors import ChainruleError
from chainrule.pictures import grid
from chainrule.pictures.factors import PRODUCTS, product_of
from chainrule.pictures.graph import WIDEST, _placed
from chainrule.pictures.heat import of_tensors
from chainrule.pictures.svg import Picture, filled
from chainrule.pictures.values import MOST, Graph

SVG = "{http://www.w3.org/2000/svg}"
LARGEST = 4000  # elements


def parsed(picture: Picture) -> ElementTree.Element:
    """The picture as XML, after what every picture is held to."""
    root = ElementTree.fromstring(picture._repr_svg_())
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == picture.title
    assert description is not None and (description.text or "").strip() == picture.description.strip()
    assert float(root.get("width", "0")) <= 900 and float(root.get("height", "0")) > 0
    assert sum(1 for _ in root.iter()) <= LARGEST
    assert not list(root.iter(f"{SVG}script")) and not [e for e in root.iter() if e.get("id") or e.get("href")]
    assert "url(" not in picture.svg and "nan" not in re.sub(r"<(title|desc|text)[^>]*>[^<]*", "", picture.svg)
    return root


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


# -- the graph -----------------------------------------------------------------------------------


@every_entry
def test_the_graph_of_every_entry(entry: Entry) -> None:
    d = case(entry).d
    said = words(parsed(d.picture()))
    graph = Graph(d)
    for value in graph.values:
        assert any(value.name in text for text in said)
    boxes, edges, width, height = _placed(graph)
    assert width <= 1.4 * WIDEST  # what is left over is scaled
    for a, b in itertools.combinations(boxes.values(), 2):
        apart_x = abs(a.x - b.x) >= (a.width + b.width) / 2
        apart_y = a.y + a.height <= b.y or b.y + b.height <= a.y
        assert apart_x or apart_y, (a.value.name, b.value.name)
    for edge in edges:
        assert edge.start.y + edge.start.height < edge.end.y
    assert all(b.x - b.width / 2 + 1e-6 >= 0 and b.x + b.width / 2 <= width + 1e-6 for b in boxes.values())
    assert all(b.y >= 0 and b.y + b.height <= height for b in boxes.values())


@every_entry
def test_all_lines_of_a_small_program_are_there(entry: Entry) -> None:
    d = case(entry).d
    graph = Graph(d, most=10**6)
    lines = {line.text for line in graph.layout.lines if line.phase == "backward"}
    drawn = [line for value in graph.values for line in value.gradients if not line.endswith("is given")]
    assert sorted(drawn) == sorted(lines) and not graph.notes
    with_gradient = {value.node for value in graph.values if any(v for v in value.reads.values())}
    assert d.program.output in with_gradient or d.program.output.op == "placeholder"
    inputs = {value.node for value in graph.values if not value.code}
    for node in d.program.wanted:
        if d._gradient(node) is not None and node in inputs:
            value = next(v for v in graph.values if v.node is node)
            assert any(reader.reads.get(value) for reader in graph.values)


def network(x: Tensor, targ: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    l1 = x @ w1 + b1
    mask = l1 > 0
    l2 = l1 * mask
    loss = ((l2[:, 0] - targ) ** 2).mean()
    return loss


def derived(n: int = 4, **how: Any) -> cr.Derivation:
    torch.manual_seed(0)
    return cr.derive(network, normal(n, 3), normal(n), normal(3, 5), normal(5), **{"wrt": ["w1", "b1"], **how})


def test_a_gradient_goes_back_only_where_one_passes() -> None:
    by_name = {value.name: value for value in Graph(derived()).values}
    reads = {name: {s.name: back for s, back in value.reads.items()} for name, value in by_name.items()}
    assert reads["l1"] == {"x": False, "w1": True, "b1": True}
    assert reads["mask"] == {"l1": False}
    assert reads["l2"] == {"l1": True, "mask": False}
    assert reads["sub"] == {"l2": True, "targ": False}


def test_sizes_draw_no_line() -> None:
    def forward(x: Tensor, y: Tensor) -> Tensor:
        z = y.sum() / x.shape[0]
        return z + x.sum()

    by_name = {value.name: value for value in Graph(cr.derive(forward, normal(3), normal(2))).values}
    assert [s.name for s in by_name["z"].reads] == ["y"]


def test_shapes_stand_on_the_lines_and_the_passes_tell_apart_without_colour() -> None:
    picture = derived().picture()
    said = words(parsed(picture))
    assert {"(4, 3)", "(3, 5)", "(5,)", "(4, 5)", "loss ()", "x @ w1 + b1", "w1.g = x.T @ l1.g"} <= set(said)
    assert "stroke-dasharray" in picture.svg and "var(--chainrule-forward, #" in picture.svg
    assert "var(--chainrule-backward, #" in picture.svg and 'fill="currentColor"' in picture.svg
    assert "Forward pass, top to bottom: x (4, 3)" in picture.description
    assert "Backward pass, bottom to top: " in picture.description


def test_repeated_layers_are_drawn_once() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = torch.nn.LayerNorm(4), torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.up(self.norm(x)))
            return x + self.down(hidden)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(Block() for _ in range(8))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return (x**2).mean()

    d = cr.derive(Model(), torch.randn(2, 4))
    graph = Graph(d)
    assert len(graph.values) <= MOST
    assert "7 layers blocks.1 to blocks.7" in graph.notes[0]
    assert {v.times for v in graph.values} == {1, 7}
    said = words(parsed(d.picture()))
    assert "hidden_1 ×7" in said and any("7 layers blocks.1 to blocks.7" in line for line in said)


def test_what_cannot_be_folded_is_left_out_and_counted() -> None:
    def forward(x: Tensor) -> Tensor:
        values = [x]
        for k in range(60):
            y = values[-1] * (k + 2) if k % 3 else values[-1].sin() + values[0]
            values.append(y)
        return values[-1].sum()

    d = cr.derive(forward, normal(3))
    graph = Graph(d)
    assert len(graph.values) <= MOST + 1
    left = next(v for v in graph.values if "left out" in v.name)
    count = int(left.name.split()[0])
    assert count + len(graph.values) - 1 == len(Graph(d, most=10**6).values)
    assert f"{count} values in the middle left out" in graph.notes[-1]
    parsed(d.picture())


def test_upstream_of_an_output_that_is_no_scalar() -> None:
    d = cr.derive(lambda x, w: x @ w, normal(2, 3), normal(3, 2), upstream=normal(2, 2))
    assert "out_g is given" in words(parsed(d.picture()))


def test_without_igraph_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ChainruleError, match=r'needs igraph; run pip install "chainrule\[pictures\]"'):
        derived().picture()
    parsed(derived().picture("w1"))


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


# -- the picture ---------------------------------------------------------------------------------


def test_names_are_escaped() -> None:
    name = 'a<b> & "c"'
    d = cr.derive(lambda p: (p[name] @ p[name]).sum(), {name: normal(2, 2)})
    (key,) = d.names
    for picture in (d.picture(), d.picture(key), d.jacobian("loss", key).picture()):
        root = parsed(picture)
        assert not list(root.iter(f"{SVG}b"))
    assert f"{key} (2, 2)" in words(parsed(d.picture(key)))
    assert ElementTree.fromstring(Picture(10, 10, "\x00 \x1b", "\ud800", []).svg)[0].text == "\ufffd \ufffd"


def test_saving(tmp_path: Path) -> None:
    picture = derived().picture("w1")
    picture.save(tmp_path / "w1.svg")
    assert (tmp_path / "w1.svg").read_text(encoding="utf-8") == picture.svg
    with pytest.raises(ChainruleError, match=r"cannot write an SVG picture to .*; give another path"):
        picture.save(tmp_path / "nowhere" / "w1.svg")
    with pytest.raises(ChainruleError, match=r"w1.png would hold an SVG picture; end its name in .svg"):
        picture.save(tmp_path / "w1.png")
    assert not (tmp_path / "w1.png").exists()
    assert "save(path)" in repr(picture)


def test_lines_are_filled() -> None:
    assert filled(["aa", "bb", "cccccc"], 5) == ["aa bb", "cccccc"]
