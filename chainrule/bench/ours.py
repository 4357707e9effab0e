"""The contenders that are chainrule's: its compiled step, one for each engine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import chainrule as cr
from chainrule.bench.contender import OURS, OnTensors, Recipe, Unable
from chainrule.bench.works import Setup, Work
from chainrule.errors import ChainruleError


class Compiled(OnTensors):
    """`cr.compile` with its own gradient descent."""

    def __init__(self, work: Work, setup: Setup, engine: str) -> None:
        super().__init__(setup)
        params = list(setup.params.values())
        try:
            self.compiled = cr.compile(
                setup.forward, *setup.batch, params=params, optimizer=cr.SGD(lr=work.lr), engine=engine
            )
        except ChainruleError as error:
            raise Unable(str(error)) from error

    def step(self) -> torch.Tensor:
        return self.compiled(*self.setup.batch)

    def memory(self) -> int:
        """What a step allocates at its peak, and the buffers that the compiled step holds between steps."""
        return _held(self.compiled) + (super().memory() or 0)


def _held(compiled: Any) -> int:
    """The bytes of the plan's buffers, where the engine has a plan."""
    plan = getattr(compiled, "plan", None)
    plan = plan() if callable(plan) else plan
    return int(getattr(plan, "buffers_bytes", 0))


ENGINES = ("torch", "inductor", "c", "auto")
COMPILED = [Recipe(f"chainrule {engine}", OURS, partial(Compiled, engine=engine)) for engine in ENGINES]
