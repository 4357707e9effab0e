"""Nests of loops as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from chainrule.compiling.c.expressions import Expressions, Local, Scope, Text
from chainrule.compiling.c.index import Index, flat
from chainrule.compiling.c.literals import Names, c_type
from chainrule.compiling.c.members import ACCURATE, LARGEST_LOCAL, LOOPS, PARALLEL, Member
from chainrule.compiling.c.merged import merged
from chainrule.compiling.c.products import Block, Machine, row_blocks
from chainrule.compiling.c.schedule import Loop, tree
from chainrule.compiling.c.storage import Home
from chainrule.compiling.c.values import Buffer, Product, Reduce, Value

REDUCTIONS = {
    "sum": ("0", "{0} += {1};", "+"),
    "prod": ("1", "{0} *= {1};", "*"),
    "amax": ("-INFINITY", "{0} = larger_{2}({1}, {0});", "larger"),
    "top": ("-INFINITY", "{0} = top_{2}({1}, {0});", "max"),
    "amin": ("INFINITY", "{0} = smaller_{2}({1}, {0});", "smaller"),
}
LIMITS = {torch.int64: ("INT64_MIN", "INT64_MAX"), torch.int32: ("INT32_MIN", "INT32_MAX"), torch.uint8: ("0", "255"),
          torch.bool: ("false", "true")}  # fmt: skip


class Nest(Expressions):
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
                scope.lines += _loop_text(scope.indent, words, counted, inner.lines)
        if one is not None:
            self.counted = {}
        for member in started:
            self._finish(member)

    def _counted(self, index: Index) -> Index:
        """The index in the variables of the loops as they are written."""
        return index.at(lambda atom: self.counted.get(atom, Index.of(atom))) if self.counted else index

    def _parts(self, loop: Loop, sums: list[Member], starts: list[str], inner: list[str], simd: list[str]) -> None:
        """A loop that sums, in as many parts as there are threads. Their sums are added in order, so that a step gives
        the same numbers each time."""
        scope, var, each = self.scopes[-1], LOOPS[self.depth], f"part < {self.threads}; part++"
        indent, kept, added = scope.indent + "    ", [], []
        for member in sums:
            name = self.sums[member]
            of_parts, size = self.unique(f"{name}_of"), f"[{member.extents[-1]}]" if member.inner else ""
            scope.add(f"{self._sum_type(member)} {of_parts}[{self.threads}]{size};")
            place = f"[{LOOPS[len(member.extents) - 1]}]" if member.inner else ""
            kept.append(f"{indent}memcpy(&{of_parts}[part], &{name}, sizeof {name});")
            around = self._over_sums(member)
            added += [indent + line for line in around]
            more = REDUCTIONS[self._kind(member)][1]
            added.append(
                f"{indent}{'    ' * bool(around)}"
                + more.format(name + place, f"{of_parts}[part]{place}", self._sum_type(member))
            )
        scope.add(f"#pragma omp parallel for num_threads({self.threads})", f"for (int part = 0; {each}) {{")
        scope.lines += ["    " + line for line in starts]
        size = f"{loop.extent}L / {self.threads}"
        counted = f"for (int {var} = part * {size}; {var} < (part + 1) * {size}; {var}++)"
        scope.lines += _loop_text(indent, simd, counted, ["    " + line for line in inner])
        scope.lines += kept
        scope.add("}", f"for (int part = 0; {each}) {{")
        scope.lines += added
        scope.add("}")

    def _over_sums(self, member: Member) -> list[str]:
        """The loop over the sums of a reduction that has many at once."""
        var = LOOPS[len(member.extents) - 1]
        size = member.extents[-1]
        return ["#pragma omp simd", f"for (int {var} = 0; {var} < {size}; {var}++)"] if member.inner else []

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

    def _kind(self, member: Member) -> str:
        return member.target.kind if isinstance(member.target, Reduce) and member.kind == "reduce" else ""

    def _sign(self, member: Member) -> str:
        sign = REDUCTIONS[self._kind(member)][2]
        return f"{sign}_{c_type(member.value.dtype)}" if sign in ("larger", "smaller") else sign

    def _sum_type(self, member: Member) -> str:
        count = math.prod(member.extents[member.start :]) // (member.extents[-1] if member.inner else 1)
        long = self._kind(member) == "sum" and count > ACCURATE and member.value.dtype == torch.float32
        return "double" if long else c_type(member.value.dtype)

    def _initial(self, member: Member) -> str:
        kind, dtype = self._kind(member), member.value.dtype
        if "max" in kind or "min" in kind:
            if not dtype.is_floating_point:
                return LIMITS[dtype]["min" in kind]
            return "-INFINITY" if "max" in kind else "INFINITY"
        return REDUCTIONS[kind][0]

    def _start(self, member: Member) -> None:
        scope, kind = self.scopes[-1], self._kind(member)
        local = self.locals.get(member.target)
        own = local is not None and local.depth == member.start
        ctype = self._sum_type(member)
        named = self.names[member.home.buffer]
        name = (
            named if own and (ctype == c_type(member.target.dtype) or member.inner) else self.unique(f"{named}_{kind}")
        )
        self.sums[member] = name
        if "arg" in kind:
            scope.add(f"{ctype} {name} = {self._initial(member)};", f"int64_t {name}_at = -1;")
        elif member.inner:
            size, var = member.extents[-1], LOOPS[len(member.extents) - 1]
            if self._initial(member) == "0":
                scope.add(f"{ctype} {name}[{size}] = {{0}};")
            else:
                scope.add(f"{ctype} {name}[{size}];")
                scope.add(
                    f"for (int {var} = 0; {var} < {size}; {var}++)", f"    {name}[{var}] = {self._initial(member)};"
                )
        else:
            scope.add(f"{ctype} {name} = {self._initial(member)};")

    def _finish(self, member: Member) -> None:
        scope, name, kind = self.scopes[-1], self.sums[member], self._kind(member)
        local = self.locals.get(member.target)
        named = self.names[member.home.buffer]
        if local is not None and name == named:
            return
        last = f"{name}_at < 0 ? 0 : {name}_at" if "arg" in kind else name
        if member.inner:
            scope.add(
                *self._over_sums(member), f"    {self._target(member)} = {name}[{LOOPS[len(member.extents) - 1]}];"
            )
        elif local is not None and not local.kept:
            scope.add(f"const {c_type(member.target.dtype)} {named} = {last};")
        else:
            scope.add(f"{self._target(member)} = {last};")

    def _target(self, member: Member, index: tuple[Index, ...] | None = None) -> str:
        places = index if index is not None else tuple(self._counted(i) for i in member.store if isinstance(i, Index))
        local = self.locals.get(member.target)
        if local is None:
            return self.element(member.home.buffer, places)
        return local.name + "".join(f"[{places[d]}]" for d in local.kept)

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

    def _accumulate(self, member: Member, text: Text) -> None:
        scope, name, kind = self.scopes[-1], self.sums[member], self._kind(member)
        if "arg" in kind:
            assert isinstance(member.target, Reduce)
            order = sorted(member.target.dims)
            place = flat(tuple(member.index[d] for d in order), tuple(member.value.shape[d] for d in order))
            sign = ">" if kind == "argmax" else "<"
            x = self.unique("x")
            scope.add(f"const {c_type(member.value.dtype)} {x} = {text.text};")
            scope.add(
                f"if ({name} == {name} && ({x} {sign} {name} || {x} != {x} || {name}_at < 0))",
                f"    {name} = {x}, {name}_at = {place};",
            )
            return
        element = f"{name}[{LOOPS[len(member.extents) - 1]}]" if member.inner else name
        scope.add(
            REDUCTIONS[kind][1].format(
                element, text.text if kind == "sum" else text.within(6), c_type(member.value.dtype)
            )
        )

    # -- products --

    def _rows(self, loop: Loop, product: Member) -> None:
        scope, var = self.scopes[-1], LOOPS[self.depth]
        assert isinstance(product.value, Product)
        local = self.locals.get(product.target)
        written = row_blocks(self, product, local.name if local else None, self.machine)
        scope.add(*written.before)
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


def _loop_text(indent: str, pragma: list[str], counted: str, inner: list[str]) -> list[str]:
    braces = len(inner) != 1
    return [
        *([f"{indent}#pragma omp {' '.join(pragma)}"] if pragma else []),
        f"{indent}{counted}" + (" {" if braces else ""),
        *inner,
        *([indent + "}"] if braces else []),
    ]


def _leaves(node: Loop | Member) -> list[Member]:
    return [node] if isinstance(node, Member) else [m for child in node.children for m in _leaves(child)]
