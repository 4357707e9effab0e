"""Values that are written in place: through their own name, through views, by `out=`, in shape alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, run_emitted
from torch import Tensor

import chainrule as cr

Function = Callable[..., Tensor]


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


X, V = rand(3, 4), rand(3)


def assert_right(written: Function, plain: Function, *args: Tensor) -> None:
    """The derivation of `written` against autograd on `plain`, the same function without a write."""
    leaves = [a.clone().requires_grad_() for a in args]
    output = plain(*leaves)
    truth = torch.autograd.grad(output, leaves)
    for given in ([a.clone() for a in args], [a.clone().requires_grad_() for a in args]):
        if given[0].requires_grad and refused_by_torch(written, *args):
            continue
        d = cr.derive(written, *given)
        assert d.fallbacks == []
        assert_close(d.output, output)
        for found, right in zip(d.grads.values(), truth, strict=True):
            assert_close(found, right)
        emitted_output, emitted = run_emitted(d, *(a.clone() for a in args))
        assert_close(emitted_output, output)
        for found, right in zip(emitted.values(), truth, strict=True):
            assert_close(found, right)


def refused_by_torch(written: Function, *args: Tensor) -> bool:
    """Whether torch itself forbids the write where gradients are required (parts of a split)."""
    try:
        written(*(a.clone().requires_grad_() for a in args))
    except RuntimeError:
        return True
    return False


def through_a_flat_view(x: Tensor) -> Tensor:
    y = x * 2
    flat = y.view(-1)
    flat.add_(1)
    flat.mul_(3)
    return (y**2).sum()


def the_base_after_the_view(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    y.mul_(3)
    return (row**2).sum()


def slices(x: Tensor, v: Tensor) -> Tensor:
    y = x * 2
    y[:, 0] += v
    y[1].mul_(v.sum())
    y[:, 1:3] = v[:, None] * 2
    return (y**2).sum()


def slices_plainly(x: Tensor, v: Tensor) -> Tensor:
    rows = []
    for i in range(3):
        first = 2 * x[i, 0] + v[i]
        last = 2 * x[i, 3]
        scale = v.sum() if i == 1 else 1
        rows.append(torch.stack([first * scale, 2 * v[i], 2 * v[i], last * scale]))
    return (torch.stack(rows) ** 2).sum()


def transposes(x: Tensor) -> Tensor:
    y = x.clone()
    y.t()[0].add_(x[:, 1])
    y.transpose(0, 1).mul_(2)
    y.permute(1, 0)[1:].sub_(1)
    return (y**3).sum()


def transposes_plainly(x: Tensor) -> Tensor:
    y = 2 * torch.cat([x[:, :1] + x[:, 1:2], x[:, 1:]], 1)
    return (torch.cat([y[:, :1], y[:, 1:] - 1], 1) ** 3).sum()


def pieces(x: Tensor) -> Tensor:
    y = x * 1
    a, b = y.chunk(2, 1)
    a.mul_(b.detach().sum())
    y.split([1, 3], dim=1)[1].neg_()
    y.unbind(0)[2].exp_()
    y.narrow(0, 0, 1).zero_()
    y.diagonal().add_(1)
    return (y**2).sum()


def pieces_plainly(x: Tensor) -> Tensor:
    y = torch.cat([x[:, :2] * x.detach()[:, 2:].sum(), x[:, 2:]], 1)
    y = torch.cat([y[:, :1], -y[:, 1:]], 1)
    y = torch.stack([y[0] * 0, y[1], y[2].exp()])
    return ((y + torch.eye(3, 4, dtype=y.dtype)) ** 2).sum()


def shape_alone(x: Tensor) -> Tensor:
    y = x * 2
    y.unsqueeze_(0)
    y.squeeze_(0)
    y.t_()
    return (y**2 * torch.arange(3)).sum()


def filled(x: Tensor, v: Tensor) -> Tensor:
    y = x * 2
    y[0].fill_(v[1])
    y[1].copy_(x[2])
    y[2].zero_()
    return (y**2).sum()


def out_argument(x: Tensor) -> Tensor:
    buffer = torch.empty(3, 4, dtype=x.dtype)
    torch.mul(x.detach(), 2, out=buffer)
    return (x * buffer).sum()


def needed_afterwards(x: Tensor) -> Tensor:
    y = x.sigmoid()
    y.mul_(2)
    return y.sum()


def squared_then_cleared(x: Tensor) -> Tensor:
    y = x * 2
    loss = (y * y).sum()
    y.zero_()
    return loss


def row_cleared(x: Tensor) -> Tensor:
    y = x.tanh()
    y[0] = 0.0
    return y.sum()


CASES: list[tuple[Function, Function, tuple[Tensor, ...]]] = [
    (through_a_flat_view, lambda x: ((6 * x + 3) ** 2).sum(), (X,)),
    (the_base_after_the_view, lambda x: (36 * x[0] ** 2).sum(), (X,)),
    (slices, slices_plainly, (X, V)),
    (transposes, transposes_plainly, (X,)),
    (pieces, pieces_plainly, (X,)),
    (shape_alone, lambda x: (4 * x.T**2 * torch.arange(3)).sum(), (X,)),
    (filled, lambda x, v: 4 * v[1] ** 2 + (x[2] ** 2).sum(), (X, V)),
    (out_argument, lambda x: (x * 2 * x.detach()).sum(), (X,)),
    (needed_afterwards, lambda x: 2 * x.sigmoid().sum(), (X,)),
    (squared_then_cleared, lambda x: (4 * x * x).sum(), (X,)),
    (row_cleared, lambda x: x[1:].tanh().sum(), (X,)),
    (lambda x: (x * 2).relu_().sum(), lambda x: (x * 2).relu().sum(), (X,)),
    (lambda x: (x * 2).add_(1).mul_(3).square().sum(), lambda x: (6 * x + 3).square().sum(), (X,)),
    (lambda x: F.relu(x * 2, inplace=True).square().mean(), lambda x: F.relu(x * 2).square().mean(), (X,)),
    (lambda x: (x * 2).sigmoid_().square().sum(), lambda x: (x * 2).sigmoid().square().sum(), (X,)),
    (lambda x: torch.zeros(3, 4, dtype=x.dtype).add_(x * 2).square().sum(), lambda x: 4 * x.square().sum(), (X,)),
]


@pytest.mark.parametrize("case", [pytest.param(c, id=getattr(c[0], "__name__", "?")) for c in CASES])
def test_written_values(case: tuple[Function, Function, tuple[Tensor, ...]]) -> None:
    written, plain, args = case
    assert_right(written, plain, *args)


def test_a_note_says_where_autograd_refuses() -> None:
    d = cr.derive(needed_afterwards, X.clone().requires_grad_())
    assert any("autograd refuses" in note for note in d.notes)


def test_an_input_that_is_written_is_given_back_as_it_was_asked_for() -> None:
    x = X.clone()

    def forward(x: Tensor) -> Tensor:
        x[0].mul_(2)
        return (x**2).sum()

    d = cr.derive(forward, x)
    assert_close(d.grads["x"], torch.cat([8 * X[:1], 2 * X[1:]]))
    assert d.pairs()[0][0] is x


def test_a_write_that_cannot_be_followed_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y.as_strided((2,), (1,)).mul_(3)
        return y.sum()

    with pytest.raises(cr.ChainruleError, match="as_strided is written in place"):
        cr.derive(forward, X.clone())


def test_the_tape() -> None:
    with cr.record() as tape:
        y = X * 2
        y[0] = 0
        loss = (y**2).sum()
    tape.backward(loss)
    assert_close(X.g, 8 * X * (torch.arange(3) > 0)[:, None])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y.narrow(0, -2, 2).mul_(3),
        lambda y: y.chunk(chunks=2, dim=1)[1].mul_(3),
        lambda y: y.split(split_size=2, dim=1)[1].mul_(3),
        lambda y: y.permute(dims=(1, 0))[1].mul_(3),
        lambda y: y.fill_diagonal_(3.0),
        lambda y: y.view(4, 3).fill_diagonal_(3.0),
        lambda y: (y[0], y.t_().add_(1))[0].mul_(3),
        lambda y: (y[0], y.unsqueeze_(0))[0].mul_(3),
        lambda y: (y.T, y.t_())[0].mul_(y[0, 0].clone()),
    ],
)
def test_writes_by_other_spellings(write: Callable[[Tensor], object]) -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        write(y)
        return (y**3).sum()

    x = X.clone()
    leaf = x.clone().requires_grad_()
    d = cr.derive(forward, x)
    try:
        output = forward(leaf)
    except RuntimeError:  # torch writes to no part of a split that requires gradients
        step = 1e-6
        for place in ((0, 0), (1, 2), (2, 3)):
            by = torch.zeros_like(X)
            by[place] = step
            slope = (forward(X + by) - forward(X - by)) / (2 * step)
            assert_close(d.grads["x"][place], slope, 1e-6)  # type: ignore[index]
        return
    truth = torch.autograd.grad(output, leaf)[0]
    assert_close(d.output, output)
    assert_close(d.grads["x"], truth)
    emitted, gradients = run_emitted(d, X.clone())
    assert_close(emitted, output)
    assert_close(gradients["x"], truth)
