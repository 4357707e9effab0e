"""Numbers as people would write them: 0.5 as 1/2, 64 as the batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, reduce
from itertools import chain, islice
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import Around

_ALIKE = 4  # sizes that are equal to a number here
_COMMON = (2, 0.5, 1, -1, -2, -0.5)  # numbers of many formulas; others, where a size is equal to them, are that size
_PLAIN = (2, 0.5, 3, 4, 0.25, 1, -1, -2, -0.5, 1.5, -3, 6)


_Size = tuple[Callable[[], fx.Node], fx.Node, Callable[[Any], int]]  # makes its node; of which value; what it is there


class Named(float):
    """A number of the person's that is written by its name."""

    def __new__(cls, value: float, name: str) -> Named:
        made = super().__new__(cls, value)
        made.name = name
        return made

    name: str

    def __repr__(self) -> str:
        return self.name


class Scales:
    """Finds sizes of the values in reach whose number explains a ratio."""

    def __init__(self, around: Around, resized: Mapping[fx.Node, Any] | None = None) -> None:
        """`resized` are the values for other sizes, which tell sizes from one another that are equal here."""
        self.sketches, self.reach, self.sizes, self.resized = around.sketches, list(around.reach), around.sizes, resized
        self.areas = around.areas
        self.constants = [c for c in around.constants if not isinstance(c, Named) and c not in _PLAIN]
        self.expressions = [c for c in around.constants if isinstance(c, Named)]  # `math.sqrt(d)`, as it stands there
        self.computed = [c for c in self.expressions if not repr(c).isidentifier()]
        names = sorted(around.numbers, key=lambda name: (not name.isidentifier(), len(name)))
        self.named = [Named(v, name) for name in names if abs(v := around.numbers[name]) not in (0, 1)]

    def numbers(self, wanted: float, values: Mapping[fx.Node, Any], instead: fx.Node | None = None) -> Iterator[Any]:
        """Literals and sizes that are equal to `wanted`; a size first where one stood there."""
        yield from (text for text in self.expressions if _equal(float(text), wanted))
        plain = next((p for p in _PLAIN if _equal(p, wanted)), None)
        if plain is not None and instead is None:
            yield plain
        yield from (n for n in [*self.named, *self.constants] if _equal(n, wanted))
        yield from self.sizes_of(wanted, values)  # no number in the place of a size: it would hold for this batch alone

    def scaled(self, node: fx.Node, ratio: float, values: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        """`node` times `ratio`, written with sizes where they explain it."""
        sketches = self.sketches
        yield from self._rooted(node, ratio, values)
        for text in self.expressions:
            if _equal(float(text), ratio):
                yield sketches.operation("mul", text, node)
            elif ratio and _equal(1 / float(text), ratio):
                yield sketches.operation("div", node, text)
        if any(_equal(float(text), r) for text in self.expressions for r in (ratio, 1 / ratio if ratio else ratio)):
            yield from self._plainly(node, ratio, _COMMON)
            return  # nothing says it better than the forward pass
        by_name = False
        for named in [*self.named, *self.constants]:
            number = float(named)
            by_name |= _equal(number, ratio) or bool(ratio and _equal(number, 1 / ratio))
            if _equal(number, ratio):
                yield sketches.operation("mul", named, node)
            elif ratio and _equal(number, 1 / ratio):
                yield sketches.operation("div", node, named)
            elif ratio and _equal(number, ratio**-2):
                yield sketches.operation("div", node, sketches.operation("pow", named, 0.5))
            elif _equal(2 * number, ratio):
                yield sketches.operation("mul", sketches.operation("mul", 2, named), node)
            elif _equal(1 / (1 - number), ratio):
                yield sketches.operation("div", node, sketches.operation("sub", 1, named))
        yield from self._two(node, ratio, values)
        yield from self._areas(node, ratio, values)
        explained = by_name
        for size in islice(self.sizes_of(1 / ratio if ratio else math.inf, values), _ALIKE):  # made one at a time
            explained = True
            yield sketches.operation("div", node, size)
        for size in islice(self.sizes_of(ratio, values), _ALIKE):
            explained = True
            yield sketches.operation("mul", node, size)
        told = self.resized is not None or not explained
        yield from self._plainly(node, ratio, _PLAIN if told and not by_name else _COMMON)
        for size in self.sizes_of(1 / ratio**2 if ratio else math.inf, values):
            yield sketches.operation("div", node, sketches.operation("pow", size, 0.5))
        for size in self.sizes_of(ratio**2, values):
            yield sketches.operation("mul", node, sketches.operation("pow", size, 0.5))
        for size in self.sizes_of(1 / (1 - ratio) if abs(1 - ratio) > 1e-9 else math.inf, values):  # (n - 1) / n
            yield sketches.operation("div", sketches.operation("mul", node, sketches.operation("sub", size, 1)), size)
        for twice in (2, 0.5):
            for size in self.sizes_of(twice / ratio if ratio else math.inf, values):
                yield sketches.operation("div", sketches.operation("mul", twice, node), size)

    def stands_in_the_forward_pass(self, ratio: float) -> bool:
        """Whether it multiplies or divides by this number, computed of names: `math.sqrt(d)`."""
        return any(_equal(float(text), r) for text in self.computed for r in (ratio, 1 / ratio if ratio else ratio))

    def _plainly(self, node: fx.Node, ratio: float, numbers: Iterable[float]) -> Iterator[fx.Node]:
        """`2 * x`, `x / 2`."""
        for plain in (p for p in numbers if _equal(p, ratio)):
            half = plain == 0.5
            yield self.sketches.operation("div", node, 2) if half else self.sketches.operation("mul", plain, node)

    def _two(self, node: fx.Node, ratio: float, values: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        """`lam * w / m`: a number that has a name, and a size."""
        sketches = self.sketches
        for named in (n for n in self.named if not float(n).is_integer()):
            for times in (1, 2, 0.5):
                wanted = times * float(named) / ratio if ratio else math.inf
                whole = (n for n in self.named if float(n).is_integer() and _equal(float(n), wanted))
                for size in chain(whole, islice(self.sizes_of(wanted, values), 2)):
                    product = sketches.operation("mul", named, node)
                    product = product if times == 1 else sketches.operation("mul", times, product)
                    yield sketches.operation("div", product, size)

    def _areas(self, node: fx.Node, ratio: float, values: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        """`x / (h * w)`: as many as an average of the forward pass is over."""
        for sizes in self.areas:
            numbers = [values.get(size, 0) for size in sizes]
            for operation, wanted in (("mul", ratio), ("div", 1 / ratio if ratio else math.inf)):
                if _equal(math.prod(numbers), wanted):
                    named = [next((n for n in self.named if n == number), None) for number in numbers]
                    for area in (named, sizes) if None not in named else (sizes,):
                        product = reduce(partial(self.sketches.operation, "mul"), area)
                        yield self.sketches.operation(operation, node, product)

    def _rooted(self, node: fx.Node, ratio: float, values: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        """`x / d` with the root of what it is divided by: a scale of 1/sqrt(d)."""
        if node.meta["operation"] in ("div", "mul") and len(node.args) == 2:
            known = values.get(node.args[1]) if isinstance(node.args[1], fx.Node) else node.args[1]
            wanted = ratio**2 if node.meta["operation"] == "div" else 1 / ratio**2 if ratio else math.inf
            if isinstance(known, int | float) and known > 1 and ratio > 0 and _equal(float(known), wanted):
                root = self.sketches.operation("pow", node.args[1], 0.5)
                yield self.sketches.operation(node.meta["operation"], node.args[0], root)

    def sizes_of(self, wanted: float, values: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        """Sizes equal to `wanted`; of those that are tied to one another, the first."""
        seen: set[Any] = set()
        for made, of, size in self._equal_sizes(wanted, values):
            then = size(self.resized[of]) if self.resized is not None and of in self.resized else None
            if then is None or then not in seen:
                seen.add(then)
                yield made()

    def _equal_sizes(self, wanted: float, values: Mapping[fx.Node, Any]) -> Iterator[_Size]:
        """An axis first, then the number of elements."""
        if not math.isfinite(wanted) or wanted < 1.5 or not _equal(wanted, round(wanted)):
            return
        number, sketches = round(wanted), self.sketches
        for node in self.reach:
            value = values.get(node)
            for axis, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
                if size == number:
                    yield partial(sketches.size, node, axis), node, partial(_length, axis=axis)
        for node in self.sizes:
            if values.get(node) == number:
                yield partial(_itself, node), node, int
        for node in self.reach:
            value = values.get(node)
            if isinstance(value, torch.Tensor) and value.ndim > 1 and value.numel() == number:
                yield partial(sketches.method, "numel", node), node, torch.numel

    def said(
        self, ratio: float, values: Mapping[fx.Node, Any], names: Mapping[fx.Node, str], then: float | None = None
    ) -> str:
        """What a ratio equals here: `1/6 = 1/x.shape[0]`, and for other sizes, where it is known what it is `then`."""
        for text in self.expressions:
            if any(_equal(float(text), r) for r in (ratio, 1 / ratio if ratio else ratio)):
                return str(text) if _equal(float(text), ratio) else f"1/({text!r})"
        areas = [math.prod(values.get(size, 0) for size in sizes) for sizes in self.areas]
        if any(_equal(area, r) for area in areas for r in (ratio, 1 / ratio if ratio else math.inf)):
            return ""  # equal to one size by chance
        for form, turned in (("{}", 1), ("1/{}", -1), ("sqrt({})", 2), ("1/sqrt({})", -2)):
            if "sqrt" in form and any(_equal(abs(ratio), plain) for plain in _PLAIN):
                continue  # 0.5 is a half before it is 1/sqrt(4)
            for _, of, size in self._equal_sizes(ratio**turned if ratio else 0, values):
                name, held = names.get(of), self.resized.get(of) if self.resized is not None and then else None
                if name and (held is None or not then or _equal(size(held), then**turned)):
                    return form.format(_text_of(name, size))
        return ""


def _text_of(name: str, size: Callable[[Any], int]) -> str:
    if isinstance(size, partial):
        return f"{name}.shape[{size.keywords['axis']}]"
    return f"{name}.numel()" if size is torch.numel else name


def _length(value: torch.Tensor, axis: int) -> int:
    return int(value.shape[axis])


def _itself(node: fx.Node) -> fx.Node:
    return node


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b))
