"""`check` of right code, however it is written: no alarm."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from test_check import program, rand
from torch import Tensor

import chainrule as cr

RIGHT = {
    "mask from the output": """
        pre = x @ w + b
        h = pre.relu()
        loss = (h - y).pow(2).sum()
        h.g = 2 * (h - y)
        pre.g = (h > 0) * h.g
        w.g = x.T @ pre.g""",
    "sigmoid from its output": """
        z = x @ w + b
        a = z.sigmoid()
        loss = ((a - y) ** 2).mean()
        a.g = 2 * (a - y) / a.numel()
        z.g = a * (1 - a) * a.g
        b.g = z.g.sum(dim=0)""",
    "softmax and logarithm in one step": """
        z = x @ w + b
        p = z.exp() / z.exp().sum(1, keepdim=True)
        loss = -p[range(len(p)), t].log().mean()
        z.g = (p - F.one_hot(t, 3)) / len(t)
        w.g = x.t().mm(z.g)
        b.g = z.g.sum(0)""",
    "cross_entropy, the one subtracted in place": """
        z = x @ w + b
        loss = F.cross_entropy(z, t)
        p = z.softmax(1)
        p[torch.arange(t.shape[0]), t] -= 1
        z.g = p / t.shape[0]
        w.g = x.T @ z.g""",
    "one outer product a row": """
        out = x @ w + b
        loss = (out - y).pow(2).mean()
        out.g = 2 * (out - y) / out.nelement()
        w.g = (x.unsqueeze(-1) * out.g.unsqueeze(1)).sum(0)
        x.g = torch.einsum("no,fo->nf", out.g, w)""",
    "a loop over the rows": """
        out = x @ w + b
        loss = (out - y).pow(2).sum()
        w.g = torch.zeros_like(w)
        b.g = torch.zeros(3)
        for i in range(x.shape[0]):
            w.g += torch.outer(x[i], 2 * (out[i] - y[i]))
            b.g = b.g + 2 * (out[i] - y[i])""",
    "everything under no_grad": """
        with torch.no_grad():
            out = x @ w + b
            loss = (out - y).abs().mean()
            out.g = torch.sign(out - y) / out.numel()
            w.g = x.T @ out.g""",
    "the parameters are updated in place": """
        out = x @ w + b
        loss = (out - y).square().mean()
        out.g = 2 * (out - y) / out.numel()
        w.g, b.g = x.T @ out.g, out.g.sum(0)
        with torch.no_grad():
            w -= 0.1 * w.g
            b.sub_(0.1 * b.g)""",
    "updated through .data": """
        out = x @ w + b
        loss = (out - y).square().mean()
        out.g = 2 * (out - y) / out.numel()
        w.g = x.T @ out.g
        w.data -= 0.1 * w.g""",
    "zeroed first": """
        w.g = b.g = None
        out = x @ w + b
        loss = (out - y).square().sum()
        out.g = 2 * (out - y)
        b.g = out.g.sum(0)
        w.g = x.T @ out.g""",
    "by way of numpy": """
        out = x @ w + b
        loss = (out - y).square().sum()
        w.g = torch.from_numpy(x.numpy().T @ (2 * (out - y)).detach().numpy())""",
    "a bias whose gradient is the gradient above": """
        out = x @ w + y
        loss = out.tanh().sum()
        out.g = 1 - out.tanh() ** 2
        y.g = out.g
        w.g = x.T @ out.g""",
    "a name used again": """
        h = x @ w
        first = h
        h = h + b
        loss = h.pow(3).sum()
        h.g = 3 * h**2
        first.g = h.g
        w.g = x.T @ first.g""",
    "returned as a number": """
        out = x @ w + b
        loss = (out - y).square().sum()
        b.g = 2 * (out - y).sum(0)
        return loss.item()""",
}


def right_inputs() -> dict[str, Tensor]:
    t = torch.tensor([0, 2, 1, 1, 0, 2])
    return {"x": rand(6, 4), "w": rand(4, 3), "b": rand(3), "y": rand(6, 3, seed=1), "t": t}


@pytest.mark.parametrize("form", RIGHT)
@pytest.mark.parametrize("where", ["arguments", "globals", "parameters"])
def test_no_false_alarm(form: str, where: str) -> None:
    given, body = right_inputs(), RIGHT[form]
    written = {name for name in given if re.search(rf"\b{name}\.g\b", body)}
    for name in written if where == "parameters" else ():
        given[name].requires_grad_()
    if where == "globals":
        step = program(f"def step():\n        global {', '.join(given)}{body}", **given)
        r = cr.check(step)
    else:
        r = cr.check(program(f"def step({', '.join(given)}):{body}"), *given.values())
    assert r.ok and not r.findings, str(r)
    assert written <= {row.name for row in r.rows}


def test_a_different_choice_at_a_kink_is_no_mistake() -> None:
    """At exactly zero any slope between 0 and 1 is right: autograd takes 0 for relu, 1 for clamp_min."""
    text = """\
    def step(x):
        h = x.clamp_min(0.0)
        loss = (h + 1).pow(2).sum()
        h.g = 2 * (h + 1)
        x.g = (x > 0).float() * h.g
    """
    for shown in (text, text.replace("clamp_min(0.0)", "relu()").replace("x > 0", "x >= 0")):
        r = cr.check(program(shown), torch.tensor([-1.0, 0.0, 2.0]))
        assert r.ok and not r.findings, str(r)
    r = cr.check(program(text.replace("x > 0", "x < 0")), torch.tensor([-1.0, 0.0, 2.0]))
    assert not r.ok


def test_what_keeps_a_logarithm_finite_may_be_left_out() -> None:
    def step(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x)
        p = e / e.sum(1, keepdim=True)
        loss = -(t * torch.log(p + 1e-7)).sum()
        x.g = p - t  # type: ignore[attr-defined]
        return loss

    def wrong(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x)
        p = e / e.sum(1, keepdim=True)
        loss = -(t * torch.log(p + 1e-7)).sum()
        x.g = p - (1 + 1e-6) * t  # type: ignore[attr-defined]
        return loss

    x = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 1])]
    report = cr.check(step, x, t)
    assert report.ok and "leaves out the small number" in report.notes[0]
    assert not cr.check(wrong, x, t).ok


@pytest.mark.parametrize(("guard", "ok"), [("1e-7", True), ("1e-12", True), ("1e-3", False)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_only_keeps_a_quotient_finite_may_be_left_out(guard: str, ok: bool, dtype: torch.dtype) -> None:
    def step(x: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        z = x @ w
        e = torch.exp(z - z.max(1, keepdim=True).values)
        p = e / (e.sum(1, keepdim=True) + float(guard))
        loss = -(t * torch.log(p)).sum() / len(x)
        w.g = x.T @ (p - t) / len(x)  # type: ignore[attr-defined]
        return loss

    x, w = (torch.randn(s, generator=torch.Generator().manual_seed(0), dtype=dtype) for s in ((5, 3), (3, 2)))
    t = torch.eye(2, dtype=dtype)[torch.tensor([0, 1, 0, 1, 1])]
    report = cr.check(step, x, t, w)
    assert report.ok == ok, str(report)


@pytest.mark.parametrize(
    ("value", "slope"),
    [
        (lambda d: (d**2).sum(1).sqrt(), lambda d: d / (d**2).sum(1, keepdim=True).sqrt()),
        (lambda d: (d * d) ** 0.5, lambda d: d / (d * d) ** 0.5),
        (lambda d: d.abs() * torch.log(d.abs()), lambda d: d.sign() * (torch.log(d.abs()) + 1)),
    ],
)
def test_where_a_slope_is_infinite_another_convention_is_right(value: Any, slope: Any) -> None:
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = value(x - y).nansum()
        x.g = torch.nan_to_num(slope(x - y), 0.0, 0.0, 0.0)  # type: ignore[attr-defined]
        return loss

    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.cat([x[:1], torch.zeros(3, 3, dtype=torch.float64)])
    report = cr.check(step, x, y)
    assert all("nan" not in f.repair or not f.proved for f in report.findings), str(report)
    assert report.ok, str(report)


def test_how_a_quotient_is_kept_finite_may_be_written_in_any_way() -> None:
    def step(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        y = torch.div(x, other=m + 1e-9) + x / (x.abs().sum() + 1e-9)
        loss = y.sum()
        x.g = 1 / (m + 1e-9) + 1 / (x.abs().sum() + 1e-9) - x.sign() * x.sum() / (x.abs().sum() + 1e-9) ** 2  # type: ignore[attr-defined]
        return loss

    x = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cr.check(step, x, torch.ones(4, dtype=torch.bool)).ok


def test_what_is_small_beside_a_guard_is_no_part_of_it() -> None:
    def step(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x @ v)
        loss = (e / (e.sum() + 1e-6)).square().sum() + 2e-7 * (v * v).sum()
        p = e / (e.sum() + 1e-6)
        e.g = (2 * p - (2 * p * p).sum()) / (e.sum() + 1e-6)  # type: ignore[attr-defined]
        v.g = x.T @ (e * e.g)  # type: ignore[attr-defined]
        return loss

    x, v = (torch.randn(s, generator=torch.Generator().manual_seed(0), dtype=torch.float64) for s in ((5, 3), (3,)))
    assert not cr.check(step, x, v).ok


TIED = torch.tensor([[2.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
OF_THE_LARGEST = {
    "the first": "F.one_hot((h == m).long().argmax(1), 4)",
    "the last": "F.one_hot(3 - (h == m).flip(1).long().argmax(1), 4)",
    "an equal share": "(h == m) / (h == m).sum(1, keepdim=True)",
    "all of it for each": "(h == m)",
}


@pytest.mark.parametrize("share", OF_THE_LARGEST)
def test_among_equal_elements_any_share_of_the_gradient_is_right(share: str) -> None:
    step = program(f"""
        def step(x):
            h = 2 * x
            m = h.amax(1, keepdim=True)
            loss = (m ** 3).sum()
            h.g = 3 * m ** 2 * {OF_THE_LARGEST[share]}
            x.g = 2 * h.g
    """)
    report = cr.check(step, TIED)
    if share == "all of it for each":
        assert [f.cause for f in report.findings] == ["ties"], str(report)
    else:
        assert report.ok and not report.findings, str(report)
        told = any("another convention than autograd" in note for note in report.notes)
        assert told == (share != "an equal share")  # which is what amax has
