"""How an aten operation is called from Python with the least in between, and whether it can write where it is told."""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


@dataclass(frozen=True)
class Spelling:
    """A function to call, under a name; `out` is the keyword by which it takes memory for its result."""

    name: str
    function: Callable[..., Any]
    out: str | None = None
    out_function: Callable[..., Any] | None = None
    rest: tuple[tuple[str, Any], ...] = ()  # the operator's arguments and defaults, where the binding has others

    def completed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with the operator's own defaults among them."""
        missing = [(name, value) for name, value in self.rest[len(args) :] if name not in kwargs]
        if not kwargs:
            return args + tuple(value for _, value in missing), kwargs
        return args, kwargs | dict(missing)


# Copies, whatever they are called: they fill memory that is given.
COPIES = {aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default}


@functools.cache
def spelling(target: torch._ops.OpOverload) -> Spelling:
    """The quickest spelling of an operation: torch's own binding where there is one, else the operator itself."""
    name = target._schema.name.split("::")[1]
    optional = any("Optional[Tensor]]" in str(a.type) for a in target._schema.arguments)  # lists that bindings refuse
    bound = None if optional else _binding(name, target.is_view)
    out = _out_overload(target)
    rest: tuple[tuple[str, Any], ...] = ()
    if bound is not None and (
        hasattr(torch._C._nn, name) or any(a.name == "reduction" for a in target._schema.arguments)
    ):
        rest = tuple((a.name, a.default_value) for a in target._schema.arguments if not a.kwarg_only)
    if out is None:
        return Spelling(name, bound or target, rest=rest)
    keyword_ = next(a.name for a in out._schema.arguments if a.is_out)
    if bound is not None and keyword_ == "out":
        return Spelling(name, bound, "out", bound, rest)
    return Spelling(name, bound or target, keyword_, out, rest)


def _binding(name: str, view: bool) -> Callable[..., Any] | None:
    for home in (torch._C._VariableFunctions, torch._C._nn, *([torch.Tensor] if view else ())):
        found = getattr(home, name, None)
        if callable(found):
            return found
    return None


def _out_overload(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The overload that writes one result into given memory without making another first."""
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments]
    if len(target._schema.returns) != 1:
        return None
    packet = target.overloadpacket
    for name in packet.overloads():
        overload = getattr(packet, name)
        outs = [a for a in overload._schema.arguments if a.is_out]
        rest = [(a.name, str(a.type)) for a in overload._schema.arguments if not a.is_out]
        if len(outs) == 1 and rest == wanted and torch.Tag.generated not in overload.tags:
            return overload
    return None


@functools.cache
def in_place(target: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """The method that writes the result over the first argument, which torch has for some operations."""
    name = target._schema.name.split("::")[1]
    packet = getattr(aten, f"{name}_", None)
    if packet is None or name.startswith("__"):
        return None
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments]
    overloads = (getattr(packet, o)._schema for o in packet.overloads())
    if not any([(a.name, str(a.type)) for a in s.arguments] == wanted for s in overloads):
        return None
    return getattr(torch.Tensor, f"{name}_", None)


# Their kernels reduce a row before they write it, so that the result may lie over the upstream gradient.
_ROW_BY_ROW = {aten._log_softmax_backward_data.default, aten._softmax_backward_data.default}
# Elementwise, though torch does not tag them so.
_ELEMENTWISE = {
    aten.mse_loss_backward.default, aten.huber_loss_backward.default, aten.smooth_l1_loss_backward.default,
    aten.hardtanh_backward.default, aten.binary_cross_entropy_backward.default,
}  # fmt: skip


def overwritable(node: fx.Node) -> list[fx.Node]:
    """The operands in whose memory the result may be written, if nobody reads them after."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return []
    operands = [a for a in node.args if isinstance(a, fx.Node)]
    if (torch.Tag.pointwise in target.tags or target in _ELEMENTWISE) and spelling(target).out is not None:
        return operands
    if target in _ROW_BY_ROW or (in_place(target) is not None and isinstance(node.args[0], fx.Node)):
        first = operands[:1]
        return first if torch.Tag.pointwise in target.tags or operands.count(operands[0]) == 1 else []
    return []


class Names:
    """Names for the variables of emitted code: the person's where there are any, each one once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def fresh(self, wanted: str) -> str:
        """A name that is free, as near to `wanted` as can be.

        >>> names = Names()
        >>> names.fresh("w1.g"), names.fresh("w1.g"), names.fresh("lambda")
        ('w1_g', 'w1_g_1', 'lambda_')
        """
        base = re.sub(r"\W", "_", wanted) or "value"
        base = f"_{base}" if base[0].isdigit() else base
        base = f"{base}_" if keyword.iskeyword(base) else base
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def literal(value: Any, text_of: Callable[[fx.Node], str], kept: Callable[[Any], str]) -> str:
    """An argument as code; `kept` names objects that have no literal."""
    if isinstance(value, fx.Node):
        return text_of(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(literal(v, text_of, kept) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else f"float('{value}')"
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    return kept(value)
