"""Names and numbers as C spells them."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from chainrule.compiling.c.arithmetic import C_TYPES

WORDS = """auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true
false main step arg arena column r k0 i j k l m n o p q t u v y0 y1 yn j0 j1 jn gamma exp log sin cos tan sqrt pow erf tanh fabs
floor ceil trunc div abs index round signgam time read write free malloc NAN INFINITY linux unix"""
MATHEMATICS = """acos asin atan atan2 cos sin tan acosh asinh atanh cosh sinh tanh exp exp2 expm1 frexp ldexp log log10
log1p log2 logb modf scalbn cbrt fabs hypot pow sqrt erf erfc lgamma tgamma ceil floor nearbyint rint lrint llrint round
lround trunc fmod remainder remquo copysign nan nextafter fdim fmax fmin fma isnan isinf isfinite isnormal signbit"""
RESERVED = {
    *WORDS.split(),
    *MATHEMATICS.split(),
    *(f"{name}f" for name in MATHEMATICS.split()),
}  # of the language, of its library, of loops


class Names:
    """Different identifiers for what people call their values.

    >>> names = Names()
    >>> names("layers.0.weight"), names("l1.g"), names("l1.g"), names("for")
    ('layers_0_weight', 'l1_g', 'l1_g_2', 'for_')
    """

    def __init__(self) -> None:
        self.taken = set(RESERVED)

    def __call__(self, wanted: str) -> str:
        name = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "t"
        name = f"_{name}" if name[0].isdigit() else f"{name}_" if name in RESERVED else name
        base, number = name, 1
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name


def literal(number: float | int | bool, dtype: torch.dtype) -> str:
    """
    >>> literal(0.1, torch.float32), literal(2, torch.float64), literal(-3, torch.int64), literal(True, torch.bool)
    ('0.1f', '2.0', '-3', 'true')
    """
    if dtype == torch.bool:
        return "true" if number else "false"
    if not dtype.is_floating_point:
        return str(int(number)) if abs(int(number)) < 2**31 else f"INT64_C({int(number)})"
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    if dtype == torch.float32:
        with np.errstate(over="ignore"):
            small = np.float32(number)
        if np.isinf(small):
            return "INFINITY" if number > 0 else "-INFINITY"
        return f"{small!s}f" if "." in str(small) or "e" in str(small) else f"{small!s}.0f"
    return repr(float(number))


def c_type(dtype: torch.dtype) -> str:
    return C_TYPES[dtype]
