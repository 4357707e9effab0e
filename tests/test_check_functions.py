"""`check` on mistakes around an autograd.Function's ctx, and on values that several gradients are computed from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_check import line_of, program, rand

import chainrule as cr

GATE = """\
class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, v, axis, share):
        a, b = x @ w, x @ v
        p = a.softmax(axis)
        ctx.axis = axis
        ctx.share = share
        ctx.needs_v = v is not None
        ctx.save_for_backward(x, w, v, p)
        return share * p * b

    @staticmethod
    def backward(ctx, g):
        x, w, v, p = ctx.saved_tensors
        b = x @ v
        dv = None
        dp, db = ctx.share * g * b, ctx.share * g * p
        da = p * (dp - (dp * p).sum(ctx.axis, keepdim=True))
        dw = x.T @ da
        if ctx.needs_v:
            dv = x.T @ db
        dx = da @ w.T + db @ v.T
        return dx, dw, dv, None, None


def step(x, w, v):
    return Gate.apply(x, w, v, 0, 0.7)
"""


def gate(*changes: tuple[str, str]) -> tuple[str, Callable[..., Any]]:
    text = GATE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text, program(text)


def inputs() -> list[torch.Tensor]:
    return [rand(5, 4).requires_grad_(), rand(4, 3, seed=1).requires_grad_(), rand(4, 3, seed=2).requires_grad_()]


MISTAKES = {
    "another axis is kept": ("ctx.axis = axis", "ctx.axis = 1", {"wrong-axis"}),
    "another number is kept": ("ctx.share = share", "ctx.share = 0.3", {"wrong-scale"}),
    "a flag is never true": ("ctx.needs_v = v is not None", "ctx.needs_v = False", {"missing-gradient"}),
    "saved in another order": ("save_for_backward(x, w, v, p)", "save_for_backward(x, v, w, p)", {"wrong-tensor"}),
    "returned in another order": ("return dx, dw, dv, None", "return dx, dv, dw, None", {"wrong-tensor"}),
    "set in another order": ("dp, db = ctx.share * g * b, ctx.share * g * p",
                             "dp, db = ctx.share * g * p, ctx.share * g * b", {"wrong-tensor"}),
    "on the way to two": ("da = p * (dp - (dp * p)", "da = p * (dp + (dp * p)", {"wrong-term-scale"}),
    "a projection is forgotten": ("p * (dp - (dp * p).sum(ctx.axis, keepdim=True))", "p * dp",
                                  {"missing-term", "lost-path", "diagonal-jacobian"}),
}  # fmt: skip


def test_what_is_right_raises_no_alarm() -> None:
    assert cr.check(gate()[1], *inputs()).ok


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_finding_on_the_line_with_a_proof(mistake: str) -> None:
    old, new, causes = MISTAKES[mistake]
    text, step = gate((old, new))
    (wrong,) = (line.strip() for line in text.splitlines() if new in line)
    (finding,) = cr.check(step, *inputs()).findings
    assert (finding.line, finding.proved) == (line_of(text, wrong), True), finding
    assert finding.cause in causes


def test_the_repair_of_a_kept_number_is_what_the_forward_pass_used() -> None:
    (finding,) = cr.check(gate(("ctx.axis = axis", "ctx.axis = -1"))[1], *inputs()).findings
    assert finding.repair == "ctx.axis = axis"


def test_the_entry_of_needs_input_grad_is_mended() -> None:
    _, step = gate(("if ctx.needs_v:", "if ctx.needs_input_grad[3]:"))
    (finding,) = cr.check(step, *inputs()).findings
    assert finding.repair == "if ctx.needs_input_grad[2]:" and finding.proved


def test_one_view_that_fails_twice_is_one_finding() -> None:
    text = """\
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return (2 * g.view(-1) * x.view(-1)).view_as(x)


    def step(x):
        return Double.apply(x)
    """
    (finding,) = cr.check(program(text), rand(4, 3).requires_grad_()).findings
    assert (finding.cause, finding.proved) == ("contract", True)
    assert finding.repair == "return (2 * g.reshape(-1) * x.reshape(-1)).reshape_as(x)"


# -- without a Function ------------------------------------------------------------------------------

STACK = """\
class Lin:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, g):
        self.dw = self.x.T @ g
        self.db = g.sum(0)
        return g @ self.w.T


class Square:
    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, g):
        return g * 2 * self.x


class Net:
    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, g):
        for layer in reversed(self.layers):
            g = layer.backward(g)
        return g


def step():
    return Net([Lin(rand(4, 3), rand(3)), Square(), Lin(rand(3, 2), rand(2)), Square(), Lin(rand(2, 2), rand(2))])
"""


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("return g * 2 * self.x", "return g * self.x", "wrong-scale"),
        ("return g * 2 * self.x", "return g * 2", "missing-factor"),
        ("        self.dw = self.x.T @ g\n", "", "missing-gradient"),
        ("        self.db = g.sum(0)\n", "", "missing-gradient"),
    ],
)
def test_a_line_that_runs_for_several_layers_is_one_finding(old: str, new: str, cause: str) -> None:
    assert old in STACK
    text = STACK.replace(old, new)
    (finding,) = cr.check(program(text, rand=rand, __name__="stack")(), rand(6, 4)).findings
    assert (finding.cause, finding.proved) == (cause, True), finding
    if new:
        assert finding.line == line_of(text, new)
    else:
        assert finding.repair == old.strip()


NORM = """\
def step(x, gamma, beta, readout):
    centred = x - x.mean(-1, keepdim=True)
    rstd = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
    normed = centred * rstd
    out = normed * gamma + beta
    loss = (out * readout).tanh().sum()
    out.g = (1 - (out * readout).tanh() ** 2) * readout
    gamma.g = (out.g * normed).sum(0)
    beta.g = out.g.sum(0)
    normed.g = out.g * gamma
    x.g = rstd * (normed.g - normed.g.mean(-1, keepdim=True) - normed * (normed.g * normed).mean(-1, keepdim=True))
"""


def norm_inputs() -> list[torch.Tensor]:
    return [rand(6, 5), rand(5, seed=1), rand(5, seed=2), rand(6, 5, seed=3)]


@pytest.mark.parametrize(
    "line",
    [
        "x.g = rstd * normed.g",
        "x.g = rstd * (normed.g - normed.g.mean(-1, keepdim=True))",
        "x.g = rstd * (normed.g - normed * (normed.g * normed).mean(-1, keepdim=True))",
    ],
)
def test_what_a_norm_takes_away_is_put_into_the_line(line: str) -> None:
    text = NORM.replace(NORM.strip().splitlines()[-1].strip(), line)
    (finding,) = cr.check(program(text), *norm_inputs()).findings
    assert finding.proved and finding.repair.startswith("x.g = rstd * (normed.g - ")
    assert "(normed.g * normed).mean(-1, keepdim=True)" in finding.repair and "sum" not in finding.repair


# -- parameters that no one asks for -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["beta", "gamma"])
def test_a_parameter_is_missed_where_all_else_has_a_gradient(name: str) -> None:
    (line,) = (each for each in NORM.splitlines(keepends=True) if each.strip().startswith(f"{name}.g = "))
    (finding,) = cr.check(program(NORM.replace(line, "")), *norm_inputs()).findings
    assert (finding.name, finding.cause, finding.repair) == (name, "missing-gradient", line.strip())


@pytest.mark.parametrize(
    "left_out",
    [
        ["x.g"],  # the data
        ["x.g", "beta.g"],  # not all: nothing says which
        ["gamma.g", "x.g"],
    ],
)
def test_where_the_data_have_no_gradient_nothing_is_missed(left_out: list[str]) -> None:
    lines = [line for line in NORM.splitlines() if not line.strip().startswith(tuple(f"{n} = " for n in left_out))]
    assert cr.check(program("\n".join(lines)), *norm_inputs()).ok


def test_constants_beside_parameters_are_not_missed() -> None:
    text = """\
    def step(tokens, table, positions, mask, w, y):
        emb = table[tokens]
        h = emb + positions
        scores = h @ h.mT + mask
        att = scores.softmax(-1)
        mixed = att @ h
        out = mixed @ w
        loss = (out - y).pow(2).mean()
        out.g = 2 * (out - y) / out.numel()
        w.g = mixed.flatten(0, 1).T @ out.g.flatten(0, 1)
        mixed.g = out.g @ w.T
        att.g = mixed.g @ h.mT
        scores.g = att * (att.g - (att.g * att).sum(-1, keepdim=True))
        h.g = att.mT @ mixed.g + scores.g @ h + scores.g.mT @ h
        emb.g = h.g.clone()
        table.g = torch.zeros_like(table).index_add(0, tokens.flatten(), emb.g.flatten(0, 1))
    """
    tokens = torch.tensor([[0, 1, 2], [3, 1, 0]])
    mask = torch.full((3, 3), -torch.inf).triu(1)
    report = cr.check(program(text), tokens, rand(5, 4), rand(3, 4), mask, rand(4, 2), rand(2, 3, 2))
    assert report.ok, report


# -- methods of an object that holds the parameters --------------------------------------------------

MODEL = """\
import numpy as np
import torch


def rand(*shape):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(7 * sum(shape)))
    return numbers.double().numpy()


class Model:
    def __init__(self):
        self.params = {"w": rand(4, 3), "v": rand(3, 2)}
        self.reg, self.grads = 0.3, {}

    def loss(self, x, y):
        w, v = self.params["w"], self.params["v"]
        h = np.tanh(x @ w)
        out = h @ v
        loss = ((out - y) ** 2).mean() + 0.5 * self.reg * (w**2).sum()
        dout = 2 * (out - y) / out.size
        dh = dout @ v.T
        dw = x.T @ (dh * (1 - h**2)) + self.reg * w
        grads = {"w": dw, "v": h.T @ dout}
        return loss, grads
"""
IN_TORCH = [("np.tanh", "torch.tanh"), ("out.size", "out.numel()"), (".double().numpy()", "")]
KEPT = [("grads = {", "self.grads = {"), ("return loss, grads", "return loss")]


@pytest.mark.parametrize("changes", [[], KEPT, IN_TORCH, IN_TORCH + KEPT], ids=["numpy", "kept", "torch", "torch kept"])
def test_the_gradients_of_a_method_are_those_of_what_its_object_holds(
    changes: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MODEL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    name = f"model_{abs(hash(text))}"
    (tmp_path / f"{name}_right.py").write_text(text)
    (tmp_path / f"{name}_wrong.py").write_text(text.replace(" + self.reg * w\n", "\n"))
    monkeypatch.syspath_prepend(tmp_path)
    right, wrong = (importlib.import_module(f"{name}_{which}") for which in ("right", "wrong"))
    report = cr.check(right.Model().loss, right.rand(5, 4), right.rand(5, 2))
    assert report.ok and {row.name for row in report.rows} == {"params.w", "params.v"}
    (finding,) = cr.check(wrong.Model().loss, wrong.rand(5, 4), wrong.rand(5, 2)).findings
    assert finding.cause == "lost-path" and finding.proved and finding.repair.endswith(" + self.reg * w")


def test_a_diagnosis_is_the_same_each_time_and_leaves_the_random_numbers_alone() -> None:
    text = """\
    def step(x, w):
        h = x @ w
        mask = (torch.rand(h.shape) > 0.4).float()
        loss = (h * mask / 0.6).pow(2).sum()
        h.g = 2 * h * mask / 0.6
        w.g = x.T @ h.g
    """
    said = set()
    for seed in range(4):
        torch.manual_seed(seed)
        said.add(str(cr.check(program(text), rand(6, 5), rand(5, 4)).findings[0].change()))
        after = torch.rand(3)
        torch.manual_seed(seed)
        torch.rand(6, 4)  # the mask of the one run
        assert torch.equal(torch.rand(3), after)
    assert len(said) == 1


LINEAR = """\
def step(x, y, w, b):
    out = x @ w + b
    diff = out - y
    loss = (diff**2).mean()
    dout = 2 * diff / diff.numel()
    dx = None
    dw = x.T @ dout
    db = dout.sum(0)
    return loss, dx, dw, db
"""


def test_none_that_is_returned_for_a_parameter_is_missed() -> None:
    """For the data it may be left out on purpose."""
    args = rand(6, 5), rand(6, 4, seed=1), rand(5, 4, seed=2), rand(4, seed=3)
    assert cr.check(program(LINEAR), *args).ok
    report = cr.check(program(LINEAR.replace("dout.sum(0)", "None")), *args)
    assert [(f.name, f.cause) for f in report.findings] == [("b", "missing-gradient")]


def test_a_parameter_that_was_left_out_of_all_is_named() -> None:
    """It may be on purpose; that it was not looked at is said."""
    text = """\
def step(x, t, w, v):
    h = (x @ w).tanh()
    z = h @ v
    loss = (z - t).pow(2).mean()
    z.g = 2 * (z - t) / z.numel()
    h.g = z.g @ v.T
    return loss
"""
    args = rand(6, 5), rand(6, 2, seed=1), rand(5, 4, seed=2), rand(4, 2, seed=3)
    report = cr.check(program(text), *args)
    assert report.ok
    assert any("nothing is said of w, v:" in note for note in report.notes)


def test_a_gradient_that_is_another_by_name_is_wrong_on_its_own_line() -> None:
    """`dc0 = dc`, where a factor is forgotten: all that reads `dc` is right."""
    text = """\
def backward(dh, o, f, c0, i, g, tc):
    do = dh * tc
    dc = dh * o * (1 - tc**2)
    di = dc * g
    df = dc * c0
    dc0 = dc
    return do, df, dc0, di


def step(o, f, c0, i, g):
    c = f * c0 + i * g
    tc = c.tanh()
    h = o * tc
    loss = h.pow(2).sum()
    do, df, dc0, di = backward(2 * h, o, f, c0, i, g, tc)
    return loss, do, df, dc0, di
"""
    report = cr.check(program(text), *(rand(6, 4, seed=k) for k in range(5)))
    (finding,) = report.findings
    assert (finding.name, finding.text, finding.cause, finding.proved) == ("c0", "dc0 = dc", "missing-factor", True)


LAYERS = {
    "z.g": "z.g = 2 * (z - t) / z.numel()",
    "v.g": "v.g = h.T @ z.g",
    "c.g": "c.g = z.g.sum(0)",
    "h.g": "h.g = z.g @ v.T",
    "a.g": "a.g = h.g * (1 - h**2)",
    "w.g": "w.g = x.T @ a.g",
    "b.g": "b.g = a.g.sum(0)",
}


@pytest.mark.parametrize(("missing", "had"), [(["v", "w"], ["b", "c"]), (["b", "c"], ["v", "w"])])
def test_weights_or_biases_of_all_layers_are_missed(missing: list[str], had: list[str]) -> None:
    lines = [line for name, line in LAYERS.items() if name[0] not in missing]
    forward = ["a = x @ w + b", "h = a.tanh()", "z = h @ v + c", "loss = (z - t).pow(2).mean()"]
    text = "def step(x, t, w, b, v, c):\n    " + "\n    ".join([*forward, *lines]) + "\n"
    args = rand(6, 5), rand(6, 2, seed=1), rand(5, 4, seed=2), rand(4, seed=3), rand(4, 2, seed=4), rand(2, seed=5)
    report = cr.check(program(text), *args)
    assert sorted((f.name, f.cause, f.proved) for f in report.findings) == [
        (n, "missing-gradient", True) for n in missing
    ]
    assert all(f.repair == LAYERS[f"{f.name}.g"] for f in report.findings)
    assert cr.check(program(text), *args, wrt=had).ok


def test_of_one_layer_the_bias_alone_may_be_trained() -> None:
    text = """\
def step(x, t, w, c):
    y = x @ w + c
    z = y.tanh()
    loss = (z - t).pow(2).mean()
    z.g = 2 * (z - t) / z.numel()
    y.g = z.g * (1 - z**2)
    c.g = y.g.sum(0)
"""
    report = cr.check(program(text), rand(6, 5), rand(6, 2, seed=1), rand(5, 2, seed=2), rand(2, seed=3))
    assert report.ok
