"""Pictures of the graph: well-formed, titled, small; boxes that do not overlap."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from agreement import normal
from pictured import SVG, derived, parsed, words
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.errors import ChainruleError
from chainrule.pictures.graph import WIDEST, _placed
from chainrule.pictures.svg import Picture, filled
from chainrule.pictures.values import MOST, Graph


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
