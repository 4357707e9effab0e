"""The peer that is a library of layers: thinc, for multilayer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from chainrule.bench import memory
from chainrule.bench.contender import Contender, Unable
from chainrule.bench.works import Setup, Work


class Thinc(Contender):
    """Its layers, its SGD, and its softmax with the loss that belongs to it; products by blis or by NumPy's BLAS."""

    def __init__(self, work: Work, setup: Setup, use_blis: bool) -> None:
        if not work.layers:
            raise Unable("has layers for multilayer perceptrons alone")
        try:
            from thinc.api import SGD, Linear, Relu, Softmax, chain, use_ops
            from thinc.compat import has_blis
        except ModuleNotFoundError as error:
            raise Unable("not installed; run pip install thinc") from error
        self.x, y = (t.numpy() for t in setup.batch)
        self.classes = not np.issubdtype(y.dtype, np.floating)
        *hidden, last = zip(work.layers[1:], work.layers)
        if use_blis and not has_blis:
            raise Unable("not installed; run pip install blis")
        with use_ops("numpy", use_blis=use_blis):
            self.layers = [Relu(*widths) for widths in hidden]
            self.layers.append(Softmax(*last) if self.classes else Linear(*last))
            self.model = chain(*self.layers) if hidden else self.layers[0]
            self.optimizer = SGD(work.lr, L2=0.0, grad_clip=0.0, use_averages=False)
        self.y = y if self.classes else y.reshape(len(y), -1)
        self.names = list(setup.params)
        for layer, (w, b) in zip(self.layers, self._pairs()):
            layer.set_param("W", setup.params[w].detach().numpy().T.copy())
            layer.set_param("b", setup.params[b].detach().numpy().copy())

    def step(self) -> Any:
        out, backward = self.model.begin_update(self.x)
        if self.classes:
            rows = np.arange(len(out))
            loss = -np.log(out[rows, self.y]).mean()
            out[rows, self.y] -= 1.0
            out /= len(out)
        else:
            out = out - self.y
            loss = (out**2).mean()
            out *= 2.0 / out.size
        backward(out)
        self.model.finish_update(self.optimizer)
        return loss

    def parameters(self) -> dict[str, torch.Tensor]:
        found = {}
        for layer, (w, b) in zip(self.layers, self._pairs()):
            found[w] = torch.from_numpy(layer.get_param("W").T.copy())
            found[b] = torch.from_numpy(layer.get_param("b").copy())
        return found

    def memory(self) -> int:
        return memory.of_arrays(self.step)

    def _pairs(self) -> list[tuple[str, str]]:
        """The names of each layer's matrix and vector, from the first layer to the last."""
        matrices = [name for name in self.names if name.startswith("w")]
        return list(zip(matrices, (name for name in self.names if name.startswith("b"))))
