"""What may be compiled and called: forms of forward passes, of parameters and of batches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stepping import assert_same, by_step, by_torch, made, tensors
from torch import Tensor, nn

import chainrule as cr

X, Y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
WEIGHT = torch.randn(4, 3, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.body(x), y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self(x, y) * 2


def global_weight(x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(x @ WEIGHT, y)


def a_module() -> Any:
    return (model := Model()), list(model.parameters())


def a_bound_method() -> Any:
    return (model := Model()).loss, list(model.parameters())


def a_closure() -> Any:
    layers = {"first": [tensors((4, 5))[0]], "second": tensors((5, 3))}
    return lambda x, y: F.mse_loss((x @ layers["first"][0]).tanh() @ layers["second"][0], y), [
        layers["first"][0],
        layers["second"][0],
    ]


def an_object() -> Any:
    net = SimpleNamespace(w=tensors((4, 3))[0])
    return lambda x, y: F.mse_loss(x @ net.w, y), [net.w]


def a_global() -> Any:
    WEIGHT.requires_grad_(False).copy_(normal(4, 3)).requires_grad_().grad = None
    return global_weight, [WEIGHT]


def a_tied_weight() -> Any:
    (w,) = tensors((3, 3))
    return lambda x, y: F.mse_loss((x[:, :3] @ w).tanh() @ w.T @ w, y), [w]


def a_tied_module() -> Any:
    first, last = nn.Linear(4, 3, bias=False).double(), nn.Linear(4, 3, bias=False).double()
    last.weight = first.weight
    return lambda x, y: F.mse_loss(first(x) + last(x.tanh()), y), [first.weight]


def a_frozen_weight() -> Any:
    w, v = tensors((4, 3), (3, 3))
    v.requires_grad_(False)
    return lambda x, y: F.mse_loss(x @ w @ v, y), [w]


def a_detached_use() -> Any:
    w, v = tensors((4, 3), (4, 3))
    return lambda x, y: F.mse_loss(x @ w * (x @ w).detach() + x @ v, y), [w, v]


def gradients_that_are_parameters() -> Any:
    w, v = tensors((4, 3), (4, 3))
    return lambda x, y: (w * v).sum() + 0 * (x.sum() + y.sum()), [w, v]


def products_of_parameters() -> Any:
    w, v = tensors((4, 5), (5, 3))
    return lambda x, y: F.mse_loss(x @ (w @ v), y) + (w @ v).square().sum(), [w, v]


def gradients_that_are_products_of_parameters() -> Any:
    w, v = tensors((4, 5), (5, 3))
    return lambda x, y: (w @ v).square().sum() / 9 + 0 * (x.sum() + y.sum()), [w, v]


def one_product_for_two() -> Any:
    w, v = tensors((4, 3), (4, 3))
    return lambda x, y: F.mse_loss(x @ (w + v.exp()), y), [w, v]


def one_gradient_for_two() -> Any:
    w, v = tensors((3,), (3,))
    return lambda x, y: (y * (w + v)).square().mean() + x.mean(), [w, v]


def the_same_matrix_squared() -> Any:
    (w,) = tensors((3, 3))
    return lambda x, y: (w @ w @ w).square().sum() + F.mse_loss(x[:, :3] @ w, y), [w]


def a_scalar_weight() -> Any:
    w, b = tensors((), (1,))
    return lambda x, y: (x.sum(1) * w + b - y[:, 0]).square().mean(), [w, b]


FORMS = [a_module, a_bound_method, a_closure, an_object, a_global, a_tied_weight, a_tied_module, a_frozen_weight,
         a_detached_use, gradients_that_are_parameters, products_of_parameters,
         gradients_that_are_products_of_parameters, one_product_for_two, one_gradient_for_two,
         the_same_matrix_squared, a_scalar_weight]  # fmt: skip


@pytest.mark.parametrize("engine", ["torch", "c"])
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_forms(form: Callable[[], Any], engine: str) -> None:
    batches = [(normal(6, 4), normal(6, 3)) for _ in range(3)]
    for ours, theirs in (
        (cr.SGD(lr=0.1), lambda ps: torch.optim.SGD(ps, lr=0.1)),
        (cr.SGD(lr=0.1, momentum=0.9), lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9)),
        (cr.Adam(lr=0.02), lambda ps: torch.optim.Adam(ps, lr=0.02)),
    ):
        losses, params = by_step(form, batches, ours, engine=engine)
        found = losses, [p.detach().clone() for p in params]
        losses, params = by_torch(form, batches, theirs)
        assert_same(found, (losses, [p.detach() for p in params]))


def test_ways_to_name_parameters() -> None:
    model = Model()
    weight, bias = model.parameters()
    ways: list[Any] = [
        None,
        model,
        model.parameters(),
        model.named_parameters(),
        dict(model.named_parameters()),
        [weight, bias],
    ]
    for params in ways:
        step = cr.compile(model, X, Y, params=params, optimizer=cr.SGD(lr=0.1, momentum=0.9))
        assert set(step.state) == {"body.weight.momentum", "body.bias.momentum"}
    step = cr.compile(model, X, Y, params=weight, optimizer=cr.SGD(lr=0.1))
    before = model.body.weight.clone(), model.body.bias.clone()
    step(X, Y)
    assert not torch.equal(before[0], weight)
    assert torch.equal(before[1], bias)


# -- batches -----------------------------------------------------------------------------------------


BATCHES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "as planned": lambda: (normal(6, 4), normal(6, 3)),
    "one row": lambda: (normal(1, 4), normal(1, 3)),
    "more rows": lambda: (normal(17, 4), normal(17, 3)),
    "three axes": lambda: (normal(2, 5, 4), normal(2, 5, 3)),
    "transposed": lambda: (normal(4, 6).T, normal(6, 3)),
    "every other row": lambda: (normal(12, 4)[::2], normal(12, 3)[::2]),
    "expanded": lambda: (normal(1, 4).expand(6, 4), normal(6, 1).expand(6, 3)),
    "with a gradient": lambda: (normal(6, 4).requires_grad_(), normal(6, 3)),
    "not a leaf": lambda: (normal(6, 4).requires_grad_() * 2, normal(6, 3)),
}


@pytest.mark.parametrize("engine", ["torch", "c"])
def test_batches_in_turn(engine: str) -> None:
    model = Model()
    step = cr.compile(model, X, Y, optimizer=cr.SGD(lr=0.01), engine=engine)
    for name, batch in list(BATCHES.items()) * 2:
        x, y = batch()
        expected = model(x, y).detach()
        loss = step(x, y)
        assert not loss.requires_grad
        assert not x.is_leaf or x.grad is None
        torch.testing.assert_close(loss, expected, msg=lambda text, name=name: f"{name}: {text}")
    assert len(step._plans) == 7


def test_an_empty_batch() -> None:
    (w,) = tensors((4, 3))
    for optimizer in (cr.SGD(lr=0.1), cr.Adam()):
        step = cr.compile(lambda x: (x @ w).square().sum(), X, optimizer=optimizer)
        before = w.detach().clone()
        assert step(X[:0]) == 0
        assert torch.equal(w, before)
    step = cr.compile(lambda x: (x @ w).square().mean(), X, optimizer=cr.SGD(lr=0.1))
    with pytest.raises(cr.ChainruleError, match="the loss became NaN"):
        step(X[:0])
    assert torch.equal(w, before)


@pytest.mark.parametrize("engine", ["torch", "c", "auto"])
@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy])
def test_a_mean_of_no_numbers_is_said(loss: Callable[[Tensor, Tensor], Tensor], engine: str) -> None:
    (w,) = tensors((4, 3))
    with pytest.raises(cr.ChainruleError, match=r"the loss became NaN: .*(mse_loss|cross_entropy)"):
        cr.compile(lambda x, y: loss(x @ w, y), X[:0], Y[:0], optimizer=cr.SGD(lr=0.1), engine=engine)


def test_doubles_that_are_used_as_floats() -> None:
    w = torch.randn(300, 3, dtype=torch.float64, requires_grad=True)
    x, y = torch.randn(50, 300), torch.randn(50, 3)
    step = cr.compile(lambda x, y: (x @ w.float() - y).square().mean(), x, y)
    _, found = step(x, y)
    expected = torch.autograd.grad((x @ w.float() - y).square().mean(), w)[0]
    assert found["w"].dtype == torch.float64
    torch.testing.assert_close(found["w"], expected, rtol=1e-4, atol=1e-5)


def test_arguments_by_name_and_in_containers() -> None:
    (w,) = tensors((4, 3))

    def forward(x: Tensor, *, targets: dict[str, list[Tensor]], scale: float = 2.0, norm: str = "l2") -> Tensor:
        wrong = x @ w - targets["y"][0]
        return (wrong.square() if norm == "l2" else wrong.abs()).mean() * scale

    step = cr.compile(forward, X, targets={"y": [Y]}, scale=3.0)
    for options in ({"scale": 3.0}, {"scale": 4.0}, {}, {"scale": 3.0, "norm": "l1"}, {"scale": 3.0}):
        x, y = normal(6, 4), normal(6, 3)
        loss, found = step(x, targets={"y": [y]}, **options)
        truth = forward(x, targets={"y": [y]}, **options)
        torch.testing.assert_close(loss, truth.detach())
        torch.testing.assert_close(found["w"], torch.autograd.grad(truth, w)[0])


def test_numbers_of_other_types_are_other_plans() -> None:
    (w,) = tensors((4, 3))
    step = cr.compile(
        lambda x, k: (x @ w).mean() * (2 if isinstance(k, bool) else 3 if isinstance(k, int) else 4), X, 1
    )
    losses = [step(X, k)[0] for k in (1, 1.0, True, 1)]
    base = (X @ w).mean().detach()
    torch.testing.assert_close(torch.stack(losses), base * torch.tensor([3.0, 4.0, 2.0, 3.0], dtype=torch.float64))


def test_one_tensor_as_two_arguments() -> None:
    (w,) = tensors((4, 3))

    def forward(a: Tensor, b: Tensor) -> Tensor:
        return (a @ w - (b @ w) ** 2).mean()

    for first, second in (((X, X), (X, normal(6, 4))), ((X, normal(6, 4)), (X, X))):
        step = cr.compile(forward, *first)
        for batch in (first, second, first):
            loss, found = step(*batch)
            truth = forward(*batch)
            torch.testing.assert_close(loss, truth.detach())
            torch.testing.assert_close(found["w"], torch.autograd.grad(truth, w)[0])


def test_gradients_of_arguments() -> None:
    """Without an optimizer, what requires a gradient gets one, in batches of every size."""
    (w,) = tensors((4, 3))

    def forward(x: Tensor) -> Tensor:
        return (x @ w).square().mean()

    step = cr.compile(forward, normal(6, 4).requires_grad_())
    for x in (normal(6, 4).requires_grad_(), normal(2, 4).requires_grad_(), normal(6, 4)):
        _, found = step(x)
        asked = [x, w] if x.requires_grad else [w]
        assert list(found) == (["x", "w"] if x.requires_grad else ["w"])
        for gradient, truth in zip(found.values(), torch.autograd.grad(forward(x), asked)):
            torch.testing.assert_close(gradient, truth)


def test_results_are_the_persons_own() -> None:
    """A loss or a gradient that was given is not overwritten by the next step."""
    (w,) = tensors((4, 3))
    step = cr.compile(lambda x: (x @ w).square().mean(), X)
    loss, found = step(X)
    kept = loss.clone(), found["w"].clone()
    step(X * 3)
    assert torch.equal(loss, kept[0])
    assert torch.equal(found["w"], kept[1])
    v, u = tensors((4, 3), (4, 3))
    _, found = cr.compile(lambda x: (x @ (v + u)).square().mean(), X)(X)
    assert torch.equal(found["v"], found["u"])
    assert found["v"].data_ptr() != found["u"].data_ptr()  # one may be written into


def test_run() -> None:
    forward, params = made(a_module)
    step = cr.compile(forward, X, Y, optimizer=cr.SGD(lr=0.1))
    losses = step.run(zip(X.split(2), Y.split(2)))
    theirs, weights = by_torch(a_module, list(zip(X.split(2), Y.split(2))), lambda ps: torch.optim.SGD(ps, lr=0.1))
    assert_same((list(losses), params), (theirs, weights))
    assert step.run([]).numel() == 0
    (w,) = tensors((4, 3))
    alone = cr.compile(lambda x: (x @ w).mean(), X)
    torch.testing.assert_close(alone.run([X, X * 2]), torch.stack([(X @ w).mean(), (X @ w).mean() * 2]).detach())


def test_training_and_evaluation() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).double()
    step = cr.compile(lambda x, y: F.mse_loss(model(x), y), X, Y, optimizer=cr.SGD(lr=0.0))
    for training in (True, False, True):
        model.train(training)
        torch.manual_seed(2)
        losses = step(X, Y), step(X, Y)
        assert (losses[0] == losses[1]) == (not training)
        torch.manual_seed(2)
        torch.testing.assert_close(losses[0], F.mse_loss(model(X), Y).detach())


def test_plans_that_were_not_used_for_long_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.compiling.step.MOST", 2)
    (w,) = tensors((4, 3))
    batches = {n: torch.randn(n, 4, dtype=torch.float64) for n in (2, 3, 5)}
    step = cr.compile(lambda x: (x @ w).square().mean(), batches[2])
    first = step.plan()
    step(batches[3])
    step(batches[2])
    assert step.plan() is first
    step(batches[5])  # in place of that for three rows
    assert "2 plans" in repr(step)
    step(batches[2])
    assert step.plan() is first
    loss, _ = step(batches[3])
    torch.testing.assert_close(loss, (batches[3] @ w).square().mean())
