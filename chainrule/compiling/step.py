"""The compiled step that a person calls: a plan for each shape of batch, parameters that are updated in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten

from chainrule.compiling.optimisers import Gathering
from chainrule.compiling.plan import Plan
from chainrule.compiling.verify import undisturbed
from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.compiling.planner import Planner


MOST = 64  # plans that are kept: those that were used last


class Step:
    """A training step. `step(*batch)` is the loss, after the parameters have moved; see `compile`."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.optimizer = planner.optimiser
        self._lock = threading.RLock()
        self._plans: dict[Any, Plan] = {}
        self._last: Plan | None = None
        self._fits: Callable[..., bool] = _never
        self._call: Callable[..., Any] = _never

    def __repr__(self) -> str:
        plan = self._last
        moved = (
            f"moves {len(plan.lowered.gradients)} parameters by {self.optimizer}"
            if plan and self.optimizer
            else "gradients"
        )
        return f"<Step, engine {plan.engine if plan else None}, {moved}; {len(self._plans)} plans>"

    def __call__(self, *batch: Any, **named: Any) -> Any:
        with self._lock:  # the memory of a plan serves one call at a time
            if not named and len(batch) == self._count and self._known(batch):
                return self._call(*batch)
            self.prepare(*batch, **named)
            return self._call(*(t.detach() for t in _leaves(batch, named) if isinstance(t, torch.Tensor)))

    def _known(self, batch: tuple[Any, ...]) -> bool:
        try:
            return self._fits(*batch)
        except (AttributeError, KeyError, IndexError):  # no tensor, or a parameter is gone from where it was
            return False

    _count = -1  # of the arguments, where all are tensors

    def run(self, batches: Iterable[Any]) -> torch.Tensor:
        """A step for each batch (a tuple of arguments, or the one argument); their losses, as one tensor.

        >>> import chainrule as cr
        >>> x, y, w = torch.randn(8, 3), torch.randn(8), torch.zeros(3, requires_grad=True)
        >>> step = cr.compile(lambda x, y: ((x @ w - y) ** 2).mean(), x, y, optimizer=cr.SGD(lr=0.1))
        >>> step.run(zip(x.split(4), y.split(4))).shape
        torch.Size([2])
        """
        losses = [self(*batch) if isinstance(batch, tuple | list) else self(batch) for batch in batches]
        if self.optimizer is None:
            losses = [loss for loss, _ in losses]
        return torch.stack(losses) if losses else torch.empty(0)

    def prepare(self, *batch: Any, **named: Any) -> Plan:
        """Plan for batches like this one, without taking a step."""
        self._refuse_replaced()
        leaves, spec = tree_flatten((batch, named))
        of_batch: tuple[Any, ...] = (spec, *map(_kind, leaves), _same(leaves))
        if not self._planner.settled:
            of_batch += tuple(t.requires_grad for t in leaves if isinstance(t, torch.Tensor))
        key = (*of_batch, self._planner.surroundings())
        kept = self._plans.pop(key, None)
        if kept is None:
            tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
            with undisturbed():
                kept = self._planner.plan(batch, named, tensors)
            key = (*of_batch, self._planner.surroundings())  # the first plan has found them
            for oldest in list(self._plans)[: len(self._plans) + 1 - MOST]:
                del self._plans[oldest]
        self._plans[key] = kept  # behind those that were used before it
        self._take(self._plans[key], leaves, len(batch) if not named else -1)
        return self._plans[key]

    def plan(self) -> Plan:
        """The plan of the last batch: `print` it."""
        assert self._last is not None
        return self._last

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The optimiser's tensors, by the names of the parameters; they are those that the step writes to."""
        return self._planner.named_state()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs beside the parameters to go on: the optimiser's tensors, and how many steps were taken."""
        inner = self._planner.inner
        return {
            "steps": self.optimizer.steps if self.optimizer else 0,
            "gathered": inner.seen if isinstance(inner, Gathering) else 0,  # calls since the last step
            "state": {k: v.clone() for k, v in self.state.items()},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises ChainruleError where its names or shapes are not those of this step."""
        ours = self.state
        if set(saved["state"]) != set(ours):
            missing = ", ".join(sorted(set(saved["state"]) ^ set(ours)))
            raise ChainruleError(f"the state of another step was given: {missing} stand in only one of the two")
        for name, tensor in ours.items():
            if saved["state"][name].shape != tensor.shape:
                given = tuple(saved["state"][name].shape)
                raise ChainruleError(
                    f"the state of another step was given: {name} is {given} there, {tuple(tensor.shape)} here"
                )
        for name, tensor in ours.items():
            tensor.copy_(saved["state"][name])
        if self.optimizer is not None:
            self.optimizer.steps = saved["steps"]
        if isinstance(self._planner.inner, Gathering):
            self._planner.inner.seen = saved["gathered"]

    def _take(self, plan: Plan, leaves: list[Any], count: int) -> None:
        self._last, self._call = plan, plan.call
        plain = all(isinstance(t, torch.Tensor) for t in leaves) and len(set(map(id, leaves))) == len(leaves)
        self._count = count if plain and count == len(leaves) else -1
        if self._count >= 0:
            planner = self._planner
            kept = [(p.container, p.key, p.held) for p in planner.places]
            self._fits = _fit(leaves, planner.params or [], kept, planner.modules)

    def _refuse_replaced(self) -> None:
        for place in self._planner.places:
            if place.holds():
                continue
            if isinstance(place.held, torch.nn.Module):
                raise ChainruleError(
                    f"the module {place.key or type(place.held).__name__} was replaced since the step was compiled; "
                    "compile the step again"
                )
            name = self._planner.name_of(place.held)
            into = f"{name}.data.copy_(new)" if place.held.requires_grad else f"{name}.copy_(new)"
            raise ChainruleError(
                f"{name} {tuple(place.held.shape)} was replaced by another tensor since the step was compiled; "
                f"write into it ({into}), give it to the step as an argument, or compile the step again"
            )


def _never(*batch: Any) -> bool:
    return False


def _leaves(batch: Any, named: Any) -> list[Any]:
    return tree_flatten((batch, named))[0]


def _kind(leaf: Any) -> Any:
    """What a plan takes for granted of an argument: a tensor's layout, anything else as it is."""
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    try:
        hash(leaf)
    except TypeError:
        raise ChainruleError(
            f"a step was given a {type(leaf).__name__}, which may change without notice; give tensors, numbers or "
            "strings, and lists, tuples or dictionaries of them"
        ) from None
    return type(leaf), leaf


def _same(leaves: list[Any]) -> tuple[int, ...]:
    """Which arguments are one and the same tensor."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(leaf), i) for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))


def _fit(
    leaves: list[torch.Tensor],
    params: list[torch.Tensor],
    kept: list[tuple[Any, Any, Any]],
    modules: list[torch.nn.Module],
) -> Callable[..., bool]:
    """A quick look whether arguments are like `leaves`, and the surroundings as they were."""
    space: dict[str, Any] = {"params": params, "pointers": [p.data_ptr() for p in params], "kept": kept}
    space |= {"asks": [p.requires_grad for p in params], "modules": modules, "training": [m.training for m in modules]}
    tests = []
    for i, leaf in enumerate(leaves):
        space |= {
            f"shape{i}": leaf.shape,
            f"stride{i}": leaf.stride(),
            f"dtype{i}": leaf.dtype,
            f"device{i}": leaf.device,
        }
        tests += [f"a{i}.shape == shape{i}", f"a{i}.dtype is dtype{i}", f"a{i}.stride() == stride{i}"]
        tests += [f"a{i}.device == device{i}", f"not a{i}.requires_grad"]
    tests += ["[p.data_ptr() for p in params] == pointers"] if params else []
    tests += ["[p.requires_grad for p in params] == asks"] if params else []
    tests += ["not [1 for held, key, tensor in kept if held[key] is not tensor]"] if kept else []
    tests += ["[m.training for m in modules] == training"] if modules else []
    arguments = ", ".join(f"a{i}" for i in range(len(leaves)))
    made: Callable[..., bool] = eval(f"lambda {arguments}: {' and '.join(tests)}", space)
    return made
