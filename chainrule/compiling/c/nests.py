"""Nests of loops as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chainrule.compiling.c.expressions import Local, Scope
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.literals import Names, c_type
from chainrule.compiling.c.members import LARGEST_LOCAL, LOOPS, PARALLEL, Member
from chainrule.compiling.c.merged import merged
from chainrule.compiling.c.products import Block, Machine, row_blocks
from chainrule.compiling.c.reductions import Reductions, loop_text
from chainrule.compiling.c.schedule import Loop, tree
from chainrule.compiling.c.storage import Home
from chainrule.compiling.c.values import Buffer, Product, Value


class Nest(Reductions):
    """Writes one run of members. `names` holds the identifiers of memory; `inside` tells which targets no other run
    reads."""

    def __init__(self, run: list[Member], homes: Mapping[Value, Home], names: dict[Buffer, str], numbers: set[Buffer],
                 inside: Mapping[Value, list[Member]], unique: Names, machine: Machine, threads: int) -> None:  # fmt: skip
        super().__init__(homes, names, numbers, unique)
        self.machine, self.threads = machine, threads
        self.sums: dict[Member, str] = {}
        self.scratches: list[Buffer] = []
        self.roots = tree(run, 0)
        self.blocks: set[Block] = set()
        self._find_locals(run, inside)
        taken = set(unique.taken)
        self._write()
        self.unique.taken = taken
        self.counting = False
        self.lines = self._write()

    def _write(self) -> list[str]:
        self.scratches.clear()
        self.scopes = [Scope(0, "    ")]
        self._scope(self.roots)
        return self.scopes[0].lines

    def scratch(self, buffer: Buffer) -> str:
        """Memory for the time of this nest."""
        self.names[buffer] = self.unique(buffer.name)
        self.scratches.append(buffer)
        return self.names[buffer]

    # -- what lives inside --

    def _find_locals(self, run: list[Member], inside: Mapping[Value, list[Member]]) -> None:
        paths: dict[Member, list[Loop]] = {}

        def walk(node: Loop | Member, path: list[Loop]) -> None:
            if isinstance(node, Member):
                paths[node] = path
            else:
                for child in node.children:
                    walk(child, [*path, node])

        for root in self.roots:
            walk(root, [])
        for member in run:
            readers = inside.get(member.target)
            if readers is None or member.kind == "place" or not all(isinstance(i, Index) for i in member.store):
                continue
            common = paths[member]
            for reader in readers:
                common = [a for a, b in zip(common, paths[reader]) if a is b]
            depth = len(common)
            kept = []
            for dim, place in enumerate(member.store):
                assert isinstance(place, Index)
                atoms = [atom for atom, _ in place.terms]
                if any(str(atom) not in LOOPS[:depth] for atom in atoms):
                    kept.append(dim)
            rows = ""
            if member.kind == "product":
                if depth != len(member.extents):
                    continue
                rows = LOOPS[depth - 1]
            size = math.prod(member.home.buffer.shape[d] for d in kept)
            if size <= LARGEST_LOCAL:
                name = self.names[member.home.buffer]
                self.locals[member.target] = Local(name, depth, tuple(kept), rows)

    # -- statements --

    def _scope(self, nodes: list[Loop | Member]) -> None:
        scope = self.scopes[-1]
        for node in nodes:
            for member in _leaves(node):
                local = self.locals.get(member.target)
                if (
                    local
                    and local.depth == self.depth
                    and local.kept
                    and not local.first_row
                    and not self._sums_in(member, local)
                ):
                    shape = "".join(f"[{member.home.buffer.shape[d]}]" for d in local.kept)
                    scope.add(f"{c_type(member.target.dtype)} {local.name}{shape};")
            if isinstance(node, Loop):
                self._loop(node)
            else:
                self._leaf(node)

    def _sums_in(self, member: Member, local: Local) -> bool:
        """Whether the local is the very array that a reduction sums in."""
        return member.kind == "reduce" and member.inner and local.depth == member.start

    def _loop(self, loop: Loop) -> None:
        scope, depth = self.scopes[-1], self.depth
        one = merged(loop, depth, self.homes, {v: bool(found.kept) for v, found in self.locals.items()})
        if one is not None:
            inmost = max(len(m.extents) for m in _leaves(loop)) - 1
            self.counted = {LOOPS[d]: Index() for d in range(depth, inmost)}
            self.counted[LOOPS[inmost]] = Index.of(LOOPS[depth])
            loop = one
        members = list(_leaves(loop))
        started = [m for m in members if m.start == depth]
        before = len(scope.lines)
        for member in started:
            self._start(member)
        if loop.product is not None:
            self._rows(loop, loop.product)
        else:
            inner = Scope(depth + 1, scope.indent + "    ")
            self.scopes.append(inner)
            self._scope(loop.children)
            self.scopes.pop()
            threads = self._parallel(members)
            simd = self._simd(loop, members)
            var = LOOPS[depth]
            if threads and started:
                self._parts(loop, started, scope.lines[before:], inner.lines, simd)
            else:
                words = [*(["parallel for"] if threads else []), *simd[:1], *threads, *simd[1:]]
                counted = f"for (int {var} = 0; {var} < {loop.extent}; {var}++)"
                scope.lines += loop_text(scope.indent, words, counted, inner.lines)
        if one is not None:
            self.counted = {}
        for member in started:
            self._finish(member)

    def _parallel(self, members: list[Member]) -> list[str]:
        """Threads for an outermost loop with much to do."""
        much = sum(m.work for m in members) > PARALLEL and all(m.parallel for m in members)
        return [f"num_threads({self.threads})"] if much and self.depth == 0 and self.threads > 1 else []

    def _simd(self, loop: Loop, members: list[Member]) -> list[str]:
        last = all(isinstance(child, Member) for child in loop.children)
        simple = all(m.kind in ("map", "reduce") or (m.kind == "place" and m.apart) for m in members)
        if not last or not simple or any("arg" in self._kind(m) for m in members) or loop.extent == 1:
            return []
        clauses = [
            f"reduction({self._sign(member)} : {self.sums[member]})"
            for member in members
            if member.kind == "reduce" and not member.inner
        ]
        return ["simd", *clauses]

    def _leaf(self, member: Member) -> None:
        scope = self.scopes[-1]
        index = tuple(map(self._counted, member.index))
        text = self.at(member.value, index, member.target)
        if member.kind == "map":
            local = self.locals.get(member.target)
            if local is not None and not local.kept:
                scope.add(f"const {c_type(member.target.dtype)} {local.name} = {text.text};")
            else:
                scope.add(f"{self._target(member)} = {text.text};")
        elif member.kind == "place":
            target = member.target
            places = tuple(self._place(i, index) if isinstance(i, Value) else self._counted(i) for i in member.store)
            scope.add(f"{self._target(member, member.home.at(places))} {target.kind} {text.text};")  # type: ignore[attr-defined]
        else:
            self._accumulate(member, text)

    # -- products --

    def _rows(self, loop: Loop, product: Member) -> None:
        scope, var = self.scopes[-1], LOOPS[self.depth]
        assert isinstance(product.value, Product)
        local = self.locals.get(product.target)
        written = row_blocks(self, product, local.name if local else None, self.machine)
        scope.add(*written.before)
        if written.deep and local is None and len(loop.children) == 1 and self.depth == 0:
            scope.add(*written.by_columns(" ".join(self._parallel(_leaves(loop)))))
            return
        for first, last, rows, calls in written.blocks:
            block = Scope(self.depth, scope.indent + "    ")
            if local:
                block.add(
                    f"float {local.name}[{rows}][{product.value.shape[-1]}];".replace(
                        "float", c_type(product.value.dtype)
                    )
                )
            block.add(*calls)
            if len(loop.children) > 1:
                inner = Scope(self.depth + 1, block.indent + "    ")
                self.scopes.append(inner)
                self._scope(loop.children[1:])
                self.scopes.pop()
                block.add(f"for (int {var} = r; {var} < r + {rows}; {var}++) {{")
                block.lines += inner.lines
                block.add("}")
            single = last - first <= rows or any(m.start == self.depth for m in _leaves(loop))
            for threads in self._parallel(_leaves(loop)) if not single else []:
                scope.add(f"#pragma omp parallel for {threads}")
            scope.add(f"for (int r = {first}; r < {last}; r += {rows}) {{")
            scope.lines += block.lines
            scope.add("}")


def _leaves(node: Loop | Member) -> list[Member]:
    return [node] if isinstance(node, Member) else [m for child in node.children for m in _leaves(child)]
