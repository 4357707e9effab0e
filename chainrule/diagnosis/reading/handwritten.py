"""What a person gave to `check`, and what a run of it left: the gradients that they wrote by hand, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.handed import Call
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.reading.writes import Write
from chainrule.program import differentiable
from chainrule.recording import Recorder, Region
from chainrule.run import needed

Met = Callable[[int, torch.Tensor], None]
Run = Callable[["Asked"], "Handwritten"]


@dataclass(frozen=True)
class Asked:
    """What a person gave to `check`: code and arguments, and what they said about them."""

    code: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    loss: Any = None
    wrt: Any = None
    forward: Callable[..., Any] | None = None
    reference: Callable[..., Any] | None = None
    function: str = ""  # the name of the torch.autograd.Function whose forward and backward these are
    cutting: bool = False  # whether no gradient passes through what is computed under torch.no_grad
    unit: bool = False  # the upstream gradient of a loss is 1, as loss.backward() gives it, and no random number
    following: bool = False  # whether the calls of layers are noted, and what they are given is told apart

    @property
    def name(self) -> str:
        return self.function or getattr(self.code, "__name__", None) or type(self.code).__name__


@dataclass
class Handwritten:
    """A recorded run: the loss (or an output with a random upstream), and where the gradients are."""

    asked: Asked
    recorder: Recorder
    output: torch.Tensor
    upstream: torch.Tensor | None
    writes: list[Write]
    returned: Any = None  # what the code returned, where gradients may be among it
    of_object: Any = None  # the object whose attributes hold gradients
    stale: list[fx.Node] = field(default_factory=list)  # inputs whose `.g` is still the one from before the run
    regions: list[Region] = field(default_factory=list)
    began: int = 0  # the spot at which a backward pass that is a call of its own began; 0 where it is not
    parameters: list[str] = field(default_factory=list)  # of the forward pass, in order
    kept: dict[str, tuple[float, Spot]] = field(default_factory=dict)  # numbers that a forward pass keeps on `ctx`
    own: torch.Tensor | None = None  # what their own forward pass gave, where another one is compared with
    calls: list[Call] = field(default_factory=list)  # of layers, where they were followed
    objects: list[tuple[Any, str]] = field(default_factory=list)  # of_object, or those reached, with the way to each
    bare: bool = False  # whether backward() took no upstream gradient
    left_out: list[str] = field(default_factory=list)  # parameters that may be upstream gradients, and were not given

    def labels(self) -> Iterator[str]:
        """The names under which gradients may be kept or returned: attributes, and keys."""
        held = [vars(owner) for owner, _ in self.objects] + [self.returned]
        for space in held:
            if isinstance(space, dict):
                yield from (str(k) for k in space)
                yield from (str(k) for v in space.values() if isinstance(v, dict) for k in v)
        if isinstance(self.returned, tuple):
            yield from (str(k) for v in self.returned if isinstance(v, dict) for k in v)

    def given_to_function(self) -> list[fx.Node | None]:
        """The arguments of a torch.autograd.Function as they were given, before it may write into them; None for one that
        can have no gradient."""
        given = {id(n.meta.get("given", n.meta["val"])): n for n in self.recorder.inputs if differentiable(n)}
        return [given.get(id(a)) if isinstance(a, torch.Tensor) else None for a in self.asked.args]

    def without_grad(self) -> list[fx.Node]:
        """What the loss is computed from under torch.no_grad, where the loss itself is not."""
        entry = self.recorder.entry(self.output)
        used = needed([entry.node]) if entry is not None and "without_grad" not in entry.node.meta else []
        return [n for n in used if "without_grad" in n.meta]

    @property
    def by_own(self) -> Handwritten:
        """The same run, with the truth derived from their own forward pass where that was recorded."""
        return self if self.own is None else replace(self, output=self.own, own=None)
