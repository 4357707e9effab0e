"""The engines give what autograd gives: C alone, C between the calls of libraries, inductor, CUDA graphs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sweeps import of_today
from test_compile import scalar
from test_zoo import case
from torch import Tensor, nn
from zoo import ENTRIES, SEED, Entry

import chainrule as cr
from chainrule.compiling import cudagraph, islands
from chainrule.compiling.graph.whole import whole

needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
TODAY, HANDS = of_today(ENTRIES, 3), 8
SHAPES_FROM_VALUES = "depends on the numbers of the batch"


def compiled_or_none(engine: str, forward: Callable[..., Tensor], *args: Any) -> Any:
    """The step of an engine; None where the engine has no spelling for it, or nobody can plan it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            step = cr.compile(forward, *args, engine=engine)
        except cr.ChainruleError as error:
            assert SHAPES_FROM_VALUES in str(error)
            return None
    left_out = [str(w.message) for w in caught if "is left out" in str(w.message)]
    assert (step.plan().engine == engine) == (not left_out)
    return step if not left_out else None


def assert_gradients(entry: Entry, engine: str) -> bool:
    """Whether the engine took the entry; its gradients are those that were derived."""
    args, forward = entry.arguments(5), scalar(entry)
    torch.manual_seed(SEED)
    d = cr.derive(forward, *args)
    step = compiled_or_none(engine, forward, *args)
    if step is None:
        return False
    torch.manual_seed(SEED)
    loss, grads = step(*args)
    torch.testing.assert_close(loss, d.output, rtol=1e-9, atol=1e-11)
    for name, expected in d.grads.items():
        if name in grads and expected is not None:
            torch.testing.assert_close(grads[name], expected, rtol=1e-7, atol=1e-9)
    return True


@needs_c
@pytest.mark.parametrize("part", range(HANDS))
def test_c_on_the_menagerie(part: int) -> None:
    taken = [assert_gradients(entry, "c") for entry in TODAY[part::HANDS]]
    assert sum(taken) >= len(taken) // 2


@needs_c
@pytest.mark.parametrize("part", range(HANDS))
def test_islands_on_the_menagerie(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every product left to a library."""
    monkeypatch.setattr(islands, "LARGE", 1)
    taken = [assert_gradients(entry, "c") for entry in TODAY[part::HANDS] if _has_products(entry)]
    assert sum(taken) >= len(taken) // 2


def _has_products(entry: Entry) -> bool:
    return any(n.meta["operation"] in ("matmul", "linear") for n in case(entry).d.graph.nodes)


class Block(nn.Module):
    """Attention and a perceptron: everything that an island lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.ln, self.qkv, self.fc, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (t.view(3, 5, 2, 4).transpose(1, 2) for t in self.qkv(self.ln(x)).chunk(3, dim=-1))
        h = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(3, 5, 8)
        return F.mse_loss(h + self.out(F.gelu(self.fc(h), approximate="tanh")), y)


@needs_c
@pytest.mark.parametrize(
    "make", [lambda: cr.SGD(lr=0.1, momentum=0.9), lambda: cr.AdamW(lr=0.01, clip_norm=0.5)], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("recompute", ["none", "all"])
def test_islands_of_a_transformer_train_as_torch_does(
    make: Callable[[], Any], recompute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(islands, "LARGE", 1)
    models = []
    for engine in ("torch", "c"):
        torch.manual_seed(0)
        model = Block().double()
        batches = [(torch.randn(3, 5, 8).double(), torch.randn(3, 5, 8).double()) for _ in range(4)]
        step = cr.compile(
            model, *batches[0], params=model.parameters(), optimizer=make(), engine=engine, recompute=recompute
        )
        assert step.plan().engine == engine
        step.run(batches)
        models.append(model)
    assert "island" in step.plan().source
    for ours, theirs in zip(models[1].parameters(), models[0].parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@needs_c
def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule.compiling import inductor

    monkeypatch.setattr(inductor, "compiler", lambda: None)  # which would take long
    x, y, w = torch.randn(16, 4), torch.randn(16), torch.zeros(4, requires_grad=True)
    step = cr.compile(lambda x, y: ((x @ w - y) ** 2).mean(), x, y, optimizer=cr.SGD(lr=0.1), engine="auto")
    plan = step.plan()
    assert set(plan.compared) == {"torch", "c"} and plan.engine == min(plan.compared, key=plan.compared.__getitem__)
    assert not w.any() and step.optimizer.steps == 0
    step(x, y)
    assert w.any() and step.optimizer.steps == 1


def test_what_a_cuda_graph_records() -> None:
    model = nn.Linear(3, 2).double()
    x, y = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    adam = cr.Adam(lr=0.1)
    step = cr.compile(lambda x, y: F.mse_loss(model(x), y), x, y, params=model.parameters(), optimizer=adam)
    lowered = step.plan().lowered
    moments = {p: [torch.zeros_like(t).detach() for _ in range(2)] for p, t in lowered.params.items()}
    complete = whole(lowered, adam, moments, guarded=True)
    for node, number in zip(complete.numbers, adam.numbers()):
        complete.held[node].fill_(number)
    batch = dict(zip(complete.batch, (x, y)))
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        (loss,) = cudagraph.function_of(complete)(*(complete.held.get(n, batch.get(n)) for n in complete.inputs))
    after = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p, old in zip(model.parameters(), before):
            p.copy_(old)
    torch.testing.assert_close(step(x, y), loss)
    for ours, recorded in zip(model.parameters(), after):
        torch.testing.assert_close(ours, recorded)


def test_a_cuda_graph_needs_a_device() -> None:
    w = torch.zeros(3, requires_grad=True)
    with pytest.warns(RuntimeWarning, match="needs the parameters and the batch on a CUDA device"):
        step = cr.compile(lambda: (w**2).sum(), optimizer=cr.SGD(lr=0.1), engine="cudagraph")
    assert step.plan().engine == "torch"
