"""Writes a changed operation into the person's line: their own text wherever nothing changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis import source
from chainrule.diagnosis.numpy_spelling import in_numpy, is_torch_call, name_in
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.source import Assignment
from chainrule.diagnosis.spots import Span, Spot, span_of
from chainrule.recording import Recorder
from chainrule.recording.numbers import Tracked
from chainrule.show.python import ATOM, Python, Spelled


class Reach:
    """The names that one line of the person's can use, and the nodes that they stand for."""

    def __init__(self, spot: Spot, recorder: Recorder, without: str = "") -> None:
        """`without` is a name that the line itself sets."""
        self.names: dict[fx.Node, str] = {}
        self.nodes: dict[str, fx.Node] = {}  # by every name
        self.space, self.arrays = spot.space, spot.arrays
        self.sizes: dict[fx.Node, str] = {}
        self.numbers: dict[str, float] = {}
        self.integers: dict[str, int] = {}  # sizes too
        turn = _turn(spot)
        for text, held in spot.names.items():
            node = held if text != without else None
            text = _PLACE.sub(lambda m: f"[{turn.get(int(m[1]), m[1])}]", text) if turn else text
            if isinstance(held, torch.Tensor):
                entry = recorder.entry(held)
                node = entry.node if entry is not None else None
            if (
                isinstance(held, int | Tracked)
                and type(value := held.plain() if isinstance(held, Tracked) else held) is int
            ):
                self.integers[text] = value
            if type(held) in (int, float):
                self.numbers[text] = held
            elif isinstance(held, Tracked):
                if held._made is not None:
                    self.sizes.setdefault(held._made, text)
            elif isinstance(node, fx.Node):
                self.nodes[text] = node
                if self._is_better(node, text):
                    self.names[node] = text
        for node, text in list(self.names.items()):  # under the name of what was saved, what it was
            self.names.setdefault(node.meta.get("same_as", node), text)

    def _is_better(self, node: fx.Node, text: str) -> bool:
        known = self.names.get(node)
        return known is None or (known.count("."), len(known)) > (text.count("."), len(text))


_PLACE = re.compile(r"\[(-?\d+)\]")


def _turn(spot: Spot) -> dict[int, str]:
    """How places in lists are written in a loop: `hs[t - 1]`, not `hs[3]`."""
    variables = source.loop_variables(spot.file, spot.line)
    name = next((v for v in variables if type(spot.names.get(v)) is int), None)
    if name is None:
        return {}
    now: int = spot.names[name]
    return {now - 1: f"{name} - 1", now + 1: f"{name} + 1", now: name}


class InPlace(Python):
    """Spells nodes with the person's names, and with their own text where it stands in the same statement."""

    def __init__(self, reach: Reach, statement: Span | None, gradients: Mapping[fx.Node, str] | None = None) -> None:
        names = {**reach.sizes, **reach.names, **(gradients or {})}
        super().__init__(names.get)
        self.statement = statement
        self.space, self.numbers, self.arrays = reach.space, reach.numbers, reach.arrays
        self.verbatim: dict[fx.Node, str] = {}  # the operands of the operation that is changed, as they stand there
        self.unspelled: list[fx.Node] = []

    def expression(self, node: fx.Node) -> Spelled:
        """As everywhere, with the modules under the names that they have in the person's file; or in NumPy."""
        if "text" in node.meta:  # written as it should stand there
            return str(node.meta["text"]), ATOM
        if self.arrays and is_torch_call(node):
            spelled = in_numpy(self, node, name_in(self.space))
            if spelled is None:
                self.unspelled.append(node)
            return spelled or ("", ATOM)
        text, binding = super().expression(node)
        if "F" not in self.space and text.startswith("F."):
            text = f"torch.nn.functional.{text[2:]}"
        return text, binding

    def constant(self, value: Any) -> Spelled:
        """A number under the person's name for it: `reg`, `eps`, not what they are in this run."""
        if type(value) is float and not value.is_integer():
            name = next((n for n, known in self.numbers.items() if type(known) is float and known == value), None)
            if name is not None:
                return name, ATOM
        return super().constant(value)

    def spell(self, value: Any) -> Spelled:
        if isinstance(value, fx.Node) and value.meta["phase"] != "sketch":
            if value in self.verbatim:
                return self.verbatim[value], source.binding_of(self.verbatim[value])
            own, same = span_of(value), value.meta.get("same_as")
            here = self.statement is not None and own is not None and own.within(self.statement)
            name = self.variable(value)
            if name:
                return name, ATOM
            if same is not None:  # `dz = da`: in its own statement what stands there, else its name
                return self.spell(same) if here or not value.meta.get("name") else (str(value.meta["name"]), ATOM)
            if here and own is not None and own != self.statement:
                text = source.text_at(own)
                return text, source.binding_of(text)
            if value.op == "placeholder":
                self.unspelled.append(value)
        return super().spell(value)


def written(at: fx.Node, by: fx.Node, reach: Reach) -> tuple[Edit, str] | None:
    """The edit that writes `by` in the place of `at`, and the new statement; None where it cannot be spelled."""
    span = span_of(at)
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
    texts, read = source.operands_at(span), [a for a in at.args if isinstance(a, fx.Node)]
    if not bare and len(texts) == len(read) == len(set(read)):
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
        return (source.inserted_after(statement, text), text) if not speller.unspelled else None
    if by.meta.get("value"):
        edit = source.replaced(assigned.value, str(by.meta["value"]))
    elif "statement" in by.meta:
        edit = source.replaced(statement, str(by.meta["statement"]))
    elif "added" in by.meta and (whole or span == assigned.value) and assigned.target and not assigned.augmented:
        edit = source.replaced(statement, f"{assigned.target} += {source.text_at(assigned.value)}")
    elif by.meta["operation"] == "index_put" and whole:
        edit = source.replaced(statement, _indexed(by, at, assigned, speller))
    elif whole and assigned.augmented:
        edit = _augmented(by, assigned, speller, statement, at)
    else:
        place = assigned.value if whole else span
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        if not whole and binding < source.binding_around(place) and not source.in_parentheses(place):
            text = f"({text})"
        edit = source.replaced(place, text)
    if speller.unspelled:
        return None
    return edit, " ".join(line.strip() for line in edit.lines)


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
        texts, read = source.operands_at(span), [a for a in at.args if isinstance(a, fx.Node)]
        if len(texts) == len(read) == len(set(read)):
            speller.verbatim = dict(zip(read, texts, strict=True))
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        if speller.unspelled or span.line != spans[0].end_line:  # type: ignore[union-attr]
            return None
        found.append((span, f"({text})" if binding < source.binding_around(span) else text))
    edit = source.replaced_several(found)
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
        value = f"({value})" if source.binding_of(value) < ATOM else value
        edit = source.replaced(statement, f"{assigned.target} = {assigned.target} {assigned.augmented} {value}")
    elif name.endswith("_") and f".{name}(" in text:
        before, _, after = text.rpartition(f".{name}(")
        edit = source.replaced(span, f"{before}.{name[:-1]}({after}")
    else:
        return None
    return edit, " ".join(line.strip() for line in edit.lines)


def _augmented(by: fx.Node, assigned: Assignment, speller: InPlace, statement: Span, at: fx.Node) -> Edit:
    """`w.g += x` changed: still `+=` where only what is added is another, else `=`."""
    args = by.args
    same = by.meta["operation"] == at.meta["operation"] and len(args) == 2 and args[0] is at.args[0]
    if same:
        return source.replaced(assigned.value, speller.text(args[1]))
    if len(at.args) < 2:
        return source.replaced(statement, f"{assigned.target} = {speller.text(by)}")
    if by is at.args[1] or (by.meta["phase"] == "sketch" and at.args[0] not in _reads(by)):
        new = source.text_at(assigned.value) if by is at.args[1] else speller.text(by)
        return source.replaced(statement, f"{assigned.target} = {new}")
    return source.replaced(statement, f"{assigned.target} = {speller.expression(by)[0]}")


def _reads(node: fx.Node) -> set[fx.Node]:
    found, stack = set(), [node]
    while stack:
        for read in stack.pop().all_input_nodes:
            if read not in found:
                found.add(read)
                if read.meta["phase"] == "sketch":
                    stack.append(read)
    return found
