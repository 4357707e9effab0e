"""The person's source: statements, and edits of a stretch of one."""

from __future__ import annotations

import ast
import functools
import linecache
import types
from dataclasses import dataclass

from chainrule.diagnosis.reading.spots import Span

Targets = (ast.Assign, ast.AugAssign, ast.AnnAssign)


def lines_of(file: str) -> list[str]:
    """The lines of a file, without their ends; none where there is no source (exec)."""
    return [line.rstrip("\n") for line in linecache.getlines(file)]


def line_at(file: str, line: int) -> str:
    """One line of a file, without its indentation; nothing where there is no source."""
    lines = lines_of(file)
    return lines[line - 1].strip() if len(lines) >= line else ""


@functools.lru_cache(maxsize=64)
def _parsed(file: str, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def tree_of(file: str) -> ast.Module:
    return _parsed(file, "\n".join(lines_of(file)))


def span_of(node: ast.AST, file: str) -> Span:
    return Span(file, node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)  # type: ignore[attr-defined]


def text_at(span: Span) -> str:
    """The source in a span, as it stands."""
    lines = [line.encode() for line in lines_of(span.file)[span.line - 1 : span.end_line]]
    if not lines:
        return ""
    lines[-1] = lines[-1][: span.end_column]
    lines[0] = lines[0][span.column :]
    return b"\n".join(lines).decode()


def statement_at(span: Span) -> ast.stmt | None:
    """The innermost simple statement around a span."""
    found: ast.stmt | None = None
    for node in _statements(tree_of(span.file)):
        if span.within(span_of(node, span.file)):
            found = node
    return found


@functools.lru_cache(maxsize=64)
def _statements(tree: ast.Module) -> list[ast.stmt]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not hasattr(n, "body")]


@dataclass(frozen=True)
class Assignment:
    """What is set, and the source of what it is set to."""

    statement: ast.stmt
    target: str
    value: Span
    augmented: str = ""  # "+" of `+=`


def assignment_at(span: Span) -> Assignment | None:
    """The assignment that a span lies in; of `a, b = f(x), g(x)`, the part that the span belongs to."""
    statement = statement_at(span)
    if isinstance(statement, ast.Return) and statement.value is not None:
        parts = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        part = next((p for p in parts if span.within(span_of(p, span.file))), None)  # the rest stays as it is
        return Assignment(statement, "return", span_of(part, span.file)) if part is not None else None
    if isinstance(statement, ast.Expr):
        return Assignment(statement, "", span_of(statement.value, span.file))
    if not isinstance(statement, Targets) or statement.value is None:
        return None
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if len(targets) == 1 and isinstance(targets[0], ast.Tuple) and isinstance(statement.value, ast.Tuple):
        pairs = list(zip(targets[0].elts, statement.value.elts, strict=False))
        for target, value in pairs:
            if span.within(span_of(target, span.file)) or span.within(span_of(value, span.file)):
                return Assignment(statement, text_at(span_of(target, span.file)), span_of(value, span.file))
        return None
    symbol = _SYMBOLS.get(type(statement.op), "") if isinstance(statement, ast.AugAssign) else ""
    chosen = next((t for t in targets if span.within(span_of(t, span.file))), targets[0])
    return Assignment(statement, text_at(span_of(chosen, span.file)), span_of(statement.value, span.file), symbol)


def loop_variables(file: str, line: int) -> list[str]:
    """The variables of the `for` loops around a line, the innermost first."""
    loops = [n for n in ast.walk(tree_of(file)) if isinstance(n, ast.For) and n.lineno < line <= (n.end_lineno or 0)]
    targets = [t for n in loops[::-1] for t in (n.target.elts if isinstance(n.target, ast.Tuple) else [n.target])]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def call_at(span: Span | None) -> ast.Call | None:
    """The call in a span."""
    calls = (n for n in ast.walk(tree_of(span.file)) if isinstance(n, ast.Call)) if span is not None else ()
    return next((n for n in calls if span_of(n, span.file) == span), None)  # type: ignore[union-attr]


def argument_at(call: Span, place: int) -> Span | None:
    """One argument of the call in a span."""
    found = call_at(call)
    return span_of(found.args[place], call.file) if found is not None and place < len(found.args) else None


def argument_of(function: str, text: str, code: types.CodeType, until: int) -> Span | None:
    """Where `code` gives a value to a function, above a line or on it; None where it does so several times."""
    nodes = (n for n in ast.walk(tree_of(code.co_filename)) if isinstance(n, ast.Call))
    calls = [n for n in nodes if code.co_firstlineno < n.lineno <= until]
    calls = [n for n in calls if ast.unparse(n.func).split(".")[-1] == function]
    spans = [span_of(a, code.co_filename) for n in calls for a in n.args if ast.unparse(a) == text]
    return spans[0] if len(spans) == 1 else None


def definition_of(name: str, code: types.CodeType, until: int) -> Span | None:
    """What `code` binds a name to, last of all above a line."""
    statements = _statements(tree_of(code.co_filename))
    within = [s for s in statements if isinstance(s, ast.Assign) and code.co_firstlineno < s.lineno < until]
    bound = [s for s in within if [ast.unparse(t) for t in s.targets] == [name]]
    return span_of(max(bound, key=lambda s: s.lineno).value, code.co_filename) if bound else None


def subscript_at(span: Span) -> ast.Subscript | None:
    """The expression `x[...]` in a span."""
    nodes = (n for n in ast.walk(tree_of(span.file)) if isinstance(n, ast.Subscript))
    return next((n for n in nodes if span_of(n, span.file) == span), None)


def in_loop(file: str, line: int) -> bool:
    loops = (n for n in ast.walk(tree_of(file)) if isinstance(n, ast.For | ast.While))
    return any(n.lineno < line <= (n.end_lineno or 0) for n in loops)


def written_into(statement: ast.stmt) -> str:
    """What a statement writes into without binding a name: `w.g` of `w.g[i] = x`, `w.g.add_(x)`, `np.add.at(w.g, i, x)`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if len(targets) == 1 and isinstance(targets[0], ast.Subscript):
        key = targets[0].slice
        named = isinstance(key, ast.Constant) and isinstance(key.value, str)  # an entry of a dictionary
        return "" if named else ast.unparse(targets[0].value)
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        method = call.func.attr.endswith("_")
        into = call.func.value if method else call.args[0] if call.func.attr == "at" and call.args else None
        return ast.unparse(into) if into is not None else ""
    return ""


def writes_all(statement: ast.stmt) -> bool:
    """Whether a statement gives all elements of an array other values: `w.g[...] = x`, `w.g[:] = x`.

    >>> [writes_all(ast.parse(text).body[0]) for text in ("g[0][...] = x", "g[:] = x", "g[1:] = x", "g[:] += x")]
    [True, True, False, False]
    """
    target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
    return isinstance(target, ast.Subscript) and ast.unparse(target.slice) in ("...", ":")


_SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**",
}  # fmt: skip


def operands_at(span: Span) -> list[Span]:
    """Where that stands which the operation in a span is applied to, numbers apart: `hs[t]` and `dz` of `hs[t] * dz`."""
    node = next(
        (n for n in ast.walk(tree_of(span.file)) if isinstance(n, ast.expr) and span_of(n, span.file) == span), None
    )
    parts: list[ast.expr] = []
    if isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Attribute):
        parts = [node.value]
    elif isinstance(node, ast.UnaryOp):
        parts = [node.operand]
    elif isinstance(node, ast.Compare) and len(node.comparators) == 1:
        parts = [node.left, node.comparators[0]]
    elif isinstance(node, ast.Call):
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        module = isinstance(owner, ast.Name) and owner.id in ("torch", "F", "np", "numpy")
        parts = [*([owner] if owner is not None and not module else []), *node.args]
    return [span_of(p, span.file) for p in parts if not isinstance(p, ast.Constant)]


def parts_at(span: Span) -> list[Span]:
    """Where the parts stand of the list that a call is given first: `a` and `b` of `np.hstack((a, b))`."""
    call = call_at(span)
    held = call.args[0] if call is not None and call.args else None
    return [span_of(part, span.file) for part in held.elts] if isinstance(held, ast.Tuple | ast.List) else []


def numbers_at(span: Span | None) -> set[float]:
    """The numbers that stand at a place."""
    statement = statement_at(span) if span is not None else None
    held = (n for n in ast.walk(statement) if isinstance(n, ast.Constant)) if statement is not None else ()
    found = (n.value for n in held if span_of(n, span.file).within(span))  # type: ignore[union-attr, arg-type]
    return {float(value) for value in found if type(value) in (int, float)}  # type: ignore[arg-type]
