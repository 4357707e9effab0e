"""NumPy's arithmetic on torch tensors: products, functions of elements, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from chainrule.arrays.calls import floating, followed, pair, same_dtype, tensor, ufunc
from chainrule.arrays.dtypes import counted

Function = Callable[..., Any]


def _binary(function: Function, *names: str, division: bool = False) -> None:
    def elementwise(a: Any, b: Any) -> Any:
        return function(*pair(a, b, division))

    ufunc(*names)(elementwise)


def _bound(limit: Function, both: Function) -> Function:
    """np.maximum as .clamp_min for a number, np.minimum as .clamp_max."""

    def bounded(a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return both(*same_dtype(a, b))
        return limit(a, b) if isinstance(a, torch.Tensor) else limit(b, a)

    return bounded


def _products() -> None:
    def matmul(a: Any, b: Any) -> Any:
        x, y = same_dtype(tensor(a), tensor(b))
        return x @ y

    @followed("dot")
    def dot(a: Any, b: Any) -> Any:
        x, y = tensor(a), tensor(b)
        if not x.ndim or not y.ndim:
            return x * y
        return matmul(x, y) if y.ndim <= 2 else tensordot(x, y, ([-1], [-2]))

    @followed("inner")
    def inner(a: Any, b: Any) -> Any:
        return torch.inner(*same_dtype(tensor(a), tensor(b)))

    @followed("vdot")
    def vdot(a: Any, b: Any) -> Any:
        return matmul(tensor(a).reshape(-1), tensor(b).reshape(-1))

    @followed("outer")
    def outer(a: Any, b: Any) -> Any:
        x, y = (v if v.ndim == 1 else v.reshape(-1) for v in (tensor(a), tensor(b)))
        return torch.outer(*same_dtype(x, y))

    @followed("tensordot")
    def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
        if isinstance(axes, tuple | list):
            axes = tuple([v] if isinstance(v, int) else list(v) for v in axes)
        x, y = same_dtype(tensor(a), tensor(b))
        return torch.tensordot(x, y, dims=axes)

    @followed("einsum")
    def einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Any:
        return torch.einsum(subscripts, *same_dtype(*(tensor(v) for v in operands)))

    ufunc("matmul")(matmul)


def _elementwise() -> None:
    _binary(lambda a, b: a + b, "add")
    _binary(lambda a, b: counted(a, b) - counted(b, a), "subtract")
    _binary(lambda a, b: a * b, "multiply")
    _binary(lambda a, b: a / b, "divide", "true_divide", division=True)
    _binary(lambda a, b: a**b, "power", "pow", "float_power")
    _binary(lambda a, b: a // b, "floor_divide")
    _binary(lambda a, b: a % b, "remainder", "mod")
    _binary(lambda a, b: (a // b, a % b), "divmod")
    _binary(lambda a, b: a == b, "equal")
    _binary(lambda a, b: a != b, "not_equal")
    _binary(lambda a, b: a < b, "less")
    _binary(lambda a, b: a <= b, "less_equal")
    _binary(lambda a, b: a > b, "greater")
    _binary(lambda a, b: a >= b, "greater_equal")
    _binary(lambda a, b: a & b, "bitwise_and")
    _binary(lambda a, b: a | b, "bitwise_or")
    _binary(lambda a, b: a ^ b, "bitwise_xor")
    _binary(_bound(lambda x, low: x.clamp_min(low), torch.maximum), "maximum", "fmax")
    _binary(_bound(lambda x, high: x.clamp_max(high), torch.minimum), "minimum", "fmin")
    for name in ("logical_and", "logical_or", "logical_xor", "arctan2", "hypot", "logaddexp"):
        numeric = not name.startswith("logical")
        function = getattr(torch, name)

        def between(a: Any, b: Any, function: Function = function, numeric: bool = numeric) -> Any:
            return function(*same_dtype(floating(a), floating(b)) if numeric else (tensor(a), tensor(b)))

        ufunc(name)(between)
    for name in """exp log sqrt tanh sin cos tan sinh cosh arcsin arccos arctan arcsinh arccosh arctanh log1p expm1 log2
            log10 exp2 reciprocal""".split():  # noqa: SIM905
        ufunc(name)(lambda x, name=name: getattr(floating(x), name)())
    for name in "square sign floor ceil trunc isnan isinf isfinite logical_not positive".split():  # noqa: SIM905
        ufunc(name)(lambda x, name=name: getattr(tensor(x), name)())
    ufunc("absolute", "abs", "fabs")(lambda x: tensor(x).abs())
    ufunc("negative")(lambda x: -tensor(x))
    ufunc("invert", "bitwise_not")(lambda x: ~tensor(x))
    ufunc("rint")(lambda x: tensor(x).round())
    followed("round", "around")(lambda a, decimals=0: tensor(a).round(decimals=decimals))

    @followed("clip")
    def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
        low, high = (a_min if min is None else min), (a_max if max is None else max)
        t = floating(a) if isinstance(low, float) or isinstance(high, float) else tensor(a)
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            low, high = (None if v is None else tensor(v).to(t.dtype) for v in (low, high))
        return t.clamp(low, high)

    @followed("where")
    def where(condition: Any, *choices: Any) -> Any:
        chosen = tensor(condition) if tensor(condition).dtype == torch.bool else tensor(condition) != 0
        if not choices:
            return torch.where(chosen)
        return torch.where(chosen, *pair(*choices))


def _axes(axis: Any) -> Any:
    """An axis, or several, as torch takes them."""
    if isinstance(axis, torch.Tensor):
        return int(axis)
    return tuple(axis) if isinstance(axis, list) else axis


def _reduced(t: torch.Tensor, name: str, axis: Any, keepdims: bool, **also: Any) -> Any:
    axis = tuple(range(t.ndim)) if axis is None and keepdims and t.ndim else _axes(axis)
    if axis == () or (axis in (-1, 0, (0,), (-1,)) and not t.ndim):
        axis = None
    if keepdims and t.ndim:
        also["keepdim"] = True
    return getattr(t, name)(*(() if axis is None else (axis,)), **also)


def _one_by_one(t: torch.Tensor, name: str, axis: Any, keepdims: bool) -> Any:
    """A reduction that torch has for one axis at a time."""
    if axis is None and not keepdims:
        return getattr(t, name)()
    axes = range(t.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for k in sorted((k % t.ndim for k in axes), reverse=True):
        t = getattr(t, name)(k, keepdim=keepdims) if keepdims else getattr(t, name)(k)
    return t


def _reductions() -> None:
    @followed("sum")
    def sum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        return _reduced(tensor(a, dtype), "sum", axis, keepdims)

    @followed("mean")
    def mean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        return _reduced(tensor(floating(a), dtype), "mean", axis, keepdims)

    followed("average")(lambda a, axis=None, *, keepdims=False: mean(a, axis, keepdims=keepdims))

    for name in ("var", "std"):

        def spread(
            a: Any, axis: Any = None, dtype: Any = None, *, ddof: int = 0, keepdims: bool = False, name: str = name
        ) -> Any:
            return _reduced(tensor(floating(a), dtype), name, axis, keepdims, correction=ddof)

        followed(name)(spread)
    for name, also in (("max", "amax"), ("min", "amin")):

        def extreme(a: Any, axis: Any = None, *, keepdims: bool = False, name: str = name, also: str = also) -> Any:
            t = tensor(a)
            return _reduced(t, name if axis is None and not keepdims else also, axis, keepdims)

        followed(name, also)(extreme)
    for name in ("prod", "any", "all"):

        def joint(a: Any, axis: Any = None, *, keepdims: bool = False, name: str = name) -> Any:
            return _one_by_one(tensor(a), name, _axes(axis), keepdims)

        followed(name)(joint)
    for name in ("argmax", "argmin"):

        def place(a: Any, axis: Any = None, *, keepdims: bool = False, name: str = name) -> Any:
            t = tensor(a)
            return _reduced(t.to(torch.int64) if t.dtype == torch.bool else t, name, axis, keepdims)

        followed(name)(place)
    for name in ("cumsum", "cumprod"):

        def running(a: Any, axis: Any = None, *, name: str = name) -> Any:
            t = tensor(a)
            return getattr(t.reshape(-1), name)(0) if axis is None else getattr(t, name)(axis)

        followed(name)(running)
    followed("ptp")(
        lambda a, axis=None: _reduced(tensor(a), "amax", axis, False) - _reduced(tensor(a), "amin", axis, False)
    )
    followed("count_nonzero")(lambda a, axis=None: _reduced(tensor(a) != 0, "sum", axis, False))
    followed("trace")(lambda a: torch.trace(tensor(a)))

    @followed("linalg.norm")
    def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
        return torch.linalg.norm(floating(x), ord, _axes(axis), keepdim=keepdims)

    for name in ("inv", "det", "solve", "pinv", "cholesky"):
        followed(f"linalg.{name}")(lambda *a, name=name: getattr(torch.linalg, name)(*same_dtype(*map(floating, a))))


_products()
_elementwise()
_reductions()
