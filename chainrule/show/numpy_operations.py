"""Each operation in the words of NumPy, most of them JAX's words too: `np` is the library that the code imports.

A spelling is called with the arguments of the recorded call as terms, and what it gives is the text that is emitted.
"""

from __future__ import annotations

from typing import Any

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_words import OPERATIONS, Library, Spelling, helper, result, spelled
from chainrule.show.terms import Term, known, rank

_SAME_NAME = (
    "exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh floor ceil trunc square sign abs isnan isinf "
    "isfinite outer"
)
_OTHER_NAME = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "round": "round", "deg2rad": "deg2rad", "rad2deg": "rad2deg", "sinc": "sinc", "logical_not": "logical_not",
    "signbit": "signbit", "angle": "angle", "isposinf": "isposinf", "isneginf": "isneginf", "positive": "positive",
    "isreal": "isreal",
}  # fmt: skip
_OF_TWO = {
    "maximum": "maximum", "minimum": "minimum", "atan2": "arctan2", "hypot": "hypot", "logaddexp": "logaddexp",
    "logaddexp2": "logaddexp2", "fmod": "fmod", "fmax": "fmax", "fmin": "fmin", "copysign": "copysign",
    "nextafter": "nextafter", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "heaviside": "heaviside", "kron": "kron", "float_power": "float_power",
}  # fmt: skip
# Operations whose operands torch converts to one dtype, and those that give no integers.
DIVIDING = frozenset(
    ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "sinh", "cosh",
     "tanh", "div", "sigmoid", "reciprocal", "asin", "acos", "atan", "asinh", "acosh", "atanh")
)  # fmt: skip
MIXING = DIVIDING | frozenset(
    ("add", "sub", "mul", "pow", "matmul", "floor_divide", "remainder", "where", "mm", "bmm", "mv", "dot", "outer",
     "addcmul", "addcdiv", "lerp", "addmm", *_OF_TWO)
)  # fmt: skip


def _called(name: str) -> Spelling:
    return lambda np, x: getattr(np, name)(x)


def _of_two(name: str) -> Spelling:
    return lambda np, x, y: getattr(np, name)(x, y)


OPERATIONS |= {name: _called(name) for name in _SAME_NAME.split()}
OPERATIONS |= {name: _called(theirs) for name, theirs in _OTHER_NAME.items()}
OPERATIONS |= {name: _of_two(theirs) for name, theirs in _OF_TWO.items()}
OPERATIONS["outer"] = _of_two("outer")


# -- arithmetic ----------------------------------------------------------------------------------


@spelled("add")
def add(np: Library, x: Any, y: Any, alpha: Any = 1) -> Any:
    return x + times(alpha, y)


@spelled("sub")
def sub(np: Library, x: Any, y: Any, alpha: Any = 1) -> Any:
    return x - times(alpha, y)


@spelled("mul")
def mul(np: Library, x: Any, y: Any) -> Any:
    return x * y


@spelled("div")
def div(np: Library, x: Any, y: Any, rounding_mode: Any = None) -> Any:
    if rounding_mode == "floor":
        return x // y
    return np.trunc(x / y) if rounding_mode == "trunc" else x / y


@spelled("pow", "float_power")
def power(np: Library, x: Any, y: Any) -> Any:
    whole = not getattr(known(x), "is_floating_point", lambda: True)()
    return NotImplemented if whole and not isinstance(y, Term) and y < 0 else x**y


OPERATIONS |= {
    "neg": lambda np, x: -x,
    "floor_divide": lambda np, x, y: x // y,
    "remainder": lambda np, x, y: x % y,
    "matmul": lambda np, x, y: x @ y,
    "gt": lambda np, x, y: x > y,
    "ge": lambda np, x, y: x >= y,
    "lt": lambda np, x, y: x < y,
    "le": lambda np, x, y: x <= y,
    "eq": lambda np, x, y: x == y,
    "ne": lambda np, x, y: x != y,
    "bitwise_and": lambda np, x, y: x & y,
    "bitwise_or": lambda np, x, y: x | y,
    "bitwise_xor": lambda np, x, y: x ^ y,
    "bitwise_not": lambda np, x: ~x,
    "rsqrt": lambda np, x: 1 / np.sqrt(x),
    "reciprocal": lambda np, x: 1 / x,
    "frac": lambda np, x: x - np.trunc(x),
    "addcmul": lambda np, x, a, b, value=1: x + times(value, a) * b,
    "addcdiv": lambda np, x, a, b, value=1: x + times(value, a) / b,
    "lerp": lambda np, x, y, t: x + t * (y - x),
    "where": lambda np, c, x, y: np.where(c, x, y),
    "equal": lambda np, x, y: np.array_equal(x, y),
}  # fmt: skip
OPERATIONS |= dict.fromkeys(("mm", "bmm", "mv", "dot"), OPERATIONS["matmul"])


def times(factor: Any, x: Any) -> Any:
    return x if factor == 1 and not isinstance(factor, Term) else factor * x


@spelled("addmm", "baddbmm", "addmv", "addbmm")
def addmm(np: Library, x: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    product = a @ b if known(result(np)).ndim == rank(a) or rank(b) == 1 else (a @ b).sum(axis=0)
    return times(beta, x) + times(alpha, product)


@spelled("hardtanh")
def hardtanh(np: Library, x: Any, min_val: Any = -1.0, max_val: Any = 1.0) -> Any:
    return np.clip(x, min_val, max_val)


@spelled("glu")
def glu(np: Library, x: Any, dim: int = -1) -> Any:
    first, second = (np.split(x, 2, axis=dim)[i] for i in (0, 1))
    return first / (1 + np.exp(-second))


@spelled("prelu")
def prelu(np: Library, x: Any, weight: Any) -> Any:
    if rank(x) == 0:
        return NotImplemented
    slope = weight if rank(x) <= 2 or known(weight).numel() == 1 else weight[(slice(None), *[None] * (rank(x) - 2))]
    return np.where(x > 0, x, slope * x)


@spelled("clamp", "clip")
def clamp(np: Library, x: Any, min: Any = None, max: Any = None) -> Any:
    if max is None:
        return np.maximum(x, min)
    return np.minimum(x, max) if min is None else np.clip(x, min, max)


OPERATIONS |= {
    "clamp_min": lambda np, x, min: np.maximum(x, min),
    "clamp_max": lambda np, x, max: np.minimum(x, max),
    "masked_fill": lambda np, x, mask, value: np.where(mask, value, x),
    "sgn": lambda np, x: np.sign(x),
    "conj": lambda np, x: x.conj(),
    "real": lambda np, x: x.real,
    "imag": lambda np, x: x.imag,
    "xlogy": lambda np, x, y: x * np.log(np.where(x == 0, 1, y)) if isinstance(x, Term) else NotImplemented,
    "nan_to_num": lambda np, x, nan=0.0: np.nan_to_num(x, nan=nan),
}


# -- activations ---------------------------------------------------------------------------------


@spelled("gelu")
def gelu(np: Library, x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + helper(np, helpers.erf)(x / 2**0.5))


@spelled("softplus")
def softplus(np: Library, x: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    scaled = times(beta, x)
    soft = np.logaddexp(0, scaled)
    return np.where(scaled > threshold, x, soft if beta == 1 else soft / beta)


@spelled("elu")
def elu(np: Library, x: Any, alpha: Any = 1.0) -> Any:
    return np.where(x > 0, x, times(alpha, np.expm1(np.minimum(x, 0))))


OPERATIONS |= {
    "relu": lambda np, x: np.maximum(x, 0),
    "relu6": lambda np, x: np.clip(x, 0, 6),
    "sigmoid": lambda np, x: 1 / (1 + np.exp(-x)),
    "silu": lambda np, x: x / (1 + np.exp(-x)),
    "logsigmoid": lambda np, x: -np.logaddexp(0, -x),
    "leaky_relu": lambda np, x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
    "log_sigmoid": lambda np, x: -np.logaddexp(0, -x),
    "mish": lambda np, x: x * np.tanh(np.logaddexp(0, x)),
    "celu": lambda np, x, alpha=1.0: np.where(x > 0, x, times(alpha, np.expm1(np.minimum(x, 0) / alpha))),
    "selu": lambda np, x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "rsub": lambda np, x, y, alpha=1: y - times(alpha, x),
    "fill": lambda np, x, value: np.full_like(x, value),
    "fliplr": lambda np, x: np.fliplr(x),
    "flipud": lambda np, x: np.flipud(x),
    "i0": lambda np, x: np.i0(x),
    "special_i0": lambda np, x: np.i0(x),
    "softsign": lambda np, x: x / (1 + np.abs(x)),
    "tanhshrink": lambda np, x: x - np.tanh(x),
    "threshold": lambda np, x, threshold, value: np.where(x > threshold, x, value),
    "hardsigmoid": lambda np, x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda np, x: x * np.clip(x + 3, 0, 6) / 6,
    "hardshrink": lambda np, x, lambd=0.5: np.where(np.abs(x) > lambd, x, 0),
    "softshrink": lambda np, x, lambd=0.5: np.sign(x) * np.maximum(np.abs(x) - lambd, 0),
    "logit": lambda np, x: np.log(x / (1 - x)),
    "erf": lambda np, x: helper(np, helpers.erf)(x),
    "erfc": lambda np, x: helper(np, helpers.erfc)(x),
    "lgamma": lambda np, x: helper(np, helpers.lgamma)(x),
    "special_gammaln": lambda np, x: helper(np, helpers.lgamma)(x),
}
