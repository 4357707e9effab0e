"""Sizes that Python hides: `0.5 * n` takes the value of n in C, without asking it.

Such a product is found in the source of the function that is running: a float, or what holds one now, to the
left of an expression made of sizes alone. The derived code then asserts the sizes that stand in it.
"""

from __future__ import annotations

import ast
import functools
import linecache
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class _Product:
    """A float, perhaps, that meets sizes: what is on its left, and the names that the sizes have."""

    left: ast.expr
    right: ast.expr
    names: frozenset[str]


@dataclass(frozen=True)
class _Source:
    """What the source of one function says of sizes."""

    products: tuple[_Product, ...]
    bindings: tuple[ast.Assign, ...]  # of names to sizes


def is_hidden(frame: types.FrameType, index: int | None = None) -> bool:
    """Whether the size that the code in `frame` is reading will be met by a float from the left; `index` is its
    place where several are read at once, as in `b, t = x.shape`."""
    source = _source(frame.f_code)
    if not source.products:
        return False
    here = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    names = {name for binding in source.bindings if _within(here, binding) for name in _targets(binding, index)}
    return any(
        (_within(here, product.right) or names & product.names) and _is_float(product.left, frame)
        for product in source.products
    )


_sources: dict[int, tuple[weakref.ref[types.CodeType], _Source]] = {}  # by id: codes of other texts may be equal


def _source(code: types.CodeType) -> _Source:
    """What the source says, as it stood when this code was first met: code that is loaded again is another one."""
    known = _sources.get(id(code))
    if known is None or known[0]() is not code:
        key = id(code)
        linecache.checkcache(code.co_filename)
        known = (weakref.ref(code, lambda gone: _forget(key, gone)), _read(code))
        _sources[key] = known
    return known[1]


def _forget(key: int, gone: weakref.ref[types.CodeType]) -> None:
    if key in _sources and _sources[key][0] is gone:
        del _sources[key]


def _read(code: types.CodeType) -> _Source:
    products: list[_Product] = []
    bindings: list[ast.Assign] = []
    for function in _functions(code):
        nodes = list(ast.walk(function))
        sized: set[str] = set()
        known = -1
        while known != len(sized):  # n = x.shape[0]; m = 2 * n
            known = len(sized)
            bindings = [n for n in nodes if isinstance(n, ast.Assign) and _is_size(n.value, sized)]
            sized |= {name for binding in bindings for name in _targets(binding, None)}
        for node in nodes:
            if isinstance(node, ast.BinOp) and _is_size(node.right, sized):
                names = _names(node.right)
                for binding in reversed(bindings):
                    names |= _names(binding.value) if names & set(_targets(binding, None)) else set()
                products.append(_Product(node.left, node.right, frozenset(names)))
    return _Source(tuple(products), tuple(bindings))


def _functions(code: types.CodeType) -> Iterator[ast.AST]:
    """The syntax of `code`; several where several lambdas begin on one line."""
    for node in ast.walk(_tree("".join(linecache.getlines(code.co_filename)))):
        if isinstance(node, _Function):
            decorators = getattr(node, "decorator_list", [])
            if min([node.lineno, *(d.lineno for d in decorators)]) == code.co_firstlineno:
                yield node
        elif isinstance(node, ast.Module) and code.co_name == "<module>":
            yield node


@functools.lru_cache(maxsize=64)
def _tree(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def _is_size(node: ast.expr, sized: set[str]) -> bool:
    """Whether an expression is made of sizes and numbers alone, and of one size at least."""
    if isinstance(node, ast.BinOp):
        sides = (node.left, node.right)
        return any(_is_size(s, sized) for s in sides) and all(
            _is_size(s, sized) or isinstance(s, ast.Constant) for s in sides
        )
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
    if isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return name in ("size", "numel", "nelement", "len")
    if isinstance(node, ast.Attribute):
        return node.attr == "shape"
    return isinstance(node, ast.Name) and node.id in sized


def _targets(binding: ast.Assign, index: int | None) -> list[str]:
    """The names that are bound; of several, the one at `index`."""
    found = []
    for target in binding.targets:
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        chosen = parts if index is None or len(parts) == 1 else parts[index : index + 1]
        found += [part.id for part in chosen if isinstance(part, ast.Name)]
    return found


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _within(here: tuple[int | None, ...], node: ast.stmt | ast.expr) -> bool:
    """Whether a position of the running code lies in `node`."""
    line, end_line, column, end_column = here
    if line is None or end_line is None or column is None or end_column is None:
        return False
    last = (node.end_lineno or 0, node.end_col_offset or 0)
    return (node.lineno, node.col_offset) <= (line, column) and (end_line, end_column) <= last


def _is_float(node: ast.expr, frame: types.FrameType) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _is_float(node.operand, frame)
    if isinstance(node, ast.BinOp):
        return _is_float(node.left, frame) or _is_float(node.right, frame)
    if isinstance(node, ast.Constant):
        return type(node.value) is float
    return type(_value(node, frame)) is float


def _value(node: ast.expr, frame: types.FrameType) -> object:
    """What a name, or an attribute of one, holds now."""
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, frame.f_globals.get(node.id))
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, frame), "__dict__", {}).get(node.attr)
    return None
