"""Writes a changed operation into the person's line: their own text wherever nothing changed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from chainrule.diagnosis.explaining.scales import Named
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.source import Assignment
from chainrule.diagnosis.reading.spots import Span, Spot, span_of
from chainrule.diagnosis.repairing.numbers import Numbers
from chainrule.diagnosis.repairing.numpy_spelling import in_numpy, is_torch_call, name_in
from chainrule.diagnosis.repairing.parentheses import binding_of, is_product, placed
from chainrule.diagnosis.repairing.style import Style
from chainrule.diagnosis.repairing.wording import NamedSizes, numbers_in, only_stretched
from chainrule.diagnosis.report import Edit
from chainrule.recording import Recorder
from chainrule.recording.numbers import Tracked
from chainrule.show.python import ATOM, PRODUCT, SUM, UNARY, Python, Spelled

if TYPE_CHECKING:
    from chainrule.diagnosis.truth.case import Point


class Reach:
    """The names that one line of the person's can use, and the nodes that they stand for."""

    def __init__(
        self, spot: Spot, recorder: Recorder, without: str = "", resized: Callable[[], Point | None] | None = None
    ) -> None:
        """`without` is a name that the line itself sets; `resized` tells which sizes are tied to one another."""
        self.names: dict[fx.Node, str] = {}
        self.nodes: dict[str, fx.Node] = {}  # by every name
        self.space, self.arrays = spot.space, spot.arrays
        self.sizes: dict[fx.Node, str] = {}
        self.numbers: dict[str, float] = {}
        self.integers: dict[str, int] = {}  # sizes too
        turn, self.style = _turn(spot), Style(spot.file)
        constants: dict[int, list[fx.Node]] = {}  # arrays of NumPy's own, by what was read of them
        for made in recorder.graph.nodes:
            if made.meta.get("operation") == "tensor" and made.args and isinstance(made.args[0], np.ndarray):
                constants.setdefault(id(made.args[0]), []).append(made)
        for text, held in spot.names.items():
            if isinstance(held, np.ndarray):
                self.names.update(dict.fromkeys(constants.get(id(held), ()), text))
                continue
            node = held if text != without else None
            text = _PLACE.sub(lambda m: f"[{turn.get(int(m[1]), m[1])}]", text) if turn else text
            text = self.style.quoted(text)
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
        self.held: Mapping[str, Any] = spot.names
        self.known_numbers = Numbers(spot, self.numbers, recorder.graph.nodes)
        self.named_sizes = NamedSizes(spot, self.nodes, resized()) if resized is not None else None
        for node, text in list(self.names.items()):  # under the name of what was saved, what it was
            self.names.setdefault(node.meta.get("same_as", node), text)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tuples of whole numbers that have a name: `self.shape`."""
        found: dict[str, list[int]] = {}
        for text, value in self.integers.items():
            if (place := _PLACE.search(text)) is not None and place.end() == len(text):
                held = found.setdefault(text[: place.start()], [])
                if int(place[1]) == len(held):
                    held.append(value)
        return {text: tuple(sizes) for text, sizes in found.items()}

    def _is_better(self, node: fx.Node, text: str) -> bool:
        known = self.names.get(node)
        return known is None or (known.count("."), len(known)) > (text.count("."), len(text))


_REDUCTIONS = frozenset("sum mean amax amin prod softmax log_softmax logsumexp cumsum flip unsqueeze".split())  # noqa: SIM905
LONGEST = 2000  # characters of an expression
_PLACE = re.compile(r"\[(-?\d+)\]")


def _turn(spot: Spot) -> dict[int, str]:
    """How places in lists are written in a loop: `hs[t - 1]`, not `hs[3]`."""
    variables = source.loop_variables(spot.file, spot.line)
    name = next((v for v in variables if type(spot.names.get(v)) is int), None)
    if name is None:
        return {}
    now: int = spot.names[name]
    return {now - 1: f"{name} - 1", now + 1: f"{name} + 1", now: name}


_DEEPEST = 60  # values in one another


class InPlace(Python):
    """Spells nodes with the person's names, and with their own text where it stands in the same statement."""

    def __init__(self, reach: Reach, statement: Span | None, gradients: Mapping[fx.Node, str] | None = None) -> None:
        names = {**reach.sizes, **reach.names, **(gradients or {})}
        super().__init__(names.get)
        self.statement = statement
        self.space, self.numbers, self.arrays = reach.space, reach.known_numbers, reach.arrays
        self.verbatim: dict[fx.Node, str] = {}  # the operands of the operation that is changed, as they stand there
        self.unspelled: list[Any] = []
        self.depth = 0
        self.sizes, self.style = reach.named_sizes, reach.style
        self.instead: dict[fx.Node, Any] = {}  # what stands for a value that is only stretched
        held = source.statement_at(statement) if statement is not None else None
        self.held = reach.held
        self.written = numbers_in(held, reach.held) if held is not None else {}  # numbers, as they stand there

    def expression(self, node: fx.Node) -> Spelled:
        """As everywhere, with the modules under the names that they have in the person's file; or in NumPy."""
        if "text" in node.meta:  # written as it should stand there
            return str(node.meta["text"]), ATOM
        if self.arrays and is_torch_call(node):
            spelled = in_numpy(self, node, name_in(self.space))
            if spelled is None:
                self.unspelled.append(node)
            return spelled or ("", ATOM)
        self.instead.update(only_stretched(node, self.variable))
        args = node.args
        if node.target is operator.mul and 1 in args:
            rest = args[0] if args[1] == 1 else args[1]
            if isinstance(rest, fx.Node) and getattr(rest.meta.get("val"), "shape", None) == _shape(node):
                return self.spell(rest)
        if node.target is operator.sub:  # a - b - c, not a - (b + c)
            parts = [self.text(args[0], SUM), *(self.text(a, SUM + 1) for a in self._terms(args[1]))]
            return " - ".join(parts), SUM
        if (axis := self._axis(node)) is not None:
            given = self._arguments((axis, *args[2:]), node.kwargs)
            return f"{self.text(args[0], ATOM)}.{node.target}({given})", ATOM
        text, binding = super().expression(node)
        if "F" not in self.space and text.startswith("F."):
            text = f"torch.nn.functional.{text[2:]}"
        return text, binding

    def _axis(self, node: fx.Node) -> Named | None:
        """The axis along which a node reduces, under the person's name for it."""
        if node.op != "call_method" or node.target not in _REDUCTIONS or len(node.args) < 2:
            return None
        given: Any = node.args[1]
        axis = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
        name = self.numbers.axis(axis) if type(axis) is int else None
        return Named(axis, name) if name is not None else None

    def constant(self, value: Any) -> Spelled:
        """A number under the person's name for it: `reg`, `eps`, not what they are in this run. One that has none here is
        not written: the code would be right for this run alone."""
        if isinstance(value, Named):
            return repr(value), binding_of(repr(value))
        if type(value) is float and not value.is_integer():
            known = self.numbers.text(value, self.written)
            if known is not None:
                return known, binding_of(known)
            if self.numbers.is_of_this_run(value):
                self.unspelled.append(value)
        return super().constant(value)

    def infix(self, target: Any, left: Any, right: Any) -> Spelled:
        text, binding = super().infix(target, self._by_name(left), self._by_name(right))
        return self.style.power(text) if target is operator.pow else text, binding

    def operand(self, text: str, binding: int, tight: int, symbol: str) -> str:
        """A product in a product needs no parentheses: it is the same but for rounding."""
        if symbol == "*" and tight > PRODUCT and is_product(text):
            return text
        return super().operand(text, binding, tight, symbol)

    def _by_name(self, value: Any) -> Any:
        """A whole number of a sum, a product or a power, as a value that is spelled by its name."""
        whole = type(value) in (int, float) and float(value).is_integer()
        text = self.numbers.whole(value) if whole else None
        return Named(value, text) if text is not None else value

    def _terms(self, value: Any) -> tuple[Any, ...]:
        """The terms of a sum that is spelled here, and stands nowhere in the person's code; of anything else, itself."""
        if not isinstance(value, fx.Node) or value.target is not operator.add:
            return (value,)
        known = value in self.verbatim or span_of(value) is not None or self.variable(value)
        return value.args if not known and all(isinstance(a, fx.Node) for a in value.args) else (value,)

    def spell(self, value: Any) -> Spelled:
        if self.unspelled:
            return "", ATOM
        self.depth += 1
        if self.depth > _DEEPEST:  # a loop that is written out
            self.unspelled.append(value)
            return "", ATOM
        text, binding = self._spelled(value)
        self.depth -= 1
        if len(text) > LONGEST and isinstance(value, fx.Node):  # what is read often is written often: it has no end
            self.unspelled.append(value)
        return text, binding

    def _spelled(self, value: Any) -> Spelled:
        if isinstance(value, fx.Node):
            if value in self.instead:
                return super().spell(self.instead[value])
            named = self.sizes.of(value) if self.sizes is not None else None
            if named is not None:
                return named, ATOM
        if isinstance(value, fx.Node) and value.meta["phase"] != "sketch":
            if value in self.verbatim:
                return self.verbatim[value], binding_of(self.verbatim[value])
            own, same = span_of(value), value.meta.get("same_as")
            here = self.statement is not None and own is not None and own.within(self.statement)
            name = self.variable(value)
            if name:
                return name, ATOM
            if same is not None:  # `dz = da`: in its own statement what stands there, else its name
                return self.spell(same) if here or not value.meta.get("name") else (str(value.meta["name"]), ATOM)
            if here and own is not None and own != self.statement:
                text = source.text_at(own)
                return text, binding_of(text)
            if value.op == "placeholder":
                self.unspelled.append(value)
            if (
                own is not None and (statement := source.statement_at(own)) is not None
            ):  # its numbers, as they stand there
                self.written = {**numbers_in(statement, self.held), **self.written}
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
    adds = bool(assigned.target) and not assigned.augmented
    if "defines" in by.meta:
        held, size = by.meta["defines"], speller.text(by.meta["size"], PRODUCT + 1)
        edit = source.replaced(held, f"{_as_factor(held)} * {size}" if by.meta["kept"] else size)
    elif "instead" in by.meta:
        edit = source.replaced(*by.meta["instead"])
    elif by.meta.get("value"):
        edit = source.replaced(assigned.value, str(by.meta["value"]))
    elif "statement" in by.meta:
        edit = source.replaced(statement, str(by.meta["statement"]))
    elif "added" in by.meta and adds and (whole or span == assigned.value or not span.within(assigned.value)):
        edit = source.replaced(statement, f"{assigned.target} += {source.text_at(assigned.value)}")
    elif whole and assigned.augmented and at.args and by is at.args[0]:
        edit = source.deleted(statement)
    elif by.meta["operation"] == "index_put" and whole:
        edit = source.replaced(statement, _indexed(by, at, assigned, speller))
    elif whole and assigned.augmented:
        edit = _augmented(by, assigned, speller, statement, at)
    else:
        place = assigned.value if whole else span
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        edit = source.replaced(*placed(place, text, binding))
    if speller.unspelled:
        return None
    return edit, " ".join(line.strip() for line in edit.lines)


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
        texts, read = source.operands_at(span), [a for a in at.args if isinstance(a, fx.Node)]
        if len(texts) == len(read) == len(set(read)):
            speller.verbatim = dict(zip(read, texts, strict=True))
        text, binding = speller.expression(by) if by.meta["phase"] == "sketch" else speller.spell(by)
        if speller.unspelled or span.line != spans[0].end_line:  # type: ignore[union-attr]
            return None
        found.append(placed(span, text, binding))
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
        value = f"({value})" if binding_of(value) < ATOM else value
        edit = source.replaced(statement, f"{assigned.target} = {assigned.target} {assigned.augmented} {value}")
    elif name.endswith("_") and f".{name}(" in text:
        before, _, after = text.rpartition(f".{name}(")
        alone = assigned is not None and not assigned.target and assigned.value == span  # whose value nobody takes
        edit = source.replaced(
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
            return source.replaced(statement, f"{assigned.target} {_OPPOSITE[assigned.augmented]}= {text[1:]}")
        return source.replaced(assigned.value, text)
    sign = {"add": "+", "sub": "-"}.get(by.meta["operation"])
    if sign and at.args and len(args) == 2 and args[0] is at.args[0] and by.meta["phase"] == "sketch":
        return source.replaced(statement, f"{assigned.target} {sign}= {speller.text(args[1])}")
    if len(at.args) < 2:
        return source.replaced(statement, f"{assigned.target} = {speller.text(by)}")
    if by is at.args[1] or (by.meta["phase"] == "sketch" and at.args[0] not in _reads(by)):
        new = source.text_at(assigned.value) if by is at.args[1] else speller.text(by)
        return source.replaced(statement, f"{assigned.target} = {new}")
    return source.replaced(statement, f"{assigned.target} = {speller.expression(by)[0]}")


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
