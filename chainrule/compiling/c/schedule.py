"""The order of the statements, and which of them share their loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chainrule.compiling.c.index import Index
from chainrule.compiling.c.members import LOOPS, Member, assignment, statements
from chainrule.compiling.c.storage import Home, own_memory
from chainrule.compiling.c.values import Buffer, Product, Value


@dataclass(eq=False)
class Loop:
    """A loop at some depth and what runs in it; `depth` is the number of loops around the children."""

    extent: int
    depth: int
    children: list[Loop | Member] = field(default_factory=list)

    @property
    def product(self) -> Member | None:
        """The product whose rows this loop counts, in blocks."""
        first = self.children[0] if self.children else None
        return first if isinstance(first, Member) and first.kind == "product" else None


def shares_loop(one: Member, other: Member, depth: int) -> bool:
    """Whether `other`, which comes later, may run in the loop of `one` at that depth, once around each time."""
    if len(one.extents) <= depth or len(other.extents) <= depth or one.extents[: depth + 1] != other.extents[: depth + 1]:
        return False
    if other.kind in ("product", "place") or one.kind == "place":
        return False
    outside = set(LOOPS[: depth + 1])
    for value, _, index in other.reads:
        if value is not one.target:
            continue
        if index is None or (one.start is not None and one.start <= depth) or not _agree(one.store, index, outside):
            return False
    return all(
        index is not None and _agree(other.store, index, outside)
        for _, buffer, index in one.reads
        if buffer is other.home.buffer
    )


def _agree(stored: tuple[Index | Value, ...], read: tuple[Index, ...], outside: set[str]) -> bool:
    """Whether an element that is stored in one turn of the loops is read in the same turn alone."""
    for s, r in zip(stored, read):
        if isinstance(s, Value):
            return False
        if s != r and any(atom in outside for atom, _ in s.terms):
            return False
    present = {atom for s in stored if isinstance(s, Index) for atom, _ in s.terms}
    return outside <= present


def tree(members: list[Member], depth: int) -> list[Loop | Member]:
    """Members in order, neighbours that can share a loop in one."""
    result: list[Loop | Member] = []
    group: list[Member] = []

    def close() -> None:
        if group:
            inside: list[Loop | Member]
            if group[0].kind == "product" and len(group[0].extents) == depth + 1:
                inside = [group[0], *tree(group[1:], depth + 1)]
            else:
                inside = tree(list(group), depth + 1)
            result.append(Loop(group[0].extents[depth], depth + 1, inside))
            group.clear()

    for member in members:
        if len(member.extents) == depth:
            close()
            result.append(member)
            continue
        if group and not all(shares_loop(m, member, depth) for m in group):
            close()
        group.append(member)
    close()
    return result


class Schedule:
    """Runs of members, each run one nest of loops; `temporaries` are the values that could not be written in place."""

    def __init__(self, stored: list[Value], homes: dict[Value, Home], arguments: set[Buffer]) -> None:
        self.homes, self.arguments = homes, arguments
        self.waiting = [m for v in stored for m in statements(v, homes[v], homes)]
        self._own_what_reads_itself()
        self.runs: list[list[Member]] = []
        while self.waiting:
            self.runs.append(self._run())

    # -- memory of arguments: old values are read before new ones are written --

    def _own_what_reads_itself(self) -> None:
        """Values that need other old elements than the one they replace are computed elsewhere and copied."""
        for target in {m.target: None for m in self.waiting if m.home.buffer in self.arguments}:
            members = [m for m in self.waiting if m.target is target]
            plain = all(self._in_place(m, len(members)) for m in members)
            if not plain:
                self._elsewhere(target)

    def _in_place(self, member: Member, count: int) -> bool:
        own = [index for value, buffer, index in member.reads if buffer is member.home.buffer and value is not member.target]
        if member.kind == "product":
            flat_home = tuple(i.terms[0][0] if i.terms else None for i in member.home.index)
            return not own and flat_home == tuple(range(len(flat_home)))
        return not own or (count == 1 and member.kind == "map" and all(index == member.store for index in own))

    def _elsewhere(self, target: Value) -> None:
        home = self.homes[target]
        self.homes[target] = own_memory(target, f"{home.buffer.name}_new")
        again = statements(target, self.homes[target], self.homes)
        place = next(i for i, m in enumerate(self.waiting) if m.target is target)
        rest = [m for m in self.waiting if m.target is not target]
        copy_of = Value(target.shape, target.dtype)
        self.waiting = [*rest[:place], *again, *rest[place:], assignment(copy_of, target, home, self.homes)]
        for i, member in enumerate(self.waiting):  # what reads the target finds it elsewhere
            if any(value is target for value, _, _ in member.reads) and member.target is not copy_of:
                reads = [(v, self.homes[v].buffer if v is target else b, x) for v, b, x in member.reads]
                self.waiting[i] = replace(member, reads=reads)

    # -- order --

    def _ready(self, member: Member, run: list[Member]) -> bool:
        """Whether what the member reads is there, and what it overwrites is read."""
        for other in self.waiting:
            if other is member or other in run:
                continue
            if other.target is member.target:
                if self.waiting.index(other) < self.waiting.index(member):
                    return False
            elif any(value is other.target for value, _, _ in member.reads) or self._reads_old(other, member):
                return False
        return True

    @staticmethod
    def _reads_old(other: Member, member: Member) -> bool:
        return any(b is member.home.buffer and v is not member.target for v, b, _ in other.reads)

    def _blocked_update(self, member: Member) -> bool:
        """Whether what is made of the member at once overwrites an argument that others have still to read."""
        for update in self.waiting:
            if update.home.buffer in self.arguments and any(v is member.target for v, _, _ in update.reads):
                if any(o is not update and o is not member and self._reads_old(o, update) for o in self.waiting):
                    return True
        return False

    def _run(self) -> list[Member]:
        ready = [m for m in self.waiting if self._ready(m, [])]
        if not ready:
            blocked = next((m for m in self.waiting if m.home.buffer in self.arguments and not self._unmade(m)), None)
            assert blocked is not None, "the graph has a cycle"
            self._elsewhere(blocked.target)
            return self._run()
        first = next((m for m in ready if not self._blocked_update(m)), ready[0])
        run = [first]
        found = bool(first.extents)
        while found:
            found = False
            for member in self.waiting:
                if member in run or not self._joins(member, run):
                    continue
                run.append(member)
                found = True
                break
        for member in run:
            self.waiting.remove(member)
        return run

    def _unmade(self, member: Member) -> bool:
        return any(value is o.target for o in self.waiting if o is not member for value, _, _ in member.reads)

    def _joins(self, member: Member, run: list[Member]) -> bool:
        if not all(shares_loop(m, member, 0) for m in run):
            return False
        made = {m.target for m in run}
        read = {b for m in run for _, b, _ in m.reads if not isinstance(m.value, Product)}
        near = any(value in made or buffer in read for value, buffer, _ in member.reads)
        return near and self._ready(member, run)


def readers(runs: list[list[Member]], homes: Mapping[Value, Home]) -> dict[Value, list[Member]]:
    found: dict[Value, list[Member]] = {}
    for run in runs:
        for member in run:
            for value, _, _ in member.reads:
                found.setdefault(value, []).append(member)
    return found
