"""Nests of loops as text: each expression stands in the outermost loop that it can be computed in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from chainrule.compiling.c.index import Index, Indices, flat
from chainrule.compiling.c.literals import Names, c_type, literal
from chainrule.compiling.c.members import ACCURATE, LARGEST_LOCAL, LOOPS, Member
from chainrule.compiling.c.products import Block, Machine, row_blocks
from chainrule.compiling.c.schedule import Loop, tree
from chainrule.compiling.c.storage import Home
from chainrule.compiling.c.values import Buffer, Constant, Pointwise, Position, Product, Reduce, Reshape, Value, View

Key = tuple[Value, Indices]


@dataclass(frozen=True)
class Text:
    """A C expression; `level` is how tightly it binds, `depth` the number of loops that it stands in at least."""

    text: str
    level: int
    depth: int
    cost: int = 0

    def within(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


@dataclass
class Scope:
    depth: int
    indent: str
    lines: list[str] = field(default_factory=list)
    memo: dict[Key, Text] = field(default_factory=dict)

    def add(self, *lines: str) -> None:
        self.lines += [self.indent + line for line in lines]


@dataclass(frozen=True)
class Local:
    """A value that lives inside a nest alone: an array of the dimensions that loops deeper than `depth` count."""

    name: str
    depth: int
    kept: tuple[int, ...]  # dimensions of the home that the local has
    first_row: str = ""  # of a block of a product


REDUCTIONS = {
    "sum": ("0", "{0} += {1};", "+"),
    "prod": ("1", "{0} *= {1};", "*"),
    "amax": ("-INFINITY", "{0} = larger_{2}({1}, {0});", "larger"),
    "amin": ("INFINITY", "{0} = smaller_{2}({1}, {0});", "smaller"),
}
LIMITS = {torch.int64: ("INT64_MIN", "INT64_MAX"), torch.int32: ("INT32_MIN", "INT32_MAX"), torch.uint8: ("0", "255"),
          torch.bool: ("false", "true")}  # fmt: skip


class Nest:
    """Writes one run of members. `names` holds the identifiers of memory; `inside` tells which targets no other run
    reads."""

    def __init__(self, run: list[Member], homes: Mapping[Value, Home], names: dict[Buffer, str], numbers: set[Buffer],
                 inside: Mapping[Value, list[Member]], unique: Names, machine: Machine) -> None:  # fmt: skip
        self.homes, self.names, self.unique, self.machine = homes, names, unique, machine
        self.numbers = numbers
        self.sums: dict[Member, str] = {}
        self.opaque: dict[object, int] = {}
        self.scratches: list[Buffer] = []
        self.roots = tree(run, 0)
        self.locals: dict[Value, Local] = {}
        self.blocks: set[Block] = set()
        self._find_locals(run, inside)
        self.counts: Counter[Key] = Counter()
        self.counting = True
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
                if any(atom not in LOOPS[:depth] for atom in atoms):
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

    # -- expressions --

    @property
    def depth(self) -> int:
        return self.scopes[-1].depth

    def at(self, value: Value, index: Indices, making: Value | None = None) -> Text:
        """The value at the index as an expression."""
        if value is not making and (value in self.homes or isinstance(value, Buffer)):
            return self._load(value, index)
        if isinstance(value, Constant):
            return Text(literal(value.number, value.dtype), 9, 0)
        if isinstance(value, View):
            return self.at(value.base, tuple(self._place(i, index) for i in value.index), making)
        if isinstance(value, Position):
            return Text(f"({c_type(value.dtype)}) {_grouped(index[value.dim])}", 8, self._deepest(index[value.dim]))
        if isinstance(value, Reshape):
            return self._reshaped(value, index)
        assert isinstance(value, Pointwise), value
        key = (value, index)
        for scope in reversed(self.scopes):
            if key in scope.memo:
                self.counts[key] += self.counting
                return scope.memo[key]
        of = [self.at(o, index, making) for o in value.of]
        level = value.level
        plain = value.template.startswith("{0}") and 0 < level < 8
        asked = [
            level + (n > 0) if plain else (1 if level == 0 else 0 if level == 9 else level) for n in range(len(of))
        ]
        text = value.template.format(*(o.within(a) for o, a in zip(of, asked)))
        result = Text(text, level, max((o.depth for o in of), default=0), value.cost + sum(o.cost for o in of))
        self.counts[key] += self.counting
        if self.counting or self.counts[key] > 1 or result.depth < self.depth:
            scope = self.scopes[result.depth] if result.depth < len(self.scopes) else self.scopes[-1]
            name = self.unique(value.name or "t")
            scope.add(f"const {c_type(value.dtype)} {name} = {text};")
            result = scope.memo[key] = Text(name, 9, result.depth)
        return result

    def _deepest(self, index: Index) -> int:
        return max(
            (LOOPS.index(a) + 1 if a in LOOPS else self.opaque.get(a, self.depth) for a, _ in index.terms), default=0
        )  # type: ignore[operator,call-overload,arg-type]

    def _place(self, i: Index | Value, index: Indices) -> Index:
        if isinstance(i, Index):
            return i.at(lambda d: index[d])  # type: ignore[call-overload]
        text = self.at(i, index)
        if isinstance(i, Constant):
            return Index(int(i.number))
        atom = text.within(9)
        self.opaque[atom] = text.depth
        return Index.of(atom)

    def _load(self, value: Value, index: Indices) -> Text:
        local = self.locals.get(value)
        home = self.homes.get(value)
        buffer = home.buffer if home else value
        assert isinstance(buffer, Buffer)
        places = home.at(index) if home else index
        depth = max((self._deepest(i) for i in places), default=0)
        if local is None:
            return Text(self.element(buffer, places), 9, depth)
        kept = [str(places[d]) for d in local.kept]
        if local.first_row:
            kept[:0] = [f"{local.first_row} - r"]
        return Text(local.name + "".join(f"[{k}]" for k in kept), 9, max(local.depth, depth))

    def element(self, buffer: Buffer, places: tuple[Index, ...]) -> str:
        if not buffer.shape:
            return self.names[buffer] if buffer in self.numbers else f"*{self.names[buffer]}"
        return self.names[buffer] + "".join(f"[{place}]" for place in places)

    def _reshaped(self, value: Reshape, index: Indices) -> Text:
        buffer = self.homes[value.base].buffer if value.base in self.homes else value.base
        assert isinstance(buffer, Buffer)
        depth = max((self._deepest(i) for i in index), default=0)
        name = self.names[buffer]
        if buffer.shape == value.shape:
            return Text(self.element(buffer, index), 9, depth)
        place = flat(index, value.shape)
        if len(buffer.shape) > 1:
            return Text(f"{name}{'[0]' * (len(buffer.shape) - 1)}[{place}]", 9, depth)
        return Text(f"{name}[{place}]" if buffer.shape else self.element(buffer, ()), 9, depth)

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
        members = list(_leaves(loop))
        started = [m for m in members if m.start == depth]
        for member in started:
            self._start(member)
        if loop.product is not None:
            self._rows(loop, loop.product)
        else:
            inner = Scope(depth + 1, scope.indent + "    ")
            self.scopes.append(inner)
            self._scope(loop.children)
            self.scopes.pop()
            for pragma in self._pragmas(loop, members):
                scope.add(pragma)
            var = LOOPS[depth]
            braces = len(inner.lines) != 1
            scope.add(f"for (int {var} = 0; {var} < {loop.extent}; {var}++)" + (" {" if braces else ""))
            scope.lines += inner.lines
            if braces:
                scope.add("}")
        for member in started:
            self._finish(member)

    def _pragmas(self, loop: Loop, members: list[Member]) -> list[str]:
        last = all(isinstance(child, Member) for child in loop.children)
        simple = all(
            m.kind in ("map", "reduce") or (m.kind == "place" and all(isinstance(i, Index) for i in m.store))
            for m in members
        )
        if not last or not simple or any("arg" in self._kind(m) for m in members) or loop.extent == 1:
            return []
        clauses = ""
        for member in members:
            if member.kind == "reduce" and not member.inner:
                clauses += f" reduction({self._sign(member)} : {self.sums[member]})"
        return [f"#pragma omp simd{clauses}"]

    def _kind(self, member: Member) -> str:
        return member.target.kind if isinstance(member.target, Reduce) and member.kind == "reduce" else ""

    def _sign(self, member: Member) -> str:
        sign = REDUCTIONS[self._kind(member)][2]
        return f"{sign}_{c_type(member.value.dtype)}" if sign.isalpha() else sign

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
            size, var = member.extents[-1], LOOPS[len(member.extents) - 1]
            scope.add("#pragma omp simd")
            scope.add(f"for (int {var} = 0; {var} < {size}; {var}++)", f"    {self._target(member)} = {name}[{var}];")
        elif local is not None and not local.kept:
            scope.add(f"const {c_type(member.target.dtype)} {named} = {last};")
        else:
            scope.add(f"{self._target(member)} = {last};")

    def _target(self, member: Member, index: tuple[Index, ...] | None = None) -> str:
        places = index if index is not None else tuple(i for i in member.store if isinstance(i, Index))
        local = self.locals.get(member.target)
        if local is None:
            return self.element(member.home.buffer, places)
        return local.name + "".join(f"[{places[d]}]" for d in local.kept)

    def _leaf(self, member: Member) -> None:
        scope = self.scopes[-1]
        text = self.at(member.value, member.index, member.target)
        if member.kind == "map":
            local = self.locals.get(member.target)
            if local is not None and not local.kept:
                scope.add(f"const {c_type(member.target.dtype)} {local.name} = {text.text};")
            else:
                scope.add(f"{self._target(member)} = {text.text};")
        elif member.kind == "place":
            target = member.target
            places = tuple(self._place(i, member.index) if isinstance(i, Value) else i for i in member.store)
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
            scope.add(f"for (int r = {first}; r < {last}; r += {rows}) {{", *())
            scope.lines += block.lines
            scope.add("}")


def _leaves(node: Loop | Member) -> list[Member]:
    return [node] if isinstance(node, Member) else [m for child in node.children for m in _leaves(child)]


def _grouped(index: Index) -> str:
    return (
        str(index)
        if len(index.terms) + bool(index.const) <= 1 and not any(f != 1 for _, f in index.terms)
        else f"({index})"
    )
