"""Sorted values and what is picked by rank, in the words of NumPy."""

from __future__ import annotations

from typing import Any

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_reductions import over
from chainrule.show.numpy_words import OPERATIONS, Library, helper, spelled
from chainrule.show.terms import known, rank


@spelled("sort", "msort")
def sort(np: Library, x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    if rank(x) == 0:
        return NotImplemented
    return helper(np, helpers.sort)(x, dim, **({"descending": True} if descending else {}))


@spelled("topk")
def topk(np: Library, x: Any, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if rank(x) == 0:
        return NotImplemented
    return helper(np, helpers.topk)(x, k, dim, **({"largest": False} if not largest else {}))


@spelled("kthvalue")
def kthvalue(np: Library, x: Any, k: Any, dim: int = -1, keepdim: bool = False) -> Any:
    if rank(x) == 0:
        return NotImplemented
    return helper(np, helpers.kth)(x, k - 1, dim, **({"keepdims": True} if keepdim else {}))


@spelled("median")
def median(np: Library, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None or bool(known(x).isnan().any()):
        return NotImplemented
    return helper(np, helpers.kth)(x, (x.shape[dim] - 1) // 2, dim, **({"keepdims": True} if keepdim else {}))


OPERATIONS |= {
    "cummax": lambda np, x, dim: helper(np, helpers.cumulated)(np.maximum, x, dim) if rank(x) else NotImplemented,
    "cummin": lambda np, x, dim: helper(np, helpers.cumulated)(np.minimum, x, dim) if rank(x) else NotImplemented,
}


@spelled("aminmax")
def aminmax(np: Library, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    how = over(x, dim, keepdim)
    return x.min(**how), x.max(**how)


def _with_mean(name: str) -> Any:
    def spelling(
        np: Library, x: Any, dim: Any = None, unbiased: Any = True, keepdim: bool = False, correction: Any = None
    ) -> Any:
        first = OPERATIONS[name](np, x, dim, unbiased, keepdim, correction)
        return first, x.mean(**over(x, None if isinstance(dim, bool) else dim, keepdim))

    return spelling


OPERATIONS |= {f"{name}_mean": _with_mean(name) for name in ("var", "std")}
