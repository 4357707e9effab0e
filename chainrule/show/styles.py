"""The styles of `d.source(style)`, each with what writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chainrule.errors import ChainruleError
from chainrule.program import Program
from chainrule.saving import keep_less
from chainrule.show import dialects
from chainrule.simplify import simplify

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


Comment = Callable[[Any, Any], str]


def written(d: Derivation, style: str, comment: Comment | None = None) -> str:
    """The code of a derivation, with what `comment` says of each line. Raises ChainruleError for a style that there
    is not."""
    if style not in STYLES:
        *others, last = (f'"{name}"' for name in STYLES)
        raise ChainruleError(f"no style is called {style!r}; there are {', '.join(others)} and {last}")
    if comment is not None and style == "layers":
        raise ChainruleError(
            'the style "layers" takes no comments, since each class stands for several lines; "function" does'
        )
    return STYLES[style](d, replace(d.program, comment=comment))


def _autograd(d: Derivation, program: Program) -> str:
    seeded = replace(d._base.seeded(explicit=True), comment=program.comment)
    simplify(seeded)
    keep_less(seeded)
    arguments = [n for n, ours in zip(seeded.inputs, d.program.inputs, strict=True) if d._names[ours] in d.inputs]
    return dialects.autograd(seeded, arguments, "Derived")


def _layers(d: Derivation, program: Program) -> str:
    from chainrule.deriving import derive
    from chainrule.show.layer_classes import LayerClasses

    return LayerClasses(program, d._arguments(), derive).text()


def _numpy(d: Derivation, program: Program) -> str:
    from chainrule.show.numpy import function

    return function(program, d._arguments())


def _jax(d: Derivation, program: Program) -> str:
    from chainrule.show.jax import Jax
    from chainrule.show.numpy import function

    return function(program, d._arguments(), Jax)


STYLES: dict[str, Callable[[Derivation, Program], str]] = {
    "dotg": lambda d, program: dialects.dotg(program),
    "function": lambda d, program: dialects.function(program, d._arguments()),
    "autograd": _autograd,
    "layers": _layers,
    "numpy": _numpy,
    "jax": _jax,
}
