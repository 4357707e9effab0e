"""An explanation inside a notebook: the lines of both passes in a compact form, without a script."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from chainrule.explain.page.line import code, formula, paragraph, shapes
from chainrule.explain.page.step import Steps
from chainrule.explain.prose import sentence

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation
    from chainrule.explain.step import Step

# Inherited text and translucent lines read on light and dark notebooks; every rule stays inside the cell.
_STYLE = """
.chainrule-explanation { line-height: 1.45; max-width: 60rem; }
.chainrule-explanation ol { margin: 0; padding: 0; list-style: none; }
.chainrule-explanation li { padding: .35em 0 .35em .8em; margin: 0; border-top: 1px solid rgba(128, 128, 128, .3); }
.chainrule-explanation li.forward { border-left: 3px solid var(--chainrule-forward, #4a83d4); }
.chainrule-explanation li.backward { border-left: 3px solid var(--chainrule-backward, #d0643f); }
.chainrule-explanation h4 { margin: .7em 0 .1em; }
.chainrule-explanation p { margin: .15em 0; }
.chainrule-explanation code, .chainrule-explanation .shapes { font-family: monospace; font-size: .92em; background: none; color: inherit; }
.chainrule-explanation .formula, .chainrule-explanation .line { overflow-x: auto; }
.chainrule-explanation .line { white-space: pre; }
.chainrule-explanation .formula math { width: max-content; }
.chainrule-explanation math .word { font-style: italic; }
.chainrule-explanation math mtext { white-space: pre; }
.chainrule-explanation .shapes, .chainrule-explanation summary { opacity: .7; }
.chainrule-explanation summary { cursor: pointer; }
"""


def cell(explanation: Explanation) -> str:
    """The lines of both passes, to be shown below a cell."""
    steps = Steps.of(explanation)
    return _framed(
        f"<h4>{title}</h4>" + listed(steps, steps.phase(phase))
        for phase, title in (("forward", "Forward pass"), ("backward", "Backward pass"))
    )


def cell_of(step: Step) -> str:
    """One line with its whole derivation."""
    steps = Steps.of([step])
    return _framed([listed(steps, [step], opened=True)])


def _framed(parts: Iterable[str]) -> str:
    return f'<div class="chainrule-explanation" lang="en"><style>{_STYLE}</style>{"".join(parts)}</div>'


def listed(steps: Steps, shown: Iterable[Step], opened: bool = False) -> str:
    return f"<ol>{''.join(_item(steps, step, opened) for step in shown)}</ol>"


def _item(steps: Steps, step: Step, opened: bool) -> str:
    parts = [f'<li class="{step.phase}"><div class="line">{code(step.code, steps.names)}</div>']
    parts += [formula(step.formula)] if step.formula is not None else []
    parts.append(f"<p>{shapes(step.shapes)}</p>")
    parts += [f"<p>{escape(sentence(step.reason))}</p>"] if step.reason else []
    if step.derivation:
        derivation = "".join(paragraph(p) for p in step.derivation)
        parts.append(f"<details{' open' * opened}><summary>Derivation</summary>{derivation}</details>")
    return "".join([*parts, "</li>"])
