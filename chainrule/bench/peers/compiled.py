"""torch.compile: of the model alone, and of the whole step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch._dynamo.config as dynamo

from chainrule.bench.contender import OnTensors, Unable
from chainrule.bench.peers.eager import Eager
from chainrule.bench.works import Setup, Work


class CompiledModel(Eager):
    """Forward and backward compiled, with the fused SGD beside them."""

    def __init__(self, work: Work, setup: Setup, mode: str | None = None) -> None:
        super().__init__(work, setup, fused=True)
        self.forward = torch.compile(setup.forward, fullgraph=True, dynamic=False, mode=mode)


class CompiledStep(OnTensors):
    """Forward, `torch.autograd.grad` and the update as one compiled function."""

    def __init__(self, work: Work, setup: Setup) -> None:
        super().__init__(setup)
        if not hasattr(dynamo, "trace_autograd_ops"):
            raise Unable(f"torch {torch.__version__} does not compile torch.autograd.grad")
        params = list(setup.params.values())

        def step(*batch: torch.Tensor) -> torch.Tensor:
            loss = setup.forward(*batch)
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, g in zip(params, grads):
                    p.sub_(g, alpha=work.lr)
            return loss.detach()

        self.compiled: Callable[..., torch.Tensor] = torch.compile(step, fullgraph=True, dynamic=False)
        self.run = self._first

    def step(self) -> torch.Tensor:
        return self.run()

    def _first(self) -> torch.Tensor:
        self.run = partial(self.compiled, *self.setup.batch)
        with dynamo.patch(trace_autograd_ops=True):  # read when the step is compiled
            return self.run()
