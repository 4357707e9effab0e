"""`check`: libraries of layers, each with a forward and a backward pass, that hand gradients to one another."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from typing import Any

import pytest
import torch
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report

LIBRARY = """\
class Linear:
    def __init__(self, n, m, seed):
        generator = torch.Generator().manual_seed(seed)
        self.w = torch.randn(n, m, generator=generator)
        self.b = torch.randn(m, generator=generator)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        self.db = dout.sum(0)
        return dout @ self.w.T


class ReLU:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Scale:
    def __init__(self, n):
        self.s = torch.linspace(0.5, 1.5, n)

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, dout):
        self.ds = (dout * self.x).sum(0)
        return dout * self.s


class Mse:
    def forward(self, out, y):
        self.gap = out - y
        return (self.gap**2).mean()

    def backward(self):
        return 2 * self.gap / self.gap.numel()


class Net:
    def __init__(self):
        self.l1, self.scale, self.act = Linear(5, 4, 1), Scale(4), ReLU()
        self.l2, self.act2, self.l3 = Linear(4, 4, 2), ReLU(), Linear(4, 3, 3)
        self.mse = Mse()

    def forward(self, x, y):
        h = self.act.forward(self.scale.forward(self.l1.forward(x)))
        h = self.act2.forward(self.l2.forward(h))
        return self.mse.forward(self.l3.forward(h), y)

    def backward(self):
        d = self.mse.backward()
        d = self.l3.backward(d)
        d = self.act2.backward(d)
        d = self.l2.backward(d)
        d = self.act.backward(d)
        d = self.scale.backward(d)
        d = self.l1.backward(d)
        return d
"""

IN_A_LAYER = [  # the statement, what stands there, the cause, and what the repair must be
    ("return dout * self.mask", "return dout", "missing-factor", None),
    ("return dout * self.mask", "dx = dout\n        return dx", "missing-factor", "dx = dout * self.mask"),
    ("return dout * self.mask", "return dout * (dout > 0)", "wrong-mask", None),
    ("return dout @ self.w.T", "return -dout @ self.w.T", "sign", None),
    ("return dout @ self.w.T", "return 2 * dout @ self.w.T", "wrong-scale", None),
    ("return dout * self.s", "return dout", "missing-factor", None),
    ("return dout * self.s", "return dout / self.s", "wrong-factor", None),
    ("self.db = dout.sum(0)", "self.db = dout.mean(0)", "wrong-scale", None),
    ("return 2 * self.gap / self.gap.numel()", "return self.gap", "wrong-scale", ""),
    ("d = self.l3.backward(d)", "d = 3 * self.l3.backward(d)", "wrong-scale", None),
    ("d = self.act.backward(d)", "d = -self.act.backward(d)", "sign", None),
]
LEFT_OUT = [("self.scale", "missing-gradient"), ("self.act2", "missing-factor"), ("self.act", "missing-factor")]


def checked(text: str, *args: Any, name: str = "Net()") -> Report:
    """What `check` says of `name` in `text`, which is read as a file is."""
    text = textwrap.dedent(text)
    space = of_source(text, torch=torch, __name__="library")
    return cr.check(eval(name, space), *args)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(8, 5, generator=generator), torch.randn(8, 3, generator=generator)


def test_the_library_is_right() -> None:
    report = checked(LIBRARY, *data())
    assert report.ok and len(report.rows) == 8  # what backward returns is the gradient of x


@pytest.mark.parametrize(("right", "wrong", "cause", "repair"), IN_A_LAYER, ids=lambda t: str(t)[:40])
def test_a_mistake_is_found_in_the_layer_that_made_it(right: str, wrong: str, cause: str, repair: str | None) -> None:
    report = checked(LIBRARY.replace(right, wrong), *data())
    (finding,) = report.findings
    assert (finding.text, finding.cause, finding.proved) == (wrong.partition("\n")[0], cause, True)
    assert repair == "" or finding.repair == (right if repair is None else repair)


def test_the_same_is_said_in_every_run() -> None:
    """Where nodes lie in memory decides nothing: sets of them are gone through in the order of the graph."""
    wrong = LIBRARY.replace("return dout @ self.w.T", "return -dout @ self.w.T")
    held: list[object] = []
    said = set()
    for k in range(4):
        held += [object() for _ in range(1009 * k)]  # what comes next lies elsewhere
        said.add(re.sub(r"<source \d+>", "", str(checked(wrong, *data()))))
    assert len(said) == 1


def test_a_layer_may_call_itself_otherwise_than_self() -> None:
    """A mistake that only what the layers hand to one another tells."""
    for name in ("self", "s", "layer"):
        text = re.sub(r"\bself\b", name, LIBRARY)
        assert checked(text, *data()).ok
        before, after = f"return dout * {name}.mask", "return dout"
        (finding,) = checked(text.replace(before, after), *data()).findings
        assert (finding.text, finding.repair, finding.proved) == (after, before, True)


def test_two_mistakes_in_two_layers_are_two_findings() -> None:
    text = LIBRARY.replace("return dout * self.mask", "return dout").replace("dout.sum(0)\n", "dout.mean(0)\n", 1)
    found = {f.text: f.repair for f in checked(text, *data()).findings}
    assert found == {"return dout": "return dout * self.mask", "self.db = dout.mean(0)": "self.db = dout.sum(0)"}


@pytest.mark.parametrize(("layer", "cause"), LEFT_OUT)
def test_a_layer_whose_backward_pass_is_never_called_is_named(layer: str, cause: str) -> None:
    report = checked(LIBRARY.replace(f"        d = {layer}.backward(d)\n", ""), *data())
    (finding,) = report.findings
    assert (finding.cause, finding.repair, finding.proved) == (cause, f"d = {layer}.backward(d)", True)
    assert f"{layer} is never called" in finding.message


def test_two_layers_left_out_are_one_finding() -> None:
    text = LIBRARY.replace("        d = self.act.backward(d)\n        d = self.scale.backward(d)\n", "")
    (finding,) = checked(text, *data()).findings
    assert finding.repair == "d = self.act.backward(d)\nd = self.scale.backward(d)" and finding.proved


def test_the_call_of_the_first_layer_is_missed() -> None:
    (finding,) = checked(LIBRARY.replace("        d = self.l1.backward(d)\n", ""), *data()).findings
    assert (finding.cause, finding.repair, finding.proved) == ("missing-gradient", "d = self.l1.backward(d)", True)


def test_a_layer_left_out_of_an_expression() -> None:
    text = LIBRARY.replace("        d = self.l2.backward(d)\n        d = self.act.backward(d)\n", "")
    text = text.replace("d = self.scale.backward(d)", "d = self.scale.backward(self.l2.backward(d))")
    (finding,) = checked(text, *data()).findings
    assert finding.repair == "d = self.scale.backward(self.act.backward(self.l2.backward(d)))" and finding.proved


def test_calls_out_of_turn_are_exchanged() -> None:
    calls = "        d = self.act.backward(d)\n        d = self.scale.backward(d)\n"
    text = LIBRARY.replace(calls, "".join(reversed(calls.splitlines(keepends=True))))
    report = checked(text.replace("x * self.s\n", "x * self.s + 0.3\n"), *data())
    (finding,) = report.findings
    assert finding.proved and finding.repair.splitlines() == [line.strip() for line in calls.splitlines()]


def test_layers_that_write_into_what_they_are_given() -> None:
    text = LIBRARY.replace("return dout * self.mask", "dout[~self.mask] = 0\n        return dout")
    assert checked(text, *data()).ok
    (finding,) = checked(text.replace("return dout @ self.w.T", "return -dout @ self.w.T"), *data()).findings
    assert finding.repair == "return dout @ self.w.T" and finding.proved


def test_what_was_profiled_before_is_profiled_afterwards() -> None:
    seen: list[str] = []

    def profiler(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "backward":
            seen.append(frame.f_code.co_qualname)

    sys.setprofile(profiler)
    try:
        checked(LIBRARY.replace("return dout * self.mask", "return dout"), *data())
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert "ReLU.backward" in seen


def test_objects_deep_inside_others_have_their_gradients() -> None:
    text = LIBRARY + textwrap.dedent("""

    class Box:
        def __init__(self, inner):
            self.inner = {"held": [inner]}

        def forward(self, *args):
            return self.inner["held"][0].forward(*args)

        def backward(self):
            return self.inner["held"][0].backward()
    """)
    report = checked(text, *data(), name="Box(Box(Box(Net())))")
    assert report.ok and len(report.rows) == 7


def test_the_mask_of_what_was_set_to_zero_is_turned() -> None:
    inverted = LIBRARY.replace("self.mask = x > 0\n        return x * self.mask", "self.mask = x <= 0\n        out = x.clone()\n        out[self.mask] = 0\n        return out")  # fmt: skip
    assert checked(inverted.replace("return dout * self.mask", "return dout * ~self.mask"), *data()).ok
    (finding,) = checked(inverted.replace("return dout * self.mask", "return dout"), *data()).findings
    assert (finding.cause, finding.proved) == ("missing-factor", True)
    assert finding.repair in ("return dout.masked_fill(self.mask, 0)", "return dout * ~self.mask")


HELPER = """\
def scaled(x, s):
    xn = x.tanh()
    y = xn * s
    return y, (xn, s)


def scaled_backward(dy, saved):
    xn, s = saved
    ds = (dy * xn).sum(0)
    dx = dy * s * (1 - xn * xn)
    return dx, ds


def step(x, s, t):
    y, saved = scaled(x, s)
    a = y.clamp_min(0)
    loss = ((a - t) ** 2).sum()
    da = 2 * (a - t)
    dy = da * (y > 0)
    dx, ds = scaled_backward(dy, saved)
    return loss, dx, ds
"""


@pytest.mark.parametrize(("wrong", "cause"), [("da * (y < 0)", "wrong-mask"), ("da", "missing-factor")])
def test_a_mistake_before_a_function_whose_argument_has_the_same_name(wrong: str, cause: str) -> None:
    args = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.rand(3) + 0.5, torch.rand(5, 3)
    text = textwrap.dedent(HELPER).replace("dy = da * (y > 0)", f"dy = {wrong}")
    (finding,) = cr.check(of_source(text)["step"], *args).findings
    assert (finding.cause, finding.proved, finding.text.strip()) == (cause, True, f"dy = {wrong}")
    assert finding.repair in ("dy = da * (y > 0)", "dy = da * (y >= 0)", "dy = da.masked_fill(y <= 0, 0)")


TWICE = """\
def norm(x, g):
    r = (x * x).mean(-1, keepdim=True).rsqrt()
    return x * r * g, r


def norm_backward(dout, x, g, r):
    dg = (dout * x * r).sum(0)
    dh = dout * g
    dx = dh * r - x * r**3 * (dh * x).mean(-1, keepdim=True)
    return dx, dg


def step(x, g1, g2, w, keep, t):
    n1, r1 = norm(x, g1)
    x1 = (x + n1 @ w) * keep
    n2, r2 = norm(x1, g2)
    x2 = x1 + n2.tanh()
    loss = ((x2 - t) ** 2).sum()
    dx2 = 2 * (x2 - t)
    dn2 = dx2 * (1 - n2.tanh() ** 2)
    dx1, dg2 = norm_backward(dn2, x1, g2, r2)
    dx1 = dx1 + dx2
    dsum = dx1 * keep
    dw = n1.T @ dsum
    dn1 = dsum @ w.T
    dx, dg1 = norm_backward(dn1, x, g1, r1)
    dx = dx + dsum
    return loss, dx, dg1, dg2, dw
"""


@pytest.mark.parametrize(
    ("lost", "repairs"),
    [
        ("    dx1 = dx1 + dx2\n", ("dx1 = dx1 + dx2", "dsum = dx1 * keep + dx2 * keep")),
        ("    dx = dx + dsum\n", ("dx = dx + dsum",)),
    ],
)
def test_a_residual_is_lost_after_a_function_that_is_right_elsewhere(lost: str, repairs: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (5, 3), (3,), (3,), (3, 3), (5, 3), (5, 3)
    args = [torch.randn(*shape, generator=generator) for shape in shapes]
    args[4] = (args[4] > -0.5).float() / 0.7
    reports = {}
    for text in (TWICE, TWICE.replace(lost, "")):
        reports[text] = cr.check(of_source(text)["step"], *args)
    assert reports[TWICE].ok
    (finding,) = reports[TWICE.replace(lost, "")].findings
    assert (finding.cause, finding.proved) == ("lost-path", True) and finding.repair in repairs, finding
