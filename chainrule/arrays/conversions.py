"""NumPy's scalar types as conversions of arrays: `np.int64(a > 0)`, `np.float32(mask)`."""

from __future__ import annotations

from typing import Any

from chainrule.arrays.array import Array
from chainrule.arrays.dtypes import NUMPY_DTYPES


class _Conversion(type):
    """A scalar type that converts arrays on torch too; it is its base in all else: as a dtype, in isinstance and `==`."""

    def __call__(cls, *args: Any) -> Any:
        own = cls.__mro__[1]
        return args[0].astype(own) if len(args) == 1 and isinstance(args[0], Array) else own(*args)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.__mro__[1])

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.__mro__[1])

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__mro__[1]

    def __hash__(cls) -> int:
        return hash(cls.__mro__[1])


CONVERSIONS: dict[type, type] = {
    dtype.type: _Conversion(dtype.type.__name__, (dtype.type,), {"__module__": "numpy"})
    for dtype in NUMPY_DTYPES.values()
}


def conversion(scalar: type) -> Any:
    """What stands for a type of NumPy's while arrays are on torch: itself, where it is no scalar type.

    >>> import numpy as np, torch
    >>> conversion(np.int64)(Array(torch.tensor([True, False]))), conversion(np.int64)(2.5), conversion(np.ndarray)
    (array([1, 0]), np.int64(2), <class 'numpy.ndarray'>)
    """
    return CONVERSIONS.get(scalar, scalar)
