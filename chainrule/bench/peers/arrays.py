"""The peers that run a work's NumPy spelling: JAX and HIPS autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from chainrule.bench import memory
from chainrule.bench.contender import Contender, Unable
from chainrule.bench.works import Setup, Work


class Jax(Contender):
    """One jitted function of loss, gradients and update, to which the parameters are donated.

    Its steps run behind Python's back, as everywhere in JAX; a measurement waits for the last of them.
    """

    def __init__(self, work: Work, setup: Setup) -> None:
        try:
            import jax
            import jax.numpy as jnp
        except ModuleNotFoundError as error:
            raise Unable('not installed; run pip install "chainrule[jax]"') from error

        def step(params: dict[str, Any], *batch: Any) -> tuple[Any, dict[str, Any]]:
            loss, grads = jax.value_and_grad(lambda p: work.with_arrays(jnp, p, *batch))(params)
            return loss, {name: p - work.lr * grads[name] for name, p in params.items()}

        cpu = jax.devices("cpu")[0]  # where the tensors are
        self.compiled = jax.jit(step, donate_argnums=0)
        self.params = {name: jax.device_put(p.detach().numpy().copy(), cpu) for name, p in setup.params.items()}
        self.batch = [jax.device_put(t.numpy(), cpu) for t in setup.batch]

    def step(self) -> Any:
        loss, self.params = self.compiled(self.params, *self.batch)
        return loss

    def wait(self) -> None:
        for p in self.params.values():
            p.block_until_ready()

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.array(p)) for name, p in self.params.items()}

    def memory(self) -> int | None:
        found = self.compiled.lower(self.params, *self.batch).compile().memory_analysis()
        if found is None:
            return None
        return int(found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes)


class Autograd(Contender):
    """HIPS autograd: the gradients of NumPy code, and an update of the arrays in place."""

    def __init__(self, work: Work, setup: Setup) -> None:
        try:
            import autograd
            import autograd.numpy as anp
        except ModuleNotFoundError as error:
            raise Unable("not installed; run pip install autograd") from error
        batch = [t.numpy() for t in setup.batch]
        self.params = {name: p.detach().numpy().copy() for name, p in setup.params.items()}
        self.lr = work.lr
        self.differentiated = autograd.value_and_grad(lambda params: work.with_arrays(anp, params, *batch))

    def step(self) -> Any:
        loss, grads = self.differentiated(self.params)
        for name, p in self.params.items():
            p -= self.lr * grads[name]
        return loss

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(p.copy()) for name, p in self.params.items()}

    def memory(self) -> int:
        return memory.of_arrays(self.step)
