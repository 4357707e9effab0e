"""Every work in both spellings, and the peers on them. JAX forbids forking once it ran, which the tests before need."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import pytest
import torch
from sweeps import of_today

from chainrule.bench.contender import fresh
from chainrule.bench.measure import measure
from chainrule.bench.peers import PEERS
from chainrule.bench.results import MEASURED, SKIPPED
from chainrule.bench.works import WORKS, Setup, Work, deeper


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has gathered takes seconds to look through, each time."""
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)


PEER = {recipe.name: recipe for recipe in PEERS}
GROWN = [work for depth in (1, 2) for work in deeper(depth)]
TRIED = [*(work for work in WORKS if work.name in ("regression", "mlp", "convolution")), GROWN[0]]
NAMES = ["eager", "eager foreach", "eager fused", "JAX jit", "HIPS autograd", "thinc blis", "thinc numpy"]
QUICK = {"samples": 1, "least": 1e-6}


def small(setup: Setup) -> Setup:
    """A batch short enough for float64 in Python: the course network has 50,000 rows, a GPT 8 texts."""
    return dataclasses.replace(setup, batch=tuple(t[: max(2, len(t) // 250)] for t in setup.batch))


@pytest.mark.parametrize("work", of_today([*WORKS, *GROWN], 2), ids=lambda work: work.title)
def test_both_spellings_are_the_same_step(work: Work) -> None:
    jax = pytest.importorskip("jax")
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    setup = small(fresh(work))
    for p in setup.params.values():
        p.data = p.data.double()
    batch = [t.double() if t.is_floating_point() else t for t in setup.batch]
    loss = setup.forward(*batch)
    grads = torch.autograd.grad(loss, list(setup.params.values()))
    with enable_x64(True):
        arrays = {name: jax.numpy.asarray(p.detach().numpy()) for name, p in setup.params.items()}

        def in_arrays(params: Any) -> Any:
            return work.with_arrays(jax.numpy, params, *(jax.numpy.asarray(t.numpy()) for t in batch))

        value, slopes = jax.jit(jax.value_and_grad(in_arrays))(arrays)
        assert value.item() == pytest.approx(loss.item(), rel=1e-12)
        for name, g in zip(setup.params, grads):
            theirs = torch.tensor(slopes[name].tolist(), dtype=torch.float64)
            assert (theirs - g).norm() <= 1e-10 * g.norm(), name


@pytest.mark.parametrize(
    ("work", "name"),
    of_today([pytest.param(work, name, id=f"{work.title}-{name}") for work in TRIED for name in NAMES], 2),
)
@pytest.mark.filterwarnings("default")  # of the libraries
def test_peers_take_the_step_of_autograd(name: str, work: Work) -> None:
    block = measure(work, [PEER[name]], **QUICK)
    line = block.lines[0]
    if line.status == SKIPPED:
        assert line.family in work.lacks or line.reason.startswith(("not installed", "has layers for multilayer"))
    else:
        assert line.status == MEASURED, line.reason
        assert line.seconds > 0 and line.first_step is not None and line.first_step > 0
        assert line.memory is None or line.memory > 0
