"""What `print(step.plan())` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chainrule.compiling.plan import Plan
    from chainrule.compiling.straight import Emitted


def report(plan: Plan) -> str:
    """The code of a step, and tables of its memory and of what was measured."""
    parts = [plan.source.rstrip()]
    if plan.emitted is not None:
        parts.append(_memory(plan, plan.emitted))
        if plan.emitted.choices:
            parts.append(_choices(plan.emitted))
    if plan.compared:
        tried = (f"{engine} {seconds * 1e6:.0f} us" for engine, seconds in plan.compared.items())
        parts.append(f"tried: {', '.join(tried)}")
    taken = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in plan.seconds.items())
    count = len(plan.source.splitlines())
    return "\n\n".join([*parts, f"engine {plan.engine}; {count} lines; planned in: {taken}"])


def _memory(plan: Plan, emitted: Emitted) -> str:
    held = [b for b in emitted.buffers if b.offset is not None]
    total = sum(b.size for b in held)
    lines = [
        f"memory beside parameters and batch: {_bytes(plan.peak_bytes)}",
        f"  held between steps: {_bytes(emitted.arena)} for {len(held)} values of {_bytes(total)} that take turns"
        + (f", constants {_bytes(emitted.constants)}" if emitted.constants else ""),
        f"  allocated and freed in a step: {_bytes(emitted.allocated)} at most",
    ]
    rows = [
        (b.name, "x".join(map(str, b.shape)) or "number", _bytes(b.size), "allocated" if b.offset is None else f"at {b.offset}",
         f"lines {b.first + 1} to {b.last + 1}")
        for b in emitted.buffers
    ]  # fmt: skip
    return "\n".join([*lines, *_table(rows)])


def _choices(emitted: Emitted) -> str:
    rows = []
    for name, choice in emitted.choices:
        m, k, n = choice.shape
        others = ", ".join(
            f"{label} {seconds * 1e6:.0f}" for label, seconds in sorted(choice.seconds.items(), key=lambda i: i[1])
        )
        rows.append((name, f"{m}x{k} @ {k}x{n}", choice.way.label, others and f"us: {others}"))
    return "\n".join(["products, each the fastest of its exact ways as measured here", *_table(rows)])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
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
