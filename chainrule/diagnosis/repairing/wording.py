"""How a repair is worded: sizes and numbers under the person's names, and nothing that does nothing."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot
from chainrule.recording.numbers import Tracked

if TYPE_CHECKING:
    from chainrule.diagnosis.truth.case import Point

_OF_MODULE = re.compile(r"(math|np|numpy|torch)\.\w+$")
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
_Size = tuple[fx.Node, int | None]  # of an axis of a value; None: how many elements it has
_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


class NamedSizes:
    """The person's names for sizes: `n`, where `x.shape[0]` says the same here and for other sizes."""

    def __init__(self, spot: Spot, nodes: Mapping[str, fx.Node], resized: Point | None) -> None:
        self.resized = resized
        self.named: list[tuple[str, _Size]] = []
        for name, held in spot.names.items():
            size = _origin(held) or _length(spot, name, held, nodes)
            if size is not None and name.isidentifier():
                self.named.append((name, size))

    def of(self, node: fx.Node) -> str | None:
        """The name of a size."""
        size = _size(node)
        if size is None:
            return None
        alike = [name for name, other in self.named if other == size] or [
            n for n, o in self.named if self._tied(o, size)
        ]
        return min(alike, key=len, default=None)

    def _tied(self, a: _Size, b: _Size) -> bool:
        if self.resized is None or _count(a[0].meta["val"], a[1]) != _count(b[0].meta["val"], b[1]):
            return False
        values = [self.resized.values.get(s[0]) for s in (a, b)]
        if not all(isinstance(v, torch.Tensor) for v in values):
            return False
        return _count(values[0], a[1]) == _count(values[1], b[1])


def _count(value: Any, axis: int | None) -> int:
    return int(value.numel() if axis is None else value.shape[axis])


def _size(node: fx.Node) -> _Size | None:
    """What `node` is the size of."""
    if node.meta["operation"] == "numel" and len(node.args) == 1 and isinstance(node.args[0], fx.Node):
        return node.args[0], None
    if node.meta["operation"] != "shape_entry" or not isinstance(node.args[1], int):
        return None
    shape = node.args[0]
    value = shape.args[0] if isinstance(shape, fx.Node) and shape.args else None
    if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), torch.Tensor):
        return None
    return value, node.args[1] % max(1, value.meta["val"].ndim)


def _origin(held: Any) -> _Size | None:
    if not isinstance(held, Tracked) or not isinstance(held, int):
        return None
    if held.origin is not None:
        shape, axis = held.origin
        value = shape.args[0] if shape.args else None
        return (value, axis) if isinstance(value, fx.Node) else None
    return _size(held._made) if held._made is not None else None


def _length(spot: Spot, name: str, held: Any, nodes: Mapping[str, fx.Node]) -> _Size | None:
    """`n = len(x)`, of which Python makes a plain number."""
    if type(held) is not int or not name.isidentifier():
        return None
    above = source.lines_of(spot.file)[spot.code.co_firstlineno - 1 : spot.line]
    found = [m[1] for line in above if (m := re.fullmatch(rf"\s*{name} = len\(([\w.]+)\)\s*", line))]
    value = nodes.get(found[-1]) if found else None
    fits = value is not None and isinstance(value.meta["val"], torch.Tensor) and value.meta["val"].ndim > 0
    return (value, 0) if fits and value.meta["val"].shape[0] == held else None  # type: ignore[union-attr, return-value]


def numbers_in(statement: ast.stmt, names: Mapping[str, Any], whole: bool = False) -> dict[float, str]:
    """The numbers that a statement computes of the person's own, as they stand there: `math.sqrt(d)`, `1 - ctx.p`; also
    those that come to a `whole` number."""
    found: dict[float, str] = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.BinOp | ast.Call | (ast.Name | ast.Attribute if whole else ast.BinOp)):
            value = _value(node, names)
            if value is not None and (whole or not value.is_integer()):
                found.setdefault(value, ast.unparse(node))
    return found


def numbers_of_sizes(function: ast.AST, names: Mapping[str, Any]) -> set[float]:
    """The broken numbers that a function computes of sizes, and writes nowhere: `eps / k`, of which Python makes a plain
    number."""
    nodes = list(ast.walk(function))
    constants = (n.value for n in nodes if isinstance(n, ast.Constant))
    written = {float(v) for v in constants if isinstance(v, int | float)}
    sizes = {name for name, held in names.items() if isinstance(held, Tracked)}
    sums = (n for n in nodes if isinstance(n, ast.BinOp))
    of_sizes = (n for n in sums if any(isinstance(a, ast.Name) and a.id in sizes for a in ast.walk(n)))
    values = {v for n in of_sizes if (v := _value(n, names)) is not None and not v.is_integer()}
    return values - written


def _value(node: ast.expr, names: Mapping[str, Any]) -> float | None:
    if isinstance(node, ast.Constant):
        return _plain(node.value)
    if isinstance(node, ast.Name | ast.Attribute):
        text = ast.unparse(node)
        return _plain(names.get(text)) or (_CONSTANTS.get(text.partition(".")[2]) if _OF_MODULE.match(text) else None)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "len" and len(node.args) == 1:
            return _plain(names.get(ast.unparse(node))) or _size_of(names.get(ast.unparse(node.args[0])))
        value = (
            _value(node.args[0], names) if len(node.args) == 1 and called in ("math.sqrt", "np.sqrt", "sqrt") else None
        )
        return math.sqrt(value) if value is not None and value >= 0 else None
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, names), _value(node.right, names)
        try:
            value = _OPERATORS[type(node.op)](left, right) if left is not None and right is not None else None
        except (ArithmeticError, ValueError):
            return None
        return value if isinstance(value, float) and math.isfinite(value) else None
    return None


def _size_of(held: Any) -> float | None:
    """What `len` gives."""
    value = held.meta["val"] if isinstance(held, fx.Node) else held
    return float(value.shape[0]) if isinstance(value, torch.Tensor) and value.ndim else None


def _plain(held: Any) -> float | None:
    held = held.plain() if isinstance(held, Tracked) else held
    return float(held) if type(held) in (int, float) else None


def only_stretched(node: fx.Node, named: Callable[[fx.Node], Any]) -> Iterator[tuple[fx.Node, Any]]:
    """What an operand of `node` is made of that is only stretched to the shape of the other operand, each with what can
    stand in its place: the number of a `full_like`, what an `expand` expands. What is `named` stays."""
    operands = [a for a in node.args if isinstance(a, fx.Node)]
    if node.meta["operation"] not in _ELEMENTWISE or len(operands) < 2:
        return
    for operand, beside in ((operands[0], operands[1]), (operands[1], operands[0])):
        if isinstance(beside.meta.get("val"), torch.Tensor) and not any(_factors(beside, named)):
            found = [(n, by) for n, by in _factors(operand, named) if n.meta["val"].shape == beside.meta["val"].shape]
            yield from found


_ELEMENTWISE = frozenset(("add", "sub", "mul", "div"))


def _factors(node: fx.Node, named: Callable[[fx.Node], Any]) -> Iterator[tuple[fx.Node, Any]]:
    """The stretched values of a product of them and of numbers."""
    operation, args = node.meta["operation"], node.args
    if node.meta.get("name") or named(node) or not isinstance(node.meta.get("val"), torch.Tensor):
        return
    if operation == "full_like" and isinstance(args[1], int | float):
        yield node, args[1]
    elif operation in ("expand", "expand_as") and isinstance(args[0], fx.Node):
        yield node, args[0]
    elif operation in ("mul", "div", "neg"):
        parts = [
            list(_factors(a, named))
            for a in args
            if isinstance(a, fx.Node) and isinstance(a.meta.get("val"), torch.Tensor)
        ]
        if all(parts):
            yield from (pair for part in parts for pair in part)
