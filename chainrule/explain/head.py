"""What stands above an explanation: the file, the output, what was asked for, and whether it was checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.checking.verdict import Verdict
from chainrule.explain.names import names_of
from chainrule.traces.summary import number

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

RUNS = 500  # the oracles run every forward line several times for each input; more than so many take long
NUMBERS = 20_000_000  # of all values, times inputs


@dataclass(frozen=True)
class Head:
    """The head of a document about a derivation."""

    title: str
    facts: list[tuple[str, str]]  # ("loss", "0.4123")
    verdict: Verdict | None  # None where the oracles would take long
    notes: list[str]

    @property
    def checked(self) -> str:
        """The verdict in one sentence."""
        if self.verdict is None:
            return "Every gradient was compared with autograd's when it was derived."
        wrong = [row for row in self.verdict.rows if row.alone]
        if not wrong:
            return "Rules, autograd and finite differences agree on every gradient."
        return " ".join(f"{row.name}: {row.alone} stands alone." for row in wrong)


def head(explanation: Explanation, title: str | None = None) -> Head:
    """`title` is the file of most forward lines unless it is given."""
    d = explanation.derivation
    files = Counter(Path(s.file).name for s in explanation if s.file and Path(s.file).is_file())  # no notebook's cell
    where = files.most_common(1)[0][0] if files else ""
    output = next((s.targets[0] for s in reversed(explanation.steps) if s.phase == "forward"), "output")
    out = d.output.detach()
    shown = f"{output} = {number(out, 6)}" if out.ndim == 0 else f"{output} {tuple(out.shape)}"
    gradients = [g for g in d.grads.values() if g is not None]
    count = sum(g.numel() for g in gradients)
    facts = [("File", where)] if where else []
    facts.append(("Output", shown))
    if d.program.upstream is not None:
        given = names_of(explanation) - {t for s in explanation for t in s.targets}
        facts.append(("Given", f"{', '.join(sorted(given)) or 'nothing'}, the gradient of the output"))
    facts.append(("Gradients", f"of {len(gradients)} input{'s' * (len(gradients) != 1)}, {count:,} numbers"))
    if d.fallbacks:
        facts.append(("One step each from autograd", ", ".join(d.fallbacks)))
    cheap = len(explanation) * len(d.grads) <= RUNS and (
        sum(s.value.numel() for s in explanation) * len(d.grads) <= NUMBERS
    )
    verdict = d.verify() if cheap and not d.inputs_have_moved() else None
    return Head(title or f"Backpropagation through {where or output}", facts, verdict, list(d.notes))
