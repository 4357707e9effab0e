"""`record()`: a block of code, its names, and `.g` on every tensor of it."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


CELL = """\
l1 = x @ w1 + b1
l2 = l1.relu()
out = l2 @ w2 + b2
diff = out[:, 0] - y
loss = diff.pow(2).mean()
"""
NAMES = ["x", "w1", "b1", "w2", "b2", "y", "l1", "l2", "out", "diff", "loss"]


def cell_inputs() -> dict[str, Tensor]:
    return {"x": rand(5, 4), "w1": rand(4, 6), "b1": rand(6), "w2": rand(6, 1), "b2": rand(1), "y": rand(5)}


def of_autograd(text: str, **space: Any) -> dict[str, Tensor]:
    """The gradient of every tensor of the cell, by autograd."""
    space = {k: v.detach().clone().requires_grad_() if isinstance(v, Tensor) else v for k, v in space.items()}
    exec(text, space)
    tensors = {k: v for k, v in space.items() if isinstance(v, Tensor)}
    grads = torch.autograd.grad(space["loss"], list(tensors.values()), allow_unused=True)
    return dict(zip(tensors, grads, strict=True))


def test_every_tensor_gets_its_gradient() -> None:
    given = cell_inputs()
    x, w1, b1, w2, b2, y = given.values()
    with cr.record() as tape:
        l1 = x @ w1 + b1
        l2 = l1.relu()
        out = l2 @ w2 + b2
        diff = out[:, 0] - y
        loss = diff.pow(2).mean()
    d = tape.backward(loss)
    found = dict(zip(NAMES, (*given.values(), l1, l2, out, diff, loss), strict=True))
    for name, truth in of_autograd(CELL, **given).items():
        torch.testing.assert_close(found[name].g, truth)
        assert name in d.names and torch.equal(d[name].value, found[name])
    assert d["l1"].line == test_every_tensor_gets_its_gradient.__code__.co_firstlineno + 4


@pytest.mark.parametrize("file", ["<stdin>", "<cell>", "<string>", "no_such_file.py"])
def test_at_module_level_where_no_file_can_be_read(file: str) -> None:
    """As at the prompt and in a notebook: the names are globals, and there is no source to look at."""
    indented = textwrap.indent(CELL, "    ")
    space: dict[str, Any] = {"cr": cr, **cell_inputs()}
    exec(compile(f"with cr.record() as tape:\n{indented}\nd = tape.backward(loss)\n", file, "exec"), space)
    for name, truth in of_autograd(CELL, **cell_inputs()).items():
        torch.testing.assert_close(space[name].g, truth)
    d = space["d"]
    assert set(NAMES) <= set(d.names)
    assert "out.g = diff.g[:, None]" in d.source()
    assert d["l2"].line == 3
    assert "len" not in space and "range" not in space


def test_derive_of_code_typed_at_the_prompt() -> None:
    space: dict[str, Any] = {"cr": cr, **cell_inputs()}
    function = "def step():\n" + textwrap.indent(CELL, "    ") + "    return loss\n"
    exec(compile(function, "<stdin>", "exec"), space)
    exec(compile("d = cr.derive(step)", "<stdin>", "exec"), space)
    assert set(NAMES) <= set(space["d"].names)
    for name, truth in of_autograd(CELL, **cell_inputs()).items():
        torch.testing.assert_close(space["d"][name].g, truth)


def test_gradients_in_a_loop_and_through_modules() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4).double() for _ in range(3)]
    x = rand(5, 4)
    with cr.record() as tape:
        h = x
        for layer in layers:
            h = torch.tanh(layer(h))
        loss = h.square().sum()
    tape.backward(loss)
    loss_of = nn.Sequential(*[m for layer in layers for m in (layer, nn.Tanh())])
    loss_of(x).square().sum().backward()
    for parameter in loss_of.parameters():
        torch.testing.assert_close(parameter.g, parameter.grad)


def test_upstream() -> None:
    x, w, g = rand(5, 4), rand(4, 2), rand(5, 2)
    with cr.record() as tape:
        out = (x @ w).exp()
    d = tape.backward(out, upstream=g)
    torch.testing.assert_close(w.g, x.T @ (g * out))
    assert d.grads["w"].shape == (4, 2)


def test_a_learning_loop() -> None:
    x, w, y = rand(20, 3), torch.zeros(3, dtype=torch.float64), rand(20, 3) @ torch.ones(3, dtype=torch.float64)
    losses = []
    for _ in range(30):
        with cr.record() as tape:
            loss = (x @ w - y).square().mean()
        tape.backward(loss)
        w = w - 0.1 * w.g
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_an_update_in_place_changes_no_other_gradient() -> None:
    a, b = rand(3), rand(3, seed=1)
    with cr.record() as tape:
        loss = (a * b).sum()
    d = tape.backward(loss)
    before = a.clone()
    a -= 0.1 * a.g
    torch.testing.assert_close(b.g, before)
    torch.testing.assert_close(d.grads["b"], before)


def test_two_losses_of_one_block() -> None:
    x, w = rand(5, 4), rand(4)
    with cr.record() as tape:
        out = x @ w
        first = out.sum()
        second = out.square().sum()
    tape.backward(first)
    torch.testing.assert_close(w.g, x.sum(0))
    tape.backward(second)
    torch.testing.assert_close(w.g, 2 * x.T @ (x @ w))


def test_what_the_block_did_not_make() -> None:
    with cr.record() as tape:
        rand(3).sum()
    for loss in (torch.tensor(1.0), 3.0, None):
        with pytest.raises(cr.ChainruleError, match="did not record"):
            tape.backward(loss)


def test_not_a_scalar() -> None:
    x = rand(3)
    with cr.record() as tape:
        out = 2 * x
    with pytest.raises(cr.ChainruleError, match=r"shape \(3,\), not a scalar"):
        tape.backward(out)
    assert not hasattr(x, "g")


def test_an_exception_inside_the_block_leaves_nothing_behind() -> None:
    x = rand(3)
    with pytest.raises(RuntimeError, match="mat1"), cr.record():
        rand(2, 3) @ rand(2, 3)
    assert torch.overrides._get_current_function_mode_stack() == []
    assert "len" not in globals() and "range" not in globals()
    assert not hasattr(x, "g") and torch.is_grad_enabled()


def test_recording_inside_no_grad_and_keeping_requires_grad() -> None:
    x, w = rand(3), rand(3).requires_grad_()
    with torch.no_grad(), cr.record() as tape:
        loss = (x * w).sum()
    tape.backward(loss)
    torch.testing.assert_close(w.g, x)
    assert w.requires_grad and not x.requires_grad and w.grad is None
