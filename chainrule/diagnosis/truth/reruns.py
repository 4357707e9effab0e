"""Runs of a person's code once more with other values for some of its inputs; what they change is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Run
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.repairing.proof import kept
from chainrule.diagnosis.report import Report
from chainrule.diagnosis.truth.case import Case

Again = Callable[[Run], Handwritten]
Change = Callable[[Asked], Asked]


@dataclass(frozen=True)
class Rerun:
    """Runs a person's code once more."""

    again: Again
    run: Run
    own: bool = False  # whether the truth is that of their own forward pass

    def __call__(self) -> Handwritten:
        hand = self.again(self.run)
        return hand.by_own if self.own else hand

    def changed(self, change: Change) -> Rerun:
        """The same with other data."""
        return replace(self, run=lambda asked: self.run(change(asked)))


@dataclass
class Moves:
    """Other values for some inputs of a run: tensors by their place among the inputs, numbers by that of the argument."""

    tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)  # as it was, as it is to be
    numbers: dict[int | str, float] = field(default_factory=dict)
    _made: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def _met(self, place: int, tensor: torch.Tensor) -> None:
        """A run meets an input: it takes its other value, in place, until `undo`."""
        was, other = self.tensors.get(place, (None, None))
        if was is None or other is None or was.shape != tensor.shape or was.dtype != tensor.dtype:
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            if torch.equal(tensor.detach(), was):
                self._made.append((tensor, was))
                tensor.data.copy_(other)

    def run(self, asked: Asked) -> Handwritten:
        """Run the code with these values."""
        return run_handwritten(self._of(asked), met=self._met)

    def _of(self, asked: Asked) -> Asked:
        """What was asked, with the other numbers."""
        if not self.numbers:
            return asked
        args = tuple(self.numbers.get(i, a) for i, a in enumerate(asked.args))
        named = {k: v for k, v in self.numbers.items() if isinstance(k, str)}
        return replace(asked, args=args, kwargs={**asked.kwargs, **named})

    def undo(self) -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for tensor, was in reversed(self._made):
                tensor.data.copy_(was)
        self._made.clear()


def state_of(hand: Handwritten) -> State:
    """What the code may have changed, as it is after its run."""
    asked = hand.asked
    return State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference, hand.recorder.arguments])


class Reruns:
    """Runs of the code that was located, after each of which everything is as before."""

    def __init__(self, located: Located, again: Again) -> None:
        self.located, self.again = located, again

    @cached_property
    def _state(self) -> State:
        return state_of(self.located.case.hand)

    @contextmanager
    def _undone(self, moves: Moves) -> Iterator[None]:
        state = self._state
        try:
            with kept(self.located.case):
                yield
        finally:
            moves.undo()
            state.restore()

    def report(self, moves: Moves, report: Callable[[Handwritten, Run], Report]) -> Report | None:
        try:
            with self._undone(moves):
                return report(self.again(moves.run), moves.run)
        except Exception:  # whatever their code raises for other values: it is not meant for them
            return None

    def run(self, moves: Moves) -> Located | None:
        """None where the code does not run with these values, or a gradient is not finite there."""
        try:
            with self._undone(moves):
                other = Located(Case(self.again(moves.run)))
        except Exception:
            return None
        here = other.case.here
        return other if all(bool(torch.isfinite(here.truth(c.value)).all()) for c in other.case.claims) else None

    @cached_property
    def as_given(self) -> Located | None:
        """A run with the given values; None where it is not right once more, so that no run tells anything."""
        other = self.run(Moves())
        return other if other is not None and not wrong(other) else None


def wrong(located: Located) -> list[Claim]:
    return [claim for claim, row in located.rows.items() if row.status not in ("right", "close")]
