"""From the nodes of a program to terms: the same nodes that a line of code spells, read as mathematics."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.show.mathematics.term import (
    ALONE,
    Term,
    call,
    equation,
    fraction,
    gradient,
    name,
    number,
    parens,
    root,
    scale,
    word,
)  # fmt: skip
from chainrule.show.python import ATOM, COMPARISON, PRODUCT, SUM, Python, path_of

_OVER_AXES = {"sum": "Σ", "prod": "Π", "sigmoid": "σ"} | {
    name: name
    for name in ("mean", "var", "std", "softmax", "log_softmax", "logsumexp", "cumsum", "cumprod", "logcumsumexp",
                 "flip", "all", "any", "amax", "amin")
}  # fmt: skip
_COMPARED = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "eq": "=", "ne": "≠"}
_JOINED = {"bitwise_and": "and", "logical_and": "and", "bitwise_or": "or", "logical_or": "or"}
_PRODUCTS = ("mul", "div")
_MATRICES = ("matmul", "mm", "bmm", "mv")
_AFTER = {"T": "transpose", "mT": "transpose", "t": "transpose", "mH": "adjoint", "H": "adjoint"}
_CALLED = {"sigmoid": "σ", "digamma": "ψ", "real": "Re", "imag": "Im", "numel": "size", "linalg_det": "det",
           "linalg_eigh": "eigh", "linalg_svd": "svd"}  # fmt: skip
_CONVERSIONS = ("type_as", "to", "float", "double", "clone", "contiguous", "detach")
_FILLED = {"zeros_like": 0, "ones_like": 1}
_PI, _TWO = number("π"), number(2)
_NUMBERS = {
    math.sqrt(2): root(_TWO), math.sqrt(2 * math.pi): root(scale(_TWO, _PI)), math.sqrt(2 / math.pi): root(fraction(_TWO, _PI)),
    2 / math.sqrt(math.pi): parens(fraction(_TWO, root(_PI))), math.sqrt(math.pi) / 2: parens(fraction(root(_PI), _TWO)),
    math.log(2): call("ln", _TWO), math.log(10): call("ln", number(10)), math.pi: _PI,
    180 / math.pi: parens(fraction(number(180), _PI)), math.pi / 180: parens(fraction(_PI, number(180))),
}  # fmt: skip


class Reader:
    """Reads nodes as terms; `variable(node)` gives the name of a value that has a line of its own, else None."""

    def __init__(self, variable: Callable[[fx.Node], str | None], upstream: fx.Node | None) -> None:
        self.variable, self.upstream = variable, upstream

    def line(self, target: str, node: fx.Node, alias: bool = False) -> Term:
        """`target = expression`; several targets where the expression gives several values.

        A gradient that is another value (`alias`) is that value, by its name where it has one.
        """
        backward = node.meta["phase"] == "backward" or alias
        names = [n for n in target.split(", ") if n]
        left = [gradient_named(n) if backward and is_gradient(n) else name(n.rstrip(",")) for n in names]
        right = self.read(node) if alias else self.expression(node)
        right = Term("indicator", (right,)) if is_mask(node) and not alias else right
        return equation(left[0] if len(left) == 1 else Term("list", tuple(left)), right)

    def read(self, value: Any) -> Term:
        """A value where it is used: its name, or the expression for it."""
        if not isinstance(value, fx.Node):
            return self.constant(value)
        known = self.variable(value)
        if known is None:
            return self.expression(value)
        of_loss = value is self.upstream or value.meta["phase"] == "backward"
        return gradient_named(known) if of_loss and is_gradient(known) else name(known)

    def expression(self, node: fx.Node) -> Term:
        """What `node` computes, whether or not it has a name."""
        operation = node.meta["operation"]
        args, kwargs = _by_position(node.args, dict(node.kwargs))
        if node.target is getattr:
            operation = str(args[1])
        if operation in _CONVERSIONS and _truncates(node, args):
            return self._call(operation, args, kwargs)  # x.to(torch.int64) is not x
        read = self._operator(operation, args, kwargs) or self._word(operation, args, kwargs)
        if read is not None:
            return read
        if node.target is getattr:
            return Term("call", (self.read(args[0]),), _CALLED.get(operation, operation))
        if operation == "shape_entry":
            return Term("index", (self.read(args[0]).tight(ATOM), self._index(args[1])))
        if node.op == "placeholder":
            return name(str(node.meta.get("name")))
        if node.target is operator.getitem:
            return Term("index", (self.read(args[0]).tight(ATOM), *self._indices(args[1])))
        called = node.target if isinstance(node.target, str) else path_of(node.target).rpartition(".")[2]
        if hasattr(node.target, "spell_step"):
            called = getattr(node.target, "__name__", "vjp")  # a step taken from autograd, by the name of its operation
        return self._call(_CALLED.get(operation, called), args, kwargs)

    # -- signs -----------------------------------------------------------------------------------

    def _operator(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term | None:
        two = len(args) == 2 and not kwargs
        if operation in ("add", "sub") and two:
            after = SUM if operation == "add" else SUM + 1
            return Term(operation, (self._number(args[0], SUM), self._number(args[1], after)))
        if operation in (*_PRODUCTS, *_MATRICES) and two:
            return self._product(operation, args[0], args[1])
        if operation == "pow" and two:
            return Term("power", (self._number(args[0], ATOM), self._number(args[1], ATOM)))
        if operation == "neg":
            return Term("neg", (self._number(args[0], PRODUCT),))
        if operation == "floor_divide" and two:
            return Term("floor", (self._product("div", *args),))
        if operation in _COMPARED and two:
            parts = (self._number(args[0], SUM), self._number(args[1], SUM))
            return Term("compare", parts, _COMPARED[operation])
        if operation in _JOINED and two:
            return Term(_JOINED[operation], tuple(self.read(a).tight(COMPARISON) for a in args))
        if operation in ("bitwise_not", "logical_not"):
            return Term("not", (self.read(args[0]).tight(ATOM),))
        return None

    def _product(self, operation: str, left: Any, right: Any) -> Term:
        if operation == "mul" and not isinstance(right, fx.Node) and isinstance(left, fx.Node):
            left, right = right, left  # 2 x
        if operation == "mul" and (left == 1 or _is_ones(right)):
            return self.read(left if _is_ones(right) else right)
        if operation == "mul" and not self._bare(right) and right.meta["operation"] == "rsqrt":
            return Term("div", (self._factor(left, PRODUCT, False), root(self.read(right.args[0]))))
        matrices = operation not in _PRODUCTS
        if operation == "div":
            sign = "div"
        elif matrices:
            sign = "matmul"
        elif not isinstance(left, fx.Node):
            sign = "scale"
        else:
            sign = "dot" if is_scalar(left) or is_scalar(right) else "hadamard"
        return Term(sign, (self._factor(left, PRODUCT, matrices), self._factor(right, PRODUCT + 1, matrices)))

    def _factor(self, value: Any, tight: int, matrices: bool) -> Term:
        """A factor; an elementwise product inside a product of matrices stands in parentheses, and the reverse."""
        mixed = isinstance(value, fx.Node) and self.variable(value) is None
        mixed = mixed and value.meta["operation"] in (_PRODUCTS if matrices else _MATRICES)
        return self._number(value, PRODUCT + 1 if mixed else tight)

    def _number(self, value: Any, tight: int) -> Term:
        """`value` in arithmetic: of a condition its indicator, [x > 0]."""
        if is_mask(value) and not self._bare(value):
            return Term("indicator", (self.read(value),))
        return self.read(value).tight(tight)

    # -- words -----------------------------------------------------------------------------------

    def _word(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term | None:
        if operation in _AFTER and len(args) < 3 and not kwargs:
            inner = self.read(args[0])
            return inner.parts[0] if inner.sign == _AFTER[operation] else Term(_AFTER[operation], (inner.tight(ATOM),))
        if operation in ("linalg_inv", "inverse"):
            return Term("inverse", (self.read(args[0]).tight(ATOM),))
        if operation in ("where", "masked_fill") and len(args) == 3:
            condition, value, otherwise = args if operation == "where" else (args[1], args[2], args[0])
            return Term("cases", (self.read(value).tight(SUM), self.read(condition), self.read(otherwise)))
        if operation in _FILLED:
            return number(_FILLED[operation])
        if operation == "full_like":
            return self.read(args[1])
        if operation in _CONVERSIONS:
            return self._number(args[0], ATOM) if is_mask(args[0]) else self.read(args[0])
        if operation == "unsqueeze":
            inner = self.read(args[0])
            return (
                inner
                if inner.text in ("0", "1")
                else Term("index", (inner.tight(ATOM), *_new_axis([*args, kwargs.get("dim")][1])))
            )
        if operation == "abs":
            return Term("abs", (self.read(args[0]),))
        if operation == "sqrt":
            return root(self.read(args[0]))
        if operation == "rsqrt":
            return Term("div", (number(1), root(self.read(args[0]))))
        if operation == "shape_entry" and isinstance(args[1], int):
            return Term("size", (self.read(args[0].args[0]),), axes=(str(args[1]),))
        if operation in _OVER_AXES:
            return self._over_axes(_OVER_AXES[operation], args, kwargs)
        return None

    def _over_axes(self, sign: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term:
        given = list(args[1:])
        axes = given.pop(0) if given and not isinstance(given[0], bool) else kwargs.pop("dim", None)
        kwargs.pop("keepdim", None)
        if sign in ("var", "std") and given and given[0] is False:
            kwargs["unbiased"] = False
        axes = () if axes is None else axes if isinstance(axes, tuple | list) else (axes,)
        written = tuple(str(axis) for axis in axes)
        if sign in "ΣΠ" and self._bare(args[0]) and not kwargs:
            return Term("big", (self.read(args[0]),), sign, written)
        rest = tuple(Term("keyword", (self.read(v),), k) for k, v in kwargs.items())
        return Term("over", (self._number(args[0], ALONE), *rest), sign, written)

    def _bare(self, value: Any) -> bool:
        """Whether `value` is written as a name or a number."""
        return not isinstance(value, fx.Node) or self.variable(value) is not None

    def _call(self, called: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term:
        said = {k: v for k, v in kwargs.items() if k not in ("dtype", "device")}
        keywords = (Term("keyword", (self.read(v),), k) for k, v in said.items())
        return Term("call", (*(self.read(a) for a in args), *keywords), called)

    def _indices(self, index: Any) -> list[Term]:
        return [self._index(i) for i in index] if isinstance(index, tuple) and index else [self._index(index)]

    def _index(self, index: Any) -> Term:
        if isinstance(index, slice):
            ends = [index.start, index.stop] + ([index.step] if index.step is not None else [])
            return Term("slice", tuple(word("") if v is None else self.read(v) for v in ends))
        return word("...") if index is Ellipsis else self.read(index)

    def constant(self, value: Any) -> Term:
        if isinstance(value, slice):
            return self._index(value)
        if isinstance(value, tuple | list):
            return Term("tuple" if isinstance(value, tuple) else "brackets", tuple(self.read(v) for v in value))
        if isinstance(value, bool) or not isinstance(value, int | float | complex):
            return word(Python(lambda node: None).text(value))
        if isinstance(value, float):
            known = next((t for n, t in _NUMBERS.items() if math.isclose(abs(value), n, rel_tol=1e-15)), None)
            if known is not None:
                return Term("neg", (known,)) if value < 0 else known
            if not math.isfinite(value):
                return number({"inf": "∞", "-inf": "−∞"}.get(str(value), "NaN"))
            text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        else:
            text = "i" if value == 1j else repr(value)
        return number(re.sub("^-", "−", text))


def _by_position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The operands of a call by position, where the person named them: `torch.sum(input=x)`."""
    for names in (("input", "self"), ("other", "exponent", "mat2")):
        for known in names:
            if known in kwargs and len(args) == (known not in ("input", "self")):
                args = (*args, kwargs.pop(known))
    return args, kwargs


def _truncates(node: fx.Node, args: tuple[Any, ...]) -> bool:
    """Whether a conversion changes numbers: to whole ones, from others than conditions."""
    after, before = (getattr(n.meta["val"], "dtype", None) for n in (node, args[0]) if isinstance(n, fx.Node))
    whole = after is not None and not (after.is_floating_point or after.is_complex)
    return whole and before not in (after, torch.bool)


def _is_ones(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.meta["operation"] == "ones_like"


def is_gradient(variable: str) -> bool:
    """Whether a variable's name says that it is a gradient: `w.g` or `w_g`."""
    return variable.endswith((".g", "_g"))


def gradient_named(variable: str) -> Term:
    """∂L/∂w for `w.g` or `w_g`."""
    return gradient(variable[:-2], variable)


def is_mask(value: Any) -> bool:
    return isinstance(value, fx.Node) and getattr(value.meta["val"], "dtype", None) is torch.bool


def is_scalar(value: Any) -> bool:
    found = value.meta["val"] if isinstance(value, fx.Node) else value
    return isinstance(found, int | float) or (isinstance(found, torch.Tensor) and found.ndim == 0)


def _new_axis(axis: int) -> list[Term]:
    """The index that makes a new axis there: x[:, None]."""
    whole, new = Term("slice", (word(""), word(""))), word("None")
    before, after = [whole] * axis, [whole] * (-1 - axis)
    return [*before, new] if axis >= 0 else [word("..."), new, *after]
