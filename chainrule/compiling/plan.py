"""A plan: the program of a step for one shape of batch, with what it needs and what was chosen."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.straight.arrangement import Memory
from chainrule.compiling.straight.code import Straight
from chainrule.compiling.straight.products import Choice
from chainrule.errors import NotFinite


class Plan:
    """`print` it to read the step that runs: its code, the memory it lies in, and how each product is computed."""

    def __init__(
        self, engine: str, lowered: Lowered, call: Callable[..., Any], source: str, memory: Memory | None
    ) -> None:
        self.engine, self.lowered, self.call, self.source, self.memory = engine, lowered, call, source, memory
        self.choices: list[tuple[str, Choice]] = []  # of each product, by its name
        self.views: list[tuple[str, str]] = []  # of memory that is held, made once: name and code
        self.drawn: dict[fx.Node, torch.Tensor] = {}
        self.seconds: dict[str, float] = {}  # of planning, by what was done
        self.compared: dict[str, float] = {}  # of a step, by engine, where they were tried
        self.recomputed: list[str] = []  # values that the backward pass computes again
        self.slices = 1  # of the batch, computed one after the other
        self.of_slice: Memory | None = None  # what one of several needs

    @classmethod
    def of_code(cls, engine: str, code: Straight, sources: Sequence[str] = ()) -> Plan:
        """The plan of straight-line code, beside the `sources` of what it calls."""
        text = code.written()
        plan = cls(engine, code.lowered, print, "\n\n".join([text, *dict.fromkeys(sources)]), code.memory)
        space = {**code.space, "isfinite": math.isfinite, "stop": plan.stop}
        exec(compile(text, "<compiled step>", "exec"), space)
        plan.call, plan.choices, plan.views = space["step"], code.choices, code.views
        plan.drawn = {n: code.tensors[n] for n in code.lowered.drawn}
        return plan

    @property
    def title(self) -> str:
        """The engine, and into how many slices the batch is cut."""
        return self.engine if self.slices == 1 else f"{self.engine}, {self.slices} slices"

    @property
    def buffers_bytes(self) -> int:
        """What the step holds between calls, beside parameters and the optimiser's state."""
        return self.memory.held if self.memory else 0

    @property
    def peak_bytes(self) -> int:
        """The most memory that a call needs beside parameters, the optimiser's state and the batch."""
        return self.memory.peak if self.memory else 0

    def stop(self, *batch: torch.Tensor) -> NoReturn:
        """Say where the first number that is not finite comes from."""
        given = iter(batch)
        values: dict[fx.Node, Any] = {n: next(given) for n in self.lowered.batch if n is not None}
        values |= dict(self.lowered.held)
        values |= self.drawn
        where = self._first_not_finite(values)
        kept = "the parameters are those of the last good step"
        raise NotFinite(f"the loss became {where or 'NaN or infinite'}; {kept}")

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
                    call: Any = node.args[0] if node.target is operator.getitem else node
                    operation = lowered.operations.get(call) or call.target.__name__.split(".")[0]
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
