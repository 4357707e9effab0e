"""The backward pass as mathematics in plain text: ∂L/∂a = ∂L/∂out bᵀ.

Matrix products stand side by side, elementwise ones have ⊙ between them. Sums, means and the like carry the axes
that they go over as a subscript; what mathematics has no sign for is written as a call.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.show.layout import Layout, Line
from chainrule.show.python import ATOM, COMPARISON, POWER, PRODUCT, SUM, UNARY, Python, Spelled, path_of

WIDTH = 110
ALONE = -1  # needs parentheses wherever it is not alone
_RAISED, _LOWERED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"), str.maketrans("0123456789-", "₀₁₂₃₄₅₆₇₈₉₋")
_OVER_AXES = {"sum": "Σ", "prod": "Π", "sigmoid": "σ"} | {
    name: name
    for name in ("mean", "var", "std", "softmax", "log_softmax", "logsumexp", "cumsum", "cumprod", "logcumsumexp",
                 "flip", "all", "any", "amax", "amin")
}  # fmt: skip
_COMPARED = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "eq": "=", "ne": "≠"}
_JOINED = {"bitwise_and": "and", "logical_and": "and", "bitwise_or": "or", "logical_or": "or"}
_AFTER = {"T": "ᵀ", "mT": "ᵀ", "t": "ᵀ", "mH": "ᴴ", "H": "ᴴ"}
_CALLED = {"sigmoid": "σ", "digamma": "ψ", "real": "Re", "imag": "Im", "numel": "size", "linalg_det": "det",
           "linalg_eigh": "eigh", "linalg_svd": "svd"}  # fmt: skip
_CONVERSIONS = ("type_as", "to", "float", "double", "clone", "contiguous", "detach")
_FILLED = {"zeros_like": 0, "ones_like": 1}
_NUMBERS = {
    math.sqrt(2): "√2", math.sqrt(2 * math.pi): "√(2π)", math.sqrt(2 / math.pi): "√(2/π)", 2 / math.sqrt(math.pi): "(2/√π)",
    math.sqrt(math.pi) / 2: "(√π/2)", math.log(2): "ln(2)", math.log(10): "ln(10)", math.pi: "π",
    180 / math.pi: "(180/π)", math.pi / 180: "(π/180)",
}  # fmt: skip


def formula(program: Program) -> list[str]:
    """The backward lines of `program` in mathematical notation.

    >>> import chainrule as cr
    >>> def forward(a, b): return a @ b
    >>> d = cr.derive(forward, torch.ones(2, 3), torch.ones(3, 4), upstream=torch.ones(2, 4))
    >>> formula(d.program)
    ['∂L/∂a = ∂L/∂out bᵀ', '∂L/∂b = aᵀ ∂L/∂out']
    """
    speller = functools.partial(Notation, upstream=program.upstream)
    layout = Layout(program, dotted=True, upstream_of_output=True, width=WIDTH, speller=speller)
    backward = [_line(line) for line in layout.part("backward")]
    if program.output.op == "placeholder":  # the operation gave its argument back
        same = _gradient(layout.variables[program.output] + ".g")
        return [f"{same} = ∂L/∂out"]
    made, read = [], _words(backward)
    for line in reversed(layout.part("forward")):
        if line.target != layout.variables[program.output] and read & set(line.target.split(", ")):
            made.append(_line(line))
            read |= _words(made[-1:])
    return made[::-1] + backward


def _words(lines: list[str]) -> set[str]:
    return set(re.findall(r"\w+", " ".join(lines)))


def _line(line: Line) -> str:
    """One line, with ∂L/∂a for `a.g` on the left, and with a condition as its indicator."""
    targets = line.target
    if line.phase == "backward":
        targets = ", ".join(_gradient(name) or name for name in targets.split(", "))
    return f"{targets} = [{line.code}]" if _is_mask(line.node) else f"{targets} = {line.code}"


def _gradient(name: str) -> str | None:
    """∂L/∂w for the variable of a gradient, `w.g` or `w_g`."""
    owner = name.removesuffix(".g") if name.endswith(".g") else name.removesuffix("_g")
    return f"∂L/∂{owner}" if owner != name else None


def lowered(axes: Any) -> str:
    """Axes as a subscript.

    >>> lowered(0), lowered((0, -1)), lowered(None)
    ('₀', '₀₋₁', '')
    """
    axes = () if axes is None else axes if isinstance(axes, tuple | list) else (axes,)
    return "".join(str(axis).translate(_LOWERED) for axis in axes)


class Notation(Python):
    """Spells nodes as mathematics, with the interface of `Python`."""

    def __init__(self, variable: Callable[[fx.Node], str | None], upstream: fx.Node | None) -> None:
        super().__init__(variable)
        self.upstream = upstream

    def _is_gradient(self, node: fx.Node) -> bool:
        return node is self.upstream or node.meta["phase"] == "backward"

    def spell(self, value: Any) -> Spelled:
        name = self.variable(value) if isinstance(value, fx.Node) else None
        gradient = _gradient(name) if name and self._is_gradient(value) else None
        return (gradient, UNARY) if gradient else super().spell(value)

    def expression(self, node: fx.Node) -> Spelled:
        operation, args, kwargs = node.meta["operation"], node.args, dict(node.kwargs)
        if node.target is getattr:
            operation = str(args[1])
        spelled = self._operator(operation, args, kwargs) or self._named(operation, args, kwargs)
        if spelled is not None:
            return spelled
        if node.target is getattr:
            return self._call(_CALLED.get(operation, operation), args[:1], {}), ATOM
        if operation == "shape_entry":
            return f"{self.text(args[0])}[{self._index(args[1])}]", ATOM
        if node.op == "placeholder" or node.target is operator.getitem or hasattr(node.target, "spell_step"):
            return super().expression(node)
        name = node.target if isinstance(node.target, str) else path_of(node.target).rpartition(".")[2]
        return self._call(_CALLED.get(operation, name), args, kwargs), ATOM

    # -- signs -----------------------------------------------------------------------------------

    def _operator(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled | None:
        two = len(args) == 2 and not kwargs
        if operation in ("add", "sub") and two:
            sign, after = ("+", SUM) if operation == "add" else ("−", SUM + 1)
            return f"{self._number(args[0], SUM)} {sign} {self._number(args[1], after)}", SUM
        if operation in ("mul", "div", "matmul", "mm", "bmm", "mv") and two:
            return self._product(operation, args[0], args[1])
        if operation == "pow" and two:
            return self._power(args[0], args[1])
        if operation == "neg":
            return f"−{self._number(args[0], PRODUCT)}", UNARY if self._bare(args[0]) else PRODUCT
        if operation == "floor_divide" and two:
            return f"⌊{self._product('div', *args)[0]}⌋", ATOM
        if operation in _COMPARED and two:
            return f"{self._number(args[0], SUM)} {_COMPARED[operation]} {self._number(args[1], SUM)}", COMPARISON
        if operation in _JOINED and two:
            return f"{self.text(args[0], COMPARISON)} {_JOINED[operation]} {self.text(args[1], COMPARISON)}", ALONE
        if operation in ("bitwise_not", "logical_not"):
            return f"not {self.text(args[0], ATOM)}", ALONE
        return None

    def _product(self, operation: str, left: Any, right: Any) -> Spelled:
        if operation == "mul" and not isinstance(right, fx.Node) and isinstance(left, fx.Node):
            left, right = right, left  # 2 x
        if operation == "mul" and not self._bare(right) and right.meta["operation"] == "rsqrt":
            return f"{self._factor(left, PRODUCT, False)} / √{self.text(right.args[0], ATOM)}", PRODUCT
        matrices = operation not in ("mul", "div")
        sign = " / " if operation == "div" else " " if matrices or not isinstance(left, fx.Node) else " ⊙ "
        if sign == " ⊙ " and (_is_scalar(left) or _is_scalar(right)):
            sign = " · "
        texts = [self._factor(left, PRODUCT, matrices), self._factor(right, PRODUCT + 1, matrices)]
        return sign.join(texts), PRODUCT

    def _factor(self, value: Any, tight: int, matrices: bool) -> str:
        """A factor; an elementwise product inside a product of matrices stands in parentheses, and the reverse."""
        mixed = isinstance(value, fx.Node) and self.variable(value) is None
        mixed = mixed and value.meta["operation"] in (("mul", "div") if matrices else ("matmul", "mm", "bmm", "mv"))
        return self._number(value, PRODUCT + 1 if mixed else tight)

    def _power(self, base: Any, exponent: Any) -> Spelled:
        if isinstance(exponent, int | float) and float(exponent).is_integer():
            return f"{self._number(base, ATOM)}{str(int(exponent)).translate(_RAISED)}", POWER
        return f"{self._number(base, ATOM)}^{self._number(exponent, ATOM)}", POWER

    def _number(self, value: Any, tight: int) -> str:
        """`value` in arithmetic: of a condition its indicator, [x > 0]."""
        if not isinstance(value, fx.Node):
            return re.sub("^-", "−", self.text(value, tight))
        return f"[{self.text(value, ALONE)}]" if _is_mask(value) and not self._bare(value) else self.text(value, tight)

    # -- words -----------------------------------------------------------------------------------

    def _named(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled | None:
        if operation in _AFTER and len(args) < 3 and not kwargs:
            return f"{self.text(args[0], ATOM)}{_AFTER[operation]}", ATOM
        if operation in ("linalg_inv", "inverse"):
            return f"{self.text(args[0], ATOM)}⁻¹", POWER
        if operation == "where" and len(args) == 3:
            return (
                f"{self.text(args[1], SUM)} where {self.text(args[0], ALONE)}, else {self.text(args[2], ALONE)}",
                ALONE,
            )
        if operation == "masked_fill":
            return (
                f"{self.text(args[2], SUM)} where {self.text(args[1], ALONE)}, else {self.text(args[0], ALONE)}",
                ALONE,
            )
        if operation in _FILLED:
            return str(_FILLED[operation]), ATOM
        if operation == "full_like":
            return self.spell(args[1])
        if operation in _CONVERSIONS:
            return (self._number(args[0], ATOM), ATOM) if _is_mask(args[0]) else self.spell(args[0])
        if operation == "unsqueeze":
            text = self.text(args[0], ATOM)
            return (text if text in ("0", "1") else f"{text}[{_new_axis(args[1])}]"), ATOM
        if operation == "abs":
            return f"|{self.text(args[0])}|", ATOM
        if operation == "sqrt":
            return f"√{self.text(args[0], ATOM)}", ATOM
        if operation == "rsqrt":
            return f"1 / √{self.text(args[0], ATOM)}", PRODUCT
        if operation == "shape_entry" and isinstance(args[1], int):
            return f"size{lowered(args[1])}({self.text(args[0].args[0])})", ATOM
        if operation in _OVER_AXES:
            return self._over_axes(_OVER_AXES[operation], args, kwargs)
        return None

    def _over_axes(self, sign: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
        axes = args[1] if len(args) > 1 else kwargs.pop("dim", None)
        kwargs.pop("keepdim", None)
        head = f"{sign}{lowered(axes)}"
        if sign in "ΣΠ" and self._bare(args[0]) and not kwargs:
            return f"{head} {self.text(args[0])}", COMPARISON + 1
        rest = "".join(f", {k}={self.text(v)}" for k, v in kwargs.items())
        return f"{head}({self._number(args[0], ALONE)}{rest})", ATOM

    def _bare(self, value: Any) -> bool:
        """Whether `value` is written as a name or a number."""
        return not isinstance(value, fx.Node) or self.variable(value) is not None

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        said = {k: v for k, v in kwargs.items() if k not in ("dtype", "device")}
        return f"{name}({self._arguments(args, said)})"

    def constant(self, value: Any) -> Spelled:
        if isinstance(value, float):
            known = next((t for n, t in _NUMBERS.items() if math.isclose(abs(value), n, rel_tol=1e-15)), "")
            known = f"−{known}" if known and value < 0 else known
            if known or not math.isfinite(value):
                return known or {"inf": "∞", "-inf": "−∞"}.get(str(value), "NaN"), ATOM
            return f"{value:g}" if float(f"{value:g}") == value else repr(value), UNARY if value < 0 else ATOM
        return ("i", ATOM) if value == 1j else super().constant(value)


def _is_mask(value: Any) -> bool:
    return isinstance(value, fx.Node) and getattr(value.meta["val"], "dtype", None) is torch.bool


def _is_scalar(value: Any) -> bool:
    found = value.meta["val"] if isinstance(value, fx.Node) else value
    return isinstance(found, int | float) or (isinstance(found, torch.Tensor) and found.ndim == 0)


def _new_axis(axis: int) -> str:
    """The index that makes a new axis there: x[:, None]."""
    before, after = [":"] * axis, [":"] * (-1 - axis)
    return ", ".join([*before, "None"] if axis >= 0 else ["...", "None", *after])
