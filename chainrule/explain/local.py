"""One forward operation seen from one value that it reads: what its rule passes back, in the person's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.program import differentiable
from chainrule.recording import Region
from chainrule.rules import BOOK, Rule
from chainrule.rules.families import family_of
from chainrule.show.mathematics import Reader, Term, text
from chainrule.show.mathematics.reader import gradient_named, is_gradient
from chainrule.show.mathematics.term import gradient, name, towards, via
from chainrule.show.names import name_of

LONGEST = 30  # characters of an expression that may stand under ∂L/∂


@dataclass(frozen=True, eq=False)
class LocalStep:
    """The step from the gradient of `out` to its share in the gradient of `of`, which the operation reads."""

    operation: str
    family: str  # of the rule book; "" where the step was taken from autograd
    elementwise: bool
    out: Term
    of: Term
    call: Term  # the operation's expression
    upstream: Term  # ∂L/∂out
    result: Term  # ∂L/∂of
    shares: tuple[Term, ...]  # what the rule passes back, once for each place where `of` is read
    node: fx.Node = field(repr=False)  # of the operation
    read: fx.Node = field(repr=False)  # of the value
    arguments: tuple[tuple[Term, fx.Node], ...] = field(default=(), repr=False)  # the tensors that it reads
    note: str = ""  # the rule's convention at kinks
    own: bool = False  # a person's function with a backward step of its own
    given: dict[str, Any] = field(default_factory=dict, repr=False)  # the call's arguments by the rule's names
    readers: int = 1  # of the value: how many operations pass back a share of its gradient

    @property
    def out_shape(self) -> tuple[int, ...]:
        return _shape(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        return _shape(self.read)

    @property
    def first(self) -> Any:
        """The operand that the call names first."""
        return next(iter(self.given.values()), None)

    @property
    def complex(self) -> bool:
        """Whether complex numbers enter or leave."""
        values = (n.meta["val"] for n in (self.node, self.read))
        return any(isinstance(v, torch.Tensor) and v.is_complex() for v in values)

    @property
    def kind(self) -> tuple[object, ...]:
        """What steps have in common that are explained in the same way."""
        places = tuple(i for i, (_, node) in enumerate(self.arguments) if node is self.read)
        return self.operation, places, self.shape, self.out_shape, tuple(_shape(n) for _, n in self.arguments)

    @property
    def others(self) -> list[tuple[Term, fx.Node]]:
        """The tensors that the operation reads besides."""
        return [(term, node) for term, node in self.arguments if node is not self.read]


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta["val"]
    value = value if isinstance(value, torch.Tensor) else next(v for v in value if isinstance(v, torch.Tensor))
    return tuple(value.shape)


def _called(region: Region) -> str:
    """The name of the person's function."""
    return str(region.code.co_name if region.function is None else region.function.__name__)


def _given(rule: Rule | None, node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by the names that its rule has for them; by position where there is none."""
    bound = rule.bind(node, node.args, dict(node.kwargs)) if rule is not None and node.target is not getattr else None
    if bound is None:
        return {str(i): a for i, a in enumerate(node.args)} | dict(node.kwargs)
    return dict(list(bound.arguments.items())[1:])


class LocalReader(Reader):
    """Reads the program as it was derived, before it was simplified, with the names of values and of gradients that
    the lines of the simplified one show."""

    def __init__(
        self,
        names: dict[fx.Node, str],
        variables: dict[fx.Node, str],
        gradients: dict[fx.Node, fx.Node],
        fresh: Callable[[str], str],
    ) -> None:
        """`variables` are the names of the gradients of values, `gradients` their nodes; `fresh` makes a name that
        nothing has yet out of one that is wanted."""
        super().__init__(names.get, None)
        self.names, self.variables, self.gradients = names, variables, gradients
        self.upstreams: dict[fx.Node, Term] = {}
        self.short: dict[str, Term] = {}  # names given to expressions that are too long to be repeated
        self.fresh = fresh
        self._values: dict[fx.Node, Term] = {}

    def value(self, node: fx.Node) -> Term:
        """A forward value: by name, by its expression where that is short, else after its operation."""
        if node not in self._values:
            read = name(self.names[node]) if node in self.names else self._computed(node)
            if read.sign != "name" and len(text(read)) > LONGEST:
                given = self.fresh(name_of(node))
                self.short[given], read = read, name(given)
            self._values[node] = read
        return self._values[node]

    def _computed(self, node: fx.Node) -> Term:
        """The expression for a value; of a person's own function with a step of its own, the call."""
        region: Region | None = node.meta.get("region")
        if region is None:
            return self.expression(node)
        given = region.arguments.values() if isinstance(region.arguments, dict) else region.arguments
        return Term("call", tuple(self.read(value) for value in given), _called(region))

    def gradient(self, node: fx.Node) -> Term:
        if is_gradient(self.variables.get(node, "")):
            return gradient_named(self.variables[node])
        value = self.value(node)
        return gradient(value.text) if value.sign == "name" else towards(value)

    def read(self, value: Any) -> Term:
        if isinstance(value, fx.Node):
            if value in self.upstreams:
                return self.upstreams[value]
            if value.meta["phase"] == "forward":
                return self.value(value)
            if value.meta["operation"] in ("expand", "expand_as"):
                return self.read(value.args[0])  # mathematics does not say that a number is repeated
        return super().read(value)

    def step(self, node: fx.Node, read: fx.Node, readers: int) -> LocalStep:
        """The step through the operation `node` to the value `read`, which so many operations read."""
        outs = [u for u in node.users if u.meta["operation"] == "part"] or [node]
        self.upstreams = {self.gradients[o]: self.gradient(o) for o in outs if o in self.gradients}
        shares = tuple(self.read(g) for g in node.meta["passes"][read])
        self.upstreams = {}
        region: Region | None = node.meta.get("region")
        rule = BOOK.find(node.meta["operation"]) if region is None else None
        arguments = tuple((self.value(n), n) for n in dict.fromkeys(node.all_input_nodes) if differentiable(n))
        shown = next((o for o in outs if o in self.gradients), node)
        out, result = self.value(shown), self.gradient(read)
        return LocalStep(
            operation=_called(region) if region is not None else node.meta["operation"],
            family=family_of(rule.backward) if rule is not None else "",
            elementwise=rule is not None and rule.elementwise,
            out=out, of=self.value(read), call=self._computed(node),
            upstream=self.gradient(shown), result=via(result, out) if readers > 1 else result, shares=shares,
            node=node, read=read, arguments=arguments, note=rule.note if rule is not None else "",
            own=region is not None, given=_given(rule, node), readers=readers,
        )  # fmt: skip


class Paths:
    """Which operations read which value, and the way from a gradient to those that it is computed from."""

    def __init__(self, forward: list[fx.Node], stops: set[fx.Node], reader: LocalReader) -> None:
        """`stops` are the values whose gradients have lines of their own."""
        self.stops, self.reader = stops, reader
        self.order = {node: i for i, node in enumerate(forward)}
        self.readers: dict[fx.Node, list[fx.Node]] = {}
        for node in forward:
            for read in node.meta.get("passes", ()):
                self.readers.setdefault(read, []).append(node)

    def _steps(self, value: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """The operations on the way, each with the value that it reads."""
        found, seen, waiting = [], {value}, [value]
        while waiting:
            read = waiting.pop()
            for operation in self.readers.get(read, ()):
                found.append((operation, read))
                outs = [u for u in operation.users if u.meta["operation"] == "part"] or [operation]
                going_on = [out for out in outs if out not in self.stops and out not in seen]
                seen.update(going_on)
                waiting += going_on
        return found

    def through(self, value: fx.Node) -> list[fx.Node]:
        """The operations between `value` and the values whose gradients its own is computed from."""
        return list(dict.fromkeys(operation for operation, _ in self._steps(value)))

    def back_to(self, value: fx.Node) -> list[LocalStep]:
        """The steps by which the gradient arrives at `value`, in the order of the backward pass."""
        found = sorted(self._steps(value), key=lambda step: self.order[step[0]], reverse=True)
        return [self.reader.step(operation, read, len(self.readers[read])) for operation, read in found]
