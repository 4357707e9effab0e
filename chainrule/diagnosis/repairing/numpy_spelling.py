"""The operations of a backward pass as NumPy code: the form that each torch operation has there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from chainrule.show.python import ATOM, POWER, PRODUCT, SUM, UNARY, Python, Spelled

Form = Callable[[Python, str, tuple[Any, ...], dict[str, Any]], Spelled]


def in_numpy(python: Python, node: fx.Node, np_name: str) -> Spelled | None:
    """What a call of torch is in NumPy; None where it has no form here."""
    if node.target is getattr:
        return f"{python.text(node.args[0], ATOM)}.swapaxes(-1, -2)", ATOM
    form = _FORMS.get(node.meta["operation"])
    return form(python, np_name, node.args, node.kwargs) if form is not None else None


def is_torch_call(node: fx.Node) -> bool:
    """Whether the node calls, or reads, what NumPy spells otherwise: everything but operators, `.T` and `.shape`."""
    if node.target is getattr:
        return node.args[1] in ("mT", "H", "mH")
    return node.op == "call_method" or (node.op == "call_function" and not _is_operator(node))


def name_in(space: dict[str, Any]) -> str:
    """The name that NumPy has in a module."""
    return next((name for name, held in space.items() if held is np), "np")


def _is_operator(node: fx.Node) -> bool:
    return getattr(node.target, "__module__", "") == "_operator"


def _call(name: str) -> Form:
    """`np.exp(x)`"""
    return lambda p, m, args, kwargs: (f"{m}.{name}({', '.join(p.text(a) for a in args)})", ATOM)


def _along(name: str, keeps: bool = True, function: bool = False) -> Form:
    """`x.sum(axis=0, keepdims=True)`"""

    def form(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
        axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
        kept = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        axis = tuple(axis) if isinstance(axis, list) else axis
        words = [f"axis={p.text(axis)}"] if axis is not None else []
        words += ["keepdims=True"] if kept and keeps else []
        words += [f"ddof={p.text(kwargs['correction'])}"] if kwargs.get("correction") else []
        if function:
            return f"{m}.{name}({', '.join([p.text(args[0]), *words])})", ATOM
        return f"{p.text(args[0], ATOM)}.{name}({', '.join(words)})", ATOM

    return form


def _unsqueezed(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, axis = args[0], args[1] if len(args) > 1 else kwargs["dim"]
    ndim = value.meta["val"].ndim
    if axis in (-1, ndim):
        return f"{p.text(value, ATOM)}[{', '.join([':'] * ndim + ['None'])}]", ATOM
    return (f"{p.text(value, ATOM)}[{', '.join([':'] * axis + ['None'])}]" if axis >= 0
            else f"{m}.expand_dims({p.text(value)}, {axis})"), ATOM  # fmt: skip


def _narrowed(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, axis, start, length = args
    stop = start + length if isinstance(start, int) and isinstance(length, int) else None
    text = p.text(stop) if stop is not None else f"{p.text(start, SUM)} + {p.text(length, SUM)}"
    return f"{p.text(value, ATOM)}[{', '.join([':'] * axis + [f'{p.text(start)}:{text}'])}]", ATOM


def _selected(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, axis, index = args
    return f"{p.text(value, ATOM)}[{', '.join([':'] * axis + [p.text(index)])}]", ATOM


def _reshaped(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"{p.text(args[0], ATOM)}.reshape({', '.join(p.text(a) for a in args[1:])})", ATOM


def _flattened(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, start = args[0], args[1] if len(args) > 1 else 0
    ndim = value.meta["val"].ndim
    axes = range(start % ndim if ndim else 0)
    text = p.text(value, ATOM)
    return f"{text}.reshape({', '.join([*(f'{text}.shape[{k}]' for k in axes), '-1'])})", ATOM


def _transposed(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, rest = args[0], args[1:]
    if len(rest) == 2 and value.meta["val"].ndim == 2:
        return f"{p.text(value, ATOM)}.T", ATOM
    return f"{p.text(value, ATOM)}.swapaxes({', '.join(p.text(a) for a in rest)})", ATOM


def _permuted(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"{p.text(args[0], ATOM)}.transpose({', '.join(p.text(a) for a in args[1:])})", ATOM


def _bounded(name: str) -> Form:
    return lambda p, m, args, kwargs: (f"{m}.{name}({p.text(args[0])}, {p.text(args[1])})", ATOM)


def _broadcast(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    sizes = args[1] if len(args) == 2 else args[1:]
    return f"{m}.broadcast_to({p.text(args[0])}, {p.text(sizes)})", ATOM


def _like_another(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"{m}.broadcast_to({p.text(args[0])}, {p.text(args[1], ATOM)}.shape)", ATOM


def _one_hot(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"{m}.eye({p.text(args[1])})[{p.text(args[0])}]", ATOM


def _softmax(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    axis = args[1] if len(args) > 1 else kwargs["dim"]
    value = f"{m}.exp({p.text(args[0])})"
    return f"{value} / {value}.sum(axis={p.text(axis)}, keepdims=True)", PRODUCT


def _cast(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    to = args[1] if len(args) > 1 else torch.float64
    text = f"{p.text(to, ATOM)}.dtype" if isinstance(to, fx.Node) else "float"
    return f"{p.text(args[0], ATOM)}.astype({text})", ATOM


def _whole(name: str) -> Form:
    """`np.ones(x.shape)`"""
    return lambda p, m, args, kwargs: (f"{m}.{name}({p.text(args[1] if len(args) > 1 else args[0])})", ATOM)


def _made(name: str) -> Form:
    """`np.ones((n, n), dtype=bool)`"""

    def form(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
        asked = kwargs.get("dtype")
        dtype = ", dtype=bool" if asked is torch.bool else ", dtype=int" if asked is torch.int64 else ""
        sizes = args[0] if isinstance(args[0], list | tuple) else args
        return f"{m}.{name}({p.text(tuple(sizes))}{dtype})", ATOM

    return form


def _joined(name: str) -> Form:
    def form(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return f"{m}.{name}({p.text(args[0])}, axis={p.text(axis)})", ATOM

    return form


def _repeated(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    value, count, axis = args
    return f"{p.text(value, ATOM)}.repeat({p.text(count)}, axis={p.text(axis)})", ATOM


def _power(exponent: float) -> Form:
    return lambda p, m, args, kwargs: (f"{p.text(args[0], POWER + 1)} ** {exponent}", POWER)


def _sigmoid(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"1 / (1 + {m}.exp(-{p.text(args[0], UNARY)}))", PRODUCT


def _size(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return f"{p.text(args[0], ATOM)}.{'size' if len(args) == 1 else f'shape[{p.text(args[1])}]'}", ATOM


def _itself(p: Python, m: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Spelled:
    return p.spell(args[0])


_FORMS: dict[str, Form] = {
    **{name: _call(name) for name in (
        "exp", "expm1", "log", "log1p", "sqrt", "tanh", "sinh", "cosh", "sin", "cos", "tan", "sign", "abs", "floor",
        "where", "maximum", "minimum", "zeros_like", "ones_like", "full_like", "outer", "einsum", "arange", "triu", "tril",
    )},
    **{name: _along(name) for name in ("sum", "mean", "prod", "var", "std", "any", "all")},
    "amax": _along("max"), "amin": _along("min"), "argmax": _along("argmax"), "argmin": _along("argmin"),
    "cumsum": _along("cumsum", keeps=False), "flip": _along("flip", keeps=False, function=True),
    "repeat_interleave": _repeated, "repeat": lambda p, m, args, kwargs: (f"{m}.tile({p.text(args[0])}, {p.text(tuple(args[1:]))})", ATOM),
    "squeeze": _along("squeeze", keeps=False), "unsqueeze": _unsqueezed, "narrow": _narrowed, "select": _selected,
    "reshape": _reshaped, "view": _reshaped, "flatten": _flattened, "transpose": _transposed, "permute": _permuted,
    "expand": _broadcast, "broadcast_to": _broadcast, "expand_as": _like_another, "one_hot": _one_hot,
    "softmax": _softmax, "sigmoid": _sigmoid, "clamp_min": _bounded("maximum"), "clamp_max": _bounded("minimum"),
    "relu": lambda p, m, args, kwargs: (f"{m}.maximum({p.text(args[0])}, 0)", ATOM),
    "float": _cast, "double": _cast, "to": _cast, "type_as": _cast, "new_ones": _whole("ones"), "new_zeros": _whole("zeros"),
    "ones": _made("ones"), "zeros": _made("zeros"), "cat": _joined("concatenate"), "stack": _joined("stack"), "rsqrt": _power(-0.5), "square": _power(2),
    "reciprocal": lambda p, m, args, kwargs: (f"1 / {p.text(args[0], PRODUCT + 1)}", PRODUCT),
    "t": lambda p, m, args, kwargs: (f"{p.text(args[0], ATOM)}.T", ATOM), "numel": _size, "size": _size,
    "neg": lambda p, m, args, kwargs: (f"-{p.text(args[0], UNARY)}", UNARY),
    "clone": lambda p, m, args, kwargs: (f"{p.text(args[0], ATOM)}.copy()", ATOM), "contiguous": _itself, "detach": _itself,
    "matmul": lambda p, m, args, kwargs: (f"{p.text(args[0], PRODUCT)} @ {p.text(args[1], PRODUCT + 1)}", PRODUCT),
}  # fmt: skip
