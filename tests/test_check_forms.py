"""The forms in which people write a backward pass: right ones pass, and a mistake in each is named and repaired."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import textwrap
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import chainrule as cr

LINEAR = """
def step(x, y, w, b):
    out = x @ w + b
    loss = (out - y).pow(2).mean()
    dout = 2 * (out - y) / out.numel()
    dw, db = x.T @ dout, dout.sum(0)
    return {returned}
"""


FOLDER = Path(tempfile.mkdtemp())


def defined(text: str, name: str, **space: Any) -> Any:
    """What a person's file of this text calls `name`, with `space` among its globals."""
    text = textwrap.dedent(text)
    path = FOLDER / f"form_{abs(hash((text, name)))}.py"
    path.write_text(text)
    module = sys.modules[path.stem] = types.ModuleType(path.stem)
    vars(module).update(torch=torch, np=np, cr=cr, __file__=str(path), **space)
    exec(compile(text, str(path), "exec"), vars(module))
    return getattr(module, name)


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(s, generator=generator) for s in ((6, 5), (6, 3), (5, 3), (3,)))


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass
class Gradients:
    w: Any
    b: Any


RETURNED = {
    "loss, dw, db": {}, "dw, db": {}, "loss, (dw, db)": {}, '{"w": dw, "b": db}': {}, 'loss, {"dw": dw, "db": db}': {},
    "[loss, db, dw]": {}, "loss, Pair(dw, db)": {}, "Gradients(dw, db)": {}, "loss, dw + 0, db + 0": {"wrt": ["w", "b"]},
}  # fmt: skip


@pytest.mark.parametrize("returned", RETURNED)
def test_returned_gradients(returned: str) -> None:
    space = {"Pair": Pair, "Gradients": Gradients}
    r = cr.check(defined(LINEAR.format(returned=returned), "step", **space), *inputs(), **RETURNED[returned])
    assert r.ok and {row.name for row in r.rows} == {"w", "b"}, str(r)
    wrong = LINEAR.format(returned=returned).replace("dout.sum(0)", "dout.mean(0)")
    r = cr.check(defined(wrong, "step", **space), *inputs(), **RETURNED[returned])
    (finding,) = r.findings
    assert (finding.name, finding.cause, finding.line, finding.proved) == ("b", "wrong-scale", 6, True), str(r)


def test_gradients_that_cannot_be_told_apart_are_asked_for_unless_they_are_right() -> None:
    assert cr.check(defined(LINEAR.format(returned="loss, dw + 0, db + 0, 0.1"), "step"), *inputs()).ok
    (finding,) = cr.check(defined(LINEAR.format(returned="loss, dw + 0, db + 1"), "step"), *inputs()).findings
    assert finding.name == "b"  # nothing else has its shape
    step = defined(LINEAR.format(returned="loss, dw + 1, db + 0"), "step")
    with pytest.raises(cr.ChainruleError, match="wrt="):
        cr.check(step, *(torch.rand(3, 3) for _ in range(3)), torch.rand(3))


@pytest.mark.parametrize(
    "end",
    [
        "p -= 0.1 * p.g", "p.data = p.data - 0.1 * p.g", "p -= 0.1 * p.g; p.g = None", "p -= 0.1 * p.g; p.g.zero_()",
        "p.sub_(0.1 * p.g); del p.g", "p.data -= 0.1 * p.g; p.g = torch.zeros_like(p)",
    ],
)  # fmt: skip
def test_a_step_after_the_gradients(end: str) -> None:
    text = f"""
    def step(x, y, w, b):
        out = x @ w + b
        loss = (out - y).pow(2).mean()
        out.g = 2 * (out - y) / out.numel()
        w.g = x.T @ out.g
        b.g = out.g.sum(0)
        for p in (w, b):
            {end}
    """
    r = cr.check(defined(text, "step"), *inputs())
    assert r.ok and [row.status for row in r.rows] == ["right"] * 3, str(r)
    r = cr.check(defined(text.replace("out.g.sum(0)", "out.g.sum(0) / 2"), "step"), *inputs())
    assert [(f.name, f.cause, f.proved) for f in r.findings] == [("b", "wrong-scale", True)], str(r)


LOOP = """
def train(x, y, w):
    for _ in range(2):
        out = x @ w
        loss = (out - y).pow(2).mean()
        w.g = x.T @ (2 * (out - y) / out.numel())
        w = w - 0.1 * w.g
    return loss
"""


@pytest.mark.parametrize("step", ["w = w - 0.1 * dw", "w -= 0.1 * dw", "w = w + -0.1 * dw", ""])
def test_a_loop_of_steps_is_refused_with_a_place(step: str) -> None:
    text = LOOP
    if step:
        text = (
            text.replace("w.g =", "dw =").replace("w = w - 0.1 * w.g", step).replace("return loss", "return loss, dw")
        )
        assert cr.check(defined(text.replace("range(2)", "range(1)"), "train"), *inputs()[:3]).ok
    with pytest.raises(cr.ChainruleError, match=r"check one step.*:6"):
        cr.check(defined(text, "train"), *inputs()[:3])


def test_dot_grad_is_read_and_written() -> None:
    text = """
    def step(x, y, w, b):
        if w.grad is not None:
            w.grad = None
        out = x @ w + b
        loss = (out - y).pow(2).mean()
        out.grad = 2 * (out - y) / out.numel()
        w.grad = x.T @ out.grad
        b.grad = out.grad.sum(0)
        return loss
    """
    assert cr.check(defined(text, "step"), *inputs()).ok
    r = cr.check(defined(text.replace("x.T @ out.grad", "-x.T @ out.grad"), "step"), *inputs())
    assert [(f.name, f.cause) for f in r.findings] == [("w", "sign")], str(r)
    assert "g" not in vars(torch.Tensor) and "grad" not in vars(torch.Tensor)


def test_a_number_for_a_gradient_has_no_shape() -> None:
    text = """
    def step(x):
        out = x * 2
        loss = out.sum()
        out.g = 1.0
        x.g = 2 * torch.ones_like(x)
        return loss
    """
    r = cr.check(defined(text, "step"), torch.ones(4, 2))
    assert [(f.name, f.cause) for f in r.findings] == [("out", "wrong-shape")], str(r)


MODULE = """
class Linear(Base):
    def __init__(self):
        super().__init__()
        self.w, self.b = parameters()

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        self.db = dout.sum(0)
        return dout @ self.w.T
"""


def torch_parameters() -> tuple[torch.Tensor, ...]:
    return inputs()[2:]


def numpy_parameters() -> tuple[Any, ...]:
    return tuple(t.double().numpy() for t in inputs()[2:])


@pytest.mark.parametrize("base", [object, torch.nn.Module])
@pytest.mark.parametrize("parameters", [torch_parameters, numpy_parameters])
def test_an_object_whose_backward_takes_the_upstream_gradient(base: type, parameters: Any) -> None:
    if base is torch.nn.Module and parameters is numpy_parameters:
        pytest.skip("a module holds tensors")
    x = inputs()[0] if parameters is torch_parameters else inputs()[0].double().numpy()
    made = defined(MODULE, "Linear", Base=base, parameters=parameters)
    r = cr.check(made(), x)
    assert r.ok and {row.name for row in r.rows} == {"w", "b", "x"}, str(r)
    made = defined(MODULE.replace("dout.sum(0)", "dout.mean(0)"), "Linear", Base=base, parameters=parameters)
    r = cr.check(made(), x)
    assert [(f.name, f.cause, f.line, f.proved) for f in r.findings] == [("b", "wrong-scale", 13, True)], str(r)


NUMPY = """
def affine_forward(x, w, b):
    out = x.dot(w) + b
    return out, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    dx = dout.dot(w.T)
    dw = x.T.dot(dout)
    db = np.sum(dout, axis=0)
    return dx, dw, db
"""


def test_numpy_functions() -> None:
    x, _, w, b = (t.double().numpy() for t in inputs())
    forward, backward = (defined(NUMPY, name) for name in ("affine_forward", "affine_backward"))
    assert cr.check(backward, x, w, b, forward=forward).ok

    def reference(x: Any, w: Any, b: Any) -> Any:
        return x @ w + b

    assert cr.check(backward, x, w, b, forward=forward, reference=reference).ok
    wrong = defined(NUMPY.replace("np.sum(dout, axis=0)", "np.sum(dout, axis=0, keepdims=True)"), "affine_backward")
    r = cr.check(wrong, x, w, b, forward=forward)
    assert [(f.name, f.cause, f.proved) for f in r.findings] == [("b", "wrong-shape", True)], str(r)


def test_numpy_arrays_of_the_module_are_inputs() -> None:
    x, y, w, b = (t.double().numpy() for t in inputs())
    text = """
    def step(x, y):
        out = x @ W + B
        loss = np.mean((out - y) ** 2)
        dout = 2 * (out - y) / out.size
        dW = x.T @ dout
        dB = dout.sum(0)
        return loss, dW, dB
    """
    r = cr.check(defined(text, "step", W=w, B=b), x, y)
    assert r.ok and {row.name for row in r.rows} == {"W", "B"}, str(r)


@pytest.mark.parametrize("code", [3, None, "step", object()])
def test_what_is_no_code_is_refused(code: Any) -> None:
    with pytest.raises(cr.ChainruleError, match="check was given a"):
        cr.check(code)


def test_a_repair_holds_for_other_sizes() -> None:
    """Half of the right gradient, where half is one over the root of a size: no size may stand in the repair."""
    text = """
    def step(x, w):
        out = x @ w
        loss = out.pow(3).mean()
        out.g = 2 * out.pow(2) / out.numel()
        w.g = x.T @ out.g
    """
    (finding,) = cr.check(defined(text, "step"), torch.randn(6, 4), torch.randn(4, 3)).findings
    assert finding.repair == "out.g = 3 * out.pow(2) / out.numel()" and finding.proved


def test_a_repair_writes_the_persons_name_for_a_number() -> None:
    text = """
    def step(x, w, reg):
        out = x @ w
        loss = out.pow(2).sum() + 0.5 * reg * (w * w).sum()
        w.g = x.T @ out + 2 * reg * w
        return loss
    """
    (finding,) = cr.check(defined(text, "step"), torch.randn(6, 4), torch.randn(4, 3), 0.1).findings
    assert finding.proved and "reg" in finding.repair and "0.1" not in finding.repair, finding.repair


def test_a_repair_of_a_returned_gradient_leaves_the_loss() -> None:
    text = """
    def step(x, w):
        out = x @ w
        loss = out.pow(2).sum()
        return loss, x.T @ out
    """
    (finding,) = cr.check(defined(text, "step"), torch.randn(6, 4), torch.randn(4, 3), wrt=["w"]).findings
    assert finding.proved and finding.repair.startswith("return loss, "), finding.repair


def test_a_gradient_of_no_argument_is_asked_for() -> None:
    """It may be that of a global, which its numbers tell where they are right."""
    text = """
    def step(x):
        out = x @ W
        loss = out.pow(2).sum()
        return loss, x.T @ (2 * out)
    """
    with pytest.raises(cr.ChainruleError, match="wrt="):
        cr.check(defined(text.replace("2 *", "3 *"), "step", W=torch.randn(4, 3)), torch.randn(5, 4))
    report = cr.check(defined(text, "step", W=torch.randn(4, 3)), torch.randn(5, 4))
    assert report.ok and [row.name for row in report.rows] == ["W"]


def test_a_backward_pass_without_its_forward_pass_is_asked_for() -> None:
    def affine_backward(dout: Any, cache: Any) -> Any:
        x, w, _b = cache
        return dout @ w.T, x.T @ dout, dout.sum(0)

    with pytest.raises(cr.ChainruleError, match=r"affine_backward is a backward pass.*forward="):
        cr.check(affine_backward, torch.ones(5, 4), torch.ones(4, 3))


def test_a_class_in_the_place_of_an_object_is_refused() -> None:
    class Layer:
        def __init__(self, w: torch.Tensor) -> None:
            self.w = w

    with pytest.raises(cr.ChainruleError, match=r"the class Layer; give it an object, Layer\(...\)"):
        cr.check(Layer, torch.ones(5, 4), torch.ones(5))
