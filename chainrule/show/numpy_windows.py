"""Convolutions and pooling, in the words of NumPy: one index array gives all windows at once."""

from __future__ import annotations

from typing import Any

from chainrule.show import numpy_helpers_windows as helpers
from chainrule.show.numpy_words import OPERATIONS, Library, Spelling, axes, helper, result, spelled
from chainrule.show.terms import Term, known, rank


def each(value: Any, n: int) -> tuple[Any, ...] | None:
    """One number for each of n axes; None where it is not a plain number."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    values = values * n if len(values) == 1 else values
    return values if len(values) == n and all(isinstance(v, int) for v in values) else None


def _convolved(n: int) -> Spelling:
    def spelling(
        np: Library,
        x: Any,
        w: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
    ) -> Any:
        how = [each(v, n) for v in (stride, padding, dilation)]
        if None in how or isinstance(groups, Term) or rank(x) != n + 2:
            return NotImplemented
        out = helper(np, helpers.conv)(x, w, **_how(how, groups))
        return out if bias is None else out + bias[(slice(None), *[None] * n)]

    return spelling


def _how(how: list[Any], groups: int) -> dict[str, Any]:
    stride, padding, dilation = how
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _gradient_of(n: int, helped: Any) -> Spelling:
    """torch.nn.grad's gradient of the kernel or of the input, each of them from the other and its own size."""

    def spelling(
        np: Library,
        first: Any,
        second: Any,
        g: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
    ) -> Any:
        how = [each(v, n) for v in (stride, padding, dilation)]
        return NotImplemented if None in how else helper(np, helped)(first, second, g, **_how(how, groups))

    return spelling


def _largest(n: int) -> Spelling:
    def spelling(
        np: Library,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = True,
    ) -> Any:
        how = [
            each(v, n) for v in (kernel_size, kernel_size if stride in (None, [], ()) else stride, padding, dilation)
        ]
        if None in how or ceil_mode or rank(x) != n + 2:
            return NotImplemented
        return helper(np, helpers.max_pool)(x, *how)

    return spelling


def _mean(n: int) -> Spelling:
    def spelling(
        np: Library,
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        how = [each(v, n) for v in (kernel_size, kernel_size if stride in (None, [], ()) else stride, padding)]
        padded = any(how[2] or ()) and not count_include_pad
        if None in how or ceil_mode or padded or divisor_override is not None or rank(x) != n + 2:
            return NotImplemented
        return helper(np, helpers.avg_pool)(x, *how)

    return spelling


def _mean_backward(n: int) -> Spelling:
    def spelling(
        np: Library,
        g: Any,
        x: Any,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: Any,
        include: Any,
        divisor: Any = None,
    ) -> Any:
        how = [each(v, n) for v in (kernel_size, kernel_size if stride in (None, [], ()) else stride, padding)]
        padded = any(how[2] or ()) and not include
        if None in how or ceil_mode or padded or divisor is not None or rank(x) != n + 2:
            return NotImplemented
        return helper(np, helpers.avg_pool_backward)(g, x.shape, *how)

    return spelling


@spelled("im2col")
def im2col(np: Library, x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    how = [each(v, 2) for v in (kernel, dilation, padding, stride)]
    return NotImplemented if None in how or rank(x) != 4 else helper(np, helpers.unfold)(x, *how)


@spelled("col2im")
def col2im(np: Library, x: Any, size: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    how = [each(v, 2) for v in (kernel, dilation, padding, stride)]
    return NotImplemented if None in how or rank(x) != 3 else helper(np, helpers.fold)(x, size, *how)


def _mean_of_all(n: int) -> Spelling:
    """Over whole images only."""

    def spelling(np: Library, x: Any, size: Any) -> Any:
        whole = rank(x) == n + 2 and set(result(np).shape[2:]) == {1}
        return x.mean(axis=axes(tuple(range(2, n + 2))), keepdims=True) if whole else NotImplemented

    return spelling


@spelled("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward")
def adaptive_avg_pool_backward(np: Library, g: Any, x: Any) -> Any:
    if set(known(g).shape[2:]) != {1}:
        return NotImplemented
    size = x.shape[2]
    for i in range(3, rank(x)):
        size = size * x.shape[i]
    return np.broadcast_to(g / size, x.shape)


for _n in (1, 2, 3):
    OPERATIONS |= {
        f"conv{_n}d": _convolved(_n),
        f"conv{_n}d_weight": _gradient_of(_n, helpers.conv_weight),
        f"conv{_n}d_input": _gradient_of(_n, helpers.conv_input),
        f"max_pool{_n}d_with_indices": _largest(_n),
        f"avg_pool{_n}d": _mean(_n),
        f"adaptive_avg_pool{_n}d": _mean_of_all(_n),
        f"avg_pool{_n}d_backward": _mean_backward(_n),
    }
