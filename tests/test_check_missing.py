"""`check`: which gradients are missed, and what of the person's is looked at and left as it was."""

from __future__ import annotations

import pytest
import torch
from test_check import program, rand
from torch import Tensor, fx

import chainrule as cr
from chainrule.diagnosis.explaining.mutation import Around
from chainrule.diagnosis.explaining.scales import Scales
from chainrule.diagnosis.truth.sketch import Sketches


def data() -> tuple[Tensor, ...]:
    return torch.randn(8, 4), torch.randn(8, 2), torch.randn(4, 5), torch.randn(5), torch.randn(5, 2), torch.randn(2)


def head_alone(x: Tensor, y: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    h = torch.tanh(x @ w1 + b1)
    out = h @ w2 + b2
    loss = ((out - y) ** 2).mean()
    out.g = 2 * (out - y) / out.numel()
    w2.g = h.T @ out.g
    b2.g = out.g.sum(0)
    return loss


def test_what_is_frozen_needs_no_gradient() -> None:
    x, y, w1, b1, w2, b2 = data()
    report = cr.check(head_alone, x, y, w1, b1, w2.requires_grad_(), b2.requires_grad_())
    assert report.ok, report
    report = cr.check(head_alone, x, y, w1.requires_grad_(), b1, w2, b2)
    assert [(f.cause, f.name) for f in report.findings] == [("missing-gradient", "w1")]


class Link:
    next: Link | None = None


HEAD = LAST = Link()
for _ in range(5000):
    LAST.next = Link()
    LAST = LAST.next


def beside_a_long_list(x: Tensor, w: Tensor) -> Tensor:
    assert HEAD is not None
    loss = (x @ w).sum()
    w.g = x.T @ torch.ones(8, 5)
    return loss


def test_a_linked_list_is_no_library() -> None:
    x, _, w, *_ = data()
    assert cr.check(beside_a_long_list, x, w).ok


def test_the_graph_of_autograd_stays_whole() -> None:
    x, _, w, *_ = data()
    w.requires_grad_()
    loss = (x @ w).pow(2).sum()

    def step(x: Tensor, w: Tensor) -> Tensor:
        total = (x @ w).pow(2).sum()
        w.g = x.T @ (3 * (x @ w))
        return total

    assert cr.check(step, x, w).findings[0].cause == "wrong-scale"
    loss.backward()  # raises where the version of a tensor has moved
    assert w.grad is not None


COUNTED = 0
WEIGHT = torch.randn(4, 5)


def moves_its_globals(x: Tensor) -> Tensor:
    global COUNTED, WEIGHT
    COUNTED += 1
    out = x @ WEIGHT
    loss = out.pow(2).sum()
    WEIGHT.g = x.T @ (3 * out)  # type: ignore[attr-defined]
    WEIGHT = WEIGHT - 0.1 * WEIGHT.g  # type: ignore[attr-defined]
    return loss


def test_the_code_has_run_once() -> None:
    x, before, count = torch.randn(8, 4), WEIGHT.clone(), COUNTED
    (finding,) = cr.check(moves_its_globals, x).findings
    assert finding.proved
    assert count + 1 == COUNTED
    torch.testing.assert_close(WEIGHT, before - 0.1 * (x.T @ (3 * (x @ before))))


def several_turns(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss, dw, db = torch.zeros(()), torch.zeros_like(w), torch.zeros_like(b)
    for row in x:
        out = row @ w + b
        loss = loss + out.pow(2).sum()
        dout = 2 * out
        dw = dw + row[:, None] * dout
        db = dout  # for db + dout
    return loss, dw, db


def test_a_gradient_with_two_names_is_told_by_its_own() -> None:
    x, _, w, b, *_ = data()
    report = cr.check(several_turns, x, w, b)
    assert [(r.name, r.status) for r in report.rows] == [("w", "right"), ("b", "wrong")]
    (finding,) = report.findings
    assert finding.name == "b"


def returns_its_state(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    h = torch.tanh(x @ w + b)
    loss = h.pow(2).sum()
    dh = 2 * h * (1 - h**2)
    dw, db = x.T @ dh, dh.sum(0)
    return loss, dw, db, h[-1]


def test_a_state_that_is_returned_is_no_gradient() -> None:
    x, _, w, b, *_ = data()
    for wrt in (None, ["w", "b"]):
        report = cr.check(returns_its_state, x, w, b, wrt=wrt)
        assert report.ok, report
        assert [r.name for r in report.rows] == ["w", "b"]


def mean_in_each_parameter(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """`dz` is the gradient of the sum, as many write it: it is right as it is, since each reader divides."""
    m = len(x)
    a = torch.sigmoid(x @ w + b)
    loss = -(y * a.log() + (1 - y) * (1 - a).log()).sum() / m
    dz = a - y
    dw = x.T @ dz / m
    db = dz.sum(0)
    return loss, dw, db


def test_a_value_whose_other_readers_are_right_is_not_blamed() -> None:
    x, y = torch.randn(9, 4), (torch.rand(9, 2) > 0.5).float()
    (finding,) = cr.check(mean_in_each_parameter, x, y, torch.randn(4, 2), torch.randn(2)).findings
    assert (finding.name, finding.cause, finding.proved) == ("b", "wrong-scale", True)
    assert finding.repair in ("db = dz.sum(0) / m", "db = dz.mean(0)")


@pytest.mark.parametrize(("ratio", "literal"), [(0.25, False), (4.0, False), (0.5, True), (7.0, False)])
def test_a_number_that_a_size_explains_is_that_size(ratio: float, literal: bool) -> None:
    """But for those of many formulas: 2, a half."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta.update(val=torch.rand(4, 2), operation="input", phase="forward")
    scales = Scales(Around(Sketches(graph), {x: "x"}))
    found = [list(n.args) for n in scales.scaled(x, ratio, {x: torch.rand(4, 2)})]
    assert any(isinstance(a, float | int) and a in (ratio, 1 / ratio) for args in found for a in args) == literal


def contrastive(a: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    diff = a - b
    d = (diff**2).sum(1).sqrt()
    h = (1 - d).clamp(min=0)
    loss = (y * d**2 + (1 - y) * h**2).mean()
    dd = 2 * (y * d - (1 - y) * h) / len(y)
    da = (dd / d)[:, None] * diff
    db = -da
    return loss, da, db


def of_distances(a: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    diff = a - b
    off = (diff**2).sum(1) - y
    da = 4 * off[:, None] * diff
    return (off**2).sum(), da, -da


@pytest.mark.parametrize("code", [contrastive, of_distances])
def test_labels_that_are_subtracted_as_an_embedding_is_need_no_gradient(code: object) -> None:
    report = cr.check(code, torch.randn(6, 3), torch.randn(6, 3), torch.tensor([1.0, 0, 0, 1, 1, 0]))
    assert report.ok, report


def test_a_gradient_that_is_set_to_none_has_the_line_that_does_so() -> None:
    text = """\
        def step(x, w, b):
            out = x @ w + b
            loss = (out * out).sum()
            dout = 2 * out
            dw = x.T @ dout
            db = dout.sum(0)
            return loss, dw, db
        """
    args = rand(4, 3).requires_grad_(), rand(3, 2).requires_grad_(), rand(2).requires_grad_()
    report = cr.check(program(text.replace("db = dout.sum(0)", "db = None")), *args, wrt=["w", "b"])
    [finding] = report.findings
    assert (finding.cause, finding.line, finding.proved) == ("missing-gradient", 6, True), report
    assert finding.repair == "db = dout.sum(0)", report
