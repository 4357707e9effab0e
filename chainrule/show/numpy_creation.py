"""Arrays made from nothing or from numbers, and conversions, in the words of NumPy."""

from __future__ import annotations

from typing import Any

from chainrule.show.numpy_shapes import flat
from chainrule.show.numpy_words import OPERATIONS, Library, result, spelled
from chainrule.show.terms import Term, known


def dtype_of(np: Library, data: Any = 0.0) -> dict[str, Any]:
    """The dtype of the result as a keyword, unless the library makes that of `data` anyway."""
    by: Any = np._by
    return {} if by.own_dtype(data) == result(np).dtype else {"dtype": result(np).dtype}


def _first(data: Any) -> Any:
    while isinstance(data, tuple | list):
        data = data[0] if data else 0.0
    return known(data)


def _like(name: str) -> Any:
    def spelling(np: Library, x: Any, dtype: Any = None) -> Any:
        return getattr(np, name)(x, **({"dtype": dtype} if dtype is not None else {}))

    return spelling


def _filled(name: str) -> Any:
    return lambda np, *size, dtype=None: getattr(np, name)(size_of(flat(size)), **dtype_of(np))


def size_of(size: Any) -> Any:
    return size[0] if isinstance(size, tuple) and len(size) == 1 else size


def _new(name: str) -> Any:
    return lambda np, x, *size, dtype=None: getattr(np, name)(
        size_of(flat(size)), dtype=x.dtype if dtype is None else dtype
    )


OPERATIONS |= {f"{name}_like": _like(f"{name}_like") for name in ("zeros", "ones")}
OPERATIONS |= {name: _filled(name) for name in ("zeros", "ones")}
OPERATIONS |= {f"new_{name}": _new(name) for name in ("zeros", "ones")}
OPERATIONS |= {
    "full_like": lambda np, x, value, dtype=None: np.full_like(x, value, **({"dtype": dtype} if dtype else {})),
    "full": lambda np, size, value, dtype=None: np.full(size_of(flat((size,))), value, **dtype_of(np, _first(value))),
    "eye": lambda np, n, m=None, dtype=None: np.eye(n, **({"M": m} if m is not None else {}), **dtype_of(np)),
    "arange": lambda np, *ends, step=None, dtype=None: np.arange(*ends, **dtype_of(np, _first(ends))),
    "linspace": lambda np, start, end, steps, dtype=None: np.linspace(start, end, steps, **dtype_of(np)),
    "tensor": lambda np, data, dtype=None: np.array(data, **dtype_of(np, _first(data))),
    "new_tensor": lambda np, x, data, dtype=None: np.array(data, dtype=x.dtype),
    "scalar_tensor": lambda np, data, dtype=None: np.array(data, **dtype_of(np, _first(data))),
    "double": lambda np, x: converted(np, x),
    "float": lambda np, x: converted(np, x),
    "half": lambda np, x: converted(np, x),
    "cfloat": lambda np, x: converted(np, x),
    "cdouble": lambda np, x: converted(np, x),
    "long": lambda np, x: converted(np, x),
    "int": lambda np, x: converted(np, x),
    "bool": lambda np, x: converted(np, x),
}  # fmt: skip


@spelled("one_hot")
def one_hot(np: Library, y: Any, n: Any = -1) -> Any:
    if not isinstance(n, Term) and n < 0:
        return NotImplemented
    by: Any = np._by
    dtype = by.made_as(Term(by, "", node=np._made))
    return np.eye(n, **({"dtype": dtype} if dtype != by.own_dtype(0.0) else {}))[y]


@spelled("to", "type")
def to(np: Library, x: Any, *target: Any, dtype: Any = None) -> Any:
    like = next((t for t in target if isinstance(t, Term)), None)
    return converted(np, x, like)


def converted(np: Library, x: Any, like: Any = None) -> Any:
    """`x` in the dtype of the result."""
    dtype = result(np).dtype
    if known(x).dtype == dtype:
        return x
    return x.astype(like.dtype if like is not None else dtype)
