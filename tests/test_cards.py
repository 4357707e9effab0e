"""The cards of the rule book: each shows what it should, and its example is right."""

from __future__ import annotations

import pytest
from test_cli import parsed, run

from chainrule.cli.cards import card
from chainrule.cli.lookup import find
from chainrule.rules import BOOK
from chainrule.rules.families import about, members


def test_cards() -> None:
    text = run("rules", "matmul").stdout
    for part in ("torch.matmul(a, b)", "a.g = out.g @ ", "∂L/∂a = ∂L/∂out bᵀ", "agree", "torch.linalg.matmul"):
        assert part in text
    headings = [line for line in text.split("\n") if line and not line.startswith(" ")]
    assert [h.split(":")[0] for h in headings] == [
        "matmul  (rule, products)", "forward", "rule", "formula", "why a.g is so", "why b.g is so", "shapes in the first sample", "source",
        "also written", "samples", "example",
    ]  # fmt: skip
    assert "samples=" not in text
    assert "passes no gradient" in run("rules", "floor").stdout
    assert "recorded as these parts" in run("rules", "dropout").stdout


def test_a_card_for_programs() -> None:
    card = parsed("rules", "relu")
    assert card["note"] == "at 0 the gradient is 0"
    assert card["formula"] == ["∂L/∂x = 0 where out ≤ 0, else ∂L/∂out"]
    assert card["shapes"][0] == {"name": "x", "value": "(3, 4)", "gradient": "(3, 4)"}
    assert card["ok"] is True and card["code"].startswith("def relu(")


@pytest.mark.parametrize(
    "name, found",
    [
        ("layer_norm", "layer_norm"),
        ("F.layer_norm", "layer_norm"),
        ("torch.nn.functional.layer_norm", "layer_norm"),
        ("nn.LayerNorm", "layer_norm"),
        ("torch.nn.Conv2d", "conv2d"),
        ("LSTM", "lstm"),
        ("Tensor.clip_", "clamp"),
        ("x.mT", "mT"),
        ("torch.linalg.inv", "linalg_inv"),
        ("F.unfold", "im2col"),
        ("multiply", "mul"),
        ("torch.argmax", "argmax"),
    ],
)
def test_names_of_operations_as_people_write_them(name: str, found: str) -> None:
    assert find(name).name == found


@pytest.mark.parametrize("family", about())
def test_every_rule_has_a_card(family: str) -> None:
    for name in members()[family]:
        if name in BOOK.rules:
            found = card(find(name))
            assert found.name == name and found.formula and found.shapes
            assert found.derivation or found.formula[0].endswith(" = ∂L/∂out"), name
            assert found.ok, found.verdict


def test_constants_and_openings_have_a_card() -> None:
    for name in BOOK.constants:
        assert "passes no gradient" in card(find(name)).note
    for name in ("dropout", "lstm_cell", "stft", "quantile"):
        assert card(find(name)).ok
