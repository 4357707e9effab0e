"""One spelling for the many ways in which torch calls reach the recorder.

`x @ w`, `x.matmul(w)` and `torch.matmul(x, w)` are one operation with three spellings. The operation
(a string such as "matmul") finds the rule; the spelling is kept, so that code prints as it was written.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

SYNONYMS = {
    "true_divide": "div", "divide": "div", "truediv": "div", "multiply": "mul", "subtract": "sub",
    "negative": "neg", "absolute": "abs", "clip": "clamp", "concat": "cat", "concatenate": "cat",
    "swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim", "greater": "gt",
    "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "invert": "bitwise_not", "mod": "remainder",
    "floordiv": "floor_divide", "view_as": "reshape_as", "inner": "inner", "ger": "outer",
    "special_expit": "sigmoid", "special_log_softmax": "log_softmax", "special_softmax": "softmax",
    "special_logsumexp": "logsumexp", "special_expm1": "expm1", "special_log1p": "log1p",
    "linalg_matmul": "matmul", "unsafe_chunk": "chunk", "unsafe_split": "split", "lshift": "lshift",
    "arccos": "acos", "arcsin": "asin", "arctan": "atan", "arctanh": "atanh", "arcsinh": "asinh",
    "arccosh": "acosh", "fix": "trunc",
}  # fmt: skip

# Functions that share their name with another operation.
_APART = {F.unfold: "im2col", F.fold: "col2im"}

# Tensor methods that Python's operators reach, by operation; the reflected ones swap their operands.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "matmul": operator.matmul, "neg": operator.neg, "gt": operator.gt, "ge": operator.ge,
    "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
    "bitwise_and": operator.and_, "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
    "bitwise_not": operator.invert, "remainder": operator.mod, "floor_divide": operator.floordiv,
    "getitem": operator.getitem,
}  # fmt: skip
_ARITHMETIC = frozenset((operator.add, operator.sub, operator.mul, operator.truediv, operator.pow))
_AUGMENTED = tuple(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "pow", "matmul", "floordiv", "mod"))
_CONVERSIONS = ("__bool__", "__int__", "__float__", "__len__", "__index__")  # not .float() and the like
_REFLECTED = {"__rsub__": "sub", "__rdiv__": "div", "__rtruediv__": "div", "__rpow__": "pow",
              "__rmatmul__": "matmul", "__rfloordiv__": "floor_divide", "__rmod__": "remainder",
              "__radd__": "add", "__rmul__": "mul"}  # fmt: skip


@dataclass
class Call:
    """A call as the graph will hold it: what is called, how it is written, and what it overwrites."""

    operation: str
    kind: str  # "function", "method" or "attribute"
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    written: Any = None  # the tensor that an in-place call overwrites
    spelled: str = ""  # the name under which the person called it


@functools.cache
def operation_name(function: Any) -> str:
    """The name under which the rule book knows `function`, whatever its spelling.

    >>> operation_name(torch.Tensor.__matmul__), operation_name(torch.clip), operation_name(torch.Tensor.mT)
    ('matmul', 'clamp', 'mT')
    """
    if function in _APART:
        return _APART[function]
    if isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        name = str(function).split(".")[1]
    else:
        name = getattr(function, "__name__", None) or type(function).__name__
    if name == "__get__":
        name = function.__self__.__name__
    if name in _REFLECTED:
        return _REFLECTED[name]
    if name in _CONVERSIONS:
        return name
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        name = name[1:] if f"__{name}__" in _AUGMENTED else name
    elif name.endswith("_") and not name.startswith("_"):
        name = name[:-1]
    if name.endswith("_copy") and name != "index_copy" and hasattr(torch, name):
        name = name.removesuffix("_copy")
    return SYNONYMS.get(name, name)


def canonical(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call that the graph records for `function(*args, **kwargs)`."""
    written = None
    if kwargs:
        kwargs = _without_defaults(function, kwargs)
        written = kwargs.pop("out", None)
        if kwargs.pop("inplace", False):
            written = args[0] if args else kwargs.get("input")
    form = _form(function, len(args), bool(kwargs))
    if form.operation in ("getitem", "setitem"):
        args = (args[0], _without_numpy(args[1]), *args[2:])
    elif len(args) == 2 and form.target in _ARITHMETIC:
        args = (_number(args[0]), _number(args[1]))
    if form.in_place:
        written = args[0]
    spelled = getattr(function, "__name__", form.operation)
    return Call(form.operation, form.kind, form.target, args[::-1] if form.swapped else args, kwargs, written, spelled)


def _number(operand: Any) -> Any:
    """An operand that is a number of NumPy's, or a bool, as the number that it counts as."""
    if type(operand).__module__ == "numpy" and not operand.ndim:
        return operand.item()
    return int(operand) if type(operand) is bool else operand


def _without_numpy(index: Any) -> Any:
    """An index with the numbers and arrays of NumPy as Python's numbers and lists, which emitted code can spell."""
    if isinstance(index, tuple | list):
        return type(index)([i.tolist() if type(i).__module__ == "numpy" else _without_numpy(i) for i in index])
    if isinstance(index, slice):
        return slice(*(_without_numpy(i) for i in (index.start, index.stop, index.step)))
    if type(index).__module__ != "numpy":
        return index
    return (index.tolist(),) if index.ndim > 1 else index.tolist()  # torch reads [[0, 1], [2, 3]] as a tuple


@dataclass(frozen=True)
class _Form:
    operation: str
    kind: str
    target: Any
    swapped: bool = False
    in_place: bool = False


@functools.cache
def _form(function: Any, count: int, keywords: bool) -> _Form:
    """How calls of `function` with `count` arguments, with or without keywords, are written down."""
    name = getattr(function, "__name__", "")
    operation = operation_name(function)
    if name == "__get__":
        return _Form(operation, "attribute", operation)
    dunder = name.startswith("__") and name.endswith("__")
    in_place = name.endswith("_") if not dunder else name == "__setitem__" or name in _AUGMENTED
    if getattr(function, "__module__", None) == "torch.nn.init":
        in_place = False
    if _is_method(function):
        swapped = name in _REFLECTED
        power = operation == "pow" and not inspect.ismethoddescriptor(function)  # `**`, not .pow()
        if (power or operation in _OPERATORS) and not keywords and count <= 2:
            target = operator.pow if power else _OPERATORS[operation]
            return _Form(operation, "function", target, swapped, in_place)
        return _Form(operation, "method", name.rstrip("_") if in_place else name, swapped, in_place)
    target = _functional_twin(function, operation) if in_place else function
    return _Form(operation, "function", target, False, in_place)


def _is_method(function: Any) -> bool:
    owner = getattr(function, "__objclass__", None)
    return owner is torch._C.TensorBase or getattr(function, "__module__", "") == "torch._tensor"


def _functional_twin(function: Any, operation: str) -> Any:
    """`torch.relu` for `torch.relu_`: the function that returns what the other one writes."""
    for module in (torch, F):
        if hasattr(module, operation):
            return getattr(module, operation)
    return function


@functools.cache
def _defaults(function: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _without_defaults(function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Python functions of torch pass every default on; people do not write them."""
    if not kwargs or not inspect.isfunction(function):
        return dict(kwargs)
    defaults = _defaults(function)
    return {
        k: v
        for k, v in kwargs.items()
        if k != "_stacklevel" and not (k in defaults and type(v) is type(defaults[k]) and v == defaults[k])
    }
