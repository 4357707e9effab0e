"""The libraries that the compiled step is measured against, each at its best documented settings."""

from __future__ import annotations

from functools import partial

from chainrule.bench.contender import EAGER, Recipe
from chainrule.bench.peers.arrays import Autograd, Jax
from chainrule.bench.peers.compiled import CompiledModel, CompiledStep
from chainrule.bench.peers.eager import Eager
from chainrule.bench.peers.layers import Thinc

PEERS = [
    Recipe("eager", EAGER, Eager),
    Recipe("eager foreach", EAGER, partial(Eager, foreach=True)),
    Recipe("eager fused", EAGER, partial(Eager, fused=True)),
    Recipe("torch.compile", "torch.compile", CompiledModel),
    Recipe("torch.compile max-autotune", "torch.compile", partial(CompiledModel, mode="max-autotune")),
    Recipe("torch.compile whole step", "torch.compile", CompiledStep),
    Recipe("JAX jit", "JAX", Jax),
    Recipe("HIPS autograd", "HIPS autograd", Autograd),
    Recipe("thinc blis", "thinc", partial(Thinc, use_blis=True)),
    Recipe("thinc numpy", "thinc", partial(Thinc, use_blis=False)),
]
