"""The dtypes of NumPy and of torch, and masks as numbers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from chainrule.errors import ChainruleError
from chainrule.recording.names import site_of

_DTYPES = {
    np.dtype(name): getattr(torch, name)
    for name in """bool int8 int16 int32 int64 uint8 float16 float32 float64 complex64 complex128""".split()  # noqa: SIM905
}
NUMPY_DTYPES = {torch_dtype: dtype for dtype, torch_dtype in _DTYPES.items()}


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of what NumPy takes as one.

    >>> torch_dtype(float), torch_dtype("int32")
    (torch.float64, torch.int32)
    """
    wanted = np.dtype(dtype)
    if wanted not in _DTYPES:
        raise ChainruleError(
            f"torch has no dtype {wanted}; use a floating, integer or bool dtype", site_of(sys._getframe())
        )
    return _DTYPES[wanted]


def counted(value: Any, other: Any) -> Any:
    """`value` with a mask as numbers where `other` is none: torch subtracts no masks."""
    if isinstance(value, bool):
        return value if isinstance(other, torch.Tensor) and other.dtype == torch.bool else int(value)
    if not isinstance(value, torch.Tensor) or value.dtype != torch.bool or isinstance(other, bool):
        return value
    if isinstance(other, torch.Tensor):
        return value if other.dtype == torch.bool else value.to(other.dtype)
    return value.to(torch.float64 if isinstance(other, float) else torch.int64)
