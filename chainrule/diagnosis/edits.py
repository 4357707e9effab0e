"""Edits of a person's source: a span written anew, a statement moved, exchanged, taken away or put beside another."""

from __future__ import annotations

import ast

from chainrule.diagnosis.reading.source import in_loop, lines_of, span_of, statement_at, text_at, tree_of
from chainrule.diagnosis.reading.spots import Span
from chainrule.diagnosis.report import Edit


def replaced(span: Span, text: str) -> Edit:
    """The edit that writes `text` in place of a span."""
    lines = lines_of(span.file)
    before = lines[span.line - 1].encode()[: span.column].decode()
    after = lines[span.end_line - 1].encode()[span.end_column :].decode()
    return Edit(span.file, span.line, span.end_line, tuple(f"{before}{text}{after}".split("\n")))


def replaced_several(changes: list[tuple[Span, str]]) -> Edit:
    """The edit that writes texts in place of several spans of one line, the last of which may go on below it."""
    changes = sorted(changes, key=lambda change: change[0].column)
    first, last = changes[0][0], changes[-1][0]
    lines = lines_of(first.file)
    line, end, text = lines[first.line - 1].encode(), lines[last.end_line - 1].encode(), ""
    column = 0
    for span, new in changes:
        text += line[column : span.column].decode() + new
        column = span.end_column
    text += end[last.end_column :].decode()
    return Edit(first.file, first.line, last.end_line, tuple(text.split("\n")))


def both_parts(one: Edit, other: Edit) -> Edit | None:
    """Two edits of different parts of the tuple on one line as one."""
    if (one.file, one.first, one.last) != (other.file, other.first, other.last):
        return None
    old = lines_of(one.file)[one.first - 1 : one.last]
    parts = [_tuple_in("\n".join(lines)) for lines in (old, one.lines, other.lines)]
    if "#" in old[0] or any(p is None for p in parts) or len({len(p) for p in parts if p is not None}) != 1:
        return None
    texts = [[ast.unparse(e) for e in p] for p in parts if p is not None]
    changed = [{k for k, (a, b) in enumerate(zip(texts[0], t, strict=True)) if a != b} for t in texts[1:]]
    if len(old) != 1 or not changed[0] or not changed[1] or changed[0] & changed[1]:
        return None
    joined = ", ".join(texts[1][k] if k in changed[0] else texts[2][k] for k in range(len(texts[0])))
    head = old[0][: len(old[0]) - len(old[0].lstrip())] + _before_the_value(old[0].strip())
    return Edit(one.file, one.first, one.last, (head + joined,))


def _before_the_value(statement: str) -> str:
    """What stands before the value of a statement: `return`, or `a, b =`."""
    value = getattr(ast.parse(statement).body[0], "value", None)
    assert isinstance(value, ast.expr)
    return statement.encode()[: value.col_offset].decode()


def _tuple_in(text: str) -> list[ast.expr] | None:
    """The parts of the tuple that a statement returns, or binds to several names."""
    try:
        (statement,) = ast.parse(text.strip()).body
    except (SyntaxError, ValueError):
        return None
    value = statement.value if isinstance(statement, ast.Return | ast.Assign) else None
    return value.elts if isinstance(value, ast.Tuple) else None


def accumulated(span: Span, again: bool = False) -> tuple[Edit, str] | None:
    """The edit that adds to what a name is bound to in a loop, or in a function that is called `again`: `+=` for `=`."""
    statement = statement_at(span)
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target = statement.targets[0]
    outlives = again and isinstance(target, ast.Subscript | ast.Attribute)  # the call
    if isinstance(target, ast.Tuple | ast.List) or not (outlives or in_loop(span.file, span.line)):
        return None
    name, value = (text_at(span_of(part, span.file)) for part in (target, statement.value))
    text = f"{name} += {value}"
    return replaced(span_of(statement, span.file), text), text


def moved_below(statement: Span, other: Span) -> Edit | None:
    """The edit that puts a statement below a later one of the same block; with the `with` or the loop that it stands in."""
    lines = lines_of(statement.file)
    around = [n for n in ast.walk(tree_of(statement.file)) if isinstance(n, ast.With | ast.For)]
    steps = [n for n in around if all(isinstance(s, ast.AugAssign) for s in n.body)]  # that do nothing else
    spans = [span_of(n, statement.file) for n in steps if n.col_offset == other.column and statement.file == other.file]
    statement = next((s for s in spans if statement.within(s)), statement)
    block = lines[statement.line - 1 : other.end_line]
    indents = {len(line) - len(line.lstrip()) for line in (lines[statement.line - 1], lines[other.line - 1])}
    if statement.file != other.file or statement.end_line >= other.line or len(indents) != 1:
        return None
    height = statement.end_line - statement.line + 1
    return Edit(statement.file, statement.line, other.end_line, (*block[height:], *block[:height]))


def exchanged(first: Span, then: Span) -> Edit | None:
    """The edit that exchanges two statements; None where they are not equally far in, or share a line."""
    lines = lines_of(first.file)
    above, between = lines[first.line - 1 : first.end_line], lines[first.end_line : then.line - 1]
    below = lines[then.line - 1 : then.end_line]
    indents = {len(block[0]) - len(block[0].lstrip()) for block in (above, below)}
    if first.end_line >= then.line or len(indents) > 1:
        return None
    return Edit(first.file, first.line, then.end_line, (*below, *between, *above))


def deleted(statement: Span) -> Edit:
    """The edit that takes a statement away, with its lines."""
    return Edit(statement.file, statement.line, statement.end_line, ())


def inserted_before(statement: Span, text: str) -> Edit:
    """The edit that puts a line before a statement, as far in as it."""
    after = inserted_after(statement, text)
    return Edit(statement.file, statement.line, statement.line - 1, after.lines)


def inserted_after(statement: Span, text: str) -> Edit:
    """The edit that puts a line after a statement, as far in as it."""
    lines = lines_of(statement.file)
    first = lines[statement.line - 1]
    indent = first[: len(first) - len(first.lstrip())]
    added = tuple(indent + line for line in text.split("\n"))
    return Edit(statement.file, statement.end_line + 1, statement.end_line, added)
