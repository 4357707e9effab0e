"""Which parentheses an expression needs where it is put into the person's source."""

from __future__ import annotations

import ast

from chainrule.diagnosis.reading.source import lines_of, span_of, text_at, tree_of
from chainrule.diagnosis.reading.spots import Span
from chainrule.show.python import ATOM, COMPARISON, POWER, PRODUCT, SUM, UNARY

_BINDING: dict[type[ast.operator], int] = {
    ast.Add: SUM, ast.Sub: SUM, ast.Mult: PRODUCT, ast.Div: PRODUCT, ast.MatMult: PRODUCT, ast.FloorDiv: PRODUCT,
    ast.Mod: PRODUCT, ast.Pow: POWER, ast.BitAnd: 4, ast.BitXor: 3, ast.BitOr: 2,
}  # fmt: skip


def binding_of(text: str) -> int:
    """How tightly an expression binds, read from its text.

    >>> binding_of("a + b") < binding_of("a * b") < binding_of("f(a)")
    True
    """
    try:
        return _binding(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return 0


def _binding(node: ast.expr) -> int:
    if isinstance(node, ast.BinOp):
        return _BINDING.get(type(node.op), 0)
    if isinstance(node, ast.UnaryOp):
        return UNARY if not isinstance(node.op, ast.Not) else 0
    if isinstance(node, ast.Compare):
        return COMPARISON
    return 0 if isinstance(node, ast.BoolOp | ast.IfExp | ast.Lambda | ast.Tuple) else ATOM


def is_product(text: str) -> bool:
    """Whether a text multiplies and divides, and nothing else: it needs no parentheses behind `*`.

    >>> is_product("a * b / c"), is_product("a @ b"), is_product("a + b"), is_product("f(a)")
    (True, False, False, False)
    """
    try:
        node: ast.expr = ast.parse(text, mode="eval").body
    except SyntaxError:
        return False
    factors = 0
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        node, factors = node.left, factors + 1
    return factors > 0 and _binding(node) >= POWER


def placed(span: Span, text: str, binding: int) -> tuple[Span, str]:
    """What `text` replaces in the place of a span, and as what: in parentheses where it needs them there, and without
    those around the span where they are there for what stood in it alone."""
    wider, fits = _with_parentheses(span), _fits(span, text, binding)
    if wider is not None and fits and binding > binding_of(text_at(span)):
        return wider, text
    return span, text if fits or in_parentheses(span) else f"({text})"


def _fits(span: Span, text: str, binding: int) -> bool:
    """Whether a text needs no parentheses in the place of a span."""
    if binding >= binding_around(span):
        return True
    products = (n for n in ast.walk(tree_of(span.file)) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult))
    return is_product(text) and any(span == span_of(n.right, span.file) for n in products)


def binding_around(span: Span) -> int:
    """How tightly what stands in a span must bind, so that it needs no parentheses there."""
    for parent in ast.walk(tree_of(span.file)):
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.expr) and span_of(child, span.file) == span:
                if isinstance(parent, ast.BinOp):
                    return _binding(parent) + (parent.right is child or isinstance(parent.op, ast.MatMult))
                if isinstance(parent, ast.UnaryOp | ast.Compare):
                    return _binding(parent) + 1
                if isinstance(parent, ast.Attribute | ast.Starred) or (
                    isinstance(parent, ast.Subscript) and parent.value is child
                ):
                    return ATOM
                return ATOM if isinstance(parent, ast.Call) and parent.func is child else 0
    return ATOM


def in_parentheses(span: Span) -> bool:
    """Whether parentheses stand around a span already."""
    lines = lines_of(span.file)
    before = lines[span.line - 1].encode()[: span.column].rstrip()
    after = lines[span.end_line - 1].encode()[span.end_column :].lstrip()
    return before.endswith(b"(") and after.startswith(b")")


def _with_parentheses(span: Span) -> Span | None:
    """The span with the parentheses directly around it, on one line; None where none stand there, or those of a call."""
    lines = lines_of(span.file)
    line = lines[span.line - 1].encode() if span.line <= len(lines) else b""
    before, after = line[: span.column], line[span.end_column :]
    if span.line != span.end_line or not before.endswith(b"(") or not after.startswith(b")"):
        return None
    called = before[:-1][-1:]
    if called.isalnum() or called in (b"_", b")", b"]"):
        return None
    return Span(span.file, span.line, span.line, span.column - 1, span.end_column + 1)
