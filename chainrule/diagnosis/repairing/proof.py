"""Proves a repair: the person's function is run with the edit made, and its gradients are compared again."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.arrays.shapes import unwritten
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.locating.rows import Rows
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.repairing.edited import edited
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case
from chainrule.recording.names import reachable

_RIGHT = frozenset(("right", "close"))
_UNWRITTEN = 7  # what np.empty holds while a repair is tried: none that adds to it is right


@dataclass(frozen=True)
class Repaired:
    """The gradients that an edit makes right by themselves; and whether that is told by the person's own: one of them is
    right, and no guess at a value on the way alone."""

    names: frozenset[str] = frozenset()
    told: bool = False


def repaired(
    edit: Edit, code: types.CodeType, again: Callable[[], Handwritten], before: Located, whole: bool = False
) -> Repaired:
    """What is right with the edit made; nothing if another gradient has become wrong, or, of a `whole` repair, if one is
    left wrong."""
    try:
        with edited(edit, code), kept(before.case), unwritten(_UNWRITTEN):
            case = Case(again())
            if whole and not Rows(case).ok:
                return Repaired()
            located = Located(case)
    except Exception:  # whatever the edited code raises: it is no repair
        return Repaired()
    if len(located.case.claims) < len(before.case.claims):  # what is no longer said is not right
        return Repaired()
    then, now = wrong_names(before), wrong_names(located)
    right = frozenset(then - now)
    return Repaired(right, _tells(right, located, before)) if now <= then else Repaired()


def wrong_names(located: Located) -> set[str]:
    """The gradients that are wrong by themselves, or missing."""
    return {w.claim.name for w in located.wrong} | {located.case.names.get(n, n.name) for n in located.missing}


def _tells(right: frozenset[str], after: Located, before: Located) -> bool:
    """Whether one of the gradients that are right, or would be if those above it were, is the person's own claim."""
    wrong = {c.name for c, row in before.rows.items() if row.status not in _RIGHT}
    return not wrong or any(c.name in right or (c.name in wrong and r.status in _RIGHT) for c, r in after.rows.items())


@contextmanager
def kept(case: Case) -> Iterator[None]:
    """Afterwards the tensors that the code can reach are as before: their numbers and their gradients."""
    hand = case.hand
    tensors = {id(t): t for t in reachable(hand.recorder.arguments, hand.recorder.forward)}
    tensors |= {id(t): t for n in case.base.inputs if isinstance(t := n.meta.get("given", n.meta["val"]), torch.Tensor)}
    state: list[tuple[torch.Tensor, torch.Tensor, Any]] = []
    with torch._C.DisableTorchFunction():
        for tensor in tensors.values():
            state.append((tensor, tensor.detach().clone(), tensor.__dict__.get("g")))
    originals = {id(n.meta["given"]): n.meta["val"] for n in case.base.inputs if "given" in n.meta}
    for tensor, _, _ in state:
        if id(tensor) in originals:
            _put(tensor, originals[id(tensor)])
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for tensor, value, g in state:
            _put(tensor, value)
            if g is None:
                tensor.__dict__.pop("g", None)
            else:
                tensor.__dict__["g"] = g


def _put(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.shape == value.shape and not torch.equal(tensor.detach(), value):
        with torch.no_grad(), torch._C.DisableTorchFunction():
            tensor.data.copy_(value)  # whose version autograd does not count
