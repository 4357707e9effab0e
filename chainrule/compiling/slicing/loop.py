"""The plan of a step in slices: straight-line code for the rows of one, in a loop that adds up what they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.islands import with_islands
from chainrule.compiling.memory import size_of
from chainrule.compiling.optimisers import Gathering, Optimiser
from chainrule.compiling.plan import Plan
from chainrule.compiling.slicing.parting import Parted, parted
from chainrule.compiling.straight.code import Straight
from chainrule.compiling.straight.moves import Moves


class Slice(Straight):
    """The code of one slice: it adds to sums, and looks at nothing."""

    entry = "slice_of_step"
    reserved = (entry, "zero_", "zip")

    def _check(self) -> list[str]:
        return []

    def _moving(self, p: fx.Node, gradient: fx.Node) -> str:
        return self._name(gradient)

    def _returned(self) -> str:
        return "None"


def in_slices(
    engine: str,
    lowered: Lowered,
    count: int,
    optimiser: Optimiser | None,
    moments: dict[fx.Node, list[torch.Tensor]],
) -> Plan:
    """The plan of a step in `count` slices, for the engine "torch", or "c" for what lies between large products.

    Raises NotByRows where the rows of the batch must know of one another."""
    apart = parted(lowered, count)
    body, sources, scratch = with_islands(apart.slice) if engine == "c" else (apart.slice, [], 0)
    code = Slice(body, Moves(Gathering(every=1), dict(zip(body.gradients, ([total] for total in apart.totals)))))
    text, loop = _loop(apart, code)
    apart.call.target = loop
    apart.call.meta["needs"] = code.memory.allocated
    at = dict(zip(lowered.gradients, apart.outer.gradients))
    moves = Moves(optimiser, {at[p]: own for p, own in moments.items()}) if optimiser else None
    plan = Plan.of_code(engine, Straight(apart.outer, moves), [text, *sources])
    held = sum(size_of(total) for total in apart.sums) + code.memory.held + scratch
    assert plan.memory is not None
    plan.memory = replace(plan.memory, constants=plan.memory.constants + held)
    plan.slices, plan.of_slice = count, code.memory
    plan.choices, plan.views = [*plan.choices, *code.choices], [*plan.views, *code.views]
    plan.drawn = dict(zip(lowered.drawn, plan.drawn.values()))
    plan.lowered = lowered
    return plan


def _loop(apart: Parted, code: Slice) -> tuple[str, Callable[..., Any]]:
    """The call that stands for all slices, and the text of both: the slice, and the loop over the rows."""
    names = [code._name(n) for n in code.lowered.batch if n is not None]
    sums = code.names.fresh("sums")
    split = [f"{name}.split({apart.size * rows.each}, {rows.axis})" for name, rows in zip(names, apart.split)]
    parts = [code.names.fresh(f"{name}_rows") for name in names[: len(split)]]
    rows = f"({parts[0]},)" if len(parts) == 1 else ", ".join(parts)
    text = "\n\n".join([code.written(), "\n".join([
        f"def slices({', '.join(names)}):",
        f"    zero_({sums})",
        f"    for {rows} in zip({', '.join(split)}):",
        f"        slice_of_step({', '.join([*parts, *names[len(split):]])})",
        "",
    ])])  # fmt: skip
    space: dict[str, Any] = {**code.space, sums: apart.sums, "zero_": torch._foreach_zero_}
    exec(compile(text, "<compiled step>", "exec"), space)
    return text, space["slices"]
