"""A readable identifier for every value: the person's name where there is one, torch.fx's style elsewhere."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import fx

if TYPE_CHECKING:
    from chainrule.show.layout import Layout

RESERVED = {*keyword.kwlist, "torch", "F", "float", "forward_and_backward", "ctx"}


class Namer:
    """Hands out identifiers; a name used for two values is `x`, `x_1`, `x_2` in order."""

    def __init__(self) -> None:
        self.taken: set[str] = set(RESERVED)

    def give(self, wanted: str, avoid: Iterable[str] = ()) -> str:
        base = re.sub(r"\W", "_", wanted) or "t"
        if base[0].isdigit():
            base = f"t{base}"
        name, count = base, 0
        while name in self.taken or name in avoid:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def name_values(nodes: Iterable[fx.Node], taken: Iterable[str] = ()) -> tuple[dict[fx.Node, str], Namer]:
    """Identifiers for inputs and for every forward value that the person named, other than those `taken`."""
    namer, named = Namer(), {}
    namer.taken.update(taken)
    ordered = list(nodes)
    if any(n.meta.get("seed") for n in ordered):
        namer.taken.add("out_g")
    for node in ordered:
        if node.meta.get("seed"):
            named[node] = "out_g"
        elif node.op == "placeholder" and node.meta["operation"] != "drawn":
            named[node] = namer.give(node.meta.get("name") or "t")
    for node in ordered:
        if node.op != "placeholder" and node.meta.get("phase") == "forward" and node.meta.get("name"):
            named[node] = namer.give(node.meta["name"])
    for node in ordered:  # masks and noise take what names are left
        if node.meta["operation"] == "drawn" and node not in named:
            named[node] = namer.give(node.meta.get("name") or "drawn")
    return named, namer


def keys(nodes: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """The names under which values are looked up (`d["layers.0.weight"]`): dots stay."""
    taken: set[str] = set()
    found = {}
    for node in sorted(nodes, key=lambda n: (n.meta["operation"] == "drawn", n.op != "placeholder")):
        base = node.meta.get("name") or ("drawn" if node.op == "placeholder" else None)
        if not base or node.meta.get("phase") == "backward":
            continue
        name, count = base, 0
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        found[node] = name
    return found


def same_gradient(layout: Layout, name: str) -> str | None:
    """The name under which a line gives the gradient `name`, which is that of another value too: `l2.g` is `l1.g`."""
    value = next((n for n, known in layout.variables.items() if f"{known}.g" == name), None)
    gradient = layout.program.gradients.get(value) if value is not None else None
    return layout.variables.get(gradient) if gradient is not None and gradient in layout.shown else None


def name_of(node: fx.Node) -> str:
    """The person's name for a value, the rule's, or one made from its operation; a detached value has the name of
    what it was."""
    for named in ("name", "hint"):
        if node.meta.get(named):
            return str(node.meta[named])
    if node.meta["operation"] == "detach" and isinstance(node.args[0], fx.Node):
        return name_of(node.args[0])
    return temporary(str(node.meta["operation"]))


def name_of_size(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """A name for a number that is kept: `x_shape`, where `names` has x."""
    of = node.args[0] if node.args else None
    if node.meta["operation"] not in ("shape", "numel") or not isinstance(of, fx.Node):
        return name_of(node)
    return f"{names.get(of) or name_of(of)}_{node.meta['operation']}"


def temporary(operation: str) -> str:
    """A name for a value that has none: its operation, clear of Python's own names."""
    return f"{operation}_1" if hasattr(builtins, operation) else operation
