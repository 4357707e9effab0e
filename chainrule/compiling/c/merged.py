"""Loops that are one: where all that they read and write lies in memory in the order in which they count."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chainrule.compiling.c.index import Index, Indices, flat
from chainrule.compiling.c.members import LOOPS, Member
from chainrule.compiling.c.schedule import Loop
from chainrule.compiling.c.storage import Home
from chainrule.compiling.c.values import Buffer, Placed, Position, Reduce, Reshape, Value, View


def merged(loop: Loop, depth: int, homes: Mapping[Value, Home], local: Mapping[Value, bool]) -> Loop | None:
    """One loop for this one and all those in it, where they may be one: it counts what the innermost counted. `local`
    holds the values that have no memory, and whether they are arrays."""
    extents, last = [loop.extent], loop
    while len(last.children) == 1 and isinstance(last.children[0], Loop):
        last = last.children[0]
        extents.append(last.extent)
    members = [m for m in last.children if isinstance(m, Member)]
    if last is loop or len(members) < len(last.children):
        return None
    if not all(_in_order(m, depth, extents, homes, local) for m in members):
        return None
    return Loop(math.prod(extents), loop.depth, last.children)


def _in_order(
    member: Member, depth: int, extents: list[int], homes: Mapping[Value, Home], local: Mapping[Value, bool]
) -> bool:
    whole = member.start is None or member.start <= depth
    if member.kind == "product" or member.inner or not whole or "arg" in getattr(member.target, "kind", ""):
        return False
    places = _places(member.value, member.index, homes, local, member.target)
    store = tuple(i for i in member.store if isinstance(i, Index))
    if places is None or len(store) < len(member.store) or local.get(member.target):
        return False
    if member.target not in local:
        store = member.home.at(store) if isinstance(member.target, Placed) and member.kind == "place" else store
        places.append(flat(store, member.home.buffer.shape))
    variables = LOOPS[depth:]
    return all(
        place.factor(outer) == extent * place.factor(inner)
        for place in places
        for outer, inner, extent in zip(variables, variables[1:], extents[1:])
    )


def _places(
    top: Value, index: Indices, homes: Mapping[Value, Home], local: Mapping[Value, bool], making: Value
) -> list[Index] | None:
    """Where in its memory each element lies that computing `top` reads; None where that is looked up."""
    if top in local and top is not making:
        return None if local[top] else []
    if top in homes and top is not making:
        return [flat(homes[top].at(index), homes[top].buffer.shape)]
    if isinstance(top, Buffer | Reshape):
        return [flat(index, top.shape)]
    if isinstance(top, Position):
        return [index[top.dim]]
    if isinstance(top, View):
        inside = tuple(i.through(index) for i in top.index if isinstance(i, Index))
        return _places(top.base, inside, homes, local, making) if len(inside) == len(top.index) else None
    found: list[Index] = []
    for operand in top.operands if not isinstance(top, Reduce) else ():
        more = _places(operand, index, homes, local, making)
        if more is None:
            return None
        found += more
    return found
