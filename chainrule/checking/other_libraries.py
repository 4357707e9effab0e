"""Runs emitted NumPy and JAX code on the recorded inputs, before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from chainrule.checking.difference import close
from chainrule.checking.oracles import derived_gradients, floor_of, forward_values
from chainrule.errors import ChainruleError
from chainrule.run import double
from chainrule.show.dialects import executed

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

_TIGHT, _ROUNDED, _LENIENT = 1e-10, 1e-5, 2e-3


def confirm_in_library(d: Derivation, source: str, style: str) -> None:
    """Raise unless `source`, executed alone, gives the gradients of the verified program: in float64 to all digits but
    the last, and in the dtypes of the inputs to what these hold, in the dtypes of the gradients."""
    with LIBRARIES[style]() as conversions:
        function = executed(source)["forward_and_backward"]
        rounds = any(name in source for name in ("float32", "float16", ".dtype"))  # values are rounded on the way
        _compare(d, function, conversions, style, double, _ROUNDED if rounds else _TIGHT)
        _compare(d, function, conversions, style, _as_it_is, _LENIENT)


def _compare(
    d: Derivation, function: Any, conversions: Conversions, style: str, convert: Callable[[Any], Any], tolerance: float
) -> None:
    """Raise unless `function` gives the output and the gradients of the derivation, on its inputs converted."""
    program, (there, back) = d.program, conversions
    upstream = convert(torch.ones_like(d.output) if program.upstream is None else program.upstream.meta["val"])
    given = {n: convert(n.meta["val"].detach()) for n in program.inputs}
    truth = derived_gradients(program, given, upstream, convert)
    output = forward_values(program, given, convert)[program.output]
    values = [*(given[n] for n in d._arguments()), *([] if program.upstream is None else [upstream])]
    found, gradients = _called(function, [there(v) for v in values], style)
    if not close(back(found), output, tolerance, floor=_size(output)):
        raise ChainruleError(
            f'the emitted code (style "{style}") gives another output than the verified program; please report it'
        )
    floor = floor_of(d)
    for node in program.wanted:
        ours, theirs = gradients[d._names[node]], truth[node]
        ours = None if ours is None else back(ours)
        if not close(ours, theirs, tolerance, floor) or (convert is _as_it_is and _dtype(ours) != _dtype(theirs)):
            raise ChainruleError(
                f'the emitted code (style "{style}") gives another gradient of {d._names[node]} '
                f"{tuple(node.meta['val'].shape)} than the verified program; please report it"
            )


def _called(function: Callable[..., Any], values: list[Any], style: str) -> Any:
    try:
        return function(*values)
    except Exception as error:
        raise ChainruleError(
            f'the emitted code (style "{style}") does not run ({type(error).__name__}: {str(error).splitlines()[0]}); '
            "please report it"
        ) from error


def _as_it_is(value: Any) -> Any:
    return value


def _size(value: torch.Tensor) -> float:
    finite = value[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _dtype(value: Any) -> Any:
    return getattr(value, "dtype", None)


Conversions = tuple[Callable[[torch.Tensor], Any], Callable[[Any], torch.Tensor]]


@contextmanager
def _numpy() -> Iterator[Conversions]:
    with np.errstate(all="ignore"):
        yield lambda tensor: tensor.numpy().copy(), lambda array: torch.from_numpy(np.array(array))


@contextmanager
def _jax() -> Iterator[Conversions]:
    """JAX with float64, which it has switched off unless it is asked."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise ChainruleError('the style "jax" needs JAX; run pip install "chainrule[jax]"') from error
    if not hasattr(jax, "enable_x64"):
        from jax.experimental import enable_x64  # type: ignore[attr-defined]  # before JAX 0.8
    else:
        enable_x64 = jax.enable_x64
    with enable_x64(True):
        yield lambda tensor: jnp.asarray(tensor.numpy()), lambda array: torch.from_numpy(np.array(array))


LIBRARIES = {"numpy": _numpy, "jax": _jax}
