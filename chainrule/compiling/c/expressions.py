"""Values at an index as text: each expression stands in the outermost loop that it can be computed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from chainrule.compiling.c.index import Index, Indices, flat
from chainrule.compiling.c.literals import Names, c_type, literal
from chainrule.compiling.c.members import LOOPS
from chainrule.compiling.c.storage import Home
from chainrule.compiling.c.values import Buffer, Constant, Pointwise, Position, Reshape, Value, View

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


class Expressions:
    """Writes values into scopes. `names` holds the identifiers of memory, `numbers` the arguments that are numbers. What
    is read more than once gets a name of its own: a first pass counts."""

    def __init__(
        self, homes: Mapping[Value, Home], names: dict[Buffer, str], numbers: set[Buffer], unique: Names
    ) -> None:
        self.homes, self.names, self.numbers, self.unique = homes, names, numbers, unique
        self.opaque: dict[str, int] = {}
        self.counted: dict[object, Index] = {}  # loops that are written as one, and what stands for their variables
        self.locals: dict[Value, Local] = {}
        self.counts: Counter[Key] = Counter()
        self.counting = True
        self.scopes = [Scope(0, "    ")]

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
        """The number of loops around what counts the index."""
        return max((self._loops(str(atom)) for atom, _ in index.terms), default=0)

    def _loops(self, atom: str) -> int:
        return LOOPS.index(atom) + 1 if atom in LOOPS else self.opaque.get(atom, self.depth)

    def _place(self, i: Index | Value, index: Indices) -> Index:
        if isinstance(i, Index):
            return i.through(index)
        text = self.at(i, index)
        if isinstance(i, Constant):
            return Index(int(i.number))
        atom = self._outside(text, (i, index), i.dtype)
        self.opaque[atom] = text.depth
        return Index.of(atom)

    def _outside(self, text: Text, key: Key, dtype: torch.dtype) -> str:
        """A name for what is the same in each turn of the innermost loops: that a store cannot change it is not for the
        compiler to find out."""
        if text.depth >= self.depth or text.text.isidentifier():
            return text.within(9)
        scope = self.scopes[text.depth]
        if key not in scope.memo:
            name = self.unique("at")
            scope.add(f"const {c_type(dtype)} {name} = {text.text};")
            scope.memo[key] = Text(name, 9, text.depth)
        return scope.memo[key].text

    def _load(self, value: Value, index: Indices) -> Text:
        local = self.locals.get(value)
        home = self.homes.get(value)
        buffer = home.buffer if home else value
        assert isinstance(buffer, Buffer)
        places = home.at(index) if home else index
        depth = max((self._deepest(i) for i in places), default=0)
        if local is None and buffer.dtype == torch.bool and places:  # GCC turns this into vectors of any width
            return Text(f"(int32_t) *(const uint8_t *) &{self.element(buffer, places)} > 0", 3, depth)
        if local is None:
            return Text(self.element(buffer, places), 9, depth)
        kept = [str(places[d]) for d in local.kept]
        if local.first_row:
            kept[:0] = [f"{local.first_row} - r"]
        return Text(local.name + "".join(f"[{k}]" for k in kept), 9, max(local.depth, depth))

    def element(self, buffer: Buffer, places: tuple[Index, ...]) -> str:
        if not buffer.shape:
            return self.names[buffer] if buffer in self.numbers else f"*{self.names[buffer]}"
        if len(buffer.shape) > 1 and any(
            i.factor(atom) for c in self.counted.values() for atom, _ in c.terms for i in places
        ):
            return f"(({c_type(buffer.dtype)} *) {self.names[buffer]})[{flat(places, buffer.shape)}]"
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
            return Text(f"((const {c_type(value.dtype)} *) {name})[{place}]", 9, depth)
        return Text(f"{name}[{place}]" if buffer.shape else self.element(buffer, ()), 9, depth)


def _grouped(index: Index) -> str:
    return (
        str(index)
        if len(index.terms) + bool(index.const) <= 1 and not any(f != 1 for _, f in index.terms)
        else f"({index})"
    )
