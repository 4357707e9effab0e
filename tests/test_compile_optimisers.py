"""The moves of a compiled step beside torch.optim's, in every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stepping import assert_same, by_step, by_torch, classified, made, of_module, perceptron, tensors
from torch import Tensor, nn

import chainrule as cr

OPTIMISERS: dict[str, tuple[cr.SGD | cr.Adam, Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "plain": (cr.SGD(lr=0.1), torch.optim.SGD, {"lr": 0.1}),
    "decay": (cr.SGD(lr=0.1, weight_decay=0.2), torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
    "momentum": (cr.SGD(lr=0.1, momentum=0.8), torch.optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    "momentum and decay": (
        cr.SGD(lr=0.1, momentum=0.8, weight_decay=0.2),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.2},
    ),
    "nesterov": (
        cr.SGD(lr=0.1, momentum=0.8, weight_decay=0.1, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
    ),
    "adam": (
        cr.Adam(lr=0.03, betas=(0.8, 0.95), eps=1e-4),
        torch.optim.Adam,
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-4},
    ),
    "adam with decay": (cr.Adam(lr=0.03, weight_decay=0.2), torch.optim.Adam, {"lr": 0.03, "weight_decay": 0.2}),
    "adamw": (cr.AdamW(lr=0.03, weight_decay=0.3), torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.3}),
}
ENGINES = ("torch", "c")


def optimiser(name: str) -> tuple[Any, Callable[[list[Tensor]], torch.optim.Optimizer]]:
    ours, kind, options = OPTIMISERS[name]
    fresh = type(ours)(**{k: v for k, v in vars(ours).items() if k != "steps"})
    return fresh, lambda params: kind(params, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_moves(name: str, engine: str) -> None:
    ours, theirs = optimiser(name)
    batches = classified(7, 7, 3, 7, 1)  # other sizes in turn
    assert_same(by_step(perceptron, batches, ours, engine=engine), by_torch(perceptron, batches, theirs))
    assert ours.steps == 5


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_moves_of_inductor(name: str) -> None:
    ours, theirs = optimiser(name)
    ours.clip_norm = 0.1
    batches = classified(7, 7)
    assert_same(by_step(perceptron, batches, ours, engine="inductor"), by_torch(perceptron, batches, theirs, clip=0.1))


@pytest.mark.parametrize(
    ("name", "engine"), [*((name, "torch") for name in OPTIMISERS), ("nesterov", "c"), ("adamw", "c")]
)
def test_moves_in_float32(name: str, engine: str) -> None:
    ours, theirs = optimiser(name)

    def network() -> Any:
        return perceptron(torch.float32)

    batches = classified(7, 7, 3, dtype=torch.float32)
    assert_same(by_step(network, batches, ours, engine=engine), by_torch(network, batches, theirs))


CLIPPED = [(n, c, "torch") for n in ("plain", "nesterov", "adam with decay") for c in (0.05, 100.0)]


@pytest.mark.parametrize(("name", "clip", "engine"), [*CLIPPED, ("plain", 0.05, "c"), ("adam with decay", 0.05, "c")])
def test_gradients_that_are_clipped(name: str, clip: float, engine: str) -> None:
    ours, theirs = optimiser(name)
    ours.clip_norm = clip
    batches = classified(5, 5, 2)
    assert_same(by_step(perceptron, batches, ours, engine=engine), by_torch(perceptron, batches, theirs, clip=clip))


GATHERED = [(n, c, "torch") for n in ("plain", "momentum and decay", "adamw") for c in (None, 0.05)]


@pytest.mark.parametrize(("name", "clip", "engine"), [*GATHERED, ("adamw", 0.05, "c")])
def test_gradients_that_are_gathered(name: str, clip: float | None, engine: str) -> None:
    ours, theirs = optimiser(name)
    ours.clip_norm = clip
    batches = classified(5, 5, 5, 2, 5, 5, 5)  # two steps by three calls each, and one call more
    found = by_step(perceptron, batches, ours, engine=engine, accumulate=3)
    assert_same(found, by_torch(perceptron, batches, theirs, clip=clip, every=3))
    assert ours.steps == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [cr.SGD, cr.AdamW])
def test_learning_rates_that_follow_a_schedule(kind: type[cr.SGD | cr.AdamW], engine: str) -> None:
    def rate(step: int) -> float:
        return 0.1 / (1 + step) ** 2

    def set_rate(k: int, moving: torch.optim.Optimizer) -> None:
        moving.param_groups[0]["lr"] = rate(k)

    theirs: Any = {cr.SGD: torch.optim.SGD, cr.AdamW: torch.optim.AdamW}[kind]
    batches = classified(5, 5, 2, 5)
    found = by_step(perceptron, batches, kind(lr=rate), engine=engine)
    assert_same(found, by_torch(perceptron, batches, lambda params: theirs(params, lr=1.0), before=set_rate))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_learning_rate_that_is_set_anew(engine: str) -> None:
    forward, params = made(perceptron)
    batches = classified(5, 5, 5)
    step = cr.compile(forward, *batches[0], optimizer=cr.Adam(lr=0.1), engine=engine)
    losses, plan = [], step.plan()
    for rate, batch in zip((0.1, 0.0, 0.3), batches):
        step.optimizer.lr = rate
        losses.append(step(*batch))
    assert step.plan() is plan

    def set_rate(k: int, moving: torch.optim.Optimizer) -> None:
        moving.param_groups[0]["lr"] = (0.1, 0.0, 0.3)[k]

    assert_same((losses, params), by_torch(perceptron, batches, lambda ps: torch.optim.Adam(ps), before=set_rate))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "biases": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "no biases": lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.GELU(), nn.Linear(5, 3, bias=False)),
    "norms": lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 3)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_models(model: str, engine: str) -> None:
    network = of_module(MODELS[model], F.cross_entropy)
    ours, theirs = optimiser("momentum")
    batches = classified(6, 6, 6, 4)
    assert_same(by_step(network, batches, ours, engine=engine), by_torch(network, batches, theirs))


@pytest.mark.parametrize("engine", ENGINES)
def test_running_statistics_are_those_of_eager(engine: str) -> None:
    models = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3)).double()
        models.append(model)
        step: Any = lambda x, y, model=model: F.cross_entropy(model(x), y)  # noqa: E731
        if compiled:
            before = {k: v.clone() for k, v in model.state_dict().items()}
            step = cr.compile(step, *classified(6)[0], optimizer=cr.SGD(lr=0.0), engine=engine)
            torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)  # planning leaves no trace
        for batch in classified(6, 6, 4):
            step(*batch)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=1e-10, atol=1e-12)
    assert models[0][1].num_batches_tracked == 3


def test_a_step_goes_on_from_its_saved_state() -> None:
    batches = classified(5, 5, 5, 5, 5, 5, 5, 5)
    for options in ({"optimizer": cr.AdamW(lr=0.05)}, {"optimizer": cr.SGD(lr=0.1, momentum=0.9), "accumulate": 3}):
        forward, params = made(perceptron)
        step = cr.compile(forward, *batches[0], **options)
        step.run(batches[:4])
        saved, weights = step.state_dict(), [p.detach().clone() for p in params]
        losses = step.run(batches[4:])
        forward, again = made(perceptron, seed=5)
        for p, value in zip(again, weights):
            p.data.copy_(value)
        options["optimizer"].steps = 0
        other = cr.compile(forward, *batches[0], **options)
        other.load_state_dict(saved)
        torch.testing.assert_close(other.run(batches[4:]), losses, rtol=1e-12, atol=0)
        assert_same(([], params), ([], again))
    with pytest.raises(
        cr.ChainruleError, match=r"the state of another step was given: .* stand in only one of the two"
    ):
        cr.compile(forward, *batches[0], optimizer=cr.Adam()).load_state_dict(saved)
    saved["state"]["b.momentum"] = torch.zeros(2)
    with pytest.raises(cr.ChainruleError, match=r"b\.momentum is \(2,\) there, \(6,\) here"):
        other.load_state_dict(saved)


LIE = [(layout, n, "torch") for layout in ("transposed", "every other column", "stretch") for n in OPTIMISERS]


@pytest.mark.parametrize(
    ("layout", "name", "engine"), [*LIE, *((layout, "nesterov", "c") for layout, _, _ in LIE[::8])]
)
def test_parameters_that_lie_otherwise(layout: str, name: str, engine: str) -> None:
    def network() -> Any:
        (given,) = tensors((4, 3) if layout != "every other column" else (3, 8))
        ways = {"transposed": lambda: torch.randn(3, 4).double().T, "every other column": lambda: given[:, ::2].T,
                "stretch": lambda: torch.randn(30).double()[4:16].view(4, 3)}  # fmt: skip
        w = ways[layout]().detach().requires_grad_()
        return (lambda x, y: F.cross_entropy(x @ w, y)), [w]

    ours, theirs = optimiser(name)
    batches = classified(5, 5)
    assert_same(by_step(network, batches, ours, engine=engine), by_torch(network, batches, theirs))


def test_bad_numbers() -> None:
    for make, said in (
        (lambda: cr.SGD(lr=-0.1), "at least 0"),
        (lambda: cr.SGD(lr=0.1, weight_decay=-1), "at least 0"),
        (lambda: cr.SGD(lr=0.1, nesterov=True), "without momentum"),
        (lambda: cr.Adam(betas=(0.9, 1.0)), "at least 0 and below 1"),
        (lambda: cr.AdamW(clip_norm=-1.0), "at least 0"),
    ):
        with pytest.raises(cr.ChainruleError, match=said):
            make()
