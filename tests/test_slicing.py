"""A step in slices gives what the step gives, or the slices are refused: rows that need one another are not parted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stepping import Batch, Network, by_torch, of_module, tensors
from test_compile import scalar
from torch import Tensor, nn
from zoo import ENTRIES, SEED, Entry

import chainrule as cr
from chainrule.compiling import choosing, islands
from chainrule.compiling.engines import planned
from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.planner import Planner
from chainrule.compiling.slicing.loop import in_slices
from chainrule.compiling.slicing.shares import NotByRows
from chainrule.deriving import derivation_with
from chainrule.rules import KERNELS

needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
ROWS = 6


def lowered(forward: Callable[..., Tensor], batch: Batch, params: list[Tensor]) -> Lowered:
    planner = Planner(forward, params, None, "torch", None, 1, "none", None)
    return planner._lowered(derivation_with(KERNELS, forward, *batch, wrt=params), batch)


def agree(step: Lowered, batch: Batch, count: int, engine: str = "torch") -> None:
    """A step in slices beside the whole. Raises NotByRows."""
    sliced = in_slices(engine, step.copied(), count, None, {})
    results = []
    for plan in (planned("torch", step.copied(), None, {}), sliced, sliced):  # twice: nothing is left from a call
        torch.manual_seed(SEED)
        results.append(plan.call(*(t.detach() for t in batch)))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-10, atol=1e-12, equal_nan=True)


# -- every function of the menagerie, its arguments of one row for each of the batch as the batch ------------------


MANY = 22  # rows: no other axis in the menagerie has as many


def in_slices_or_refused(entry: Entry) -> bool:
    args = entry.arguments(MANY)
    forward = scalar(entry)
    params = [a for a in args if isinstance(a, Tensor) and a.is_floating_point() and a.shape[:1] != (MANY,)]
    values = [a for a in args if isinstance(a, Tensor)]

    def of_batch(*rows: Tensor) -> Tensor:
        given = iter(rows)
        rest = [next(given) if isinstance(a, Tensor) and not any(a is p for p in params) else a for a in args]
        return forward(*rest)

    batch = tuple(a.detach() for a in values if not any(a is p for p in params))
    for p in params:
        p.requires_grad_()
    try:
        torch.manual_seed(SEED)
        step = lowered(of_batch, batch, params)
    except cr.ChainruleError:  # no step can be planned
        return False
    for count in (2, 11):
        try:
            agree(step, batch, count)
        except NotByRows:
            return False
    return True


@pytest.mark.parametrize("part", range(8))
def test_the_menagerie_in_slices(part: int) -> None:
    entries = ENTRIES[part::8]
    taken = [in_slices_or_refused(entry) for entry in entries]
    assert sum(taken) >= len(taken) // 5


# -- networks that must be taken ---------------------------------------------------------------------


class Images(nn.Module):
    """Convolutions, a norm of groups, and both kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.second, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        return self.head(F.adaptive_avg_pool2d(torch.relu(self.second(x)), 1).flatten(1))


class Tied(nn.Module):
    """Tokens and their places embedded; the table is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(9, 4), nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, idx: Tensor) -> Tensor:
        h = self.tokens(idx) + self.places.weight[: idx.shape[1]]
        return (self.norm(h) @ self.tokens.weight.T).view(-1, 9)


def by_hand(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
    scores = x @ w + b
    shares = (scores - scores.amax(1, keepdim=True)).exp()
    shares = shares / shares.sum(1, keepdim=True)
    return -(shares.gather(1, y[:, None]).log()).mean() + 0.01 * (w**2).sum()


def classes(*shape: int) -> Tensor:
    return torch.randint(0, 3, shape)


def of_tensors(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Callable[[], Network]:
    def network() -> Network:
        params = tensors(*shapes)
        return (lambda *batch: function(*batch, *params)), params

    return network


def with_mask(x: Tensor, w: Tensor) -> Tensor:
    return (F.dropout(x @ w, 0.4) ** 2).mean()


def cross_entropy_of_some(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return F.cross_entropy(x @ w, torch.where(y == 2, -100, y))


TAKEN: dict[str, tuple[Callable[[], Network], Callable[[], Batch]]] = {
    "images": (of_module(Images, F.cross_entropy), lambda: (torch.randn(ROWS, 2, 8, 8).double(), classes(ROWS))),
    "tied": (
        of_module(Tied, lambda p, y: F.cross_entropy(p, y.view(-1))),
        lambda: (torch.randint(0, 9, (ROWS, 5)), torch.randint(0, 9, (ROWS, 5))),
    ),
    "by hand": (of_tensors(by_hand, (4, 3), (3,)), lambda: (torch.randn(ROWS, 4).double(), classes(ROWS))),
    "dropout": (of_tensors(with_mask, (4, 3)), lambda: (torch.randn(ROWS, 4).double(),)),
    "targets left out": (
        of_tensors(cross_entropy_of_some, (4, 3)),
        lambda: (torch.randn(ROWS, 4).double(), torch.tensor([0, 2, 2, 2, 2, 1])),
    ),
    "sum": (
        of_tensors(lambda x, y, w: F.cross_entropy(x @ w, y, reduction="sum") + w.abs().sum(), (4, 3)),
        lambda: (torch.randn(ROWS, 4).double(), classes(ROWS)),
    ),
    "bce": (
        of_tensors(lambda x, y, w: F.binary_cross_entropy_with_logits((x @ w)[:, 0], y), (4, 1)),
        lambda: (torch.randn(ROWS, 4).double(), torch.rand(ROWS).double()),
    ),
    "bce of shares": (
        of_tensors(lambda x, y, w: F.binary_cross_entropy(torch.sigmoid(x @ w), y), (4, 3)),
        lambda: (torch.randn(ROWS, 4).double(), torch.rand(ROWS, 3).double()),
    ),
    "rank 3": (
        of_tensors(lambda x, y, w, b: F.mse_loss(torch.tanh(x @ w + b), y), (4, 3), (3,)),
        lambda: (torch.randn(ROWS, 5, 4).double(), torch.randn(ROWS, 5, 3).double()),
    ),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", TAKEN)
def test_networks_are_taken_in_slices(name: str, count: int) -> None:
    network, make = TAKEN[name]
    torch.manual_seed(0)
    forward, params = network()
    batch = make()
    step = lowered(forward, batch, params)
    agree(step, batch, count)


@needs_c
@pytest.mark.parametrize("name", ["tied", "by hand", "rank 3"])
def test_networks_in_slices_in_c(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every product left to a library, and with none."""
    network, make = TAKEN[name]
    torch.manual_seed(0)
    forward, params = network()
    batch = make()
    for large in (1, 1e7):
        monkeypatch.setattr(islands, "LARGE", large)
        agree(lowered(forward, batch, params), batch, 2, "c")


# -- rows that need one another ------------------------------------------------------------------------


def batch_norm(x: Tensor, w: Tensor) -> Tensor:
    return (F.batch_norm(x @ w, None, None, training=True) ** 3).sum()


REFUSED: dict[str, Callable[..., Tensor]] = {
    "batch norm": batch_norm,
    "pairs": lambda x, w: ((x @ w) @ (x @ w).T).tanh().sum(),
    "softmax over the batch": lambda x, w: (x @ w).softmax(0)[:, 0].square().sum(),
    "order": lambda x, w: ((x @ w).sort(0).values * torch.arange(float(ROWS), dtype=x.dtype)[:, None]).sum(),
    "running sums": lambda x, w: (x @ w).cumsum(0).square().sum(),
    "one row of all": lambda x, w: ((x @ w) * (x @ w)[0]).sum(),
    "reversed": lambda x, w: ((x @ w).flip(0) * x.sum(1, keepdim=True)).sum(),
    "shared mean": lambda x, w: ((x @ w) - (x @ w).mean(0)).square().sum(),
    "mixed axes": lambda x, w: (x @ w).reshape(-1, 2 * ROWS).softmax(1).square().sum(),
    "largest": lambda x, w: (x @ w).amax(0).sum(),
    "two results": lambda x, w: (torch.frexp(x).mantissa @ w).square().sum(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_need_one_another_stay_together(name: str) -> None:
    torch.manual_seed(0)
    (w,) = tensors((4, 4))
    batch = (torch.randn(ROWS, 4, dtype=torch.float64),)
    with pytest.raises(NotByRows):
        agree(lowered(lambda x: REFUSED[name](x, w), batch, [w]), batch, 2)


@pytest.mark.parametrize("rows", [0, 1, 5, 7])
def test_rows_that_cannot_be_shared_out(rows: int) -> None:
    (w,) = tensors((4, 2))
    batch = (torch.randn(rows, 4, dtype=torch.float64),)
    with pytest.raises(NotByRows):
        agree(lowered(lambda x: (x @ w).square().sum(), batch, [w]), batch, 2)


# -- what a person meets -------------------------------------------------------------------------------


@pytest.fixture
def eager_to_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is thought large, and slices to cost nothing."""
    monkeypatch.setattr(choosing, "SMALL", 0)
    monkeypatch.setattr(choosing, "FREE", 1e9)


OPTIMISERS: list[tuple[Callable[[], Any], Callable[[list[Tensor]], torch.optim.Optimizer], float | None, int]] = [
    (lambda: cr.SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1), None, 1),
    (lambda: cr.AdamW(lr=0.01, clip_norm=0.5), lambda p: torch.optim.AdamW(p, lr=0.01), 0.5, 1),
    (lambda: cr.SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), None, 2),
]


@pytest.mark.usefixtures("eager_to_slice")
@pytest.mark.parametrize(("ours", "theirs", "clip", "every"), OPTIMISERS, ids=["sgd", "adamw-clipped", "accumulated"])
def test_training_in_slices(ours: Any, theirs: Any, clip: float | None, every: int) -> None:
    network = of_module(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), F.cross_entropy)
    generator = torch.Generator().manual_seed(3)
    wide = [
        (
            torch.randn(400, 4, dtype=torch.float64, generator=generator),
            torch.randint(0, 3, (400,), generator=generator),
        )
        for _ in range(6)
    ]
    losses, right = by_torch(network, wide, theirs, clip, every)
    torch.manual_seed(0)
    forward, params = network()
    step = cr.compile(forward, *wide[0], params=params, optimizer=ours(), accumulate=every)
    assert step.plan().slices == 2
    assert "def slice_of_step" in str(step.plan())
    found = [step(*batch) for batch in wide]
    torch.testing.assert_close(torch.stack(found), torch.stack(losses))
    torch.testing.assert_close(params, right)


@pytest.mark.usefixtures("eager_to_slice")
def test_a_loss_that_is_not_finite_stops_before_anything_moves() -> None:
    (w,) = tensors((4, 2))
    x = torch.randn(400, 4, dtype=torch.float64)
    step = cr.compile(lambda x: (x @ w).square().mean(), x, optimizer=cr.SGD(lr=0.1))
    assert step.plan().slices == 2
    before = w.detach().clone()
    x[399, 1] = float("inf")
    with pytest.raises(cr.ChainruleError, match=r"the loss became infinite.* in x"):
        step(x)
    assert torch.equal(w, before)


def under_a_root(x: Tensor, w: Tensor, q: Tensor) -> Tensor:
    """The loss and the gradient of q are there before slices, which read q."""
    return (q.square().sum() + (x * w * q.detach()).square().sum()).sqrt()


@pytest.mark.usefixtures("eager_to_slice")
def test_nothing_moves_before_slices_have_read_it() -> None:
    w, q = params = tensors((4,), (4,))
    x = torch.randn(400, 4, dtype=torch.float64)
    right = torch.autograd.grad(under_a_root(x, w, q), params)
    before = [p.detach().clone() for p in params]
    step = cr.compile(lambda x: under_a_root(x, w, q), x, params=params, optimizer=cr.SGD(lr=0.1))
    whole = step.plan().lowered
    sliced = in_slices("torch", whole, 2, step.optimizer, {p: [] for p in whole.params})
    sliced.call(x)
    for p, was, g in zip(params, before, right):
        torch.testing.assert_close(p.detach(), was - 0.1 * g)


@pytest.mark.usefixtures("eager_to_slice")
def test_steps_that_run_away_can_be_planned() -> None:
    """Plans are tried on one batch, again and again."""
    (w,) = tensors((4, 2))
    before = w.detach().clone()
    x = torch.randn(400, 4, dtype=torch.float64)
    step = cr.compile(lambda x: (x @ w).square().sum(), x, optimizer=cr.SGD(lr=10.0, momentum=0.9))
    assert len(step.plan().compared) == 2
    assert (step.optimizer.lr, step.optimizer.steps) == (10.0, 0)
    assert torch.equal(w, before)
    torch.testing.assert_close(step(x), (x @ before).square().sum())


@pytest.mark.parametrize("names", ["sums, zip", "zero_, slice_of_step", "x, x_rows", "slices, step"])
def test_arguments_may_have_the_names_of_the_loop(names: str) -> None:
    (w,) = tensors((4, 2))
    batch = torch.randn(ROWS, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    first, second = names.split(", ")
    agree(lowered(eval(f"lambda {names}: ({first} @ w * {second}).square().sum()", {"w": w}), batch, [w]), batch, 2)


@pytest.mark.usefixtures("eager_to_slice")
def test_gradients_that_are_given_stay_as_they_are() -> None:
    (w,) = tensors((4, 2))
    x = torch.randn(400, 4, dtype=torch.float64)
    step = cr.compile(lambda x: (x @ w).square().mean(), x, params=[w])
    assert step.plan().slices == 2
    _, first = step(x)
    kept = first["w"].clone()
    step(2 * x)
    assert torch.equal(first["w"], kept)


def test_products_in_bfloat16_are_summed_in_float32() -> None:
    (w,) = tensors((64, 8), dtype=torch.float32)
    x = torch.randn(4096, 64)
    step = cr.compile(lambda x: (x @ w).square().mean(), x, params=[w], dtype=torch.bfloat16, memory=100)
    sliced = in_slices("torch", step.plan().lowered, 2, None, {})
    _, found = sliced.call(x)
    assert found["w"].dtype == torch.float32
    assert found["w"].bfloat16().ne(found["w"]).any()
    torch.testing.assert_close(found["w"], step(x)[1]["w"], rtol=0.01, atol=1e-3)


def test_a_budget_is_met_by_slices() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)).double()
    batch = tuple(torch.randn(64, 15, 8, dtype=torch.float64) for _ in range(2))

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(x + model(x), y)

    free = cr.compile(forward, *batch, params=model, recompute="none")
    loss, right = free(*batch)
    budget = free.plan().peak_bytes / 1e6 / 6
    step = cr.compile(forward, *batch, params=model, memory=budget)
    assert step.plan().slices > 2
    assert step.plan().peak_bytes <= budget * 1e6
    again, found = step(*batch)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(found, right)
