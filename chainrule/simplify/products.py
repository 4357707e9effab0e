"""Products in the order in which people write them: sign and number first, factors, then divisors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from chainrule.rules.broadcast import broadcast
from chainrule.simplify.rewriter import Rewriter, shaped_like


@dataclass
class Product:
    """A tree of `*`, `/` and unary `-`, flattened: number / divisor * factors / denominators."""

    number: Any = 1
    divisor: float = 1
    factors: list[fx.Node] = field(default_factory=list)
    denominators: list[fx.Node] = field(default_factory=list)
    stretched: list[fx.Node] = field(default_factory=list)  # expands that were looked through
    length: int = 0  # operations in the tree

    @classmethod
    def of(cls, node: fx.Node) -> Product:
        product = cls()
        product._take(node, False, root=True)
        return product

    def tensors(self) -> list[fx.Node]:
        return [f for f in (*self.factors, *self.denominators) if isinstance(f.meta.get("val"), torch.Tensor)]

    def is_negative(self) -> bool:
        """Whether a minus stands in front: of a number, or of an imaginary one."""
        number = self.number
        return bool(number.real < 0 or (number.real == 0 and number.imag < 0))

    def with_factor(self, old: fx.Node, new: fx.Node) -> Product:
        return replace(self, factors=[new if f is old else f for f in self.factors])

    def _take(self, value: Any, below: bool, root: bool = False) -> None:
        if not isinstance(value, fx.Node):
            self._number(value, below)
            return
        operation = value.meta["operation"]
        inside = root or is_part(value)
        if inside and operation == "mul" and len(value.args) == 2 and not value.kwargs:
            self.length += 1
            self._take(value.args[0], below)
            self._take(value.args[1], below)
        elif inside and operation == "div" and len(value.args) == 2 and not value.kwargs:
            self.length += 1
            self._take(value.args[0], below)
            self._take(value.args[1], not below)
        elif inside and operation == "neg":
            self.length += 1
            self._number(-1, False)
            self._take(value.args[0], below)
        elif inside and operation == "expand" and not below:
            self.length += 1
            self.stretched.append(value)
            self._take(value.args[0], below)
        elif inside and from_real(value):
            self.length += 1
            self._take(value.args[0], below)
        elif value.meta["phase"] == "backward" and operation == "ones_like":
            self.length += 1
            self.stretched.append(value)
        elif inside and operation == "full_like" and not below:
            self.length += 1
            self.stretched.append(value)
            self._take(value.args[1], below)
        else:
            (self.denominators if below else self.factors).append(value)

    def _number(self, value: Any, below: bool) -> None:
        if below:
            self.divisor *= value
        else:
            self.number *= value
        if isinstance(self.number, complex):
            self.number += 0.0  # -1j, and no -0-1j

    def rebuilt(self, rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
        """The product written anew, where that is shorter or in better order."""
        shape = tuple(node.meta["val"].shape)
        if node.meta["val"].dtype.is_complex and not self._is_complex():
            return None
        self._lead_with_dtype(rewriter, node.meta["val"])
        shapes = [tuple(t.meta["val"].shape) for t in self.tensors()]
        if broadcast(*shapes, ()) != shape:
            filled = next((s for s in self.stretched if tuple(s.meta["val"].shape) == shape), None)
            if filled is None:
                return None
            if not self.tensors():
                return self._constant(rewriter, filled)
            small = replace(self, stretched=[]).built(rewriter)
            if filled.meta["operation"] == "expand":
                return rewriter.call("expand", small, filled.args[1]) if small is not filled.args[0] else None
            size = rewriter.call(getattr, filled.args[0], "shape", operation="shape")
            return rewriter.call("expand", small, size)
        if not self.tensors():
            if not self.stretched or shape or self.length < 2:
                return None
            return self._constant(rewriter, self.stretched[0])
        self._reduce()
        return None if self._is_written(node) else self.built(rewriter)

    def _lead_with_dtype(self, rewriter: Rewriter, out: torch.Tensor) -> None:
        """Masks and counts come after a factor of the gradient's own dtype, or would be divided as integers.
        Where there is none, the first takes its dtype from what was ones."""
        if out.dtype.is_complex:
            return  # real factors do no harm
        typed = [t for t in self.tensors() if _dtype(t) == out.dtype]
        others = [f for f in self.factors if _dtype(f) not in (out.dtype, None)]
        deciding = [t for t in typed if t.meta["val"].ndim or not out.ndim]  # a scalar tensor does not promote
        leading = next((f for f in deciding if f in self.factors), None)
        like = typed[0] if typed else self.stretched[0].args[0] if self.stretched else None
        if not deciding and not others and like is not None:  # 1 / count is float32, whatever the gradient is
            wrong = [d for d in self.denominators if _dtype(d) not in (out.dtype, None)]
            self.denominators = [rewriter.call("type_as", d, like) if d in wrong else d for d in self.denominators]
        if not others or (deciding and leading is None):
            return
        if leading is None and like is not None:
            leading = rewriter.call("type_as", others[0], like)
            self.factors = [leading if f is others[0] else f for f in self.factors]
        if leading is not None and self.factors[0] is not leading:
            at = self.factors.index(leading)  # once: the same factor may stand here twice
            self.factors = [leading, *self.factors[:at], *self.factors[at + 1 :]]

    def _reduce(self) -> None:
        if isinstance(self.number, int) and isinstance(self.divisor, int) and self.divisor:
            common = math.gcd(self.number, self.divisor)
            self.number, self.divisor = self.number // common, self.divisor // common
            if self.divisor < 0:
                self.number, self.divisor = -self.number, -self.divisor

    def _constant(self, rewriter: Rewriter, filled: fx.Node) -> fx.Node | None:
        """A tensor of one number: `torch.full_like(x, 1 / x.numel())`."""
        like = shaped_like(filled) if filled.meta["operation"] == "expand" else filled.args[0]
        if not isinstance(like, fx.Node) or any(_is_zero(below) for below in (self.divisor, *self.denominators)):
            return None  # one by nothing is infinite for a tensor, and an error for a number
        if isinstance(self.number, complex):
            real = replace(self, number=1)._constant(rewriter, filled) if self.length > 2 else None
            return rewriter.call(operator.mul, self.number, real) if real is not None else None
        value: Any = self.number
        for factor in self.factors:
            value = factor if value == 1 else rewriter.call(operator.mul, value, factor)
        for below in (self.divisor, *self.denominators):
            if below != 1:
                value = rewriter.call(operator.truediv, value, below)
        if value == 1:
            return rewriter.call(torch.ones_like, like)
        return rewriter.call(torch.full_like, like, value)

    def _is_complex(self) -> bool:
        dtypes = [_dtype(t) for t in self.tensors()]
        return isinstance(self.number, complex) or any(d is not None and d.is_complex for d in dtypes)

    def _is_written(self, node: fx.Node) -> bool:
        """Whether `node` already is what `built` would give."""
        return not self.stretched and _tree(node, root=True) == self._form(lambda name, *operands: (name, *operands))

    def _form(self, apply: Callable[..., Any]) -> Any:
        """number * a * b / divisor / c, put together by `apply(operation, *operands)`."""
        rest = list(self.factors)
        if not rest:
            value: Any = self.number
        elif self.number == 1:
            value = rest.pop(0)
        elif self.number == -1 and _dtype(rest[0]) != torch.bool:
            value = apply("neg", rest.pop(0))
        else:
            value = apply("mul", self.number, rest.pop(0))
        for factor in rest:
            value = apply("mul", value, factor)
        divisors = [*([self.divisor] if self.divisor != 1 else []), *self.denominators]
        for below in sorted(divisors, key=_is_zero):  # zero last: a number alone cannot be divided by it, a tensor can
            value = apply("div", value, below)
        return value

    def built(self, rewriter: Rewriter) -> fx.Node:
        """The nodes of the product: number * a * b / c."""
        self._reduce()
        targets = {"neg": operator.neg, "mul": operator.mul, "div": operator.truediv}
        built: fx.Node = self._form(lambda name, *operands: rewriter.call(targets[name], *operands))
        return built


def is_part(node: fx.Node) -> bool:
    """Whether `node` may be written inside another product: nobody else reads it, and it bears no name."""
    if isinstance(node.meta["val"], int | float):
        return True
    return node.meta["phase"] == "backward" and len(node.users) == 1 and "named" not in node.meta


def from_real(node: fx.Node) -> bool:
    """Whether `node` turns real numbers into complex ones."""
    if node.meta["phase"] != "backward" or node.meta["operation"] not in ("to", "type_as"):
        return False
    before, after = node.args[0].meta.get("val"), node.meta["val"]  # type: ignore[union-attr]
    return bool(after.dtype.is_complex and isinstance(before, torch.Tensor) and not before.dtype.is_complex)


def _is_zero(value: Any) -> bool:
    number = value.meta["val"] if isinstance(value, fx.Node) else value
    return isinstance(number, int | float) and number == 0


def _dtype(value: fx.Node) -> torch.dtype | None:
    tensor = value.meta.get("val")
    return tensor.dtype if isinstance(tensor, torch.Tensor) else None


def _tree(value: Any, root: bool = False) -> Any:
    """The products under `value` as nested tuples, opened as far as Product opens them."""
    if isinstance(value, fx.Node) and (root or is_part(value)):
        operation = value.meta["operation"]
        if operation in ("mul", "div") and len(value.args) == 2 and not value.kwargs:
            return (operation, _tree(value.args[0]), value.args[1])
        if operation == "neg":
            return (operation, _tree(value.args[0]))
    return value
