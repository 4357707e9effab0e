"""The order of the statements, and which of them share their loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chainrule.compiling.c.index import Index
from chainrule.compiling.c.members import LOOPS, PARALLEL, Member, assignment, statements
from chainrule.compiling.c.storage import Home, own_memory
from chainrule.compiling.c.values import Buffer, Value, dims


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
    if (
        len(one.extents) <= depth
        or len(other.extents) <= depth
        or one.extents[: depth + 1] != other.extents[: depth + 1]
    ):
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
    """Runs of members, each run one nest of loops. Each of `alone` is a run of its own, before all others; no argument
    is written before the run after that which makes `first`."""

    def __init__(
        self,
        stored: list[Value],
        homes: dict[Value, Home],
        arguments: set[Buffer],
        alone: set[Value],
        first: Value | None,
        threads: int,
    ) -> None:
        self.homes, self.arguments, self.first, self.threads = homes, arguments, first, threads
        members = [m for v in stored for m in statements(v, homes[v], homes)]
        early = _with_what_they_read([m for m in members if m.target in alone], members)
        self.runs = [[m] for m in early]
        self.waiting = dict.fromkeys(m for m in members if m not in early)
        for target in {m.target: None for m in members if m.home.buffer in arguments}:
            own = [m for m in members if m.target is target]
            if not all(_in_place(m, len(own)) for m in own):
                self._elsewhere(target)
        self._note()
        while self.waiting:
            self.runs.append(self._run())

    def _note(self) -> None:
        """Who makes each value, who reads it, and who reads what was in each memory before."""
        self.makers: dict[Value, list[Member]] = {}
        self.users: dict[Value, list[Member]] = {}
        self.old: dict[Buffer, list[Member]] = {}
        written = {m.target: m.home.buffer for m in self.waiting}
        for member in self.waiting:
            self.makers.setdefault(member.target, []).append(member)
            for value, buffer, _ in member.reads:
                self.users.setdefault(value, []).append(member)
                if written.get(value) is not buffer:
                    self.old.setdefault(buffer, []).append(member)

    def _elsewhere(self, target: Value) -> None:
        """Has a value computed in memory of its own, and copied to its place once nobody needs what is there."""
        home = self.homes[target]
        self.homes[target] = own_memory(target, f"{home.buffer.name}_new")
        waiting: list[Member] = []
        for member in self.waiting:
            if member.target is target:
                if target not in {m.target for m in waiting}:
                    waiting += statements(target, self.homes[target], self.homes)
                continue
            reads = [(v, self.homes[v].buffer if v is target else b, x) for v, b, x in member.reads]
            waiting.append(replace(member, reads=reads))
        copy = assignment(Value(target.shape, target.dtype), target, home, self.homes)
        self.waiting = dict.fromkeys([*waiting, copy])

    def _ready(self, member: Member, run: list[Member]) -> bool:
        """Whether what the member reads is made, and what it overwrites is read."""
        unseen = self.first is not None and any(m in self.waiting for m in self.makers.get(self.first, ()))
        if unseen and member.home.buffer in self.arguments:
            return False
        before = self.makers[member.target]
        needed = [*before[: before.index(member)], *self.old.get(member.home.buffer, ())]
        for value, _, _ in member.reads:
            if value is not member.target:
                needed += self.makers.get(value, ())
        return all(m is member or m in run or m not in self.waiting for m in needed)

    def _blocked_update(self, member: Member) -> bool:
        """Whether what is made of the member at once overwrites an argument that others have still to read."""
        return any(
            other in self.waiting and other is not update and other is not member
            for update in self.users.get(member.target, ())
            if update.home.buffer in self.arguments
            for other in self.old.get(update.home.buffer, ())
        )

    def _run(self) -> list[Member]:
        ready = [m for m in self.waiting if self._ready(m, [])]
        if not ready:  # each waits for another to read the old value
            made = [
                m
                for m in self.waiting
                if all(o is m or o not in self.waiting for v, _, _ in m.reads for o in self.makers.get(v, ()))
            ]
            blocked = next(m for m in made if m.home.buffer in self.arguments)
            self._elsewhere(blocked.target)
            self._note()
            return self._run()
        run = [next((m for m in ready if not self._blocked_update(m)), ready[0])]
        while run[0].extents:
            member = next((m for m in self.waiting if m not in run and self._joins(m, run)), None)
            if member is None:
                break
            run.append(member)
        for member in run:
            del self.waiting[member]
        return run

    def _joins(self, member: Member, run: list[Member]) -> bool:
        """Whether the member may run in the loop of the others, and reads what they make or read."""
        if member.extents[:1] != run[0].extents[:1]:
            return False
        alone = not member.parallel or (run[0].kind == "product" and member.start == 0)
        if self.threads > 1 and run[0].parallel and run[0].work > PARALLEL and alone:
            return False
        made = {m.target for m in run}
        read = {b for m in run for _, b, _ in m.reads if b.shape}
        near = any(value in made or buffer in read for value, buffer, _ in member.reads)
        return near and all(shares_loop(m, member, 0) for m in run) and self._ready(member, run)


def _with_what_they_read(chosen: list[Member], members: list[Member]) -> dict[Member, None]:
    """The chosen members, each behind those that make what it reads."""
    makers: dict[Value, list[Member]] = {}
    for member in members:
        makers.setdefault(member.target, []).append(member)
    found: dict[Member, None] = {}

    def add(member: Member) -> None:
        if member in found:
            return
        for value, _, _ in member.reads:
            for maker in makers.get(value, ()) if value is not member.target else ():
                add(maker)
        found[member] = None

    for member in chosen:
        add(member)
    return found


def _in_place(member: Member, count: int) -> bool:
    """Whether the member may write to an argument: it needs no other old elements than the one that it replaces."""
    own = [
        index for value, buffer, index in member.reads if buffer is member.home.buffer and value is not member.target
    ]
    if member.kind == "product":
        return not own and member.home.index == dims(member.target.shape)
    return not own or (count == 1 and member.kind == "map" and all(index == member.store for index in own))


def readers(runs: list[list[Member]], homes: Mapping[Value, Home]) -> dict[Value, list[Member]]:
    found: dict[Value, list[Member]] = {}
    for run in runs:
        for member in run:
            for value, _, _ in member.reads:
                found.setdefault(value, []).append(member)
    return found
