"""NumPy's functions that make arrays, and that arrange, join and pick their elements, on torch tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from chainrule.arrays.array import FUNCTIONS, Array, operand, plain_values, unfollowed
from chainrule.arrays.calls import followed, same_dtype, tensor
from chainrule.arrays.dtypes import torch_dtype

_unwritten = ContextVar("unwritten", default=0)


@contextmanager
def unwritten(value: int) -> Iterator[None]:
    """What np.empty holds meanwhile: code that is right never reads it."""
    token = _unwritten.set(value)
    try:
        yield
    finally:
        _unwritten.reset(token)


def _empty(size: Any, dtype: Any) -> torch.Tensor:
    value = _unwritten.get()
    return torch.full(size, value, dtype=dtype) if value else torch.zeros(size, dtype=dtype)


def _empty_like(a: torch.Tensor, dtype: Any = None) -> torch.Tensor:
    value = _unwritten.get()
    return torch.full_like(a, value, dtype=dtype) if value else torch.zeros_like(a, dtype=dtype)


def _made() -> None:
    makers = (
        ("zeros", torch.zeros, torch.zeros_like),
        ("ones", torch.ones, torch.ones_like),
        ("empty", _empty, _empty_like),
    )
    for name, make, like in makers:

        def filled(shape: Any, dtype: Any = float, order: str = "C", *, make: Any = make) -> Any:
            return make(_size(shape), dtype=torch_dtype(dtype or float))

        followed(name)(filled)

        def filled_like(a: Any, dtype: Any = None, order: str = "K", *, like: Any = like) -> Any:
            return like(tensor(a)) if dtype is None else like(tensor(a), dtype=torch_dtype(dtype))

        followed(f"{name}_like")(filled_like)

    @followed("full")
    def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
        wanted = tensor(fill_value).dtype if dtype is None else torch_dtype(dtype)
        if isinstance(fill_value, torch.Tensor):
            return fill_value.to(wanted).expand(_size(shape)).clone()
        return torch.full(_size(shape), fill_value, dtype=wanted)

    @followed("full_like")
    def full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
        wanted = tensor(a).dtype if dtype is None else torch_dtype(dtype)
        if isinstance(fill_value, torch.Tensor):
            return fill_value.to(wanted).expand(a.shape).clone()
        return torch.full_like(tensor(a), fill_value, dtype=wanted)

    @followed("array")
    def array(object: Any, dtype: Any = None, *, copy: bool = True, ndmin: int = 0) -> Any:
        made = tensor(object, dtype)
        made = made.clone() if made is object and copy else made
        return made[(None,) * (ndmin - made.ndim)] if ndmin > made.ndim else made

    followed("asarray", "ascontiguousarray")(lambda a, dtype=None: tensor(a, dtype))
    followed("copy")(lambda a: tensor(a).clone())
    followed("identity")(lambda n, dtype=float: torch.eye(n, dtype=torch_dtype(dtype)))

    @followed("eye")
    def eye(N: Any, M: Any = None, k: int = 0, dtype: Any = float) -> Any:
        square = torch.eye(_size(N), *(() if M is None else (_size(M),)), dtype=torch_dtype(dtype))
        return square if k == 0 else torch.roll(square, k, 1).triu(k) if k > 0 else torch.roll(square, k, 1).tril(k)

    @followed("arange")
    def arange(*bounds: Any, dtype: Any = None) -> Any:
        bounds = tuple(_size(b) for b in bounds)
        if dtype is None and not any(isinstance(b, float) for b in bounds):
            return torch.arange(*bounds)
        return torch.arange(*bounds, dtype=torch_dtype(dtype or float))

    @followed("tril")
    def tril(m: Any, k: int = 0) -> Any:
        return tensor(m).tril(k)

    @followed("triu")
    def triu(m: Any, k: int = 0) -> Any:
        return tensor(m).triu(k)

    followed("diag")(lambda v, k=0: torch.diag(tensor(v), k))
    followed("diagflat")(lambda v, k=0: torch.diagflat(tensor(v), k))
    followed("diagonal")(lambda a, offset=0, axis1=0, axis2=1: tensor(a).diagonal(offset, axis1, axis2))
    for name in ("isclose", "allclose", "array_equal", "array_equiv"):
        FUNCTIONS[name] = lambda *a, name=name, **k: getattr(np, name)(*plain_values(a), **k)  # asked, not computed
    FUNCTIONS["shape"] = lambda a: a.shape if isinstance(a, Array) else np.shape(a)
    FUNCTIONS["ndim"] = lambda a: a.ndim if isinstance(a, Array) else np.ndim(a)
    FUNCTIONS["size"] = lambda a, axis=None: a.size if axis is None else a.shape[axis]

    def copyto(dst: Array, src: Any) -> None:
        dst.tensor.copy_(tensor(operand(src)))

    FUNCTIONS["copyto"] = copyto


def _size(shape: Any) -> Any:
    """A shape or size argument; sizes that are tensors become numbers."""
    if isinstance(shape, torch.Tensor):
        return tuple(shape.tolist()) if shape.ndim else int(shape)
    return tuple(int(n) if isinstance(n, torch.Tensor) else n for n in shape) if type(shape) in (tuple, list) else shape


def _arranged() -> None:
    @followed("reshape")
    def reshape(a: Any, shape: Any = None, *, newshape: Any = None, order: str = "C") -> Any:
        if order not in ("C", "A"):
            raise unfollowed(f"reshape with order={order!r}")
        size = _size(newshape if shape is None else shape)
        return tensor(a).reshape(*size) if isinstance(size, tuple) and size else tensor(a).reshape(size)

    @followed("transpose", "permute_dims")
    def transpose(a: Any, axes: Any = None) -> Any:
        t = tensor(a)
        if t.ndim < 2:
            return t
        if axes is None:
            return t.T if t.ndim == 2 else t.permute(*range(t.ndim)[::-1])
        return t.permute(*axes)

    @followed("squeeze")
    def squeeze(a: Any, axis: Any = None) -> Any:
        return tensor(a).squeeze() if axis is None else tensor(a).squeeze(axis)

    @followed("expand_dims")
    def expand_dims(a: Any, axis: Any) -> Any:
        t = tensor(a)
        axes = (axis,) if isinstance(axis, int) else axis
        for k in sorted(k % (t.ndim + len(axes)) for k in axes):
            t = t.unsqueeze(k)
        return t

    @followed("atleast_2d")
    def atleast_2d(a: Any) -> Any:
        t = tensor(a)
        return t if t.ndim > 1 else t.reshape(1, -1)

    followed("ravel")(lambda a, order="C": tensor(a).reshape(-1))
    followed("swapaxes")(lambda a, axis1, axis2: tensor(a).transpose(axis1, axis2))
    followed("moveaxis")(lambda a, source, destination: tensor(a).movedim(source, destination))
    followed("broadcast_to")(lambda array, shape: tensor(array).expand(_size(shape)))
    followed("tile")(lambda A, reps: tensor(A).tile(reps if isinstance(reps, tuple | list) else (reps,)))

    @followed("repeat")
    def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
        t = tensor(a).reshape(-1) if axis is None else tensor(a)
        return t.repeat_interleave(tensor(repeats) if isinstance(repeats, list) else repeats, dim=axis or 0)

    @followed("flip")
    def flip(m: Any, axis: Any = None) -> Any:
        t = tensor(m)
        return t.flip(tuple(range(t.ndim)) if axis is None else axis)

    followed("fliplr")(lambda m: tensor(m).flip(1))
    followed("flipud")(lambda m: tensor(m).flip(0))
    followed("rot90")(lambda m, k=1, axes=(0, 1): torch.rot90(tensor(m), k, axes))
    followed("roll")(
        lambda a, shift, axis=None: torch.roll(tensor(a), shift) if axis is None else torch.roll(tensor(a), shift, axis)
    )

    @followed("pad")
    def pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
        t = tensor(array)
        if mode != "constant" or not isinstance(constant_values, int | float):
            raise unfollowed(f"np.pad with mode={mode!r}" if mode != "constant" else "np.pad with several constants")
        if isinstance(pad_width, torch.Tensor):
            pad_width = pad_width.tolist()
        each = [pad_width] if isinstance(pad_width, int) else list(pad_width)
        if len(each) == 2 and all(isinstance(n, int) for n in each):
            each = [tuple(each)]
        pairs = [(n, n) if isinstance(n, int) else (n[0], n[-1]) for n in each]
        pairs = pairs * t.ndim if len(pairs) == 1 else pairs
        while len(pairs) > 1 and not any(pairs[0]):
            pairs = pairs[1:]
        return F.pad(t, tuple(n for sides in reversed(pairs) for n in sides), value=constant_values)


def _joined() -> None:
    @followed("concatenate", "concat")
    def concatenate(arrays: Any, axis: Any = 0) -> Any:
        parts = same_dtype(*map(tensor, arrays))
        return torch.cat([p.reshape(-1) for p in parts]) if axis is None else torch.cat(parts, axis)

    @followed("stack")
    def stack(arrays: Any, axis: int = 0) -> Any:
        return torch.stack(same_dtype(*map(tensor, arrays)), axis)

    @followed("hstack")
    def hstack(tup: Any) -> Any:
        parts = [t if t.ndim else t.reshape(1) for t in map(tensor, tup)]
        return torch.cat(same_dtype(*parts), 0 if parts[0].ndim == 1 else 1)

    @followed("vstack", "row_stack")
    def vstack(tup: Any) -> Any:
        return torch.cat(same_dtype(*(t if t.ndim > 1 else t.reshape(1, -1) for t in map(tensor, tup))), 0)

    @followed("column_stack")
    def column_stack(tup: Any) -> Any:
        return torch.cat(same_dtype(*(t if t.ndim > 1 else t.reshape(-1, 1) for t in map(tensor, tup))), 1)

    @followed("dstack")
    def dstack(tup: Any) -> Any:
        return torch.dstack(same_dtype(*map(tensor, tup)))

    @followed("split")
    def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
        size = ary.shape[axis]
        if isinstance(indices_or_sections, int):
            if size % indices_or_sections:
                raise ValueError("array split does not result in an equal division")
            return list(torch.split(ary, size // indices_or_sections, axis))
        ends = [min(int(i), size) for i in indices_or_sections]
        return list(torch.split(ary, [e - s for s, e in zip([0, *ends], [*ends, size], strict=True)], axis))

    followed("array_split")(lambda ary, n, axis=0: list(torch.tensor_split(ary, n, axis)))
    followed("hsplit")(lambda ary, n: split(ary, n, 0 if ary.ndim == 1 else 1))
    followed("vsplit")(lambda ary, n: split(ary, n, 0))


def _picked() -> None:
    @followed("take")
    def take(a: Any, indices: Any, axis: Any = None) -> Any:
        t, at = tensor(a), tensor(indices)
        t, axis = (t.reshape(-1), 0) if axis is None else (t, axis % t.ndim)
        index: Any = (*([slice(None)] * axis), at)
        return t[index]

    @followed("take_along_axis")
    def take_along_axis(arr: Any, indices: Any, axis: int = -1) -> Any:
        return torch.take_along_dim(arr, indices, axis)

    def put_along_axis(arr: Array, indices: Any, values: Any, axis: int) -> None:
        at, value = operand(indices), operand(values)
        if isinstance(value, torch.Tensor):
            value = value.to(arr.tensor.dtype).expand(at.shape)
        arr.tensor.scatter_(axis, at, value)

    FUNCTIONS["put_along_axis"] = put_along_axis
    followed("nonzero")(lambda a: torch.nonzero(tensor(a), as_tuple=True))
    followed("flatnonzero")(lambda a: torch.nonzero(tensor(a).reshape(-1), as_tuple=True)[0])
    followed("argwhere")(lambda a: torch.nonzero(tensor(a)))
    followed("sort")(lambda a, axis=-1, kind=None: tensor(a).sort(axis).values)
    followed("argsort")(lambda a, axis=-1, kind=None: torch.argsort(tensor(a), dim=axis, stable=True))
    followed("unravel_index")(lambda indices, shape: torch.unravel_index(tensor(indices), _size(shape)))
    followed("bincount")(lambda x, weights=None, minlength=0: torch.bincount(tensor(x), weights, minlength=minlength))


_made()
_arranged()
_joined()
_picked()
