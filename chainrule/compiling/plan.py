"""A plan: the program of a step for one shape of batch, with what it needs and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import fx

from chainrule.compiling.lowering import Lowered
from chainrule.compiling.straight import Emitted
from chainrule.errors import ChainruleError


class Plan:
    """`print` it to read the step that runs: its code, the memory it lies in, and how each product is computed."""

    def __init__(
        self, engine: str, lowered: Lowered, emitted: Emitted | None = None, call: Any = None, source: str = ""
    ) -> None:
        self.engine, self.lowered, self.emitted = engine, lowered, emitted
        self.seconds: dict[str, float] = {}  # of planning, by what was done
        self.compared: dict[str, float] = {}  # of a step, by engine, where they were tried
        self.source = emitted.text if emitted else source
        self.call: Callable[..., Any] = call
        if emitted:
            space = {**emitted.space, "isfinite": math.isfinite, "stop": self.stop}
            exec(compile(emitted.text, "<compiled step>", "exec"), space)
            self.call = space["step"]
            self._drawn = [space[emitted.names[node]] for node in lowered.drawn]
        else:
            call.stop = self.stop
            self._drawn = [tensor for tensor, _ in call.again]

    @property
    def buffers_bytes(self) -> int:
        """What the step holds between calls, beside parameters and the optimiser's state."""
        return self.emitted.arena + self.emitted.constants if self.emitted else 0

    @property
    def peak_bytes(self) -> int:
        """The most memory that a call needs beside parameters, the optimiser's state and the batch."""
        return self.buffers_bytes + (self.emitted.allocated if self.emitted else 0)

    def stop(self, *batch: torch.Tensor) -> NoReturn:
        """Say where the first number that is not finite comes from."""
        given = iter(batch)
        values: dict[fx.Node, Any] = {n: next(given) for n in self.lowered.batch if n is not None}
        values |= dict(self.lowered.held)
        values |= dict(zip(self.lowered.drawn, self._drawn))
        where = self._first_not_finite(values)
        kept = "the parameters are those of the last good step"
        raise ChainruleError(f"the loss became {where or 'NaN or infinite'}; {kept}")

    def _first_not_finite(self, values: dict[fx.Node, Any]) -> str | None:
        lowered = self.lowered
        for node, value in values.items():
            if _not_finite(value):
                return f"{_kind(value)}: {_kind(value)} is in {lowered.names.get(node, node.name)} {tuple(value.shape)}"
        with torch.no_grad():
            for node in lowered.graph.nodes:
                if node.op != "call_function":
                    continue
                args, kwargs = (fx.map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
                value = values[node] = node.target(*args, **kwargs)
                read = [values[n] for n in node.all_input_nodes]
                if read and _not_finite(value) and not any(map(_not_finite, read)) and not _masks(node):
                    operation = lowered.operations.get(node) or str(node.target).split(".")[1]
                    site = f" ({lowered.sites[node]})" if node in lowered.sites else ""
                    return f"{_kind(value)}: it first appears in {operation} {tuple(value.shape)}{site}"
        return None

    def __str__(self) -> str:
        from chainrule.compiling.report import report

        return report(self)


def _masks(node: fx.Node) -> bool:
    """Whether infinities are put there on purpose."""
    return any(isinstance(a, float) and math.isinf(a) for a in node.args)


def _not_finite(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())


def _kind(value: torch.Tensor) -> str:
    return "NaN" if bool(torch.isnan(value).any()) else "infinite"
