"""Matrix products: blocks of rows and columns whose sums stay in registers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from chainrule.compiling.c.index import Index, flat
from chainrule.compiling.c.literals import c_type
from chainrule.compiling.c.members import Member
from chainrule.compiling.c.values import Buffer, Product, Reshape, Value, View

if TYPE_CHECKING:
    from chainrule.compiling.c.nests import Nest

DEPTH = 1024  # of a product that is summed in one go; longer ones are summed in such parts, for the sake of rounding


@dataclass(frozen=True)
class Machine:
    """What the compiler says of the processor."""

    vector: int  # bytes of a vector register
    registers: int


@dataclass(frozen=True, order=True)
class Block:
    """A function for `rows` rows and `vectors` vectors of `lanes` columns."""

    ctype: str
    rows: int
    vectors: int
    lanes: int

    @property
    def name(self) -> str:
        return f"block_{self.rows}x{self.vectors}_{self.ctype}{self.lanes}"

    @property
    def text(self) -> str:
        v, t = f"{self.ctype}{self.lanes}", self.ctype
        columns = [f"b + {n * self.lanes}" if n else "b" for n in range(self.vectors - 1)]
        columns.append("b + last")
        places = [c.replace("b", "c + n * cn", 1) for c in columns]
        loads = ", ".join(f"b{n} = *(const {v}_at *) ({c})" for n, c in enumerate(columns))
        sums = "\n".join(f"            s[n][{n}] += a[n * an] * b{n};" for n in range(self.vectors))
        starts = "\n".join(f"            s[n][{n}] = *({v}_at *) ({p});" for n, p in enumerate(places))
        stores = "\n".join(f"        *({v}_at *) ({p}) = s[n][{n}];" for n, p in enumerate(places))
        unroll = f"#pragma GCC unroll {self.rows}\n"
        return f"""\
/* c (+)= a @ b for {self.rows} rows and {self.vectors} vectors of columns; the last vector starts at `last`: what two vectors
   share is computed twice, the same. `an` and `cn` lead to the next row, `ak` and `bk` to the next term of the sum. */
__attribute__((noinline)) static void {self.name}(
    int depth, const {t} *a, long an, long ak, const {t} *b, long bk, long last, {t} *c, long cn, int more)
{{
    {v} s[{self.rows}][{self.vectors}] = {{0}};
    if (more)
{unroll}        for (int n = 0; n < {self.rows}; n++) {{
{starts}
        }}
    for (int k = 0; k < depth; k++, a += ak, b += bk) {{
        const {v} {loads};
{unroll}        for (int n = 0; n < {self.rows}; n++) {{
{sums}
        }}
    }}
{unroll}    for (int n = 0; n < {self.rows}; n++) {{
{stores}
    }}
}}"""

    @property
    def type(self) -> str:
        v, size = f"{self.ctype}{self.lanes}", self.lanes * (4 if self.ctype == "float" else 8)
        return (
            f"typedef {self.ctype} {v} __attribute__((vector_size({size})));\n"
            f"typedef {self.ctype} {v}_at __attribute__((vector_size({size}), aligned({size // self.lanes}), may_alias));"
        )


@dataclass
class Written:
    """The text of a product: what comes before its loops over blocks of rows; (first row, end, rows, calls) of each."""

    before: list[str] = field(default_factory=list)
    blocks: list[tuple[int, int, int, list[str]]] = field(default_factory=list)
    deep: bool = False  # whether `by_columns` is the better order

    def by_columns(self, threads: str) -> list[str]:
        """The loops of a deep product the other way round: what is read of `b` for some columns and terms of the sum
        stays in the cache for all rows, and threads share the columns."""
        lines: list[str] = []
        for calls in zip(*(_grouped(calls) for *_, calls in self.blocks)):
            around = calls[0][:-1]
            lines += [f"#pragma omp parallel for {threads}"] if threads and "column" in around[0] else []
            lines += [*around[:-1], f"{around[-1]} {{"]
            for (first, last, rows, _), (*_, call) in zip(self.blocks, calls):
                lines += [f"    for (int r = {first}; r < {last}; r += {rows})", f"        {call.strip()}"]
            lines.append("}")
        return lines


def _grouped(calls: list[str]) -> list[list[str]]:
    """Calls, each behind the loops around it."""
    found: list[list[str]] = [[]]
    for line in calls:
        found[-1].append(line)
        if line.endswith(";"):
            found.append([])
    return found[:-1]


@dataclass(frozen=True)
class Pointer:
    """Where an operand lies: the text of its first element, and the steps to the next row and column."""

    text: str
    row: int
    column: int


def pointer(nest: Nest, value: Value, index: tuple[Index, ...]) -> Pointer:
    """The operand as memory, at `index` in its stack and 0, 0 or the row `r` in the matrix; rows and columns are the
    atoms "row" and "column"."""
    places = (*index[:-2], index[-2] + Index.of("row"), index[-1] + Index.of("column"))
    while value not in nest.homes and not isinstance(value, Buffer):
        if isinstance(value, Reshape):
            base = nest.homes[value.base].buffer if value.base in nest.homes else value.base
            assert isinstance(base, Buffer)
            place = flat(places, value.shape)
            name = nest.names[base]
            text = f"((const {c_type(base.dtype)} *) {name})" if len(base.shape) > 1 else name
            return _pointer(f"&{text}" if base.shape else text, place)
        assert isinstance(value, View)
        places = tuple(i.through(places) for i in value.index if isinstance(i, Index))
        value = value.base
    home = nest.homes.get(value)
    buffer = home.buffer if home else value
    assert isinstance(buffer, Buffer)
    places = home.at(places) if home else places
    place = flat(places, buffer.shape)
    zero: dict[object, Index] = {"row": Index(), "column": Index()}
    at = tuple(p.at(lambda a: zero.get(a, Index.of(a))) for p in places)
    return Pointer("&" + nest.element(buffer, at), place.factor("row"), place.factor("column"))


def _pointer(text: str, place: Index) -> Pointer:
    zero: dict[object, Index] = {"row": Index(), "column": Index()}
    at = place.at(lambda a: zero.get(a, Index.of(a)))
    return Pointer(f"{text}[{at}]", place.factor("row"), place.factor("column"))


def columns(width: int, lanes: int, most: int) -> list[tuple[int, int, int]]:
    """(first column, vectors, first column of the last vector from there) of each part of a row."""
    count = -(-width // lanes)
    parts = -(-count // most)
    sizes = [count // parts + (p < count % parts) for p in range(parts)]
    result, first = [], 0
    for p, vectors in enumerate(sizes):
        end = width if p == parts - 1 else first + vectors * lanes
        result.append((first, vectors, end - lanes - first))
        first = end
    return result


def row_blocks(nest: Nest, member: Member, local: str | None, machine: Machine) -> Written:
    value = member.value
    assert isinstance(value, Product)
    ctype, (rows, width), depth = c_type(value.dtype), value.shape[-2:], value.a.shape[-1]
    written = Written()
    if 0 in (rows, width):
        return written
    stack = member.index[:-2]
    a = pointer(nest, value.a, (*stack, Index.of("r"), Index()))
    b = pointer(nest, value.b, (*stack, Index(), Index()))
    if b.column != 1:
        b = _packed(nest, b, value, written)
    lanes = machine.vector // (4 if value.dtype == torch.float32 else 8)
    while lanes > width:
        lanes //= 2
    parts = columns(width, lanes, 4 if machine.registers > 16 and value.triangle != "result" else 2)
    written.deep = depth > DEPTH and not value.triangle and len(parts) >= 2 * nest.threads
    widest = max(vectors for _, vectors, _ in parts)
    most = min((machine.registers - 2 - widest) // widest, 12)
    high = -(-rows // -(-rows // most))
    square = rows == depth <= DEPTH
    step = member.home.buffer.shape[-1]
    name = local or nest.names[member.home.buffer]
    lead = "" if local else "".join(f"[{i}]" for i in member.home.at((*stack, Index(), Index()))[:-2])
    for first, last, block_rows in ((0, rows - rows % high, high), (rows - rows % high, rows, rows % high)):
        if first == last:
            continue
        calls = []
        end_row = f"r + {block_rows}"
        for (vectors, end), same in itertools.groupby(parts, key=lambda part: part[1:]):
            block = Block(ctype, block_rows, vectors, lanes)
            nest.blocks.add(block)
            places = [column for column, _, _ in same]
            column, indent = str(places[0]), ""
            if len(places) > 1:
                apart = vectors * lanes
                column, indent = "column", "    "
                below = f" && column < {end_row}" if value.triangle == "result" else ""
                calls.append(f"for (int column = {places[0]}; column <= {places[-1]}{below}; column += {apart})")
            elif value.triangle == "result" and places[0]:
                calls.append(f"if ({column} < {end_row})")
                indent = "    "
            target = f"&{name}{lead}[{'0' if local else 'r'}][{column}]"
            start = b.text if column == "0" else f"{b.text} + {column}"
            size, more, left, right = f"{depth}", "0", a.text, start
            if value.triangle == "lower" and square:
                size = end_row
            if value.triangle == "upper" and square:
                size, left, right = f"{depth} - r", f"{left} + {a.column}L * r", f"{right} + {b.row}L * r"
            if depth > DEPTH:
                calls.append(f"{indent}for (int k0 = 0; k0 < {depth}; k0 += {DEPTH})")
                size, more, indent = f"{depth} - k0 < {DEPTH} ? {depth} - k0 : {DEPTH}", "k0 > 0", indent + "    "
                left, right = f"{a.text} + {a.column}L * k0", f"{start} + {b.row}L * k0"
            calls.append(
                f"{indent}{block.name}({size}, {left}, {a.row}, {a.column}, {right}, {b.row}, {end}, {target}, {step}, {more});"
            )
        written.blocks.append((first, last, block_rows, calls))
    return written


def _packed(nest: Nest, b: Pointer, value: Product, written: Written) -> Pointer:
    """`b` copied so that neighbours in a row are neighbours in memory."""
    depth, width = value.b.shape[-2:]
    ctype = c_type(value.dtype)
    if nest.depth and nest.threads > 1:  # the loop around may be shared by threads
        name = nest.scratch(Buffer((nest.threads, depth, width), value.dtype, name="packed"))
        place = nest.unique("thread")
        written.before.append(f"const int {place} = omp_get_thread_num();")
        start = f"&{name}[{place}][0][0]"
    else:
        start = f"&{nest.scratch(Buffer((depth, width), value.dtype, name='packed'))}[0][0]"
    written.before.append(f"packed_{ctype}({depth}, {width}, {b.text}, {b.row}, {b.column}, {start});")
    return Pointer(start, width, 1)
