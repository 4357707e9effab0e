"""The floor of a step: a time that no way of computing it as a sequence of products goes below.

It is the longer of two times. *Products*: every matrix product, convolution and attention that the eager step
computes (forward, gradients of inputs, gradients of weights; the list is recorded, not written down), each in the
fastest way that is found here, summed: `torch.mm` with `out=`, oneDNN's linear, every layout of both operands. What
is between the products - biases, activations, losses, updates - counts as nothing. *Bytes*: each tensor of the
batch read once, each parameter read and written once, in the time that copying as many bytes takes.

The calls of the products are in the floor. Where a product takes less time than its call, a step that makes no
calls can be below it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule.bench.rounds import LEAST, Call, in_turn, quiet
from chainrule.bench.works import Setup

aten = torch.ops.aten
Ways = dict[str, Callable[[], object]]
MATRIX = {  # where the operands stand among the arguments
    aten.mm: (0, 1),
    aten.addmm: (1, 2),
    aten.bmm: (0, 1),
    aten.baddbmm: (1, 2),
    aten.mv: (0, 1),
    aten.addmv: (1, 2),
}
WHOLE = ("convolution", "_scaled_dot_product")  # operations that are timed as they are called


@dataclass(frozen=True)
class Product:
    """A product of the step and the shapes of its operands: (m, k) and (k, n), or a batch of them."""

    name: str
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Timed:
    """A product, how often the step computes it, the fastest way and its time."""

    product: Product
    count: int
    way: str
    seconds: float


@dataclass(frozen=True)
class Floor:
    """The floor of one work; `of` measures it."""

    products: list[Timed]
    bytes: int
    copying: float  # seconds

    @property
    def computing(self) -> float:
        """Seconds in products."""
        return sum(t.count * t.seconds for t in self.products)

    @property
    def seconds(self) -> float:
        return max(self.computing, self.copying)

    def as_json(self) -> dict[str, Any]:
        products = [
            {"name": t.product.name, "shapes": [list(s) for s in t.product.shapes], "count": t.count, "way": t.way}
            | {"seconds": t.seconds}
            for t in self.products
        ]
        whole = {"seconds": self.seconds, "computing": self.computing, "copying": self.copying, "bytes": self.bytes}
        return {**whole, "products": products}


def of(setup: Setup, rounds: int, least: float = LEAST) -> Floor:
    """Find the products of a step and time each."""
    found = Recorded()
    with found:
        torch.autograd.grad(setup.forward(*setup.batch), list(setup.params.values()))
    with torch.no_grad(), quiet():
        timed = [
            Timed(product, count, *_shortest(found.ways(product), rounds, least))
            for product, count in found.counts.items()
        ]
        moved = moved_bytes(setup)
        source = torch.ones(max(moved // 8, 1))
        target = torch.empty_like(source)
        copying = _shortest({"copy": lambda: target.copy_(source)}, rounds, least)[1]
    return Floor(timed, moved, copying)


def lower(one: Floor, two: Floor) -> Floor:
    """The lower of two measurements of one floor, product by product."""
    products = [min(pair, key=lambda timed: timed.seconds) for pair in zip(one.products, two.products)]
    return Floor(products, one.bytes, min(one.copying, two.copying))


def moved_bytes(setup: Setup) -> int:
    """The batch once, the parameters twice."""
    return sum(t.nbytes for t in setup.batch) + 2 * sum(p.nbytes for p in setup.params.values())


class Recorded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The products of what runs within, counted; one call of each whole operation is kept, to be repeated."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Product] = Counter()
        self.calls: dict[Product, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.overloadpacket in MATRIX:
            a, b = (args[i] for i in MATRIX[func.overloadpacket])
            kind = "batched product" if a.dim() == 3 else "product"
            self.counts[Product(kind, (tuple(a.shape), tuple(b.shape) if b.dim() > 1 else (*b.shape, 1)))] += 1
        elif any(part in name for part in WHOLE):
            product = Product(name, tuple(tuple(a.shape) for a in args if isinstance(a, torch.Tensor)))
            self.counts[product] += 1
            self.calls[product] = func, args, kwargs or {}
        return func(*args, **(kwargs or {}))

    def ways(self, product: Product) -> Ways:
        """The ways to compute it: of a whole operation, as it was called and with channels last."""
        if product not in self.calls:
            return ways(*product.shapes)
        func, args, kwargs = self.calls[product]
        found: Ways = {"as called": lambda: func(*args, **kwargs)}
        if "convolution" in product.name:
            last = [_channels_last(a) for a in args]
            found["channels last"] = lambda: func(*last, **kwargs)
        return found


def ways(a: tuple[int, ...], b: tuple[int, ...]) -> Ways:
    """The ways to multiply (m, k) by (k, n), or batches of them: each layout, by BLAS and by oneDNN."""
    found: Ways = {}
    for (how_left, left), (how_right, right) in itertools.product(_layouts(a), _layouts(b)):
        layouts = f"{how_left} by {how_right}"
        out = left.new_empty(*a[:-1], b[-1])
        multiply = torch.bmm if len(a) == 3 else torch.mm
        found[f"{multiply.__name__}, {layouts}"] = _into(multiply, left, right, out)
        if len(a) == 2:
            if b[1] == 1:
                found[f"mv, {layouts}"] = _into(torch.mv, left, right[:, 0], out[:, 0])
            if torch._C._has_mkldnn:
                found[f"oneDNN, {layouts}"] = _linear(left, right.T)
                found[f"oneDNN, {layouts}, the transpose"] = _linear(right.T, left)
    return found


def _into(function: Callable[..., Any], a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    return lambda: function(a, b, out=out)


def _linear(x: torch.Tensor, w: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


def _layouts(shape: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    yield "rows", torch.randn(shape)
    yield "columns", torch.randn(*shape[:-2], shape[-1], shape[-2]).mT


def _channels_last(value: Any) -> Any:
    images = isinstance(value, torch.Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if images else value


def _shortest(found: Ways, rounds: int, least: float) -> tuple[str, float]:
    """The way whose fastest sample is the fastest of all; the slow half is left out after one round."""
    calls = {way: Call(run) for way, run in found.items()}
    once = {way: min(taken) for way, taken in in_turn(calls, 1, least, pause=0.0).items()}
    hopeful = sorted(calls, key=once.__getitem__)[: max(4, len(calls) // 2)]
    samples = in_turn({way: calls[way] for way in hopeful}, rounds, least, pause=0.0)
    return min(((way, min(taken)) for way, taken in samples.items()), key=lambda pair: pair[1])
