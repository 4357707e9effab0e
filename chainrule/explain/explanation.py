"""The explanation of a derivation: each line of both passes with its mathematics, its shapes and its reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chainrule.explain.explainer import Explainer
from chainrule.explain.step import Step
from chainrule.show.mathematics import text

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


class Explanation:
    """The steps of a derivation in order: inputs, forward lines, backward lines; `explanation["w1.g"]` is one."""

    def __init__(self, d: Derivation) -> None:
        self.derivation = d
        self.steps: list[Step] = list(Explainer(d).steps())

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        return next(s for s in self.steps if name in s.targets)

    def __str__(self) -> str:
        lines = []
        for step in self.steps:
            if step.formula is None:
                continue
            lines += [step.code, f"    {text(step.formula)}", f"    {step.shapes}"]
            lines += [f"    {step.reason}"] if step.reason else []
        return "\n".join(lines)
