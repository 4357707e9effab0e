"""What is missing after a function returns: its own lines are right for another caller."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.spots import Spot, held_in
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case, same
from chainrule.recording.numbers import Tracked


def after_the_call(case: Case, wrong: Wrong) -> Iterator[tuple[str, Edit, str, Spot]]:
    """The cause, the edit, its text and its place: a term that is added to what a call gave, `dx = dx + dresidual`, or
    kept on an object, `fc.dw += decay * fc.w`; or a factor, where the caller has that under a name."""
    node, fed = wrong.claim.node, case.fed(wrong.claim, wrong.above, case.here)
    truth = case.here.truth(wrong.claim.value)
    if fed is None or fed.shape != truth.shape:
        return
    spot, name = _where_read(case, node)
    statement = _call_that_gave(name, spot) if spot is not None else None
    if spot is not None and statement is not None:
        for text in _numbers(fed, truth, spot):
            yield "wrong-scale", *_done_to(statement, name, text, spot), spot
        for cause, text in _by_length(_terms_and_factors(case, wrong, fed, truth, spot)):
            yield cause, *_done_to(statement, name, text, spot), spot
    end = _at_the_end(case, node.meta.get("spot"))
    if end is None:
        return
    done = _by_length(_terms_and_factors(case, wrong, fed, truth, end))
    for read, owner in _reads_of(node, end) if done else ():
        for cause, text in done:
            value = source.span_of(read.value, end.file)
            here = source.text_at(value)
            made = f"{here} {text.replace(f'{owner}.', here[: here.rindex('.') + 1])}"
            target = source.text_at(source.span_of(read.targets[0], end.file))
            yield cause, edits.replaced(value, made), f"{target} = {made}", end
    for call, kept in _calls_of(node, end) if done else ():
        for cause, text in done:
            made = f"{kept} {text[0]}= {text[2:]}"
            yield cause, edits.inserted_after(source.span_of(call, end.file), made), made, end


def _by_length(found: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(found, key=lambda pair: len(pair[1]))


def _terms_and_factors(
    case: Case, wrong: Wrong, fed: torch.Tensor, truth: torch.Tensor, spot: Spot
) -> Iterator[tuple[str, str]]:
    """The cause, and `+ dresidual` or `* mask`: what is to be done with a gradient, in names of the caller's."""
    lost = truth - fed
    for text, held in spot.names.items():
        if not isinstance(held, fx.Node):
            continue
        known = case.here.truth(c.value) if (c := _claim_of(case, held)) else case.here.values.get(held)
        if held is wrong.claim.node or not isinstance(known, torch.Tensor) or known.shape != truth.shape:
            continue
        if same(fed * known, truth):
            yield "missing-factor", f"* {text}"
        length = float((known * known).sum())
        ratio = float((lost * known).sum()) / length if length else 0.0
        if ratio and same(fed + ratio * known, truth):
            for number in _written(abs(ratio), spot):
                yield "lost-path", f"{'+' if ratio > 0 else '-'} {number}{text}"


def _written(number: float, spot: Spot) -> Iterator[str]:
    """How a number before a term is written: `2 * reg * `."""
    plain = {1: "", 2: "2 * ", 0.5: "0.5 * "}
    yield from (text for value, text in plain.items() if abs(number - value) <= 1e-9)
    for value, text in plain.items():
        yield from (f"{text}{name} * " for name in _named(number / value, spot))


def _named(number: float, spot: Spot) -> Iterator[str]:
    """The names of a number; none of a one, which stands for anything."""
    for text, held in spot.names.items():
        value = held.plain() if isinstance(held, Tracked) else held
        if type(value) in (int, float) and abs(value) not in (0, 1) and abs(value - number) <= 1e-9 * abs(number):
            yield text


def _kept_as(node: fx.Node, end: Spot) -> list[str]:
    """The names at the end for what a function has kept on an object: `self.fc.dw`."""
    return [text for text, held in end.names.items() if held is node and "." in text]


def _reads_of(node: fx.Node, end: Spot) -> Iterator[tuple[ast.Assign, str]]:
    """The statements of the caller that read what a function has kept, `grads[name] = layer.dw`, each with what the
    object is called at the end: `layers["w1"]`."""
    texts, function = _kept_as(node, end), function_of(end.code)
    for statement in ast.walk(function) if texts and function is not None else ():
        read = statement.value if isinstance(statement, ast.Assign) else None
        for owner, _, attribute in (text.rpartition(".") for text in texts):
            if isinstance(read, ast.Attribute) and read.attr == attribute:
                yield statement, owner  # type: ignore[misc]


def _calls_of(node: fx.Node, end: Spot) -> Iterator[tuple[ast.stmt, str]]:
    """The last statement of the caller that calls a method of the object on which a gradient is kept, and its name."""
    function = function_of(end.code)
    for kept in _kept_as(node, end) if function is not None else ():
        owner = kept.rpartition(".")[0]
        called = [
            statement
            for statement in ast.walk(function)  # type: ignore[arg-type]
            if isinstance(statement, ast.Expr | ast.Assign)
            and isinstance(statement.value, ast.Call)
            and isinstance(statement.value.func, ast.Attribute)
            and ast.unparse(statement.value.func.value) == owner
        ]
        if called:
            yield max(called, key=lambda statement: statement.lineno), kept


def is_read_by_the_caller(case: Case, wrong: Wrong) -> bool:
    """Whether the forward pass reads a value in the function that called the one which gives its gradient: a path that
    the called one can know nothing of."""
    end = _at_the_end(case, wrong.claim.node.meta.get("spot"))
    readers = [s for u in wrong.claim.value.users if u in case.forward and (s := u.meta.get("spot")) is not None]
    return end is not None and any(s.code is end.code for s in readers)


def _done_to(statement: ast.Assign, name: str, what: str, spot: Spot) -> tuple[Edit, str]:
    """The edit that does something to what a call gives: `dneg = sigmoid(x) / n`; below it, where it gives several."""
    if len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        value = source.span_of(statement.value, spot.file)
        text = f"{source.text_at(value)} {what}"
        return edits.replaced(value, text), f"{name} = {text}"
    text = f"{name} = {name} {what}"
    return edits.inserted_after(source.span_of(statement, spot.file), text), text


def _numbers(fed: torch.Tensor, truth: torch.Tensor, spot: Spot) -> Iterator[str]:
    """What the gradient is to be divided or multiplied by, where that is one number which has a name."""
    length = float((fed * fed).sum())
    ratio = float((truth * fed).sum()) / length if length else 0.0
    if not ratio or abs(ratio - 1) < 1e-9 or not same(fed * ratio, truth):
        return
    for sign, wanted in (("/", 1 / ratio), ("*", ratio)):
        yield from (f"{sign} {text}" for text in _named(wanted, spot) if text.isidentifier())


def _where_read(case: Case, node: fx.Node) -> tuple[Spot | None, str]:
    """A place in the caller where what was returned has a name, and the name: where it is read, or the last place."""
    made: Spot | None = node.meta.get("spot")
    spots = [s for n in node.users if n.meta["phase"] == "forward" and (s := n.meta.get("spot")) is not None]
    for spot in (s for s in spots if made is not None and s.code is not made.code):
        return spot, next((t for t, held in spot.names.items() if held is node and t.isidentifier()), "")
    last = _at_the_end(case, made)
    name = next((t for t, held in last.names.items() if held is node and t.isidentifier()), "") if last else ""
    return (last, name) if name else (None, "")


def _at_the_end(case: Case, made: Spot | None) -> Spot | None:
    """The last place of the outermost function, with what its names stand for there; none if a value was made in it."""
    recorder, names = case.recorder, dict[str, Any]()
    for name, value in recorder.locals.items():
        for text, held in held_in(name, value):
            entry = recorder.entry(held) if isinstance(held, torch.Tensor) else None
            names[text] = held if entry is None else entry.node
    spots = (s for n in reversed(case.graph.nodes) if (s := n.meta.get("spot")) is not None)
    last = next((s for s in spots if recorder.locals.keys() <= {*s.code.co_varnames, *s.code.co_cellvars}), None)
    if last is None or made is None or last.code is made.code:
        return None
    return replace(last, index=len(last.code.co_code) // 2 - 1, names=names)


def _claim_of(case: Case, held: object) -> Claim | None:
    return next((c for c in [*case.claims, *case.guessed] if c.node is held), None)


def _call_that_gave(name: str, spot: Spot) -> ast.Assign | None:
    """The last statement above a place that binds a name to what a call gives."""
    found: ast.Assign | None = None
    for statement in ast.walk(source.tree_of(spot.file)) if name else ():
        if not isinstance(statement, ast.Assign) or not spot.code.co_firstlineno < statement.lineno < spot.line:
            continue
        bound = {n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if name in bound and isinstance(statement.value, ast.Call):
            found = statement if found is None or statement.lineno > found.lineno else found
    return found
