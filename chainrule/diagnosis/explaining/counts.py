"""Counts of elements: what is averaged over, and one that should be another wherever it is read, `m = h * w` where each
group has channels, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, Mutation
from chainrule.diagnosis.explaining.ratios import is_proportional
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.sketch import Sketches, is_tensor

if TYPE_CHECKING:
    from chainrule.diagnosis.explaining.search import Search

_WAYS = 6  # of writing one size


def other_counts(search: Search, names: Mapping[fx.Node, str], spot: Spot | None) -> Iterator[Mutation]:
    """Another number where a size got its name: times a size, or a size in its place. Only other sizes tell which it is."""
    if search.resized is None or spot is None:
        return
    trial, sketches = search.trials[0], search.around.sketches
    tensors = [v for n in search.around.reach if isinstance(v := trial.values.get(n), torch.Tensor)]
    sizes = sorted({size for value in tensors for size in value.shape if size > 1})
    for node, name in names.items():
        now = trial.values.get(node)
        read = any(node in n.all_input_nodes for n in search.nodes)
        defined = source.definition_of(name, spot.code, spot.line) if read and type(now) is int else None
        for size in sizes if defined is not None else ():
            for times in (True, False):
                wanted = now * size if times else size  # type: ignore[operator]
                if wanted == now or not same(search.outcome([(node, wanted)], trial), trial.goal):
                    continue
                cause = "wrong-scale" if is_proportional(search, trial) else "wrong-term-scale"
                for far, other in enumerate(islice(search.scales.sizes_of(size, trial.values), _WAYS)):
                    by = sketches.operation("mul", node, other) if times else sketches.operation("mul", 1, other)
                    by.meta["defines"], by.meta["kept"], by.meta["size"] = defined, times, other
                    if same(search.outcome([(node, by)], search.resized), search.resized.goal):
                        yield Mutation(search.root, by, cause, REPLACED + 0.4 + 0.01 * far, changes=[(node, by)])


def averaged_over(forward: Iterable[fx.Node], sketches: Sketches) -> list[list[fx.Node]]:
    """The sizes of the axes, of each average over several: `h` and `w` of `x.mean(axis=(2, 3))`."""
    found: dict[tuple[fx.Node, tuple[int, ...]], list[fx.Node]] = {}
    for node in forward:
        value = node.args[0] if node.meta.get("operation") in ("mean", "var", "std") and node.args else None
        given: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        if is_tensor(value) and isinstance(given, tuple | list) and len(given) > 1:
            ndim = value.meta["val"].ndim  # type: ignore[union-attr]
            axes = tuple(axis % ndim for axis in given)
            found.setdefault((value, axes), [sketches.size(value, axis) for axis in axes])  # type: ignore[arg-type]
    return list(found.values())
