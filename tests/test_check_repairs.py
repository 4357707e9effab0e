"""The repairs of `check` as an author would write them: in the person's names and numbers, and no longer than needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand
from torch import Tensor

import chainrule as cr


def repair(text: str, *args: Any, **space: Any) -> str:
    """The one repair of the function `step` of `text`, which must be proved."""
    report = cr.check(program(text, **space), *args)
    assert len(report.findings) == 1 and report.findings[0].proved, str(report)
    return report.findings[0].repair


SOFTMAX = """
def step(x, w):
    z = x @ w
    e = np.exp(z - z.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    loss = (p**3).sum()
    dp = 3 * p**2
    dz = {}
    dw = x.T @ dz
    return loss, dw
"""


@pytest.mark.parametrize("line", ["dp * p * (1 - p)", "p * (1 - p)", "p * dp"])
def test_the_jacobian_of_a_softmax_is_written_in_numpy(line: str) -> None:
    x, w = rand(5, 4).numpy(), rand(4, 3).numpy()
    assert repair(SOFTMAX.format(line), x, w, np=np) in (
        "dz = p * (dp - (dp * p).sum(axis=-1, keepdims=True))",
        "dz = p * (dp - (p * dp).sum(axis=-1, keepdims=True))",
    )


NET = """
def step(x, t, w, v):
    n, d = x.shape
    z = x @ w
    h = torch.relu(z)
    z = h @ v
    z = z - z.max(1, keepdim=True).values
    p = z.exp() / z.exp().sum(1, keepdim=True)
    loss = -p[torch.arange(n), t].log().mean() + 0.01 * w.pow(2).sum()
    dz = p.clone()
    dz[torch.arange(n), t] -= 1
    dz /= n
    z.g = dz
    v.g = h.T @ z.g
    h.g = z.g @ v.T
    w.g = x.T @ (h.g * (h > 0)) + 0.02 * w
    return loss
"""


@pytest.mark.parametrize(
    ("line", "wrong", "right"),
    [
        ("    dz /= n\n", "", "dz = dz / n"),
        ("dz /= n", "dz /= d", "dz /= n"),
        ("t] -= 1", "t] += 1", "dz[torch.arange(n), t] -= 1"),
        (" + 0.02 * w", "", "w.g = x.T @ (h.g * (h > 0)) + 2 * 0.01 * w"),
    ],
)
def test_sizes_and_numbers_are_the_persons(line: str, wrong: str, right: str) -> None:
    args = rand(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0]), rand(5, 4), rand(4, 3)
    assert repair(NET.replace(line, wrong), *args) == right


def test_a_value_that_took_the_name_of_another_has_that_name() -> None:
    args = rand(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0]), rand(5, 4), rand(4, 3)
    report = cr.check(program(NET), *args)
    assert report.ok and [r.name for r in report.rows] == ["z", "v", "h", "w"]


@pytest.mark.parametrize(
    ("after", "line"), [("    h = torch.relu(z)\n", "    h.add_(1)\n"), ("    dz /= n\n", "    dz *= p * (1 - p)\n")]
)
def test_a_line_too_many_is_to_be_deleted(after: str, line: str) -> None:
    place = after if "dz" in line else "    dz = p.clone()\n"
    args = rand(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0]), rand(5, 4), rand(4, 3)
    report = cr.check(program(NET.replace(place, place + line)), *args)
    (finding,) = report.findings
    assert finding.proved and finding.edit is not None and finding.edit.lines == () and finding.repair == ""
    assert finding.change()[:2] == [f"- {line.strip()}", "delete this line   # proved"]


ATTENTION = """
def step(x, wq, wk):
    d = wq.shape[1]
    q, k = x @ wq, x @ wk
    s = q @ k.T / math.sqrt(d)
    out = s.exp() @ x + x
    loss = out.pow(2).sum()
    out.g = 2 * out
    s.g = s.exp() * (out.g @ x.T)
    q.g = s.g @ k / math.sqrt(d)
    k.g = s.g.T @ q / math.sqrt(d)
    wq.g = x.T @ q.g
    wk.g = x.T @ k.g
    x.g = q.g @ wq.T + k.g @ wk.T + s.exp().T @ out.g + out.g
    return loss
"""


@pytest.mark.parametrize(
    ("line", "wrong", "right"),
    [
        ("q.g = s.g @ k / math.sqrt(d)", "q.g = s.g @ k", "q.g = (s.g @ k) / math.sqrt(d)"),
        ("q.g = s.g @ k / math.sqrt(d)", "q.g = s.g @ k / d", "q.g = (s.g @ k) / math.sqrt(d)"),
        ("k.g = s.g.T @ q / math.sqrt(d)", "k.g = s.g.T @ q * math.sqrt(d)", "k.g = (s.g.T @ q) / math.sqrt(d)"),
        (" + out.g\n", "\n", "x.g = q.g @ wq.T + k.g @ wk.T + s.exp().T @ out.g + out.g"),
    ],
)
def test_nothing_stands_there_that_does_nothing(line: str, wrong: str, right: str) -> None:
    args = rand(7, 6) / 4, rand(6, 5) / 4, rand(6, 5, seed=1) / 4
    assert repair(ATTENTION.replace(line, wrong), *args, math=math) == right


NORM = """
def step(x, gamma):
    xc = x - x.mean(1, keepdim=True)
    rstd = (xc.pow(2).mean(1, keepdim=True) + 1e-5).rsqrt()
    xhat = xc * rstd
    out = xhat * gamma
    loss = out.pow(3).sum()
    out.g = 3 * out.pow(2)
    gamma.g = (out.g * xhat).sum(0)
    xhat.g = out.g * gamma
    x.g = xhat.g * rstd
    return loss
"""


def test_a_sum_that_is_taken_away_needs_no_parentheses() -> None:
    assert repair(NORM, rand(6, 5), rand(5)) == (
        "x.g = (xhat.g - xhat.g.mean(-1, keepdim=True) - xhat * (xhat.g * xhat).mean(-1, keepdim=True)) * rstd"
    )


class Layer:
    def __init__(self, shape: tuple[int, int], seed: int) -> None:
        self.w, self.b = rand(*shape, seed=seed), torch.zeros(shape[1])

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout: Tensor) -> Tensor:
        self.dw = self.x.T @ dout
        return dout @ self.w.T


class Two:
    def __init__(self) -> None:
        self.first, self.last = Layer((5, 4), 0), Layer((4, 3), 1)

    def __call__(self, x: Tensor) -> Tensor:
        self.h = self.first.forward(x).tanh()
        return self.last.forward(self.h).pow(2).sum(1)

    def backward(self, dout: Tensor) -> Tensor:
        out = self.last.x @ self.last.w + self.last.b
        dh = self.last.backward(2 * out * dout[:, None])
        return self.first.backward(dh * (1 - self.h**2))


def test_a_line_that_layers_lack_is_in_the_names_of_their_class() -> None:
    (finding,) = cr.check(Two(), rand(6, 5)).findings
    assert (finding.cause, finding.repair, finding.proved) == ("missing-gradient", "self.db = dout.sum(0)", True)


SLOPES = """
def slope(a):
    return 1 / (1 + torch.exp(-a))

def step(x, w, v):
    a = x @ w
    h = F.softplus(a)
    b = h @ v
    y = F.softplus(b)
    loss = (y**2).sum()
    dy = 2 * y
    db = dy * slope(b)
    dv = h.T @ db
    dh = db @ v.T
    {}
    dw = x.T @ da
    return loss, dw, dv
"""


@pytest.mark.parametrize("line", ["da = dh * slope({})", "s = slope({}); da = dh * s"])
def test_a_function_is_given_another_value(line: str) -> None:
    args = rand(4, 3), rand(3, 5), rand(5, 3)
    report = cr.check(program(SLOPES.format(line.format("h"))), *args)
    assert [f.cause for f in report.findings] == ["wrong-tensor"]
    assert repair(SLOPES.format(line.format("h")), *args) == line.format("a")


LOG_SOFTMAX = """
def step(x, w, c):
    z = x @ w
    lp = z.log_softmax(1)
    p = lp.exp()
    loss = (c * lp**2).sum()
    dlp = 2 * c * lp
    dz = {}
    dw = x.T @ dz
    return loss, dw
"""


@pytest.mark.parametrize(
    ("line", "cause"),
    [("dlp - lp.exp()", "missing-factor"), ("dlp - p", "missing-factor"), ("1 * dlp", "missing-term")],
)
def test_the_sum_of_the_gradient_behind_a_log_softmax(line: str, cause: str) -> None:
    args = rand(5, 4), rand(4, 3), rand(5, 3)
    report = cr.check(program(LOG_SOFTMAX.format(line)), *args)
    (finding,) = report.findings
    assert (finding.cause, finding.proved) == (cause, True), str(report)
    assert "dlp.sum(-1, keepdim=True)" in finding.repair


GROUP_NORM = """
def step(x, g):
    n, c, h, w = x.shape
    z = x.reshape(n, 2, c // 2, h * w)
    r = (z - z.mean((2, 3), keepdim=True)).pow(2).mean((2, 3), keepdim=True).rsqrt()
    y = (z - z.mean((2, 3), keepdim=True)) * r
    loss = (g * y.reshape(x.shape)).sum()
    m = {}
    dy = g.reshape(y.shape)
    s = dy.sum((2, 3), keepdim=True)
    t = (dy * y).sum((2, 3), keepdim=True)
    dz = r / m * (m * dy - s - y * t)
    dx = dz.reshape(x.shape)
    return loss, dx
"""


def test_a_count_of_elements_that_is_read_twice_is_another_one() -> None:
    args = rand(3, 4, 2, 3), rand(3, 4, 2, 3, seed=1)
    assert cr.check(program(GROUP_NORM.format("h * w * y.shape[2]")), *args).ok
    assert repair(GROUP_NORM.format("h * w"), *args) == "m = h * w * z.shape[2]"


def test_a_count_that_is_right_for_these_sizes_alone_is_no_repair() -> None:
    args = rand(3, 4, 2, 3), rand(3, 4, 2, 3, seed=1)  # h is 2, and so are the channels of a group
    report = cr.check(program(GROUP_NORM.format("w + 0")), *args)
    assert [f.proved for f in report.findings] == [False], str(report)


CENTRED = """
def backward(dy, cache):
    c, s, y, g = cache
    n = dy.shape[0]
    dg = (dy * y).sum(axis=0)
    dh = dy * g
    dc = dh / s
    ds = -(dh * c).sum(axis=0) / s**2
    dc += (1.0 / n) * c * ds / s
    dx = dc
    return dx, dg

def step(x, g):
    c = x - x.mean(axis=0)
    s = np.sqrt((c**2).mean(axis=0) + 1e-4)
    y = c / s
    out = g * y
    loss = (out**3).sum()
    dx, dg = backward(3 * out**2, (c, s, y, g))
    return loss, dx, dg
"""


def test_the_path_through_a_mean_is_added_to_what_a_line_gives() -> None:
    text = repair(CENTRED, rand(7, 4).numpy(), rand(4).numpy(), np=np)
    assert text == "dc = dc + (1.0 / n) * c * ds / s - (dc + (1.0 / n) * c * ds / s).mean(axis=0, keepdims=True)"


WEIGHT_NORM = """
class Linear:
    def __init__(self, v):
        self.v, self.dv, self.seen = v, torch.zeros_like(v), []

    def forward(self, x):
        self.norm = self.v.norm(dim=1, keepdim=True)
        self.w = self.v / self.norm
        self.seen.append(x)
        return x @ self.w.T

    def back(self, dy):
        dw = dy.T @ self.seen.pop()
        unit = self.v / self.norm
        self.dv += {} / self.norm
        return dy @ self.w

def step(x, y, v):
    layer = Linear(v)
    a = layer.forward(x)
    b = layer.forward(y)
    loss = (a**2 * b).sum()
    dy = layer.back(a**2)
    dx = layer.back(2 * a * b)
    return loss, {{"x": dx, "y": dy, "v": layer.dv}}
"""


def test_a_projection_that_two_calls_of_one_line_lack() -> None:
    args = rand(4, 3), rand(4, 3, seed=1), rand(2, 3)
    right = "(dw - unit * (dw * unit).sum(-1, keepdim=True))"
    assert cr.check(program(WEIGHT_NORM.format(right)), *args).ok
    assert repair(WEIGHT_NORM.format("dw"), *args) == f"self.dv += {right} / self.norm"


POOL = """
def step(x, t):
    n, h, w = x.shape
    y = x.reshape(n, h // 2, 2, w // 2, 2).mean((2, 4))
    loss = ((y - t) ** 2).sum()
    dy = 2 * (y - t)
    dx = {} / 4
    return loss, dx
"""


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("dy.repeat(1, 2, 2)", "dy.repeat_interleave(2, 1).repeat_interleave(2, 2)"),
        ("dy.repeat_interleave(2, 1).repeat(1, 1, 2)", "dy.repeat_interleave(2, 1).repeat_interleave(2, 2)"),
    ],
)
def test_each_element_is_repeated_and_not_all_of_them(wrong: str, right: str) -> None:
    args = rand(3, 4, 6), rand(3, 2, 3)
    assert repair(POOL.format(wrong), *args) == f"dx = {right} / 4"


def test_each_element_is_repeated_in_numpy() -> None:
    args = rand(3, 4, 6).numpy(), rand(3, 2, 3).numpy()
    text = POOL.replace("mean((2, 4))", "mean(axis=(2, 4))").format("np.tile(dy, (1, 2, 2))")
    assert repair(text, *args, np=np) == "dx = dy.repeat(2, axis=1).repeat(2, axis=2) / 4"


LOOKUP = """
def step(ids, table, w):
    rows = table[ids]
    loss = ((rows @ w) ** 3).sum()
    drows = (3 * (rows @ w) ** 2) @ w.T
    dw = rows.T @ (3 * (rows @ w) ** 2)
    dtable = torch.zeros_like(table)
    for k in range(len(ids)):
        dtable[ids[k].item()] = drows[k]
    return loss, {"table": dtable, "w": dw}
"""


def test_rows_written_in_a_loop_are_an_index_that_repeats() -> None:
    args = torch.tensor([1, 0, 1, 3]), rand(5, 3), rand(3, 2)
    (finding,) = cr.check(program(LOOKUP), *args).findings
    assert (finding.cause, finding.proved) == ("index-overwrite", True)
    assert finding.repair == "dtable[ids[k].item()] += drows[k]"


PARTS = """
def step(x, w):
    z = x @ w
    e = z.exp()
    total = e.sum(1, keepdim=True)
    inverse = 1 / total
    p = e * inverse
    loss = (p**3).sum()
    dp = 3 * p**2
    dinverse = dp * e
    de = dp * inverse
    dtotal = -dinverse * inverse**2
    de += dtotal
    dz = de * e
    dw = x.T @ dz
    return loss, dw
"""


def test_a_sum_is_missing_where_the_value_was_stretched() -> None:
    assert repair(PARTS, rand(5, 4), rand(4, 3)) == "dinverse = (dp * e).sum(1, keepdim=True)"


BOTH_WAYS = """
def step(x, w):
    n = len(x)
    z = x @ w
    rows, columns = z.log_softmax(1), z.log_softmax(0)
    loss = -(rows.diagonal().mean() + columns.diagonal().mean()) / 2
    drows = (rows.exp() - torch.eye(n)) / n
    dcolumns = (columns.exp() - torch.eye(n)) / n
    dz = {}
    dw = x.T @ dz
    return loss, dw
"""


@pytest.mark.parametrize("line", ["drows", "1 * dcolumns"])
def test_one_of_two_halves_of_a_loss(line: str) -> None:
    args = rand(4, 3), rand(3, 4)
    report = cr.check(program(BOTH_WAYS.format(line)), *args)
    (finding,) = report.findings
    assert (finding.cause, finding.proved) == ("lost-path", True), str(report)


def test_padding_that_is_left_on_is_cut_off() -> None:
    text = """\
        import torch.nn.functional as F
        def step(x, w):
            xp = F.pad(x, (1, 1, 2, 2))
            loss = (xp * w).sum()
            dxp = w.clone()
            dx = dxp[2:-2, 1:-1]
            return loss, dx
        """
    x, w = rand(4, 5), rand(8, 7)
    assert cr.check(program(text), x, w, wrt="x").ok
    [finding] = cr.check(program(text.replace("dxp[2:-2, 1:-1]", "dxp")), x, w, wrt="x").findings
    assert (finding.cause, finding.proved, finding.repair) == ("wrong-shape", True, "dx = dxp[2:-2, 1:-1]"), finding
