"""What the recorder keeps: a tensor and its node, a condition, a call with a backward step of its own."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.errors import Site


@dataclass(slots=True)
class Entry:
    """A tensor that the recorder knows, the node that made it, and its version at that time."""

    tensor: torch.Tensor
    node: fx.Node
    version: int
    depth: int = 10_000  # how far inside the program its name was found; the outermost wins


@dataclass
class Guard:
    """What the recorded path took for granted: a node that must give True."""

    node: fx.Node
    site: Site | None


@dataclass
class Region:
    """A call whose inside is left to a backward step of its own: a person's function that has a rule,
    or a torch.autograd.Function."""

    code: types.CodeType
    arguments: Any  # tensors as nodes; by name for a function, in order for an autograd.Function
    function: Any = None  # the torch.autograd.Function
    values: Any = None  # the arguments themselves
    nodes: list[fx.Node] = field(default_factory=list)

    @property
    def reads(self) -> list[fx.Node]:
        """The nodes among the arguments."""
        return _nodes(self.arguments)


def version_of(tensor: torch.Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # inference tensors keep no version
        return 0


def not_dense(tensor: torch.Tensor) -> str:
    """What a tensor is that is not dense, "a sparse_coo tensor"; nothing for one that is."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    return "" if tensor.layout is torch.strided else f"a {str(tensor.layout).removeprefix('torch.')} tensor"


def _nodes(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [n for v in value for n in _nodes(v)] if isinstance(value, tuple | list) else []
