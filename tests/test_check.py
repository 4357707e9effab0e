"""`check`: each planted mistake is one finding, in networks, with values used twice, after earlier runs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from of_source import of_source
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)), dtype=dtype)


def program(text: str, **space: Any) -> Callable[..., Any]:
    """The function `step` of `text`, with `space` as its globals."""
    return of_source(textwrap.dedent(text), **{"torch": torch, "F": F, "nn": nn, **space})["step"]


def line_of(text: str, line: str) -> int:
    return [given.strip() for given in textwrap.dedent(text).splitlines()].index(line) + 1


# -- a network with square shapes, in which a wrong axis or a missing transpose still runs -----------

NETWORK = """\
def step(x, w1, b1, w2, b2, targ):
    l1 = x @ w1 + b1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2 + b2
    diff = out - targ
    loss = diff.pow(2).mean()
    out.g = 2 * diff / diff.numel()
    l2.g = out.g @ w2.T
    w2.g = l2.T @ out.g
    b2.g = out.g.sum(0)
    l1.g = (l1 > 0).float() * l2.g
    x.g = l1.g @ w1.T
    w1.g = x.T @ l1.g
    b1.g = l1.g.sum(0)
"""
ORDER = ["out", "l2", "w2", "b2", "l1", "x", "w1", "b1"]


def network_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = [(4, 4), (4, 4), (4,), (4, 4), (4,), (4, 4)]
    return [rand(*s, seed=i, dtype=torch.float32).to(dtype) for i, s in enumerate(shapes)]


def changed(*lines: str) -> str:
    """NETWORK with the lines that set the same targets replaced; `del name.g` removes one."""
    text = NETWORK
    for line in lines:
        target = line.removeprefix("del ").split(" = ")[0]
        old = next(given for given in text.splitlines(keepends=True) if given.startswith(f"    {target} = "))
        text = text.replace(old, "" if line.startswith("del ") else f"    {line}\n")
    return text


MISTAKES = {
    "scale": "out.g = diff / diff.numel()",
    "mean over rows only": "out.g = 2 * diff / diff.shape[0]",
    "sign": "out.g = -2 * diff / diff.numel()",
    "forgot the difference": "out.g = 2 * out / diff.numel()",
    "missing sum over the batch": "b2.g = out.g",
    "wrong axis": "b2.g = out.g.sum(1)",
    "wrong axis below": "b1.g = l1.g.sum(1)",
    "mean for a sum": "b1.g = l1.g.mean(0)",
    "keepdim": "b1.g = l1.g.sum(0, keepdim=True)",
    "missing mask": "l1.g = l2.g",
    "missing mask, a new tensor": "l1.g = 1 * l2.g",
    "mask of another value": "l1.g = (x > 0).float() * l2.g",
    "mask upside down": "l1.g = (l1 < 0).float() * l2.g",
    "wrong operand": "w2.g = l1.T @ out.g",
    "wrong weight": "l2.g = out.g @ w1.T",
    "wrong upstream": "w1.g = x.T @ l2.g",
    "bias from the layer above": "b1.g = out.g.sum(0)",
    "missing transpose of the weight": "l2.g = out.g @ w2",
    "missing transpose of the input": "w2.g = l2 @ out.g",
    "transposed result": "w1.g = l1.g.T @ x",
    "missing weight": "del w1.g",
    "missing bias": "del b2.g",
}
CAUSE = {
    "scale": "wrong-scale", "mean over rows only": "wrong-scale", "sign": "sign", "forgot the difference": "wrong-tensor",
    "missing sum over the batch": "missing-broadcast-sum", "wrong axis": "wrong-axis", "wrong axis below": "wrong-axis",
    "mean for a sum": "wrong-scale", "keepdim": "wrong-shape", "missing mask": "missing-factor",
    "missing mask, a new tensor": "missing-factor", "mask of another value": "wrong-mask", "mask upside down": "wrong-mask",
    "wrong operand": "wrong-tensor", "wrong weight": "wrong-tensor", "wrong upstream": "wrong-tensor",
    "bias from the layer above": "wrong-tensor", "missing transpose of the weight": "transposed",
    "missing transpose of the input": "transposed", "transposed result": "transposed",
}  # fmt: skip
SHAPE = {"missing sum over the batch", "keepdim"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_finding(mistake: str) -> None:
    line = MISTAKES[mistake]
    name = line.removeprefix("del ").split(".g")[0]
    text = changed(line)
    r = cr.check(program(text), *network_inputs())
    assert not r.ok and not r
    assert [f.name for f in r.findings] == [name], str(r)
    (finding,) = r.findings
    assert name in finding.message
    assert f"{name}.g = " in finding.repair
    row = next(row for row in r.rows if row.name == name)
    if line.startswith("del "):
        assert (row.status, finding.cause, finding.line) == ("missing", "missing-gradient", None)
    else:
        assert finding.line == row.line == line_of(text, line)
        assert row.status == ("wrong shape" if mistake in SHAPE else "wrong")
        assert finding.cause == CAUSE[mistake], str(r)
        assert finding.proved


@pytest.mark.parametrize("mistake", [m for m in MISTAKES if not MISTAKES[m].startswith("del ")])
def test_the_repair_repairs(mistake: str) -> None:
    line = MISTAKES[mistake]
    (finding,) = cr.check(program(changed(line)), *network_inputs()).findings
    repaired = changed(line).replace(line, finding.repair)
    assert cr.check(program(repaired), *network_inputs()).ok, finding.repair


@pytest.mark.parametrize(
    "lines",
    [
        ("out.g = diff / diff.numel()", "b1.g = l1.g.sum(0, keepdim=True)"),
        ("out.g = -2 * diff / diff.numel()", "l1.g = l2.g"),
        ("l2.g = out.g @ w2", "w1.g = l1.g.T @ x"),
        ("w2.g = l1.T @ out.g", "del b1.g"),
        ("b2.g = out.g.sum(1)", "b1.g = l1.g.sum(1)"),
        ("w2.g = l2 @ out.g", "x.g = l1.g @ w1"),
    ],
)
def test_two_mistakes_are_two_findings(lines: tuple[str, str]) -> None:
    names = [line.removeprefix("del ").split(".g")[0] for line in lines]
    r = cr.check(program(changed(*lines)), *network_inputs())
    assert sorted(f.name for f in r.findings) == sorted(names), str(r)


def test_what_follows_from_a_mistake_is_wrong_but_no_finding() -> None:
    r = cr.check(program(changed("out.g = diff / diff.numel()")), *network_inputs())
    assert {row.name: row.status for row in r.rows} == dict.fromkeys(ORDER, "wrong")
    assert len(r.findings) == 1


def test_rows() -> None:
    r = cr.check(program(changed("b2.g = out.g + 0", "l1.g = 1 * l2.g")), *network_inputs())
    assert [row.name for row in r.rows] == ORDER
    rows = {row.name: row for row in r.rows}
    assert rows["w2"].status == "right" and rows["w2"].max_rel < 1e-5 and rows["w2"].shape == (4, 4)
    assert rows["b2"].shape == (4, 4) and rows["b2"].expected_shape == (4,) and rows["b2"].max_abs is None
    assert rows["l1"].status == "wrong" and rows["l1"].max_abs > 0 and rows["l1"].max_rel > 1e-3
    assert rows["w2"].line == line_of(NETWORK, "w2.g = l2.T @ out.g")


def test_the_report_reads_well() -> None:
    r = cr.check(program(changed("out.g = diff / diff.numel()", "del b1.g")), *network_inputs())
    text = str(r)
    assert text.splitlines()[0].split() == ["gradient", "status", "shape", "largest", "error", "relative", "line"]
    assert "0 of 8 gradients are right" in text
    assert ":7: wrong-scale out.g (4, 4) is wrong: it is 0.5 times the right gradient" in text
    assert "b1.g is never set" in text and "  + b1.g = l1.g.sum(0)" in text
    assert "8 of 8 gradients are right" in str(cr.check(program(NETWORK), *network_inputs()))


def test_assert_gradients() -> None:
    cr.testing.assert_gradients(program(NETWORK), *network_inputs())
    with pytest.raises(AssertionError, match=r"(?s)l1\.g.*is wrong given l2\.g.*l1\.g = "):
        cr.testing.assert_gradients(program(changed("l1.g = l2.g")), *network_inputs())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [4, 64])
def test_rounding_is_no_mistake(dtype: torch.dtype, size: int) -> None:
    shapes = [(size, size), (size, size), (size,), (size, size), (size,), (size, size)]
    args = [rand(*s, seed=i).to(dtype) for i, s in enumerate(shapes)]
    r = cr.check(program(NETWORK.replace("(l1 > 0).float()", "(l1 > 0)")), *args)
    assert r.ok and not r.findings, str(r)
    assert all(row.status in ("right", "close") for row in r.rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_mistake_shows_in_every_dtype(dtype: torch.dtype) -> None:
    text = changed("b1.g = l1.g.mean(0)").replace("(l1 > 0).float()", "(l1 > 0)")
    r = cr.check(program(text), *network_inputs(dtype))
    assert [f.name for f in r.findings] == ["b1"], str(r)


# -- earlier runs, values used twice -----------------------------------------------------------------

TWICE = """\
def step(x, w):
    h = x @ w
    a = 2 * h
    t = torch.tanh(h)
    loss = (a * t).sum()
    a.g = t
    t.g = a
    h.g = 2 * a.g
    h.g = h.g + (1 - t * t) * t.g
    x.g = h.g @ w.T
    w.g = x.T @ h.g
"""


@pytest.mark.parametrize("second", ["h.g = h.g + (1 - t * t) * t.g", "h.g += (1 - t * t) * t.g"])
def test_a_value_used_twice_accumulates(second: str) -> None:
    text = TWICE.replace("h.g = h.g + (1 - t * t) * t.g", second)
    r = cr.check(program(text), rand(5, 3), rand(3, 4))
    assert r.ok and not r.findings, str(r)


def test_a_value_used_twice_is_overwritten() -> None:
    text = TWICE.replace("h.g + (1 - t * t)", "(1 - t * t)")
    r = cr.check(program(text), rand(5, 3), rand(3, 4))
    assert [(f.name, f.line) for f in r.findings] == [("h", line_of(text, "h.g = (1 - t * t) * t.g"))], str(r)


def test_a_stale_gradient_counts_for_nothing() -> None:
    args = network_inputs()
    program(NETWORK)(*args)
    assert hasattr(args[1], "g")
    r = cr.check(program(changed("del w1.g")), *args)
    assert [(f.name, f.cause) for f in r.findings] == [("w1", "missing-gradient")], str(r)


def test_a_stale_gradient_on_a_global() -> None:
    w, b = rand(3, 2), rand(2)
    w.g, b.g = torch.ones(3, 2), torch.ones(2)
    text = """\
    def step(x):
        out = x @ w + b
        loss = out.pow(2).sum()
        out.g = 2 * out
        b.g = out.g.sum(0)
    """
    r = cr.check(program(text, w=w, b=b), rand(5, 3))
    assert [f.name for f in r.findings] == ["w"], str(r)


def test_checking_twice_gives_the_same() -> None:
    step, args = program(NETWORK), network_inputs()
    assert str(cr.check(step, *args)) == str(cr.check(step, *args))


def test_accumulating_over_an_earlier_run_is_as_wrong_as_it_looks() -> None:
    w = rand(3)
    w.g = torch.ones(3)
    step = program("def step(x):\n    w.g += x\n    return (x * w).sum()\n", w=w)
    r = cr.check(step, rand(3))
    assert [f.name for f in r.findings] == ["w"], str(r)


def test_the_loss_by_another_name() -> None:
    text = NETWORK.replace("loss", "total")
    assert cr.check(program(text), *network_inputs(), loss="total").ok
    with pytest.raises(cr.ChainruleError, match="no loss was found"):
        cr.check(program(text), *network_inputs())
