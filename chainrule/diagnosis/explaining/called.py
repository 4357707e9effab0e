"""What a function of the person's is given: an argument with the other sign, as in `rotate(dy, cos, -sin)`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, Around, Mutation
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Span, Spot
from chainrule.diagnosis.repairing.parentheses import binding_of
from chainrule.diagnosis.truth.sketch import is_tensor
from chainrule.show.python import PRODUCT, UNARY


def turned_arguments(nodes: list[fx.Node], root: fx.Node, around: Around) -> Iterator[Mutation]:
    """An argument of a call with the opposite sign: the inverse of a rotation is the function itself."""
    calls: dict[int, list[tuple[fx.Node, Spot]]] = {}
    for node in nodes:
        spot = node.meta.get("spot")
        if spot is not None and spot.caller is not None:
            calls.setdefault(spot.call, []).append((node, spot))
    for placed in calls.values():
        spot = placed[0][1]
        for name, text, span in _arguments(spot):
            value = spot.names.get(name)
            if not isinstance(value, fx.Node) or not is_tensor(value) or not value.meta["val"].is_floating_point():
                continue
            readers = [n for n, _ in placed if value in n.all_input_nodes]
            if value in around.carries or not readers:
                continue  # it is the gradient itself that has the sign
            other = around.sketches.operation("neg", value)
            changes = [(r, around.sketches.with_inputs(r, {value: other})) for r in readers]
            changes[-1][1].meta["instead"], changes[-1][1].meta["place"] = (span, _negative(text)), spot.called_from
            yield Mutation(root, changes[-1][1], "wrong-term-scale", REPLACED + 0.5, changes=changes)


def _arguments(spot: Spot) -> Iterator[tuple[str, str, Span]]:
    """The parameters of the function at a spot, each with what it is given: the text, and where that stands."""
    call = source.call_at(spot.called_from.span) if spot.called_from is not None else None
    if call is None or spot.called_from is None or any(isinstance(a, ast.Starred) for a in call.args):
        return
    code = spot.code
    names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    if isinstance(call.func, ast.Attribute) and names[:1] in (["self"], ["cls"]):
        names = names[1:]
    given = [*zip(names, call.args, strict=False), *((k.arg, k.value) for k in call.keywords)]
    for name, value in given:
        span = source.span_of(value, spot.called_from.file)
        if name is not None:
            yield name, source.text_at(span), span


def _negative(text: str) -> str:
    """The text of a value with the other sign."""
    if text.startswith("-") and binding_of(text) == UNARY:
        return text[1:]
    return f"-{text}" if binding_of(text) >= PRODUCT else f"-({text})"
