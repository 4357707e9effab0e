"""One ordinary call of a torch.autograd.Function: what all other circumstances are compared with, and told against."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.diagnosis.functions.function_calls import (
    Calls,
    Failed,
    Gradients,
    Refused,
    backward_of,
    parameter_names,
    random_like,
)
from chainrule.diagnosis.report import Finding


class OrdinaryCall:
    """A Function's gradients for its sample arguments, and the findings about it."""

    def __init__(self, calls: Calls, reference: Callable[..., Any] | None) -> None:
        self.calls, self.reference, self.name = calls, reference, calls.name
        self.names = parameter_names(calls.function, len(calls.values))
        self.findings: list[Finding] = []
        self.told: set[str] = set()

    # -- the ordinary call, which the others are compared with ------------------------------------

    def ready(self) -> bool:
        """Choose the precision and the inputs that have a gradient; False where no ordinary call works."""
        given, wide = self.calls.with_dtype(False), self.calls.with_dtype(True)
        same = all(given[i].dtype == wide[i].dtype for i in self.calls.floating)
        refusal: Failed | None = None
        for values in [wide] if same else [wide, given]:
            self.calls.values = values
            try:
                self._choose_wanted()
            except Failed as error:
                refusal = refusal or error
                continue
            except Refused:
                continue
            if refusal is not None:
                self.say("dtype", "", "contract", "raises for float64 inputs, which forward takes", refusal)
            return self._repeats()
        return False

    def _choose_wanted(self) -> None:
        calls, failed = self.calls, None
        calls.wanted = calls.floating
        try:
            calls.gradients()
        except Failed as error:
            failed = error
            calls.wanted = []
            for i in calls.floating:  # a backward may refuse an input on purpose
                try:
                    calls.gradients(wanted=[i])
                except Failed:
                    continue
                calls.wanted = [*calls.wanted, i]
            if not calls.wanted:
                raise failed from None
            calls.gradients()

    def _repeats(self) -> bool:
        """Whether two runs agree: nothing can be said of a Function that keeps a state or draws its own numbers."""
        (self.forward, self.gradients), (_, again) = self.calls.gradients(), self.calls.gradients()
        self.returned, self.saved = self.calls.watch.returned, self.calls.watch.saved
        dtypes = [self.calls.values[i].dtype for i in self.calls.floating] + [t.dtype for t in self.forward.outputs]
        eps = max((torch.finfo(d).eps for d in dtypes), default=1.0)
        self.tolerance = 1e-5 if eps < 1e-12 else 2e-3 if eps < 1e-5 else 0.1
        self.floor = 1e4 * eps
        return bool(self.forward.outputs) and all(self.agree(again[i], self.gradients[i]) for i in again)

    def agree(self, got: Tensor | None, truth: Tensor | None, scale: float = 1.0) -> bool:
        """The same up to rounding; None is zeros. Where the truth is not finite, anything goes."""
        if got is None or truth is None:
            one = truth if got is None else got
            return one is None or not bool((one.detach().nan_to_num(0.0, 0.0, 0.0).abs() > self.floor * scale).any())
        if got.shape != truth.shape:
            return False
        got, truth, finite = got.detach(), truth.detach(), torch.isfinite(truth)
        if not bool(finite.any()):
            return True
        size = float(truth[finite].abs().max())
        gap = torch.where(torch.isfinite(got[finite]), (got[finite] - truth[finite]).abs().double(), torch.inf)
        return float(gap.max()) <= self.tolerance * size + self.floor * scale

    def different(self, got: Gradients, truth: Gradients) -> list[int]:
        sizes = [
            float(g.detach().nan_to_num(0, 0, 0).abs().max()) for g in truth.values() if g is not None and g.numel()
        ]
        scale = max([1.0, *sizes])
        return [i for i in got if not self.agree(got[i], truth[i], scale)]

    def stable(self, values: Sequence[Any]) -> bool:
        """Whether the gradients stay when the inputs move by rounding: ties and singular matrices do not."""
        noise = 1e3 * torch.finfo(torch.float64).eps if self.tolerance == 1e-5 else 1e-6
        moved = [v * (1 + noise * random_like(v, i)) if i in self.calls.floating else v for i, v in enumerate(values)]
        try:
            return not self.different(self.calls.gradients(moved)[1], self.calls.gradients(values)[1])
        except (Refused, Failed):
            return False

    # -- telling ----------------------------------------------------------------------------------

    def say(
        self, promise: str, argument: str, cause: str, what: str, failed: Failed | None = None, repair: str = ""
    ) -> None:
        """A finding; one for each promise and argument."""
        key = f"{promise} {argument}"
        if key in self.told:
            return
        self.told.add(key)
        function = self.calls.function.forward if promise == "forward" else backward_of(self.calls.function)
        file, line, text = place(function, failed)
        method = "forward" if promise == "forward" else "backward"
        reason = f" ({failed})" if failed is not None else ""
        name = f"{self.name}.{argument}" if argument else self.name
        self.findings.append(
            Finding(name, line, cause, f"{self.name}.{method} {what}{reason}", repair, False, file, text)
        )

    @property
    def upstream(self) -> str:
        names = list(inspect.signature(backward_of(self.calls.function)).parameters.values())[1:]
        return names[0].name if names and names[0].kind is not names[0].VAR_POSITIONAL else "the upstream"


def place(function: Any, failed: Failed | None) -> tuple[str | None, int | None, str]:
    """File, line and text: where the error was raised, otherwise the `def`."""
    try:
        function = inspect.unwrap(function)
        file = inspect.getsourcefile(function)
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return None, None, ""
    if failed is not None:
        for frame in reversed(traceback.extract_tb(failed.reason.__traceback__)):
            if frame.filename == file and frame.lineno is not None:
                return file, frame.lineno, (frame.line or "").strip()
    offset = next((k for k, text in enumerate(lines) if text.lstrip().startswith("def ")), 0)
    return file, first + offset, lines[offset].strip()
