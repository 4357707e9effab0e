"""The whole step as one C file: declarations, checks of indices, the nests in order, and a plan of the memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.literals import Names, c_type
from chainrule.compiling.c.mathematics import HEAD, definitions
from chainrule.compiling.c.members import Member
from chainrule.compiling.c.nests import Nest
from chainrule.compiling.c.products import Block, Machine
from chainrule.compiling.c.schedule import Schedule, readers
from chainrule.compiling.c.storage import reachable, size_of
from chainrule.compiling.c.values import Buffer, Constant, Placed, Pointwise, Product, Reduce, Reshape, Value, View

ALIGNMENT = 64


@dataclass(frozen=True)
class Page:
    """The text, the bytes of working memory that it wants, and what is checked: the message of each exit status."""

    text: str
    arena: int
    checks: tuple[str, ...]
    large_products: tuple[str, ...]


def index_checks(roots: list[Value]) -> list[tuple[Value, str]]:
    """For each array of indices that comes from the arguments: whether one of them is out of range, as a value."""
    found: dict[tuple[Value, int], tuple[Value, str]] = {}
    for value in reachable(roots):
        places: list[tuple[Value, int]] = []
        if isinstance(value, View):
            places = [(i, n) for i, n in zip(value.index, value.base.shape) if isinstance(i, Value)]
        if isinstance(value, Placed):
            places = [(i, n) for _, index in value.parts for i, n in zip(index, value.shape) if isinstance(i, Value)]
        for index, size in places:
            while isinstance(index, View) and all(not isinstance(i, Value) for i in index.index):
                index = index.base
            parts = reachable([index])
            if isinstance(index, Constant) or any(isinstance(p, Reduce | Product | Placed) for p in parts):
                continue
            # A copy, for the check comes before anything is stored.
            outside = c.point(f"({{0}} < 0) | ({{0}} >= {size})", _copied(index), level=2, dtype=torch.bool)
            bad = Reduce((), torch.bool, outside, tuple(range(len(index.shape))), "amax", name="outside")
            source = next(
                (p.name for p in parts if isinstance(p, Buffer) and not p.dtype.is_floating_point), index.name
            )
            found[index, size] = (bad, f"{source}: an index is outside of 0 to {size - 1}")
    return list(found.values())


def _copied(value: Value) -> Value:
    if isinstance(value, Pointwise):
        return replace(value, of=tuple(map(_copied, value.of)))
    return replace(value, base=_copied(value.base)) if isinstance(value, View | Reshape) else value


def write_page(
    schedule: Schedule, checks: list[tuple[Value, str]], given: list[Buffer], machine: Machine, threads: int, title: str
) -> Page:
    """`given`: the memory of each argument of the step, in order: placeholders, then results. Where `schedule.first` is
    not finite, the step ends with the status after those of the checks."""
    unique, homes = Names(), schedule.homes
    names: dict[Buffer, str] = {}
    numbers = {b for b in given if not b.shape and not any(m.home.buffer is b for run in schedule.runs for m in run)}
    own = [m.home.buffer for run in schedule.runs for m in run]
    for buffer in dict.fromkeys([*given, *own]):
        names[buffer] = unique(buffer.name)
    inside = _inside(schedule, set(given))
    body: list[str] = []
    blocks: set[Block] = set()
    lives: dict[Buffer, list[int]] = {}
    failures = {value: number for number, (value, _) in enumerate(checks, 1)}
    last_of_first = next(
        (m for run in reversed(schedule.runs) for m in reversed(run) if m.target is schedule.first), None
    )
    for number, run in enumerate(schedule.runs):
        nest = Nest(run, homes, names, numbers, inside, unique, machine, threads)
        body += ["", f"    /* {_title(run, names, nest)} */", *nest.lines]
        blocks |= nest.blocks
        for member in run:
            if member.target in failures:
                body.append(f"    if (*{names[member.home.buffer]}) return {failures[member.target]};")
            if member.target is schedule.first and member is last_of_first:
                body.append(f"    if (!isfinite(*{names[member.home.buffer]})) return {len(checks) + 1};")
            live = [b for v, b, _ in member.reads if v not in nest.locals]
            for buffer in [*live, *([] if member.target in nest.locals else [member.home.buffer])]:
                lives.setdefault(buffer, []).append(number)
        for buffer in nest.scratches:
            lives.setdefault(buffer, []).append(number)
    offsets, size = _plan({b: (min(n), max(n)) for b, n in lives.items() if b not in given})
    head = [
        _argument(b, names[b], i, b in numbers, any(m.home.buffer is b for run in schedule.runs for m in run))
        for i, b in enumerate(given)
    ]
    if offsets:
        head.append(f"    char *arena = arg[{len(given)}];")
    head += [_declared(b, names[b], f"arena + {offset}", True) for b, offset in offsets.items()]
    step = "\n".join([f"int step(void *const *arg)  /* {title} */", "{", *head, *body, "", "    return 0;", "}"])
    types = list(dict.fromkeys(b.type for b in sorted(blocks)))
    text = (
        "\n\n".join(
            [HEAD.rstrip(), *definitions(step, machine.vector), *types, *(b.text for b in sorted(blocks)), step]
        )
        + "\n"
    )
    large = tuple(
        f"{names[m.home.buffer]}: {m.value.a.shape} @ {m.value.b.shape}"
        for run in schedule.runs for m in run if isinstance(m.value, Product) and m.value.flops > 50e6
    )  # fmt: skip
    return Page(text, size, tuple(message for _, message in checks), large)


def _inside(schedule: Schedule, given: set[Buffer]) -> dict[Value, list[Member]]:
    """The readers of each target that is read in its own run alone."""
    all_readers = readers(schedule.runs, schedule.homes)
    made: dict[Value, int] = {}
    for run in schedule.runs:
        for member in run:
            made[member.target] = made.get(member.target, 0) + 1
    result = {}
    for run in schedule.runs:
        for member in run:
            found = all_readers.get(member.target, [])
            if found and made[member.target] == 1 and member.home.buffer not in given and all(r in run for r in found):
                result[member.target] = found
    return result


def _title(run: list[Member], names: dict[Buffer, str], nest: Nest) -> str:
    parts = []
    for member in run:
        shape = str(tuple(member.home.buffer.shape))
        how = ""
        if isinstance(member.value, Product):
            how = f" = {_operand(member.value.a, names, nest)} @ {_operand(member.value.b, names, nest)}"
        parts.append(f"{names[member.home.buffer]} {shape}{how}")
    return ", ".join(dict.fromkeys(parts))


def _operand(value: Value, names: dict[Buffer, str], nest: Nest) -> str:
    turned = isinstance(value, View)
    while value not in nest.homes and not isinstance(value, Buffer):
        value = value.operands[0]
    name = names[nest.homes[value].buffer if value in nest.homes else value]  # type: ignore[index]
    return f"{name}'" if turned else name


def _declared(buffer: Buffer, name: str, source: str, written: bool) -> str:
    kind = f"{'' if written else 'const '}{c_type(buffer.dtype)}"
    inner = "".join(f"[{n}]" for n in buffer.shape[1:])
    pointer = f"{kind} (*{name}){inner}" if inner else f"{kind} *{name}"
    cast = "(void *) (" + source + ")" if "arena" in source else source
    return f"    {pointer} = {cast};  /* {tuple(buffer.shape)} */"


def _argument(buffer: Buffer, name: str, place: int, number: bool, written: bool) -> str:
    if number:
        return f"    const {c_type(buffer.dtype)} {name} = *(const {c_type(buffer.dtype)} *) arg[{place}];"
    return _declared(buffer, name, f"arg[{place}]", written)


def _plan(lives: dict[Buffer, tuple[int, int]]) -> tuple[dict[Buffer, int], int]:
    """Where in the arena each buffer lies: the lowest place that is free all its life, the largest buffers first."""
    offsets: dict[Buffer, int] = {}
    end = 0
    for buffer in sorted(lives, key=size_of, reverse=True):
        first, last = lives[buffer]
        taken = sorted(
            (offset, offset + size_of(b))
            for b, offset in offsets.items()
            if lives[b][0] <= last and first <= lives[b][1]
        )
        place = 0
        for start, stop in taken:
            if place + size_of(buffer) <= start:
                break
            place = max(place, -(-stop // ALIGNMENT) * ALIGNMENT)
        offsets[buffer] = place
        end = max(end, place + size_of(buffer))
    return {b: offsets[b] for b in lives}, end
