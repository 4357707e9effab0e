"""What is missing after a function returns: its own lines are right for another caller."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx

from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case, same
from chainrule.recording.numbers import Tracked


def after_the_call(case: Case, wrong: Wrong) -> Iterator[tuple[str, Edit, str, Spot]]:
    """The cause, the edit, its text and its place: a term that is added to what a call gave, `dx = dx + dresidual`, or a
    factor, where the caller has that under a name."""
    node, fed = wrong.claim.node, case.fed(wrong.claim, wrong.above, case.here)
    truth = case.here.truth(wrong.claim.value)
    spot, name = _where_read(case, node)
    if spot is None or fed is None or fed.shape != truth.shape:
        return
    statement = _call_that_gave(name, spot)
    if statement is None:
        return
    for text in _numbers(fed, truth, spot):
        yield "wrong-scale", *_done_to(statement, name, text, spot), spot
    for text, held in spot.names.items():
        known = case.here.truth(c.value) if (c := _claim_of(case, held)) else case.here.values.get(held)
        if held is node or not isinstance(known, torch.Tensor) or known.shape != truth.shape:
            continue
        for cause, sign, given in (("lost-path", "+", fed + known), ("missing-factor", "*", fed * known)):
            if same(given, truth):
                yield cause, *_done_to(statement, name, f"{sign} {text}", spot), spot


def _done_to(statement: ast.Assign, name: str, what: str, spot: Spot) -> tuple[Edit, str]:
    """The edit that does something to what a call gives: `dneg = sigmoid(x) / n`; below it, where it gives several."""
    if len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        value = source.span_of(statement.value, spot.file)
        text = f"{source.text_at(value)} {what}"
        return source.replaced(value, text), f"{name} = {text}"
    text = f"{name} = {name} {what}"
    return source.inserted_after(source.span_of(statement, spot.file), text), text


def _numbers(fed: torch.Tensor, truth: torch.Tensor, spot: Spot) -> Iterator[str]:
    """What the gradient is to be divided or multiplied by, where that is one number which has a name."""
    length = float((fed * fed).sum())
    ratio = float((truth * fed).sum()) / length if length else 0.0
    if not ratio or abs(ratio - 1) < 1e-9 or not same(fed * ratio, truth):
        return
    for text, held in spot.names.items():
        number = held.plain() if isinstance(held, Tracked) else held
        if type(number) in (int, float) and abs(number) not in (0, 1) and text.isidentifier():
            for sign, wanted in (("/", 1 / ratio), ("*", ratio)):
                if abs(number - wanted) <= 1e-9 * abs(wanted):
                    yield f"{sign} {text}"


def _where_read(case: Case, node: fx.Node) -> tuple[Spot | None, str]:
    """A place in the caller where what was returned has a name, and the name: where it is read, or the last place."""
    made: Spot | None = node.meta.get("spot")
    spots = [s for n in node.users if n.meta["phase"] == "forward" and (s := n.meta.get("spot")) is not None]
    for spot in (s for s in spots if made is not None and s.code is not made.code):
        return spot, next((t for t, held in spot.names.items() if held is node and t.isidentifier()), "")
    locals_ = {
        t: getattr(v, "tensor", v) for t, v in case.recorder.locals.items()
    }  # of an array, what stands behind it
    entries = {t: case.recorder.entry(v) for t, v in locals_.items() if isinstance(v, torch.Tensor)}
    name = next((t for t, entry in entries.items() if entry is not None and entry.node is node), "")
    held = (s for n in reversed(case.graph.nodes) if (s := n.meta.get("spot")) is not None)
    outer = (s for s in held if made is not None and s.code is not made.code and name in s.code.co_varnames)
    last = next(outer, None) if name else None
    return (replace(last, index=len(last.code.co_code) // 2 - 1), name) if last is not None else (None, "")


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
