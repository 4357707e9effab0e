"""Reductions as text: where their sums are, how they start, and how threads share them."""

from __future__ import annotations

import math

import torch

from chainrule.compiling.c.expressions import Expressions, Text
from chainrule.compiling.c.index import Index, flat
from chainrule.compiling.c.literals import c_type
from chainrule.compiling.c.members import ACCURATE, LOOPS, Member
from chainrule.compiling.c.schedule import Loop
from chainrule.compiling.c.values import Reduce

REDUCTIONS = {
    "sum": ("0", "{0} += {1};", "+"),
    "prod": ("1", "{0} *= {1};", "*"),
    "amax": ("-INFINITY", "{0} = larger_{2}({1}, {0});", "larger"),
    "top": ("-INFINITY", "{0} = top_{2}({1}, {0});", "max"),
    "amin": ("INFINITY", "{0} = smaller_{2}({1}, {0});", "smaller"),
}
LIMITS = {torch.int64: ("INT64_MIN", "INT64_MAX"), torch.int32: ("INT32_MIN", "INT32_MAX"), torch.uint8: ("0", "255"),
          torch.bool: ("false", "true")}  # fmt: skip


class Reductions(Expressions):
    """Writes what reductions do before, in and after their loops. `sums` has the names of what they sum in."""

    threads: int
    sums: dict[Member, str]

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

    def _counted(self, index: Index) -> Index:
        """The index in the variables of the loops as they are written."""
        return index.at(lambda atom: self.counted.get(atom, Index.of(atom))) if self.counted else index

    def _target(self, member: Member, index: tuple[Index, ...] | None = None) -> str:
        places = index if index is not None else tuple(self._counted(i) for i in member.store if isinstance(i, Index))
        local = self.locals.get(member.target)
        if local is None:
            return self.element(member.home.buffer, places)
        return local.name + "".join(f"[{places[d]}]" for d in local.kept)

    def _over_sums(self, member: Member) -> list[str]:
        """The loop over the sums of a reduction that has many at once."""
        var = LOOPS[len(member.extents) - 1]
        size = member.extents[-1]
        return ["#pragma omp simd", f"for (int {var} = 0; {var} < {size}; {var}++)"] if member.inner else []

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
        scope.lines += loop_text(indent, simd, counted, ["    " + line for line in inner])
        scope.lines += kept
        scope.add("}", f"for (int part = 0; {each}) {{")
        scope.lines += added
        scope.add("}")

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


def loop_text(indent: str, pragma: list[str], counted: str, inner: list[str]) -> list[str]:
    braces = len(inner) != 1
    return [
        *([f"{indent}#pragma omp {' '.join(pragma)}"] if pragma else []),
        f"{indent}{counted}" + (" {" if braces else ""),
        *inner,
        *([indent + "}"] if braces else []),
    ]
