"""Which torch calls are recorded, which only ask, which draw random numbers, and which are opened."""

from __future__ import annotations

import types
from typing import Any

import torch

from chainrule.recording.numbers import Tracked, TrackedSize

# Functions that ask about a tensor and leave nothing to record.
QUESTIONS = frozenset(
    """
    dim ndim dtype device is_floating_point is_complex is_contiguous stride storage_offset data_ptr layout
    requires_grad is_leaf grad_fn grad _version is_cuda names element_size tolist numpy array repr format str
    hash is_sparse is_quantized is_nested is_mkldnn is_meta untyped_storage is_same_size result_type
    promote_types can_cast is_tensor requires_grad_ backward register_hook retain_grad
    is_shared is_pinned get_device _set_grad_enabled manual_seed dir reduce_ex deepcopy setstate
    """.split()  # noqa: SIM905
)


NUMBERS = frozenset(("shape", "size", "numel", "nelement", "item", "__len__", "__bool__", "__int__", "__float__"))


# What these give depends on no value that they read; other random operations (dropout, rrelu) have a gradient.
DRAWS = frozenset(
    """rand rand_like randn randn_like randint randint_like randperm bernoulli multinomial normal uniform exponential
    cauchy geometric log_normal poisson binomial random""".split()  # noqa: SIM905  (reads better than forty quotes)
)


APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def plain(value: Any) -> Any:
    """`value` with tracked numbers as plain ones, as torch's C++ wants them."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Tracked):
        return value.plain()
    if isinstance(value, tuple) and type(value) in (tuple, torch.Size, TrackedSize):
        return tuple([plain(v) for v in value])
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def has_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(has_tensor(v) for v in value)
    return isinstance(value, torch.Tensor)


def _never(*_: Any) -> bool:
    return False


_ASKING = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


class _Overrides:
    """torch.overrides for a copy that does not hand itself to the recorder again."""

    def __getattr__(self, name: str) -> Any:
        return _never if name in _ASKING else getattr(torch.overrides, name)


def without_dispatch(function: types.FunctionType) -> types.FunctionType:
    """A copy of a Python function of torch that does not hand itself to the recorder again."""
    space = {**function.__globals__, **dict.fromkeys(_ASKING, _never)}
    for name in function.__code__.co_names:
        held = space.get(name)
        if held is torch.overrides:
            space[name] = _Overrides()
        elif isinstance(held, types.FunctionType) and held is not function and _hands_on_another(held):
            space[name] = without_dispatch(held)
    closure = tuple(_cell_without_dispatch(cell) for cell in function.__closure__ or ())
    copy = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _hands_on_another(function: types.FunctionType) -> bool:
    """Whether a function of torch hands its caller to the recorder (`_meshgrid` does, for `meshgrid`)."""
    names = function.__code__.co_names
    return "handle_torch_function" in names and function.__name__ not in names


def _cell_without_dispatch(cell: types.CellType) -> types.CellType:
    """For the functions that torch chooses between two others (max_pool2d, with or without indices)."""
    held = cell.cell_contents
    ours = isinstance(held, types.FunctionType) and (held.__module__ or "").startswith("torch")
    return types.CellType(without_dispatch(held)) if ours else cell
