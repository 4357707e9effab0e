"""Every example runs by itself, and does what it says."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import chainrule as cr

FOLDER = Path(__file__).parent.parent / "examples"
FILES = sorted(FOLDER.glob("*.py"))


def load(name: str) -> dict[str, Any]:
    """The globals of an example that is imported, not run; `namespace["f"].__globals__` is the same dict."""
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name=name)


def exactly(function: Any, *tensors: Tensor, wrt: list[int]) -> list[Tensor]:
    """Autograd's gradients in float64."""
    given = [t.detach().double() if t.is_floating_point() else t for t in tensors]
    for i in wrt:
        given[i].requires_grad_()
    return list(torch.autograd.grad(function(*given), [given[i] for i in wrt]))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(file)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", str(tmp_path)))
    runpy.run_path(str(file), run_name="__main__")
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 3
    assert "wrong" not in text and "missing" not in text
    assert list(tmp_path.glob("*.py")) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_explains_itself_and_gives_inputs(file: Path) -> None:
    space = load(file.stem)
    assert f"python examples/{file.name}" in space["__doc__"]
    assert isinstance(space["inputs"](), tuple)
    for named in re.findall(rf"chainrule \w+ examples/{file.name}:(\w+)", space["__doc__"]):
        assert callable(space[named])
    if callable(space.get("forward")):
        assert cr.derive(space["forward"], *space["inputs"]()).output.ndim == 0


def test_linear_regression(tmp_path: Path) -> None:
    space = load("linear_regression")
    x, y, w, b = space["inputs"]()
    assert x.shape == (100, 4) and y.shape == (100, 2)
    assert space["W_TRUE"].T.tolist() == [[1, 1.5, 2, 2.5], [1, 1.5, 3, -0.5]]
    assert space["B_TRUE"].tolist() == [0, -1]
    path = space["plot"](x, y, tmp_path)
    assert path.parent == tmp_path and path.read_bytes().startswith(b"\x89PNG")

    space["forward_and_backward"](x, y, w, b)
    for tensor, truth in zip((x, w, b), exactly(space["forward"], x, y, w, b, wrt=[0, 2, 3]), strict=True):
        assert_close(tensor.g, truth)
    assert cr.check(space["forward_and_backward"], x, y, w, b).ok
    losses = space["learn"](x, y, w, b)
    assert len(losses) == 21 and losses[-1] < 0.01 * losses[0]
    assert (w - space["W_TRUE"]).abs().max() < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_linear_regression_learns_from_other_data_and_starts(seed: int) -> None:
    space = load("linear_regression")
    w, b = space["parameters"](seed)
    space["learn"](*space["data"](seed=seed), w, b)
    assert (w - space["W_TRUE"]).abs().max() < 0.2


@pytest.mark.parametrize("way", ["by_product", "by_outer_products"])
def test_one_neuron(way: str) -> None:
    space = load("one_neuron")
    step, (inp, targ) = space[way], space["inputs"]()
    assert step(inp, targ) is None
    w, b = space["w"], space["b"]

    def forward(inp: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return ((inp @ w + b).clamp_min(0.0)[:, 0] - targ.double()).pow(2).mean()

    truths = exactly(forward, inp, w, b, wrt=[0, 1, 2])
    for tensor, truth in zip((inp, w, b), truths, strict=True):
        assert_close(tensor.g, truth)
    r = cr.check(step, inp, targ)
    assert r.ok and {"inp", "w", "b"} <= {row.name for row in r.rows}


def test_two_layers() -> None:
    space = load("two_layers")
    inp, targ = space["inputs"]()
    assert space["forward_and_backward"](inp, targ) is None
    d = cr.derive(space["forward"], inp, targ)
    for name in ("w1", "b1", "w2", "b2"):
        torch.testing.assert_close(space[name].g, d.grads[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inp.g, d.grads["inp"], rtol=1e-4, atol=1e-5)
    for line in ("w1.g = inp.T @ l1.g", "w2.g = l2.T @ out.g", "b2.g = out.g.sum(0)"):
        assert line in d.source()
    assert d.verify() and cr.check(space["forward_and_backward"], inp, targ).ok


@pytest.mark.parametrize("make", ["plain", "modules", "derived"])
def test_layers(make: str) -> None:
    space = load("layers")
    model, (x, targ) = space[make](), space["inputs"]()
    model(x, targ)
    model.backward()

    def forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return ((x @ w1 + b1).clamp_min(0.0) @ w2 + b2).squeeze(-1).sub(targ.double()).pow(2).mean()

    tensors = [x, model.w1, model.b1, model.w2, model.b2]
    for tensor, truth in zip(tensors, exactly(forward, *tensors, wrt=[0, 1, 2, 3, 4]), strict=True):
        assert_close(tensor.g, truth)
    r = cr.check(space[make](), x, targ)
    assert r.ok and not r.findings
    assert {"x", "w1", "b1", "w2", "b2"} <= {row.name for row in r.rows}


def test_six_rows() -> None:
    space = load("six_rows")
    rows, targ = space["rows"], space["targ"]
    assert rows.shape == (6, 3) and set(rows.unique().tolist()) == set(targ.unique().tolist()) == {0, 1}
    before = dict(zip(("w1", "b1", "w2", "b2"), space["weights"](), strict=True))
    d = space["derived"](before)
    truths = exactly(space["forward"], *space["inputs"](), wrt=[1, 2, 3, 4])
    for name, truth in zip(before, truths, strict=True):
        assert_close(d.grads[name], truth)
    after = space["derived"](space["apply"](d, before))
    assert after.output < 0.75 * d.output
    text = str(d.trace())
    for name in ("inp", "w1", "hidden", "out", "diff", "loss", "out.g", "hidden.g", "w1.g", "b2.g"):
        assert re.search(rf"^  {re.escape(name)}( |$)", text, re.MULTILINE), name
    assert f"{d.output:.6g}" in text


def test_pixels() -> None:
    space = load("pixels")
    forward, inputs = space["forward"], space["inputs"]()
    pixels, weights = cr.derive(forward, *inputs, wrt="image"), cr.derive(forward, *inputs, wrt=["w1", "w2"])
    assert list(pixels.grads) == ["image"] and sorted(weights.grads) == ["w1", "w2"]
    for style in ("dotg", "function"):
        backward = [d.source(style).split("# backward")[1] for d in (pixels, weights)]
        assert "image" in backward[0] and not re.search(r"\bw[12][._]g\b", backward[0])
        assert not re.search(r"\bimage[._]g\b", backward[1])
    assert not pixels.fallbacks
    space["w1"].requires_grad_(), space["w2"].requires_grad_()
    image = inputs[0].clone().requires_grad_()
    forward(image, *inputs[1:]).backward()
    for ours, theirs in ((pixels.grads["image"], image), (weights.grads["w1"], space["w1"])):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-6)
    losses = space["paint"]()
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("bias", [(3,), (1, 3), (5, 1), ()])
@pytest.mark.parametrize("reduction", ["by_mean", "by_sum"])
def test_shapes(bias: tuple[int, ...], reduction: str) -> None:
    space = load("shapes")
    args = space["inputs"](bias=bias)
    d = cr.derive(space[reduction], *args)
    for ours, truth in zip(d.grads.values(), exactly(space[reduction], *args, wrt=[0, 1, 2, 3]), strict=True):
        assert_close(ours, truth)
    assert d.grads["b"].shape == bias and "b.g" in space["bias_line"](d)


def test_shapes_of_a_batch_of_one_and_of_no_reduction() -> None:
    space = load("shapes")
    args = space["inputs"](batch=1)
    d = cr.derive(space["by_mean"], *args)
    assert_close(d.grads["b"], exactly(space["by_mean"], *args, wrt=[2])[0])
    args = space["inputs"]()
    d = cr.derive(space["unreduced"], *args, wrt=["w", "b"], upstream=torch.ones(5, 3))
    for ours, truth in zip(d.grads.values(), exactly(space["by_sum"], *args, wrt=[1, 2]), strict=True):
        assert_close(ours, truth)


@pytest.mark.parametrize("name", ["single", "stack", "residual"])
def test_torch_layout(name: str) -> None:
    space = load("torch_layout")
    model, (x,) = space["MODELS"][name], space["inputs"]()
    d = cr.derive(model, x, upstream=torch.ones_like(model(x)))
    assert set(d.grads) == {n for n, _ in model.named_parameters()}
    assert max(space["differences"](model, x).values()) < 1e-5
    model = model.double()
    d = cr.derive(model, x.double(), upstream=torch.ones_like(model(x.double())))
    model.zero_grad()
    model(x.double()).sum().backward()
    for n, parameter in model.named_parameters():
        torch.testing.assert_close(d.grads[n], parameter.grad)


def test_own_rule() -> None:
    space = load("own_rule")
    x, w, y = space["inputs"]()
    w = torch.tensor([0.3, -0.7, 0.1])
    d = cr.derive(space["forward"], x, w, y, wrt="w")
    torch.testing.assert_close(d.grads["w"], d["w_q"].g)
    w_q = space["quantized"](w)
    torch.testing.assert_close(d.grads["w"], 2 * x.T @ (x @ w_q - y) / len(y))
    learned, losses = space["learn"]()
    assert learned.tolist() == space["TRUTH"].tolist() and losses[-1] < 0.01 * losses[0]
