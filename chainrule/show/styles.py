"""The styles of `d.source(style)`, each with what writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chainrule.errors import ChainruleError
from chainrule.show import dialects
from chainrule.simplify import simplify

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


def written(d: Derivation, style: str) -> str:
    """The code of a derivation. Raises ChainruleError for a style that there is not."""
    if style not in STYLES:
        *others, last = (f'"{name}"' for name in STYLES)
        raise ChainruleError(f"no style is called {style!r}; there are {', '.join(others)} and {last}")
    return STYLES[style](d)


def _autograd(d: Derivation) -> str:
    program = d._base.seeded(explicit=True)
    simplify(program)
    arguments = [n for n, ours in zip(program.inputs, d.program.inputs, strict=True) if d._names[ours] in d.inputs]
    return dialects.autograd(program, arguments, "Derived")


def _layers(d: Derivation) -> str:
    from chainrule.deriving import derive
    from chainrule.show.layer_classes import LayerClasses

    return LayerClasses(d.program, d._arguments(), derive).text()


def _numpy(d: Derivation) -> str:
    from chainrule.show.numpy import function

    return function(d.program, d._arguments())


def _jax(d: Derivation) -> str:
    from chainrule.show.jax import Jax
    from chainrule.show.numpy import function

    return function(d.program, d._arguments(), Jax)


STYLES: dict[str, Callable[[Derivation], str]] = {
    "dotg": lambda d: dialects.dotg(d.program),
    "function": lambda d: dialects.function(d.program, d._arguments()),
    "autograd": _autograd,
    "layers": _layers,
    "numpy": _numpy,
    "jax": _jax,
}
