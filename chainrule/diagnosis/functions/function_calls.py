"""Calls a torch.autograd.Function on fresh copies of its arguments, laid out in memory as one likes."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

Gradients = dict[int, Tensor | None]  # by the position of the argument
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


class Refused(Exception):
    """The forward itself raises: this circumstance is none of the backward's."""


class Failed(Exception):
    """The backward raises; `reason` is what."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        super().__init__(f"{type(reason).__name__}: {str(reason).splitlines()[0] if str(reason) else ''}".rstrip(": "))


@dataclass
class Watch:
    """What was seen inside the latest backward."""

    returned: tuple[Any, ...] = ()
    saved: tuple[Tensor, ...] = ()
    upstream_changed: bool = False
    saved_changed: bool = False


@dataclass
class Forward:
    """One forward pass: its inputs as they were given, their leaves, the outputs that have a gradient."""

    leaves: dict[int, Tensor]
    inputs: list[Any]
    outputs: list[Tensor]
    every: tuple[Any, ...] = field(default_factory=tuple)


class Laid(torch.autograd.Function):
    """A copy in other memory: a tensor of its own and no view, so that it may be marked dirty."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, layout: str) -> Tensor:
        ctx.set_materialize_grads(False)  # None stays None
        return laid(value, layout)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        return upstream[0], None


def laid(value: Tensor, layout: str) -> Tensor:
    """A copy of `value` whose memory is contiguous, transposed, a strided slice of more, or expanded along an axis.

    >>> laid(torch.ones(2, 3), "transposed").stride(), laid(torch.ones(2, 3), "sliced").stride()
    ((1, 2), (6, 2))
    >>> laid(torch.ones(2, 3), "expanded 0").stride()
    (0, 1)
    """
    copy = value.detach().clone(memory_format=torch.contiguous_format)
    if layout == "transposed" and value.ndim > 1:
        return copy.mT.contiguous().mT.detach()
    if layout == "sliced":
        return torch.empty_strided(
            copy.shape, [2 * s for s in copy.stride()], dtype=copy.dtype, device=copy.device
        ).copy_(copy)
    if layout.startswith("expanded"):
        return copy.narrow(int(layout.split()[1]), 0, 1).clone().expand_as(copy).detach()
    return copy


def layouts_of(value: Tensor) -> Iterator[tuple[str, str]]:
    """The ways to lay a tensor out that are not contiguous, in code and in words."""
    if value.ndim > 1 and min(value.shape[-2:]) > 1:
        yield "transposed", "with transposed memory"
    if value.numel() > 1:
        yield "sliced", "that is a strided slice"
    axes = [axis for axis, size in enumerate(value.shape) if size > 1]
    for axis in dict.fromkeys([*axes[:1], *axes[-1:]]):
        yield f"expanded {axis}", f"that is expanded along axis {axis}"


class Calls:
    """Runs one Function on copies of the same arguments; random numbers are the same in every run."""

    def __init__(self, function: Any, args: Sequence[Any]) -> None:
        self.function, self.name = function, function.__name__
        self.values = [laid(a, "contiguous") if isinstance(a, Tensor) else a for a in args]
        self.tensors = [i for i, a in enumerate(self.values) if isinstance(a, Tensor)]
        self.floating = [i for i in self.tensors if self.values[i].dtype in _DTYPES]
        self.wanted = self.floating
        self.watch = Watch()
        self._watched = _watched(function, self.watch)
        cuda = {self.values[i].device.index for i in self.tensors if self.values[i].is_cuda}
        self._devices = sorted(cuda)

    def with_dtype(self, doubled: bool) -> list[Any]:
        """The arguments, their floating tensors in double precision if so asked."""
        if not doubled:
            return list(self.values)
        wide = {i: self.values[i].to(_wide(self.values[i].dtype)) for i in self.floating}
        return [wide.get(i, a) for i, a in enumerate(self.values)]

    def forward(
        self,
        values: Sequence[Any] | None = None,
        wanted: Sequence[int] | None = None,
        layouts: dict[int, str] | None = None,
    ) -> Forward:
        """Apply the Function with `wanted` requiring gradients. Raises Refused where the forward raises."""
        values = self.values if values is None else values
        wanted, layouts = self.wanted if wanted is None else wanted, layouts or {}
        leaves, inputs = {}, []
        for i, value in enumerate(values):
            if i in wanted:
                leaves[i] = laid(value, "contiguous").requires_grad_()
                value = Laid.apply(leaves[i], layouts.get(i, "contiguous"))  # type: ignore[no-untyped-call]
            elif isinstance(value, Tensor):
                value = laid(value, layouts.get(i, "contiguous"))
            else:
                value = tree_map_only(Tensor, lambda t: t.detach().clone(), value)
            inputs.append(value)
        with self.quietly(), torch.enable_grad():
            try:
                found = self._watched.apply(*inputs)
            except Exception as error:
                raise Refused(str(error)) from error
        every = found if isinstance(found, tuple) else (found,)
        outputs = [
            t for t in every if isinstance(t, Tensor) and (t.requires_grad or (not wanted and t.dtype in _DTYPES))
        ]
        return Forward(leaves, inputs, outputs, every)

    def upstreams(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Random gradients of the outputs, the same for the same shapes."""
        return [random_like(t, 17 + k) for k, t in enumerate(outputs)]

    def backward(self, forward: Forward, upstreams: Sequence[Tensor], only: int | None = None, **how: Any) -> Gradients:
        """The gradients; `only` gives an upstream to one output alone. Raises Failed where the backward raises."""
        outputs = forward.outputs if only is None else [forward.outputs[only]]
        upstreams = upstreams if only is None else [upstreams[only]]
        if not outputs or not forward.leaves:
            return dict.fromkeys(forward.leaves)
        with self.quietly():
            try:
                found = torch.autograd.grad(outputs, list(forward.leaves.values()), upstreams, allow_unused=True, **how)
            except Exception as error:
                raise Failed(error) from error
        return dict(zip(forward.leaves, found, strict=True))

    def gradients(
        self,
        values: Sequence[Any] | None = None,
        wanted: Sequence[int] | None = None,
        layouts: dict[int, str] | None = None,
    ) -> tuple[Forward, Gradients]:
        """A forward and a backward pass with random upstreams."""
        forward = self.forward(values, wanted, layouts)
        return forward, self.backward(forward, self.upstreams(forward.outputs))

    @contextlib.contextmanager
    def quietly(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            with contextlib.redirect_stdout(io.StringIO()):
                yield


def random_like(value: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if value.is_complex() else torch.float64
    return torch.randn(value.shape, generator=generator, dtype=dtype).to(value.dtype).to(value.device)


def parameter_names(function: Any, count: int) -> list[str]:
    """The names of the forward's `count` arguments, without ctx."""
    names = [p.name for p in inspect.signature(function.forward).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    own_context = function.setup_context is torch.autograd.Function.setup_context
    names = names[1:] if own_context else names
    return [names[i] if i < len(names) else f"argument {i}" for i in range(count)]


def backward_of(function: Any) -> Any:
    """The Function's `backward`, or `vjp` where it is called that."""
    return function.vjp if function.vjp is not torch.autograd.Function.vjp else function.backward


def is_once_differentiable(function: Any) -> bool:
    """Whether the backward is marked with @once_differentiable, under whatever other decorators."""
    marked, found = once_differentiable(_nothing).__code__, backward_of(function)
    while found is not None:
        if getattr(found, "__code__", None) is marked:
            return True
        found = getattr(found, "__wrapped__", None)
    return False


def _nothing(ctx: Any) -> None:
    pass


def slope(f: Callable[[float], float], size: float, accuracy: float) -> float | None:
    """f'(0) by a five-point difference; None where two steps tell different slopes (a kink, or low precision).

    >>> round(slope(lambda t: (1 + t) ** 3, 3.0, 1e-8), 6)
    3.0
    >>> slope(lambda t: abs(t - 1e-4), 1.0, 1e-8) is None
    True
    """

    def difference(h: float) -> float:
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    try:
        wide, narrow = difference(1e-3), difference(5e-4)
    except (Refused, Failed):
        return None
    return narrow if abs(wide - narrow) <= accuracy * size else None  # NaN is None, too


def directions(value: Tensor, seed: int, dense: int, sparse: int) -> Iterator[Tensor]:
    """Directions in which zeros stay zeros, signs stay signs, and symmetric matrices symmetric."""
    size = value.abs() if bool(value.any()) else torch.ones_like(value)
    symmetric = value.ndim > 1 and value.shape[-1] == value.shape[-2] and torch.equal(value, value.mT)
    for k in range(dense):
        v = random_like(value, seed + k) * size
        yield (v + v.mT) / 2 if symmetric else v
    if symmetric:
        return
    places = size.flatten().nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    for place in places[torch.randperm(len(places), generator=generator)[:sparse].to(places.device)].tolist():
        v = torch.zeros_like(value).flatten()
        v[place] = size.flatten()[place]
        yield v.reshape(value.shape)


def _watched(function: Any, watch: Watch) -> Any:
    """The Function with a backward that notes what goes through it."""
    name = "vjp" if function.vjp is not torch.autograd.Function.vjp else "backward"
    original = getattr(function, name)

    def backward(ctx: Any, *upstream: Any) -> Any:
        try:
            saved = tuple(t for t in ctx.saved_tensors if isinstance(t, Tensor))
        except RuntimeError:  # overwritten since; whether the Function reads them is its own affair
            saved = ()
        given = tuple(u for u in upstream if isinstance(u, Tensor))
        before = [t.detach().clone() for t in (*given, *saved)]
        found = original(ctx, *upstream)
        same = [equal(old, now) for old, now in zip(before, (*given, *saved), strict=True)]
        watch.returned = found if isinstance(found, tuple) else (found,)
        watch.saved = saved
        watch.upstream_changed = not all(same[: len(given)])
        watch.saved_changed = not all(same[len(given) :])
        return found

    return type(function)(function.__name__, (function,), {name: staticmethod(backward)})


def equal(a: Tensor, b: Tensor) -> bool:
    """The same elements; NaN is the same as NaN."""
    a, b = a.detach(), b.detach()
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64
