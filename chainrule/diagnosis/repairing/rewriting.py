"""Edits that write another value in the place of one, in the person's own statement."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.source import Assignment
from chainrule.diagnosis.reading.spots import Span, span_of
from chainrule.diagnosis.repairing.numpy_spelling import name_in
from chainrule.diagnosis.repairing.parentheses import binding_of, placed
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.spelling import InPlace
from chainrule.diagnosis.report import Edit
from chainrule.show.python import ATOM, PRODUCT, UNARY

if TYPE_CHECKING:
    pass


def written(at: fx.Node, by: fx.Node, reach: Reach, call: Span | None = None) -> tuple[Edit, str] | None:
    """The edit that writes `by` in the place of `at`, or of a `call` that returns it, and the new statement; None where
    it cannot be spelled."""
    span = call or span_of(at)
    if span is None or not source.lines_of(span.file):
        return None
    assigned = source.assignment_at(span)
    if assigned is None:
        return None
    if by.meta["phase"] == "sketch" and by.meta["operation"] == "alias":
        by = by.all_input_nodes[0]
    statement = source.span_of(assigned.statement, span.file)
    bare = at.meta.get("same_as") is not None and at.meta.get("span") is None
    whole = bare or span == statement or bool(at.meta.get("written") and not span.within(assigned.value))
    speller = InPlace(reach, statement)
    texts, read = _texts(span), [a for a in at.args if isinstance(a, fx.Node)]
    if call is not None:
        speller.verbatim = {at: source.text_at(call)}
    elif not bare and len(texts) == len(read) == len(set(read)):
        speller.verbatim = dict(zip(read, texts, strict=True))
    if at.meta.get("same_as") is not None and not bare:  # an argument, or what is returned, as it stands there
        speller.verbatim = dict.fromkeys([at, *read], source.text_at(span))
    around = by.meta["phase"] == "sketch" and at in by.all_input_nodes
    if (
        whole
        and around
        and not bare
        and assigned.target.endswith("]")
        and at.meta["operation"] in ("index_put", "setitem")
    ):
        held = assigned.target[: assigned.target.rindex("[")]  # a change to all of it, after the write through an index
        speller.variable = {**reach.sizes, **reach.names, at: held}.get
        text = f"{held} = {speller.expression(by)[0]}"
        return (edits.inserted_after(statement, text), text) if not speller.unspelled else None
    adds = bool(assigned.target) and not assigned.augmented
    if "defines" in by.meta:
        held, size = by.meta["defines"], speller.text(by.meta["size"], PRODUCT + 1)
        edit = edits.replaced(held, f"{_as_factor(held)} * {size}" if by.meta["kept"] else size)
    elif "instead" in by.meta:
        edit = edits.replaced(*by.meta["instead"])
    elif by.meta.get("value"):
        edit = edits.replaced(assigned.value, str(by.meta["value"]))
    elif "statement" in by.meta:
        edit = edits.replaced(statement, str(by.meta["statement"]))
    elif "added" in by.meta and adds and (whole or span == assigned.value or not span.within(assigned.value)):
        edit = edits.replaced(statement, f"{assigned.target} += {source.text_at(assigned.value)}")
    elif whole and assigned.augmented and at.args and by is at.args[0]:
        edit = edits.deleted(statement)
    elif by.meta["operation"] == "index_put" and whole:
        edit = edits.replaced(statement, _indexed(by, at, assigned, speller))
    elif whole and assigned.augmented:
        edit = _augmented(by, assigned, speller, statement, at)
    else:
        one = None if whole else _operand(at, by, span, speller)
        place, by = _part(at, by, span) or one or (assigned.value if whole else span, by)
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        edit = edits.replaced(*placed(place, text, binding))
    if speller.unspelled:
        return None
    return edit, " ".join(line.strip() for line in edit.lines)


def _part(at: fx.Node, by: fx.Node, span: Span) -> tuple[Span, fx.Node] | None:
    """Where the one part stands that is another, and which: of `np.hstack((di, df))`, as the person puts it together."""
    then, held = (n.args[0] if n.args and isinstance(n.args[0], list | tuple) else () for n in (by, at))
    parts = (
        source.parts_at(span) if len(then) == len(held) and (by.target, by.args[1:]) == (at.target, at.args[1:]) else []
    )
    others = [(place, new) for place, new, old in zip(parts, then, held, strict=False) if new is not old]
    return others[0] if len(parts) == len(held) and len(others) == 1 and isinstance(others[0][1], fx.Node) else None


def _operand(at: fx.Node, by: fx.Node, span: Span, speller: InPlace) -> tuple[Span, fx.Node] | None:
    """Where the one operand stands that is another, and which: the rest of `x.sum(dim=axes)` stays as it is written."""
    like = (by.target, by.kwargs, len(by.args)) == (at.target, at.kwargs, len(at.args))
    pairs = list(zip(at.args, by.args, strict=True)) if like else []
    others = [(a, b) for a, b in pairs if not (a is b if isinstance(a, fx.Node) else a == b)]
    if len(others) != 1 or not all(isinstance(n, fx.Node) for n in others[0]):
        return None
    old, new = others[0]
    text = speller.spell(old)[0]
    places = [place for place in source.operands_at(span) if source.text_at(place) == text]
    return (places[0], new) if len(places) == 1 and not speller.unspelled else None  # type: ignore[return-value]


def _texts(span: Span) -> list[str]:
    return [source.text_at(place) for place in source.operands_at(span)]


def _as_factor(span: Span) -> str:
    text = source.text_at(span)
    return f"({text})" if binding_of(text) < PRODUCT else text


def written_together(changes: Sequence[tuple[fx.Node, fx.Node]], reach: Reach) -> tuple[Edit, str] | None:
    """The same for changes of several parts of one statement, none of which lies in another."""
    spans = [span_of(at) for at, _ in changes]
    statements = {source.statement_at(span) for span in spans if span is not None}
    if None in spans or len(statements) != 1 or len(set(spans)) < len(spans):
        return None
    (statement,) = statements
    found: list[tuple[Span, str]] = []
    for span, (at, by) in zip(spans, changes, strict=True):
        assert span is not None
        if statement is None or any(span.within(other) for other in spans if other is not None and other != span):
            return None
        speller = InPlace(reach, source.span_of(statement, span.file))
        texts, read = _texts(span), [a for a in at.args if isinstance(a, fx.Node)]
        if len(texts) == len(read) == len(set(read)):
            speller.verbatim = dict(zip(read, texts, strict=True))
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        if speller.unspelled or span.line != spans[0].end_line:  # type: ignore[union-attr]
            return None
        found.append(placed(span, text, binding))
    edit = edits.replaced_several(found)
    return edit, " ".join(line.strip() for line in edit.lines)


def _indexed(by: fx.Node, at: fx.Node, assigned: Assignment, speller: InPlace) -> str:
    """A write through an index, as a statement."""
    base, index, value = by.args[:3]
    written = ast.parse(assigned.target or "_", mode="eval").body
    target = ast.unparse(written.value) if isinstance(written, ast.Subscript) else speller.text(base, ATOM)
    if "place" in by.meta:
        target = f"{target}[{speller._index(by.meta['place'])}]"
        if assigned.augmented:
            return f"{target} {assigned.augmented}= {source.text_at(assigned.value)}"
        return f"{target} = {source.text_at(assigned.value)}"
    if not by.kwargs.get("accumulate"):
        return f"{assigned.target or f'{target}[{speller._index(index)}]'} = {speller.text(value)}"
    if speller.arrays:
        indices = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        return f"{name_in(speller.space)}.add.at({target}, {speller.text(indices)}, {speller.text(value)})"
    return f"{target}.index_put_({speller.text(index)}, {speller.text(value)}, accumulate=True)"


def not_in_place(write: fx.Node) -> tuple[Edit, str] | None:
    """The edit that makes a new value in the place of a write: `out.sub(y)` for `out.sub_(y)`."""
    span = span_of(write)
    if span is None or not source.lines_of(span.file):
        return None
    text, name = source.text_at(span), str(write.meta["written"])
    assigned = source.assignment_at(span)
    if assigned is not None and assigned.augmented:
        statement = source.span_of(assigned.statement, span.file)
        value = source.text_at(assigned.value)
        value = f"({value})" if binding_of(value) < ATOM else value
        edit = edits.replaced(statement, f"{assigned.target} = {assigned.target} {assigned.augmented} {value}")
    elif name.endswith("_") and f".{name}(" in text:
        before, _, after = text.rpartition(f".{name}(")
        alone = assigned is not None and not assigned.target and assigned.value == span  # whose value nobody takes
        edit = edits.replaced(
            span, f"{before} = {before}.{name[:-1]}({after}" if alone else f"{before}.{name[:-1]}({after}"
        )
    else:
        return None
    return edit, " ".join(line.strip() for line in edit.lines)


def _augmented(by: fx.Node, assigned: Assignment, speller: InPlace, statement: Span, at: fx.Node) -> Edit:
    """`w.g += x` changed: still `+=` where only what is added is another, else `=`."""
    args = by.args
    same = by.meta["operation"] == at.meta["operation"] and len(args) == 2 and args[0] is at.args[0]
    if same:
        text = speller.text(args[1])
        if assigned.augmented in _OPPOSITE and text.startswith("-") and binding_of(text) >= UNARY:
            return edits.replaced(statement, f"{assigned.target} {_OPPOSITE[assigned.augmented]}= {text[1:]}")
        return edits.replaced(assigned.value, text)
    sign = {"add": "+", "sub": "-"}.get(by.meta["operation"])
    if sign and at.args and len(args) == 2 and args[0] is at.args[0] and by.meta["phase"] == "sketch":
        return edits.replaced(statement, f"{assigned.target} {sign}= {speller.text(args[1])}")
    if len(at.args) < 2:
        return edits.replaced(statement, f"{assigned.target} = {speller.text(by)}")
    if by is at.args[1] or (by.meta["phase"] == "sketch" and at.args[0] not in _reads(by)):
        new = source.text_at(assigned.value) if by is at.args[1] else speller.text(by)
        return edits.replaced(statement, f"{assigned.target} = {new}")
    return edits.replaced(statement, f"{assigned.target} = {speller.expression(by)[0]}")


_OPPOSITE = {"+": "-", "-": "+"}


def _shape(node: fx.Node) -> Any:
    return getattr(node.meta.get("val"), "shape", None)


def _reads(node: fx.Node) -> set[fx.Node]:
    found, stack = set(), [node]
    while stack:
        for read in stack.pop().all_input_nodes:
            if read not in found:
                found.add(read)
                if read.meta["phase"] == "sketch":
                    stack.append(read)
    return found
