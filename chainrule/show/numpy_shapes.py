"""Shapes, joining, and arrays made from nothing, in the words of NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_words import OPERATIONS, Library, axes, helper, result, spelled
from chainrule.show.terms import Term, known, rank

_ALL = slice(None)


def flat(sizes: tuple[Any, ...]) -> Any:
    """Sizes given one by one or as one tuple, list or shape."""
    if len(sizes) == 1 and (isinstance(sizes[0], tuple | list) or isinstance(known(sizes[0]), torch.Size | tuple)):
        return tuple(sizes[0]) if isinstance(sizes[0], list) else sizes[0]
    return sizes


def at(axis: int, ndim: int, index: Any) -> Any:
    """The index that applies `index` along one axis.

    >>> at(1, 2, 0), at(-1, 3, 0)
    ((slice(None, None, None), 0), (Ellipsis, 0))
    """
    axis = axis % ndim if ndim else 0
    if axis == 0:
        return index
    return (_ALL, index) if axis == 1 else (..., index, *[_ALL] * (ndim - 1 - axis))


def _swapped(x: Any, a: Any, b: Any) -> Any:
    if rank(x) == 0 or a % rank(x) == b % rank(x):
        return x
    return x.T if rank(x) == 2 else x.swapaxes(a, b)


OPERATIONS |= {
    "T": lambda np, x: x.T,
    "t": lambda np, x: x.T if rank(x) == 2 else x,
    "mT": lambda np, x: _swapped(x, -2, -1),
    "transpose": lambda np, x, dim0, dim1: _swapped(x, dim0, dim1),
    "movedim": lambda np, x, source, destination: np.moveaxis(x, source, destination),
    "view": lambda np, x, *shape: _reshaped(np, x, flat(shape)),
    "reshape": lambda np, x, *shape: _reshaped(np, x, flat(shape)),
    "view_as": lambda np, x, y: x.reshape(y.shape),
    "reshape_as": lambda np, x, y: x.reshape(y.shape),
    "ravel": lambda np, x: x.reshape(-1),
    "detach": lambda np, x: x,
    "clone": lambda np, x: x,
    "contiguous": lambda np, x: x,
    "alias": lambda np, x: x,
    "expand_as": lambda np, x, y: np.broadcast_to(x, y.shape),
    "broadcast_to": lambda np, x, shape: np.broadcast_to(x, shape),
    "tile": lambda np, x, *reps: np.tile(x, flat(reps)),
    "repeat": lambda np, x, *reps: np.tile(x, flat(reps)),
    "tril": lambda np, x, diagonal=0: np.tril(x, **({"k": diagonal} if diagonal != 0 else {})),
    "triu": lambda np, x, diagonal=0: np.triu(x, **({"k": diagonal} if diagonal != 0 else {})),
    "rot90": lambda np, x, k=1, dims=(0, 1): np.rot90(x, **({"k": k} if k != 1 else {}), **_but(dims, (0, 1), "axes")),
    "einsum": lambda np, equation, *operands: (
        np.einsum(equation, *flat(operands)) if _same_ellipsis(equation) else NotImplemented
    ),
    "meshgrid": lambda np, *arrays, indexing="ij": np.meshgrid(*flat(arrays), indexing=indexing),
    "broadcast_tensors": lambda np, *arrays: np.broadcast_arrays(*flat(arrays)),
    "hstack": lambda np, arrays: np.hstack(arrays),
    "vstack": lambda np, arrays: np.vstack(arrays),
    "dstack": lambda np, arrays: np.dstack(arrays),
    "row_stack": lambda np, arrays: np.vstack(arrays),
    "atleast_2d": lambda np, x: np.atleast_2d(x),
    "atleast_3d": lambda np, x: np.atleast_3d(x),
    "hsplit": lambda np, x, parts: np.hsplit(x, parts),
    "vsplit": lambda np, x, parts: np.vsplit(x, parts),
    "dsplit": lambda np, x, parts: np.dsplit(x, parts),
    "column_stack": lambda np, arrays: np.column_stack(arrays),
    "type_as": lambda np, x, y: x.astype(y.dtype),
}  # fmt: skip


def _same_ellipsis(equation: Any) -> bool:
    """Whether axes under dots stay: torch sums those that the result does not mention."""
    given, arrow, made = str(equation).partition("->")
    return not arrow or ("..." in given) == ("..." in made)


def _but(value: Any, default: Any, name: str) -> dict[str, Any]:
    """A keyword, unless it says what the library takes anyway."""
    value = tuple(value) if isinstance(value, list) else value
    return {} if value == default else {name: value}


def _reshaped(np: Library, x: Any, shape: Any) -> Any:
    if isinstance(shape, torch.dtype):
        return NotImplemented
    return x.reshape(*shape) if isinstance(shape, tuple) and shape else x.reshape(shape)


@spelled("permute")
def permute(np: Library, x: Any, *dims: Any) -> Any:
    order = flat(dims)
    return x.T if rank(x) == 2 and [d % 2 for d in order] == [1, 0] else x.transpose(*order)


@spelled("flatten")
def flatten(np: Library, x: Any, start: int = 0, end: int = -1) -> Any:
    ndim = rank(x)
    start, end = start % max(ndim, 1), end % max(ndim, 1)
    if ndim == 0 or (start == 0 and end == ndim - 1):
        return x.reshape(-1)
    sizes = x.shape
    middle = -1 if result(np).numel() else math_product(sizes, start, end)
    return x.reshape(*(sizes[i] for i in range(start)), middle, *(sizes[i] for i in range(end + 1, ndim)))


def math_product(sizes: Any, start: int, end: int) -> Any:
    total = sizes[start]
    for i in range(start + 1, end + 1):
        total = total * sizes[i]
    return total


@spelled("unflatten")
def unflatten(np: Library, x: Any, dim: int, sizes: Any) -> Any:
    ndim = rank(x)
    before, after = range(dim % ndim), range(dim % ndim + 1, ndim)
    return x.reshape(*(x.shape[i] for i in before), *sizes, *(x.shape[i] for i in after))


@spelled("unsqueeze")
def unsqueeze(np: Library, x: Any, dim: int) -> Any:
    ndim = rank(x)
    axis = dim % (ndim + 1)
    if dim < 0 and axis > 1:
        return x[(..., None, *[_ALL] * (ndim - axis))]
    return x[(*[_ALL] * axis, None)] if axis else x[None]


@spelled("squeeze")
def squeeze(np: Library, x: Any, dim: Any = None) -> Any:
    if dim is None:
        return x.squeeze()
    shape = known(x).shape
    dims = [d for d in (dim if isinstance(dim, tuple | list) else [dim]) if shape and shape[d] == 1]
    return x.squeeze(axis=dims[0] if len(dims) == 1 else tuple(dims)) if dims else x


@spelled("expand")
def expand(np: Library, x: Any, *sizes: Any) -> Any:
    shape = flat(sizes)
    if isinstance(shape, Term):
        return np.broadcast_to(x, shape)
    lead = len(shape) - rank(x)
    kept = [x.shape[i - lead] if not isinstance(s, Term) and s == -1 else s for i, s in enumerate(shape)]
    return np.broadcast_to(x, tuple(kept))


@spelled("sum_to_size")
def sum_to_size(np: Library, x: Any, *sizes: Any) -> Any:
    have, want = known(x).shape, result(np).shape
    lead = len(have) - len(want)
    ones = tuple(i for i in range(len(want)) if want[i] == 1 != have[lead + i])
    if lead:
        x = x.sum(axis=0 if lead == 1 else tuple(range(lead)))
    return x.sum(axis=ones[0] if len(ones) == 1 else ones, keepdims=True) if ones else x


@spelled("flip")
def flip(np: Library, x: Any, *dims: Any) -> Any:
    return np.flip(x, axis=axes(flat(dims))) if rank(x) else x


@spelled("roll")
def roll(np: Library, x: Any, shifts: Any, dims: Any = None) -> Any:
    return np.roll(x, shifts) if dims is None or dims == () else np.roll(x, shifts, axis=dims)


@spelled("cat", "concat", "concatenate")
def cat(np: Library, arrays: Any, dim: int = 0) -> Any:
    ndim = result(np).ndim
    if isinstance(arrays, Term):
        return NotImplemented
    arrays = [a for a in arrays if rank(a) == ndim]  # torch lets empty vectors stand beside anything
    return np.concatenate(arrays, **({"axis": dim} if dim else {}))


@spelled("stack")
def stack(np: Library, arrays: Any, dim: int = 0) -> Any:
    return np.stack(arrays, **({"axis": dim} if dim else {}))


@spelled("chunk", "tensor_split")
def chunk(np: Library, x: Any, chunks: int, dim: int = 0) -> Any:
    if known(x).shape[dim] % chunks:
        starts = [result(np)[0].shape[dim] * k for k in range(1, len(result(np)))]
        return np.split(x, starts, **_but(dim, 0, "axis"))
    return np.split(x, chunks, **_but(dim, 0, "axis"))


@spelled("split", "split_with_sizes")
def split(np: Library, x: Any, sizes: Any, dim: int = 0) -> Any:
    if isinstance(sizes, tuple | list):
        ends = list(itertools.accumulate(sizes))[:-1]
        return np.split(x, ends, **_but(dim, 0, "axis"))
    count = len(result(np))
    return np.split(x, [times(k, sizes) for k in range(1, count)], **_but(dim, 0, "axis"))


def times(k: int, size: Any) -> Any:
    return size if k == 1 else k * size


@spelled("unbind")
def unbind(np: Library, x: Any, dim: int = 0) -> Any:
    return tuple(x[at(dim, rank(x), i)] for i in range(len(result(np)))) if dim % rank(x) else x


@spelled("diagonal")
def diagonal(np: Library, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return (
        x.diagonal(**_but(offset, 0, "offset"), **_but((dim1, dim2), (0, 1), "axes"))
        if (dim1, dim2) == (0, 1)
        else (x.diagonal(offset, dim1, dim2))
    )


@spelled("diagflat")
def diagflat(np: Library, x: Any, offset: int = 0) -> Any:
    return np.diagflat(x, **_but(offset, 0, "k")) if rank(x) else NotImplemented


@spelled("diag", "diag_embed")
def diag(np: Library, x: Any, offset: int = 0) -> Any:
    return np.diag(x, **_but(offset, 0, "k")) if rank(x) <= 2 and result(np).ndim <= 2 else NotImplemented


@spelled("repeat_interleave")
def repeat_interleave(np: Library, x: Any, repeats: Any, dim: Any = None) -> Any:
    return np.repeat(x, repeats, **({"axis": dim} if dim is not None else {}))


@spelled("constant_pad_nd")
def constant_pad(np: Library, x: Any, widths: Any, value: Any = None) -> Any:
    return pad(np, x, widths, "constant", value)


@spelled("pad")
def pad(np: Library, x: Any, widths: Any, mode: str = "constant", value: Any = None) -> Any:
    if isinstance(widths, Term):
        return NotImplemented
    ndim = rank(x)
    pairs = [(widths[2 * i], widths[2 * i + 1]) for i in range(len(widths) // 2)][::-1]
    pairs = [(0, 0)] * (ndim - len(pairs)) + pairs
    cut = [tuple(negative(w) for w in pair) for pair in pairs]
    if any(c for pair in cut for c in pair):
        index: list[Any] = [
            slice(positive(before) if b else None, less(x.shape[i], positive(after)) if a else None)
            for i, ((before, after), (b, a)) in enumerate(zip(pairs, cut, strict=True))
        ]
        last = max(i for i, gone in enumerate(cut) if any(gone)) + 1
        x = x[tuple(index[:last])] if last > 1 else x[index[0]]
    kept = [
        tuple(0 if c else w for w, c in zip(pair, gone, strict=True)) for pair, gone in zip(pairs, cut, strict=True)
    ]
    if all(not isinstance(w, Term) and w == 0 for pair in kept for w in pair):
        return x
    names = {"constant": None, "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    how: dict[str, Any] = {"mode": names[mode]} if mode != "constant" else {}
    return np.pad(x, tuple(kept), **how, **({"constant_values": value} if value else {}))


def positive(width: Any) -> Any:
    """Of a negative width the size that is cut off."""
    node = width._node if isinstance(width, Term) else None
    return width._by._terms(node.args[0]) if node is not None and node.meta["operation"] == "neg" else -width


def less(size: Any, cut: Any) -> Any:
    """Where what is left ends: x[:-2], and x[: x.shape[0] - n] for a number that may be zero."""
    return size - cut if isinstance(cut, Term) else -cut


def negative(width: Any) -> bool:
    return bool(known(width) < 0)


@spelled("channel_shuffle")
def channel_shuffle(np: Library, x: Any, groups: Any) -> Any:
    sizes = [x.shape[i] for i in range(rank(x))]
    parts = x.reshape(sizes[0], groups, sizes[1] // groups, *sizes[2:])
    return parts.swapaxes(1, 2).reshape(x.shape)


@spelled("pixel_shuffle")
def pixel_shuffle(np: Library, x: Any, r: int) -> Any:
    return helper(np, helpers.pixel_shuffle)(x, r) if rank(x) == 4 else NotImplemented


@spelled("pixel_unshuffle")
def pixel_unshuffle(np: Library, x: Any, r: int) -> Any:
    return helper(np, helpers.pixel_unshuffle)(x, r) if rank(x) == 4 else NotImplemented


@spelled("block_diag")
def block_diag(np: Library, *arrays: Any) -> Any:
    blocks = flat(arrays)
    return helper(np, helpers.block_diag)(*blocks) if all(rank(b) == 2 for b in blocks) else NotImplemented
