"""Recording in the open, for notebook cells: a block instead of a function."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import torch

from chainrule.derivation import Derivation
from chainrule.deriving import EVERYTHING, derivation, new_recorder
from chainrule.errors import ChainruleError
from chainrule.recording.names import caller
from chainrule.recording.plainly import as_plain_python
from chainrule.recording.sizes import lent


class Tape:
    """What `record()` gives: remembers the operations of its block and fills `.g` on request."""

    def __init__(self) -> None:
        self.recorder = new_recorder()
        self._open = ExitStack()

    def __enter__(self) -> Tape:
        self.recorder.watch.start(caller(1), inclusive=True)
        self._open.enter_context(torch.enable_grad())
        self._open.enter_context(as_plain_python())
        self._open.enter_context(lent(caller(1).f_globals))
        self._open.enter_context(self.recorder.recording("forward"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self.recorder.watch.look(caller(1))
        self.recorder.watch.finish()

    def backward(self, loss: torch.Tensor, upstream: torch.Tensor | None = None) -> Derivation:
        """Leave `.g` on every recorded tensor that `loss` depends on; returns the derivation.

        Raises ChainruleError where `loss` was not made on this tape, or is not a scalar and has no upstream.
        """
        entry = self.recorder.entry(loss) if isinstance(loss, torch.Tensor) else None
        if entry is None:
            raise ChainruleError(
                "tape.backward was given a loss that this tape did not record; compute it inside the block"
            )
        d = derivation(self.recorder, loss, EVERYTHING, upstream)
        d.leave_gradients()
        return d


def record() -> Tape:
    """Record the operations of a block of code.

    >>> x, w = torch.tensor([1., 2.]), torch.tensor([3., 4.])
    >>> with record() as tape:
    ...     out = x * w
    ...     loss = out.sum()
    >>> d = tape.backward(loss)
    >>> w.g, out.g
    (tensor([1., 2.]), tensor([1., 1.]))
    """
    return Tape()
