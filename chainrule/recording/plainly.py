"""What torch would compile or checkpoint is recorded as the plain Python that it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def as_plain_python() -> Iterator[None]:
    """Compiled functions run eagerly, and reentrant checkpoints run what they wrap."""
    with ExitStack() as changes:
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled yet, and importing it takes seconds
            changes.enter_context(torch.compiler.set_stance("force_eager"))
        module = sys.modules.get("torch.utils.checkpoint")
        if module is not None and vars(module.CheckpointFunction).get("apply") is not _wrapped:
            module.CheckpointFunction.apply = _wrapped
            changes.callback(delattr, module.CheckpointFunction, "apply")  # which uncovers that of the base class
        yield


def _wrapped(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    return function(*args)
