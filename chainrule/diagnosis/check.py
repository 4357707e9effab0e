"""The verb: compares every hand-written gradient with the truth, and says of each mistake what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chainrule.arrays.code import kinds_of
from chainrule.diagnosis.functions.functions import check_alone
from chainrule.diagnosis.reading.forms import is_function_class
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.readings import by_readings
from chainrule.diagnosis.report import Report


def check(
    code: Any,
    *args: Any,
    loss: Any = None,
    wrt: Any = None,
    forward: Any = None,
    reference: Any = None,
    **kwargs: Any,
) -> Report:
    """Compare every gradient that `code(*args)` computes by hand with the truth.

    `code` is one of

    - a function that leaves `.g` on tensors, or returns gradients: a dictionary, or a tuple in the order of `wrt`
      (names or tensors), else told by the names of the variables (`dw`, `w_grad`), else by the order of the
      arguments. Its loss is what it returns, or its local `loss`, or the local that `loss=` names;
    - an object with `forward` (or a call) and `backward`: one that leaves `.g`, or takes the upstream gradient,
      returns that of its input and keeps the others as attributes (`self.dw`); or its class, if that needs no arguments;
    - a torch.autograd.Function, or an operator that is registered with torch.library, or a function that calls some;
    - a backward function, `layer_backward(dout, cache)`, with its forward function as `forward=`, or found beside
      it by its name, `layer_forward`. Both may be NumPy code; `reference=` is a forward pass in torch to be compared
      with, where theirs cannot be recorded.

    A plain number among the arguments (`b=0.3`) is an input where the code leaves a gradient of it, or `wrt` names it.

    The hand-written pass is recorded and run again in float64, so that rounding is not taken for a mistake. Each
    finding names the line that is wrong given the gradients that it was computed from, the cause (one of
    `chainrule.diagnosis.causes.CAUSES`) and the repaired line, which has been run where `.proved` is true.

    Raises ChainruleError where no loss is found, or nothing was written by hand.

    >>> import torch
    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     loss = (x * w).sum()
    ...     w.g = 2 * x
    >>> report = check(step, torch.ones(2))
    >>> report.ok, report.rows[0].status, report.findings[0].cause, report.findings[0].repair
    (False, 'wrong', 'wrong-scale', 'w.g = x')
    """
    given = Asked(code, args, kwargs, loss, wrt, forward, reference)
    with torch.inference_mode(False), _as_before(given):  # where autograd could not be asked
        report = check_alone(given)
        return by_readings(given) if report is None else report


@contextmanager
def _as_before(asked: Asked) -> Iterator[None]:
    """What a run of torch code leaves is the person's own, `.g` above all. Other code ran on arrays of ours, which are no
    values of theirs, and an autograd.Function may write into its arguments: afterwards all is as before."""
    own = "torch" in kinds_of(asked.code, (asked.args, asked.kwargs)) and not is_function_class(asked.code)
    state = None if own else State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference])
    try:
        yield
    finally:
        if state is not None:
            state.restore()
