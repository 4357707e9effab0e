"""The derived line for one gradient, in the names that a person's line can use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.spelling import LONGEST, InPlace
from chainrule.diagnosis.truth.case import same
from chainrule.program import Program
from chainrule.run import double, needed, step
from chainrule.show.layout import Layout
from chainrule.show.names import keys
from chainrule.show.python import Python, Spelled
from chainrule.simplify import simplify

_EQUAL = 1e-5  # relative to the largest element, in the person's dtype: the same value, computed twice
_MODULES = frozenset(("torch", "F", "math"))
_NAMES = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w|=[^=])")
_NUMBERED = re.compile(r"(\w+?)_\d+")  # `h_2`, for the third value that is called h
_GRADIENTS = re.compile(r"[\w.]+\.g\b")
_LONG = 300  # a longer line is no help


class _TooLong(Exception):
    """What is read often is written often, where it has no name: in a loop without end."""


class _Short(Python):
    """Spells what a person may read."""

    def spell(self, value: Any) -> Spelled:
        text, binding = super().spell(value)
        if len(text) > LONGEST:
            raise _TooLong
        return text, binding


class Derived:
    """The right backward pass, with a line for each gradient that the person writes and for no other."""

    def __init__(self, located: Located, also: Sequence[fx.Node] = ()) -> None:
        """`also` are values that no claim is about, whose gradients are asked for."""
        self.located, self.case, self.also = located, located.case, also

    @cached_property
    def program(self) -> Program:
        return self._program([*(c.value for c in self.located.known), *self.located.missing, *self.also])

    def _program(self, values: list[fx.Node]) -> Program:
        case = self.case
        program = case.base.seeded(explicit=case.hand.upstream is not None)
        twins = {n.meta["base"]: n for n in program.graph.nodes if "base" in n.meta}
        chosen = [twins[v] for v in values if v in twins and twins[v] in program.gradients]
        program.wanted = list(dict.fromkeys(chosen)) or program.wanted
        simplify(program)
        return program

    @cached_property
    def twins(self) -> dict[fx.Node, fx.Node]:
        return {n.meta["base"]: n for n in self.program.graph.nodes if "base" in n.meta}

    @cached_property
    def lines(self) -> dict[str, str]:
        """Lines in the names of the outermost function, by target."""
        values = [v for v in [*(c.value for c in self.located.known), *self.located.missing] if v in self.case.names]
        names = {self.case.names[v] for v in values}
        program = self._program(values)
        named = keys(program.graph.nodes)
        written = {named.get(n): n for n in program.graph.nodes if n.meta["phase"] == "forward"}
        only = {written[name] for name in names if name in written}  # a repair may read no other gradient
        try:
            layout = Layout(program, dotted=True, only=only, speller=_Short)
        except (_TooLong, RecursionError):  # a loop of many turns, in one another
            return {}
        return {line.target: line.text for line in layout.part("backward")}

    def line_for(self, node: fx.Node) -> str:
        """The line in the names of the outermost function; nothing where the derived code needs others of its own, or
        where a name of theirs stands for several values."""
        line = self.lines.get(f"{self.case.names.get(node, node.name)}.g", "")
        own = {claim.target for claim in self.located.known}
        read = set(_GRADIENTS.findall(line.partition(" = ")[2]))
        return line if read <= own and set(_NAMES.findall(line)) <= self._own_names | _MODULES else ""

    @cached_property
    def _own_names(self) -> set[str]:
        """The names of values that the person's code has, each for one value."""
        codes = {spot.code for n in self.case.graph.nodes if (spot := n.meta.get("spot")) is not None}
        words = {w for c in codes for w in (*c.co_varnames, *c.co_names, *c.co_freevars, *c.co_cellvars)}
        known = {name.split(".")[0] for name in self.case.names.values()}
        again = {m[1] for name in known - words if (m := _NUMBERED.fullmatch(name)) is not None}
        return (known & words) - again

    def line(self, claim: Claim, above: list[Claim]) -> str:
        """`target = the right gradient`, in the names at the claim's own line."""
        text = self.expression(claim.value, claim.spot, above) if claim.spot is not None else None
        if text is not None and claim.spot is not None:
            assigned = source.assignment_at(claim.spot.span) if claim.spot.span is not None else None
            told = not claim.target.startswith("the gradient of")
            named = assigned is not None and assigned.target.isidentifier() and assigned.target != "return"
            return f"{claim.target if told else assigned.target if named and assigned else f'd{claim.name}'} = {text}"
        line = self.line_for(claim.value)
        foreign = claim.spot is not None and claim.spot.arrays  # they are in torch
        return line if len(line) <= _LONG and not foreign else ""

    def line_in(self, node: fx.Node, spot: Spot, target: str) -> str:
        """The line that is missing, in the names at a spot."""
        text = self.expression(node, spot, self.located.known)
        return f"{target} = {text}" if text is not None else ""

    def expression(self, value: fx.Node, spot: Spot, above: list[Claim]) -> str | None:
        """The right gradient of a value, in the names at a spot; None where it cannot be written there."""
        program = self.program
        twin = self.twins.get(value)
        gradient = program.gradients.get(twin) if twin is not None else None
        if gradient is None or gradient.meta.get("erased"):
            return None
        reach = Reach(spot, self.case.recorder, resized=lambda: self.case.resized)
        assigned = source.assignment_at(spot.span) if spot.span is not None else None
        reach.names = {n: t for n, t in reach.names.items() if assigned is None or t != assigned.target}
        names = self._of_equal_value(reach) | {self.twins[n]: t for n, t in reach.names.items() if n in self.twins}
        known = [c for c in self.located.known if c not in above and _is_no_later(c, spot) and c.value is not value]
        for claim in [*above, *known]:
            other = program.gradients.get(self.twins.get(claim.value))  # type: ignore[arg-type]
            if (other is not None and other is not gradient) or (claim.value is not value and other is gradient):
                text = reach.names.get(claim.node)
                holder = reach.names.get(claim.value)
                if text is None and holder is not None and claim.target.endswith(".g") and _is_no_later(claim, spot):
                    text = f"{holder}.g"  # set by this very line
                if text is not None and other is not None:
                    names[other] = text if claim in above else names.get(other, text)
        speller = InPlace(reach, None, names)
        text = speller.spell(gradient)[0]
        return None if speller.unspelled or len(text) > _LONG else text

    @cached_property
    def values(self) -> dict[fx.Node, Any]:
        """What the derived program computes of the recorded inputs."""
        here, program = self.case.here.values, self.program
        values = {n: here[b] for n in program.graph.nodes if (b := n.meta.get("base")) in here}
        with torch.no_grad():
            for node in needed(list(program.gradients.values()), given=values):
                if node not in values and node.op not in ("placeholder", "output"):
                    try:
                        values[node] = step(node, values, double)
                    except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
                        continue  # of what is known here alone: an upstream gradient that is one
        return values

    def _of_equal_value(self, reach: Reach) -> dict[fx.Node, str]:
        """Names for what the person has computed anew: `a = x @ w` in the backward pass too."""
        own: dict[tuple[int, ...], list[tuple[torch.Tensor, str]]] = {}
        for node, text in reach.names.items():
            value = self.case.here.values.get(node)
            if node in self.case.forward or not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            if value.numel() > 1 and bool((value != value.flatten()[0]).any()):
                own.setdefault(tuple(value.shape), []).append((value, text))
        found: dict[fx.Node, str] = {}
        for node in self.program.graph.nodes if own else ():
            computed = self.values.get(node)
            for known, text in own.get(tuple(getattr(computed, "shape", ())), ()):
                if same(computed, known, _EQUAL):
                    found.setdefault(node, text)
        return found


def _is_no_later(claim: Claim, spot: Spot) -> bool:
    return claim.spot is not None and claim.spot.order <= spot.order
