"""What `print(step.plan())` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chainrule.compiling.plan import Plan
    from chainrule.compiling.straight.arrangement import Memory


def report(plan: Plan) -> str:
    """The code of a step, and tables of its memory and of what was measured."""
    parts = [plan.source.rstrip()]
    if plan.views:
        parts.append("\n".join(["views made once", *_table([(name, f"= {code}") for name, code in plan.views])]))
    if plan.memory is not None:
        parts.append(_memory(plan.memory))
    if plan.of_slice is not None:
        parts.append(
            "\n".join([f"of that, each of the {plan.slices} slices:", *_memory(plan.of_slice).split("\n")[1:]])
        )
    if plan.recomputed:
        parts.append(f"computed again in the backward pass: {', '.join(plan.recomputed)}")
    if plan.choices:
        parts.append(_choices(plan))
    taken = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in plan.seconds.items())
    tried = ", ".join(f"{engine} {seconds * 1e6:.1f} us" for engine, seconds in plan.compared.items())
    return "\n\n".join([*parts, f"engine {plan.title}{f' ({tried})' if tried else ''}; planned in: {taken}"])


def _memory(memory: Memory) -> str:
    held = [b for b in memory.buffers if b.offset is not None]
    lines = [f"memory beside parameters and batch: {_bytes(memory.peak)}"]
    if memory.arena:
        turns = f" for {len(held)} values of {_bytes(sum(b.size for b in held))} that take turns" if held else ""
        lines.append(f"  held between steps: {_bytes(memory.arena)}{turns}")
    if memory.constants:
        lines.append(f"  constants: {_bytes(memory.constants)}")
    lines.append(f"  allocated and freed in a step: {_bytes(memory.allocated)} at most")
    rows = [
        (b.name, "x".join(map(str, b.shape)) or "number", _bytes(b.size), "allocated" if b.offset is None else f"at {b.offset}",
         f"lines {b.first + 1} to {b.last + 1}")
        for b in memory.buffers
    ]  # fmt: skip
    return "\n".join([*lines, *_table(rows)])


def _choices(plan: Plan) -> str:
    rows = []
    for name, choice in plan.choices:
        m, k, n = choice.shape
        others = ", ".join(
            f"{label} {seconds * 1e6:.0f}" for label, seconds in sorted(choice.seconds.items(), key=lambda i: i[1])
        )
        rows.append((name, f"{m}x{k} @ {k}x{n}", choice.way.label, others and f"us: {others}"))
    return "\n".join(["products, each the fastest of its exact ways as measured here", *_table(rows)])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _bytes(count: int) -> str:
    """
    >>> _bytes(1536), _bytes(3 << 20)
    ('1.5 kB', '3.0 MB')
    """
    for unit, size in (("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
