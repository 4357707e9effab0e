"""Numbers in a repair: under the person's name for them, and none that holds for this run alone."""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable
from functools import cached_property

from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.spots import Spot, span_of
from chainrule.diagnosis.repairing.wording import numbers_in

# Operations that run along an axis, `x.sum(dim)`.
ALONG = frozenset("sum mean amax amin prod softmax log_softmax logsumexp cumsum flip unsqueeze".split())  # noqa: SIM905
_ARITHMETIC = frozenset(("add", "sub", "rsub", "mul", "div", "pow"))


class Naming(enum.Enum):
    """Which whole numbers are written under their names: those that stand nowhere as they are; none; also those that the
    person writes elsewhere."""

    COMPUTED = enum.auto()
    NONE = enum.auto()
    ALL = enum.auto()


class Numbers:
    """What the numbers of one run are called at one line of the person's."""

    def __init__(self, spot: Spot, named: dict[str, float], nodes: Iterable[fx.Node]) -> None:
        """`named` are the names of numbers there; `nodes` are those of the run, which computed with numbers."""
        self.spot, self.named, self.nodes = spot, named, nodes
        self.naming = Naming.COMPUTED

    def text(self, value: float, written: dict[float, str]) -> str | None:
        """The person's own text for a number, in the statement first, of which it is known what is `written` there."""
        name = _named(value, written)
        name = name or next((n for n, known in self.named.items() if type(known) is float and known == value), None)
        return name or _named(value, self._expressions)

    def whole(self, value: float) -> str | None:
        """The person's text for a whole number which they compute with, and write nowhere: `g`, not 3; `g - 1` in the
        derivative of a power, not 2; `len(xs)` of `h * (1 / len(xs))`."""
        if self.naming is Naming.NONE:
            return None
        computed = (
            self._computed if self.naming is Naming.COMPUTED else {n: s for n, (_, s) in self._computed_with.items()}
        )
        statement = computed.get(abs(value)) or (computed.get(1 / abs(value)) if value else None)
        texts = (
            {**self._kept_from(statement), **numbers_in(statement, self.spot.names, whole=True)} if statement else {}
        )
        above = texts.get(value + 1)
        return texts.get(float(value)) or (f"{above} - 1" if above is not None else None)

    def _kept_from(self, statement: ast.stmt) -> dict[float, str]:
        """The whole numbers that stand under a name there, and are kept under it here: `ctx.power`, for `power`."""
        read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        kept = {text: held for text, held in self.spot.names.items() if type(held) is int and "." in text}
        return {float(held): text for text, held in kept.items() if text.rpartition(".")[2] in read}

    def axis(self, value: int) -> str | None:
        """The person's text for an axis which their forward pass takes from a name: `ctx.dim`, where it says `sum(dim)`."""
        for text, held in self.spot.names.items() if self._axes else ():
            if type(held) is int and held == value and text.rpartition(".")[2] in self._axes:
                return text
        return None

    @cached_property
    def _axes(self) -> set[str]:
        """The names of which the forward pass takes axes."""
        found: set[str] = set()
        for node in self.nodes:
            along = node.meta.get("operation") in ALONG and node.meta.get("phase") == "forward"
            span = span_of(node) if along and node.op == "call_method" else None
            axes = [a for a in (*node.args[1:], *node.kwargs.values()) if type(a) is int] if span is not None else []
            statement = source.statement_at(span) if axes and span is not None else None
            for call in ast.walk(statement) if statement is not None else ():
                for given in [*call.args, *(k.value for k in call.keywords)] if isinstance(call, ast.Call) else ():
                    if isinstance(given, ast.Name | ast.Attribute) and ast.unparse(given) not in ("self", "ctx"):
                        found.add(given.id if isinstance(given, ast.Name) else given.attr)
        return found

    def is_of_this_run(self, value: float) -> bool:
        """Whether the person's code computed a broken number before it used it: `0.5 * reg`, which is another one where
        `reg` is another."""
        return any(abs(known - abs(value)) <= 1e-12 * abs(value) for known in self._computed)

    @cached_property
    def _expressions(self) -> dict[float, str]:
        """What stands elsewhere in the function, or where the forward pass computes with numbers, and can stand here."""
        function = function_of(self.spot.code)
        places: list[ast.stmt] = [function] if function is not None else []
        found: dict[float, str] = {}
        for statement in [*places, *self._computed.values()]:
            for value, text in numbers_in(statement, self.spot.names).items():
                found.setdefault(value, text)
        return found

    @cached_property
    def _computed(self) -> dict[float, ast.stmt]:
        """Those of them that stand nowhere as they are."""
        spans = {span_of(n) for n in self._arithmetic}
        written = {number for span in spans for number in source.numbers_at(span)}
        return {n: s for n, (by, s) in self._computed_with.items() if written.isdisjoint((n, by))}

    @cached_property
    def _computed_with(self) -> dict[float, tuple[float, ast.stmt]]:
        """The numbers that an operation of the forward pass computes with and that do not stand there, each with the number
        that it comes from, and with the statement."""
        found: dict[float, tuple[float, ast.stmt]] = {}
        for node in self._arithmetic:
            span = span_of(node)
            statement = source.statement_at(span) if span is not None else None
            numbers = {abs(float(a)) for a in node.args if type(a) in (int, float)}  # type: ignore[arg-type]
            for number in numbers - source.numbers_at(span) - {0.0} if statement is not None else ():
                found.setdefault(number, (number, statement))  # type: ignore[arg-type]
                if node.meta["operation"] == "pow":
                    found.setdefault(abs(number - 1), (number, statement))  # type: ignore[arg-type]
        return {n: by for n, by in found.items() if n not in (0, 1)}

    @cached_property
    def _arithmetic(self) -> list[fx.Node]:
        """The operations of the forward pass that stand in the person's source."""
        mine = (n for n in self.nodes if n.meta.get("phase") == "forward" and n.meta.get("operation") in _ARITHMETIC)
        return [n for n in mine if span_of(n) is not None]


def _named(value: float, texts: dict[float, str]) -> str | None:
    return next((text for known, text in texts.items() if abs(known - value) <= 1e-12 * abs(value)), None)
