"""Sums, means, extremes and scans, in the words of NumPy."""

from __future__ import annotations

from typing import Any

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_words import OPERATIONS, Library, Spelling, axes, helper, spelled
from chainrule.show.terms import Term, rank


def over(x: Any, dim: Any, keepdim: Any = False) -> dict[str, Any]:
    """The keywords of a reduction of `x`."""
    dim = axes(dim)
    said = {} if dim is None or rank(x) == 0 else {"axis": dim}
    return said | ({"keepdims": True} if keepdim else {})


def _reduced(name: str) -> Spelling:
    def spelling(np: Library, x: Any, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
        return getattr(x, name)(**over(x, dim, keepdim), **({"dtype": dtype} if dtype is not None else {}))

    return spelling


OPERATIONS |= {name: _reduced(name) for name in ("sum", "mean", "prod", "all", "any")}
OPERATIONS |= {
    "amax": _reduced("max"),
    "amin": _reduced("min"),
    "argmax": _reduced("argmax"),
    "argmin": _reduced("argmin"),
}


def _counted(name: str) -> Spelling:
    def spelling(np: Library, x: Any, dim: Any = None, keepdim: Any = False) -> Any:
        return getattr(np, name)(x, **over(x, dim, keepdim))

    return spelling


OPERATIONS |= {name: _counted(name) for name in ("nansum", "nanmean", "count_nonzero")}


def _extreme(name: str, of_two: str) -> Spelling:
    def spelling(np: Library, x: Any, dim: Any = None, keepdim: Any = False) -> Any:
        if isinstance(dim, Term):
            return getattr(np, of_two)(x, dim)
        if dim is None:
            return getattr(x, name)()
        how = over(x, dim, keepdim)
        return getattr(x, name)(**how), getattr(x, f"arg{name}")(**how)

    return spelling


OPERATIONS |= {"max": _extreme("max", "maximum"), "min": _extreme("min", "minimum")}


def _spread(name: str) -> Spelling:
    def spelling(
        np: Library, x: Any, dim: Any = None, unbiased: Any = True, keepdim: Any = False, correction: Any = None
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        ddof = correction if correction is not None else int(unbiased)
        return getattr(x, name)(**over(x, dim, keepdim), **({"ddof": ddof} if ddof else {}))

    return spelling


OPERATIONS |= {"var": _spread("var"), "std": _spread("std")}


@spelled("linalg_norm")
def linalg_norm(np: Library, x: Any, ord: Any = None, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    of_matrix = ord is not None and dim is None and rank(x) > 1
    return NotImplemented if of_matrix else norm(np, x, ord, dim, keepdim, dtype)


@spelled("linalg_vector_norm", "norm")
def norm(np: Library, x: Any, ord: Any = 2, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    if ord in (None, "fro"):
        ord = 2
    if dim is None and rank(x) > 1:
        x = x.reshape(-1) if not keepdim else x
        dim = tuple(range(rank(x))) if keepdim else None
    if isinstance(axes(dim), tuple) or isinstance(ord, Term | str):
        return NotImplemented
    how = over(x, dim, keepdim)
    return np.linalg.norm(x, **how) if ord == 2 else np.linalg.norm(x, ord=ord, **how)


OPERATIONS |= {
    "dist": lambda np, x, y: np.linalg.norm((x - y).reshape(-1)),
    "trace": lambda np, x: x.trace(),
    "logsumexp": lambda np, x, dim, keepdim=False: helper(np, helpers.logsumexp)(x, **({"axis": axes(dim)} | over(x, dim, keepdim))),
    "softmax": lambda np, x, dim: helper(np, helpers.softmax)(x, axis=dim),
    "log_softmax": lambda np, x, dim: helper(np, helpers.log_softmax)(x, axis=dim),
    "cumsum": lambda np, x, dim: x.cumsum(axis=dim) if rank(x) else x,
    "cumprod": lambda np, x, dim: x.cumprod(axis=dim) if rank(x) else x,
    "logcumsumexp": lambda np, x, dim: np.logaddexp.accumulate(x, axis=dim) if rank(x) else x,
    "diff": lambda np, x, n=1, dim=-1: np.diff(x, **({"n": n} if n != 1 else {}), **({"axis": dim} if dim != -1 else {})),
    "argsort": lambda np, x, dim=-1, stable=False: x.argsort(axis=dim, **({"kind": "stable"} if stable else {})),
}  # fmt: skip

SYNONYMS = {
    "special_erf": "erf", "special_erfc": "erfc", "special_exp2": "exp2", "special_sinc": "sinc", "arctan2": "atan2",
    "special_logit": "logit", "special_xlogy": "xlogy", "special_expm1": "expm1", "special_log1p": "log1p",
    "special_logsumexp": "logsumexp", "special_log_softmax": "log_softmax", "special_softmax": "softmax",
    "special_round": "round", "_safe_softmax": "softmax",
}  # fmt: skip
OPERATIONS |= {name: OPERATIONS[theirs] for name, theirs in SYNONYMS.items()}
