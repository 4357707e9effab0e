"""One step of an explanation as an item of a list, with what unfolds below it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from chainrule.explain.names import gradient_of, names_of, pieces
from chainrule.explain.page.line import code, formula, paragraph, shapes, table
from chainrule.explain.page.values import beside, heat
from chainrule.explain.prose import sentence
from chainrule.explain.step import Step
from chainrule.explain.values import facts


@dataclass(frozen=True)
class Steps:
    """The steps of an explanation, which find each other by the names that they give."""

    all: list[Step]
    names: set[str]
    by_key: dict[str, Step]
    by_name: dict[str, Step]  # of several that give a value to a name the first
    alike: dict[str, Step]  # by key, the step whose derivation stands for that of a later one

    @classmethod
    def of(cls, steps: Iterable[Step], brief: bool = False) -> Steps:
        """`brief` derives the first of several lines that are equal but for their names."""
        found = list(steps)
        names = names_of(found)
        by_name = {name: step for step in reversed(found) for name in step.targets}
        firsts: dict[tuple[str, ...], Step] = {}
        alike = {s.key: f for s in found if (f := firsts.setdefault(_kind(s, names), s)) is not s} if brief else {}
        return cls(found, names, {s.key: s for s in found}, by_name, alike)

    def phase(self, phase: str) -> list[Step]:
        return [s for s in self.all if s.phase == phase]

    def gradient(self, step: Step) -> Step | None:
        """The step that gives the gradient of what `step` gives."""
        name = gradient_of(step.targets[0], self.names)
        return self.by_name.get(name) if name is not None else None

    def item(self, step: Step, number: int) -> str:
        """A step as an item of a list."""
        parts = [
            f'<li class="step {step.phase}" id="{escape(step.key)}" data-gives="{escape(" ".join(step.targets))}" '
            f'data-partners="{escape(" ".join(step.partners))}">',
            f'<a class="number" href="#{escape(step.key)}" aria-label="Line {number}: {escape(step.code)}">{number}</a>',
            f'<div class="line">{code(step.code, self.names)}</div>',
        ]
        if step.formula is not None:
            parts.append(formula(step.formula))
        parts.append(f'<p class="meet">{shapes(step.shapes)}</p>')
        if step.reason:
            parts.append(f'<p class="why">{escape(sentence(step.reason))}</p>')
        title = "Derivation and values" if step.derivation else "Values"
        said = f'{title}<span class="hidden"> of {escape(", ".join(step.targets))}</span>'
        parts.append(f"<details><summary>{said}</summary>{self.fold(step)}</details></li>")
        return "".join(parts)

    def fold(self, step: Step) -> str:
        """The derivation, the values, and the lines that belong to a step."""
        if step.derivation and step.key in self.alike:
            derivation = f"<p>As for {self.link(self.alike[step.key])} above, in other names.</p>"
        else:
            derivation = "".join(paragraph(p) for p in step.derivation)
        parts = [f'<div class="derivation">{derivation}</div>'] if derivation else []
        return "".join([*parts, self.values(step), self.links(step)])

    def values(self, step: Step) -> str:
        """The value that a step gives, beside its gradient or beside that whose gradient it is."""
        if step.phase != "backward":
            pair = [step, self.gradient(step)]
        else:
            pair = [self.by_name.get(step.targets[0][:-2]), step]
        shown = {s.targets[0]: s.value for s in pair if s is not None}
        return beside(shown) + (heat(shown) if step.phase == "backward" and step.key not in self.alike else "")

    def links(self, step: Step) -> str:
        """Links to the lines of the other pass, to those that read the value, and to what it is computed from."""
        reads = [self.by_name[name] for name in step.reads if name in self.by_name]
        other = "In the backward pass" if step.phase == "forward" else "In the forward pass"
        rows = [
            (other, [self.by_key[k] for k in step.partners]),
            ("Computed from", reads),
            ("Read by", [self.by_key[k] for k in step.used_by]),
        ]
        listed = [(what, ", ".join(dict.fromkeys(map(self.link, found)))) for what, found in rows if found]
        if step.file:
            listed.append(("Written in", f"<code>{escape(Path(step.file).name)}</code>, line {step.line}"))
        return "<dl>" + "".join(f"<div><dt>{a}</dt><dd>{b}</dd></div>" for a, b in listed) + "</dl>" if listed else ""

    def link(self, step: Step) -> str:
        name, shown = step.targets[0], escape(", ".join(step.targets))
        return f'<a href="#{escape(step.key)}" data-name="{escape(name)}"><code>{shown}</code></a>'

    def inputs(self, person: dict[str, str]) -> str:
        """The inputs as a table; `person` has the names under which the person knows them, where those differ."""
        rows = []
        for step in self.phase("input"):
            name = step.targets[0]
            known = f'<br><span class="known">{escape(person[name])}</span>' if name in person else ""
            gradient = self.gradient(step)
            readers = ", ".join(self.link(s) for s in self.all if s.key in step.used_by and s.phase == "forward")
            rows.append([
                f'<span class="step input" id="{escape(step.key)}"><code data-name="{escape(name)}">{escape(name)}</code></span>{known}',
                shapes(step.shapes),
                f'<details><summary>{escape(facts(step.value))}<span class="hidden">: values of {escape(name)}</span>'
                f"</summary>{self.values(step)}</details>",
                readers,
                self.link(gradient) if gradient is not None else "",
            ])  # fmt: skip
        return table(["Name", "Shape", "Values", "Read by", "Gradient"], rows, "inputs")


def _kind(step: Step, names: set[str]) -> tuple[str, ...]:
    """What two lines have in common that are equal but for their names."""
    numbers: dict[str, int] = {}
    code = (
        f"{{{numbers.setdefault(name, len(numbers))}}}" if name else text for text, name in pieces(step.code, names)
    )
    return (step.phase, "".join(code), step.shapes, *(p.title for p in step.derivation))
