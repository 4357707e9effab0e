"""How a repair writes signs: as people do, and with the value that it should have."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import fx

from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.spelling import InPlace
from chainrule.diagnosis.truth.sketch import Sketches, value_of

NAMES = ("a", "b", "c")


def _speller() -> tuple[Sketches, dict[str, fx.Node], InPlace]:
    graph, nodes = fx.Graph(), {}
    for k, name in enumerate(NAMES):
        nodes[name] = graph.placeholder(name)
        nodes[name].meta.update(
            val=torch.tensor([1.5 + k, -0.5 - k, 2.25], dtype=torch.float64), operation="input", phase="forward"
        )
    spot = Spot(_speller.__code__, 0, 0, names=dict(nodes))
    recorder: Any = SimpleNamespace(graph=graph, entry=lambda held: None)
    return Sketches(graph), nodes, InPlace(Reach(spot, recorder), None)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_written_has_the_value_of_what_is_meant(seed: int) -> None:
    sketches, nodes, speller = _speller()
    drawn = random.Random(seed)

    def grown(depth: int) -> fx.Node:
        if not depth or drawn.random() < 0.15:
            return nodes[drawn.choice(NAMES)]
        operation = drawn.choice(["neg", "add", "sub", "mul", "div", "mul by -1"])
        if operation == "neg":
            return sketches.operation("neg", grown(depth - 1))
        if operation == "mul by -1":
            return sketches.operation("mul", *drawn.sample([-1, grown(depth - 1)], 2))
        return sketches.operation(operation, grown(depth - 1), grown(depth - 1))

    meant = grown(4)
    text, _ = speller.spell(meant)
    assert not speller.unspelled
    value = eval(text, {name: node.meta["val"] for name, node in nodes.items()})
    truth = value_of(meant, {node: node.meta["val"] for node in nodes.values()})
    finite = truth.isfinite()  # `-(c - c)` is another zero than `c - c`
    torch.testing.assert_close(value[finite], truth[finite], rtol=1e-9, atol=1e-9)
    assert "--" not in text and "+ -" not in text and "- -" not in text


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda s, a, b: s.operation("neg", s.operation("sub", a, b)), "b - a"),
        (lambda s, a, b: s.operation("neg", s.operation("neg", a)), "a"),
        (lambda s, a, b: s.operation("add", s.operation("neg", a), b), "b - a"),
        (lambda s, a, b: s.operation("add", a, s.operation("mul", -1, b)), "a - b"),
        (lambda s, a, b: s.operation("sub", a, s.operation("neg", b)), "a + b"),
        (lambda s, a, b: s.operation("div", s.operation("mul", -1, a), b), "-a / b"),
        (lambda s, a, b: s.operation("neg", s.operation("add", a, b)), "-(a + b)"),
    ],
)
def test_signs_are_written_as_people_write_them(made: Any, text: str) -> None:
    sketches, nodes, speller = _speller()
    node = made(sketches, nodes["a"], nodes["b"])
    assert speller.spell(node)[0] == text
