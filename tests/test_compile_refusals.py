"""What a compiled step refuses, in one sentence, and that it leaves everything as it was."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stepping import classified, made, perceptron, tensors
from torch import Tensor, nn

import chainrule as cr
from chainrule.compiling.c import build
from chainrule.compiling.graph.lowering import Lowered

X = torch.randn(6, 4, dtype=torch.float64)
ENGINES = ("torch", "c")


def refused(call: Callable[[], Any], said: str) -> str:
    with pytest.raises(cr.ChainruleError, match=said) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message.strip()
    return message


def linear(**options: Any) -> tuple[cr.compiling.step.Step, Tensor]:
    (w,) = tensors((4, 3))
    return cr.compile(lambda x: (x @ w).square().mean(), X, **{"optimizer": cr.SGD(lr=0.1), **options}), w


# -- when it is compiled -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "fortran"}, 'no engine is called "fortran"; there are "torch", .* and "auto"'),
        ({"recompute": "some"}, 'recompute="some"; there are "auto", "none" and "all"'),
        ({"accumulate": 0}, "accumulate=0"),
        ({"memory": "8MB"}, "memory='8MB'; it is a number, of MB"),
        ({"accumulate": 2, "optimizer": None}, "accumulate=2 and optimizer=None"),
        ({"dtype": torch.float64}, r"dtype=torch.float64; products are computed in torch.bfloat16"),
        ({"memory": 1e-6}, r"needs at least 0\.\d+ MB beside its parameters, and memory=1e-06 was given"),
        ({"params": [3]}, "params with int among them"),
        ({"params": [torch.zeros(2)]}, r"params names a tensor \(2,\) that forward did not read; it read x, w"),
        ({"params": [torch.zeros(2, dtype=torch.int64)]}, "params names a tensor"),
    ],
)
def test_options(options: dict[str, Any], said: str) -> None:
    refused(lambda: linear(**options), said)


def test_the_least_memory_that_is_named_is_enough() -> None:
    (w,) = tensors((300, 300))
    x = torch.randn(300, 300, dtype=torch.float64)

    def compiled(memory: float) -> Any:
        return cr.compile(lambda x: (x @ w).exp().tanh().square().mean(), x, optimizer=cr.SGD(lr=0.1), memory=memory)

    message = refused(lambda: compiled(0.1), "needs at least")
    least = float(message.split("at least ")[1].split(" MB")[0])
    assert compiled(least + 0.1).plan().peak_bytes <= (least + 0.1) * 1e6


def test_forward_passes() -> None:
    w, v = tensors((4, 3), (4, 3))
    whole = torch.randn(6, 3, dtype=torch.float64)
    upper, lower = (part.detach().requires_grad_() for part in (whole[:4], whole[2:]))
    moving = cr.SGD(lr=0.1)
    for forward, said in (
        (lambda x: x @ w, r"returned shape \(6, 3\), not a scalar"),
        (lambda x: float((x @ w).sum().detach()), "not a tensor"),
        (lambda x: (x * 2).sum(), "forward reads no tensor that could move, beside its arguments"),
        (lambda x: (x @ w).argmax() * 1.0, "depends on no input that could have a gradient"),
        (
            lambda x: (x @ upper).sum() + (x @ lower).square().sum(),
            r"parameter upper \(4, 3\) shares memory with lower",
        ),
    ):
        refused(lambda forward=forward: cr.compile(forward, X, optimizer=moving), said)
    refused(
        lambda: cr.compile(lambda x: (x @ w).sum() + 0 * (x @ v).argmax(), X, params=[w, v]), "does not depend on v"
    )
    refused(lambda: cr.compile(lambda x: (x @ w).sum(), X, optimizer=torch.optim.SGD([w], lr=0.1)), "takes cr.SGD")
    refused(lambda: cr.compile(w, X, optimizer=moving), "a Tensor, not a function")
    refused(
        lambda: cr.compile(lambda x: F.gaussian_nll_loss(x @ w, x[:, :3], x[:, :3].exp()), X, optimizer=moving),
        r"gaussian_nll_loss \(\) looks at the numbers that it is given.*test_compile_refusals.py",
    )


def test_a_graph_of_a_device_that_is_not_there() -> None:
    with pytest.warns(RuntimeWarning, match='the engine "cudagraph" is left out'):
        step, _ = linear(engine="cudagraph")
    assert step.plan().engine == "torch"


@pytest.mark.parametrize("engine", ["c", "inductor"])
def test_no_compiler(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, *rest, **more: None)
    build.compiler.cache_clear()
    try:
        with pytest.warns(
            RuntimeWarning, match=rf'the engine "{engine}" is left out, .* no C(\+\+)? compiler|needs a C\+\+'
        ):
            step, _ = linear(engine=engine)
    finally:
        build.compiler.cache_clear()
    assert step.plan().engine == "torch"
    assert step(X).isfinite()


# -- parameters that are another tensor, or other numbers --------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3).double()
        self.scale = torch.ones(3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) * self.scale).square().mean()


GLOBAL = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)


def reads_a_global(x: Tensor) -> Tensor:
    return (x @ GLOBAL).square().mean()


def in_a_module() -> Any:
    model = Model()
    return model, lambda: setattr(model.body, "weight", nn.Parameter(torch.zeros(3, 4).double())), "body.weight"


def a_constant() -> Any:
    model = Model()
    return model, lambda: setattr(model, "scale", torch.zeros(3).double()), "scale"


def gone() -> Any:
    model = Model()
    return model, lambda: delattr(model.body, "bias"), "body.bias"


def in_a_closure() -> Any:
    (w,) = tensors((4, 3))

    def replace() -> None:
        nonlocal w
        w = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)

    return lambda x: (x @ w).square().mean(), replace, "w"


def in_a_list() -> Any:
    layers = tensors((4, 3), (3, 3))
    return lambda x: (x @ layers[0] @ layers[1]).square().mean(), layers.reverse, r"layers\.0"


def a_global() -> Any:
    return reads_a_global, lambda: globals().update(GLOBAL=torch.zeros(4, 3).double().requires_grad_()), "GLOBAL"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "case", [in_a_module, a_constant, gone, in_a_closure, in_a_list, a_global], ids=lambda c: c.__name__
)
def test_tensors_that_are_replaced(case: Callable[[], Any], engine: str) -> None:
    forward, replace, name = case()
    step = cr.compile(forward, X, optimizer=cr.SGD(lr=0.1), engine=engine)
    step(X)
    replace()
    for x in (X, X[:2]):
        refused(lambda x=x: step(x), rf"^({name}) \(.*\) was replaced by another tensor since the step was compiled")


@pytest.mark.parametrize("engine", ENGINES)
def test_other_numbers_in_the_same_parameters(engine: str) -> None:
    model = Model()
    step = cr.compile(model, X, optimizer=cr.SGD(lr=0.1), engine=engine)
    for change in (
        lambda: model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()}),
        lambda: model.body.weight.data.mul_(-1),
        lambda: setattr(model.body.weight, "data", torch.randn(3, 4).double()),
        lambda: setattr(model.body.weight, "data", torch.randn(4, 3).double().T),
        lambda: model.scale.mul_(3),
    ):
        change()
        other = copy.deepcopy(model)
        loss = other(X)
        loss.backward()
        torch.testing.assert_close(step(X), loss.detach())
        torch.testing.assert_close(
            model.body.weight.detach(), (other.body.weight - 0.1 * other.body.weight.grad).detach()
        )


# -- batches ------------------------------------------------------------------------------------------


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(4, 3).double(), nn.BatchNorm1d(3).double(), nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(self.drop(self.norm(self.body(x))).softmax(1).log(), y)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "optimizer", [cr.SGD(lr=0.1, momentum=0.9, clip_norm=1.0), cr.Adam()], ids=lambda o: type(o).__name__
)
def test_a_bad_batch_changes_nothing(optimizer: Any, engine: str, accumulate: int) -> None:
    model, batches = Normed(), classified(6, 6, 6)
    step = cr.compile(model, *batches[0], optimizer=optimizer, engine=engine, accumulate=accumulate)
    optimizer.steps = 0
    for batch in batches:
        step(*batch)
    kept = copy.deepcopy((model.state_dict(), step.state_dict(), optimizer.steps))
    (x, y), bad = batches[0], batches[0][0].clone()
    bad[2, 1] = float("nan")
    refused(
        lambda: step(bad, y), r"the loss became NaN: NaN is in x \(6, 4\); the parameters are those of the last good"
    )
    refused(lambda: step(x.clone().fill_(float("inf")), y), "infinite is in x")
    with pytest.raises((cr.ChainruleError, IndexError), match=r"out of bounds|outside of 0 to 2"):
        step(x, torch.full_like(y, 7))
    torch.testing.assert_close((model.state_dict(), step.state_dict(), optimizer.steps), kept, rtol=0, atol=0)
    with torch.no_grad():
        model.body.bias[1] = float("nan")
    refused(lambda: step(x, y), r"NaN is in body\.bias \(3,\)")
    with torch.no_grad():
        model.body.bias[1] = kept[0]["body.bias"][1]
    assert step(x, y).isfinite()


def test_a_bad_batch_changes_nothing_through_inductor() -> None:
    step, w = linear(engine="inductor", optimizer=cr.SGD(lr=0.1, momentum=0.9))
    step(X)
    kept = w.detach().clone(), copy.deepcopy(step.state_dict())
    refused(lambda: step(X * float("nan")), "NaN is in x")
    assert torch.equal(w, kept[0])
    torch.testing.assert_close(step.state_dict(), kept[1], rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_where_a_number_stops_being_finite(engine: str) -> None:
    (w,) = tensors((4, 3))

    def forward(x: Tensor) -> Tensor:
        h = x @ w
        p = h.relu()
        return p.log().mean()  # this line

    w.data.abs_()
    step = cr.compile(forward, X.abs() + 0.1, optimizer=cr.SGD(lr=0.1), engine=engine)
    step(X.abs() + 0.1)
    message = refused(lambda: step(torch.zeros_like(X)), r"became infinite: it first appears in log \(6, 3\)")
    line = forward.__code__.co_firstlineno + 3
    assert f"test_compile_refusals.py:{line}" in message


def test_arguments_that_may_change_without_notice() -> None:
    (w,) = tensors((4, 3))
    import numpy as np

    refused(lambda: cr.compile(lambda x, k: (x @ w).mean() * float(k.sum()), X, np.ones(2)), "was given a ndarray")


@pytest.mark.parametrize("optimizer", [None, cr.SGD(lr=0.1), cr.Adam()])
@pytest.mark.parametrize(
    ("doubled", "said"), [("loss", r"gives the loss .* where autograd gives"), ("w", r"moves w \(4, 3\)")]
)
def test_a_graph_that_computes_something_else(
    doubled: str, said: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a wrong identity would make it: the comparison with autograd is there to find it."""

    def shorten(lowered: Lowered) -> None:
        p = next(iter(lowered.gradients))
        right = lowered.loss if doubled == "loss" else lowered.gradients[p]
        with lowered.graph.inserting_before(lowered.graph.output_node()):
            wrong = lowered.graph.call_function(torch.ops.aten.mul.Tensor, (right, 2.0))
        wrong.meta["val"] = right.meta["val"] * 2
        lowered.graph.output_node().replace_input_with(right, wrong)
        if doubled == "loss":
            lowered.loss = wrong
        else:
            lowered.gradients[p] = wrong

    monkeypatch.setattr("chainrule.compiling.planner.shorten", shorten)
    (w,) = tensors((4, 3))
    before = w.detach().clone()
    refused(lambda: cr.compile(lambda x: (x @ w).square().mean(), X, optimizer=optimizer), said)
    assert torch.equal(w, before)


CANCELLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "critic": lambda x, w: (torch.relu(x @ w).flip(0) - torch.relu(x @ w)).mean(),
    "parts": lambda x, w: (x @ w).sum() - (x.sum(0) @ w).sum(),
    "data": lambda x, w: (1e6 * (x - x.mean(0))).sum() + 1e-9 * w.square().sum(),
    "flipped": lambda x, w: (1e4 * x).sum() - (1e4 * x).flip(0).sum() + 1e-6 * (x @ w).sum(),
    "normed": lambda x, w: F.batch_norm(x @ w, None, None, training=True).sum(),
    "itself": lambda x, w: F.kl_div((x @ w).log_softmax(1), (x @ w).log_softmax(1), log_target=True, reduction="batchmean"),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CANCELLING)
def test_rounding_where_everything_cancels_is_no_mistake(name: str, engine: str) -> None:
    x, w = torch.randn(5000, 40), torch.randn(40, 30).requires_grad_()
    forward = CANCELLING[name]
    _, found = cr.compile(lambda x: forward(x, w), x, params={"w": w}, engine=engine)(x)
    assert found["w"].isfinite().all()


def test_planning_leaves_no_trace() -> None:
    for engine in ENGINES:
        model = Normed()
        kept = copy.deepcopy(model.state_dict())
        torch.manual_seed(4)
        step = cr.compile(model, *classified(6)[0], optimizer=cr.Adam(), engine=engine, accumulate=2)
        step.prepare(*classified(3)[0])
        drawn = torch.rand(1)
        torch.manual_seed(4)
        assert drawn == torch.rand(1)
        torch.testing.assert_close(model.state_dict(), kept, rtol=0, atol=0)
        assert all(not value.any() for value in step.state.values())
        assert step.optimizer.steps == 0
        assert all(p.grad is None for p in model.parameters())


def test_the_default_engine_raises_what_the_person_wrote() -> None:
    forward, _ = made(perceptron)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        cr.compile(forward, torch.randn(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))


# -- writes that a step would not make -----------------------------------------------------------------


def _through_out() -> tuple[Callable[..., Tensor], Tensor, Tensor]:
    kept, (w,) = torch.zeros(6, 4, dtype=torch.float64), tensors((4, 3))

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            torch.mul(x, 2, out=kept)
        return (x @ w).square().mean()

    return forward, X, kept


def _renormed() -> tuple[Callable[..., Tensor], Tensor, Tensor]:
    table = nn.Embedding(10, 4, max_norm=0.5).double()
    return lambda x: table(x).square().sum(), torch.tensor([1, 2, 3]), table.weight


def _spectral() -> tuple[Callable[..., Tensor], Tensor, Tensor]:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).double()
    return lambda x: layer(x).square().sum(), X, layer.parametrizations.weight[0]._u


@pytest.mark.parametrize("make", [_through_out, _renormed, _spectral], ids=["out", "max_norm", "spectral_norm"])
def test_writes_that_are_not_followed(make: Callable[[], tuple[Callable[..., Tensor], Tensor, Tensor]]) -> None:
    """What is written to is not read by the loss, or has been written to before anybody looks."""
    torch.manual_seed(0)
    forward, x, kept = make()
    before = kept.detach().clone()
    refused(lambda: cr.compile(forward, x, optimizer=cr.SGD(lr=0.1)), r"the forward pass writes to \w+ \(")
    assert torch.equal(kept, before)


def test_a_batch_norm_of_one_row_is_what_torch_says() -> None:
    layer = nn.BatchNorm1d(4).double()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        cr.compile(lambda x: layer(x).sum(), X[:1], optimizer=cr.SGD(lr=0.1))
