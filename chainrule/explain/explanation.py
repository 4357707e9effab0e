"""The explanation of a derivation: each line of both passes with its mathematics, its shapes and its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.explain.local import LocalReader, LocalStep, Paths
from chainrule.explain.reasons import generic, reason_of
from chainrule.explain.shapes import meeting, shape_of
from chainrule.explain.step import Paragraph, Step
from chainrule.show.layout import Layout, Line
from chainrule.show.mathematics import Reader, text
from chainrule.show.mathematics.term import equation, gradient, number

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


class Explanation:
    """The steps of a derivation in order: inputs, forward lines, backward lines; `explanation["w1.g"]` is one."""

    def __init__(self, d: Derivation) -> None:
        self.derivation = d
        self.steps: list[Step] = list(_Explainer(d).steps())

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        """The line that gives a value to `name`; ChainruleError where none does."""
        for step in self.steps:
            if name in step.targets or (step.formula is not None and name in step.formula.parts[0].names):
                return step
        raise ChainruleError(f"no line gives {name!r}; there are {', '.join(t for s in self.steps for t in s.targets)}")

    def __str__(self) -> str:
        lines = []
        for step in self.steps:
            if step.formula is None:
                continue
            lines += [step.code, f"    {text(step.formula)}", f"    {step.shapes}"]
            lines += [f"    {step.reason}"] if step.reason else []
        return "\n".join(lines)

    def to_html(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """One page to share: it holds all that it needs, makes no request, and works with scripts off.

        Returns the page, and writes it to `path` where one is given.
        """
        from chainrule.explain.page import page

        return _written(page(self, title), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """A document for Quarto, Jupyter Book and GitHub; written to `path` where one is given."""
        from chainrule.explain.markdown import markdown

        return _written(markdown(self, title), path)

    def to_latex(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """A document that pdflatex compiles with plain TeX Live; written to `path` where one is given."""
        from chainrule.explain.document import document

        return _written(document(self, title), path)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from chainrule.explain.notebook import bundle

        return bundle(self)


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


class _Explainer:
    def __init__(self, d: Derivation) -> None:
        d.values()
        self.d, self.program = d, d.program
        self.layout = Layout(d.program, dotted=True)
        self.reader = Reader(self.layout.python.variable, d.program.upstream)
        self.lines = [li for li in self.layout.lines if li.phase in ("forward", "backward")]
        shown = {n.meta["base"]: v for n, v in self.layout.variables.items() if "base" in n.meta and self._is_shown(n)}
        local = LocalReader(shown, d._base.gradients)
        stops = {li.of.meta["base"] for li in self.lines if li.of is not None} | {d.program.output.meta["base"]}
        forward = [n for n in d._base.graph.nodes if n.meta["phase"] == "forward"]
        self.paths = Paths(forward, stops, local)

    def _is_shown(self, node: fx.Node) -> bool:
        return node.meta["phase"] == "forward" and self.layout.python.variable(node) is not None

    def steps(self) -> Iterator[Step]:
        inputs = [
            n for n in self.program.inputs if n in self.layout.variables and isinstance(n.meta["val"], torch.Tensor)
        ]
        made = [self._input(node) for node in inputs] + [self._step(line) for line in self.lines if line.target]
        yield from _linked(made, self._partners())

    def _input(self, node: fx.Node) -> Step:
        known, value = self.layout.variables[node], node.meta["val"].detach()
        return Step(f"input-{known}", "input", (known,), known, None, shape_of(value), value)

    def _step(self, line: Line) -> Step:
        node = line.node
        formula = self.reader.line(line.target, node, line.alias)
        site = node.meta.get("site") if line.phase == "forward" else None
        value = node.meta["val"]
        value = value if isinstance(value, torch.Tensor) else next(v for v in value if isinstance(v, torch.Tensor))
        targets = tuple(t.strip(",") for t in line.target.split(", "))
        derivation, sentence = self._why(line) if line.phase == "backward" else ((), "")
        return Step(
            _key(line), line.phase, targets, line.text, formula,
            meeting(node, self.layout.python.variable, line.alias), value.detach(),
            reads=tuple(dict.fromkeys(formula.parts[1].names)), derivation=derivation, reason=sentence,
            file=site.file if site else "", line=site.line if site else None,
        )  # fmt: skip

    def _why(self, line: Line) -> tuple[tuple[Paragraph, ...], str]:
        if line.of is None:
            return (), "a value that the lines below use"
        steps = self.paths.back_to(line.of.meta["base"])
        if not steps:
            return (), ""
        found: list[Paragraph] = []
        if self.program.output.meta["base"] in (s.node for s in steps) and self.program.upstream is None:
            loss = gradient(self.layout.variables[self.program.output])
            said = "L is the loss itself, so the chain starts with"
            found.append(Paragraph((said,), "Start", equation(loss, number(1))))
        for step in steps:
            found += reason_of(step).paragraphs
        return (*found, *self._together(line, steps)), " and ".join(dict.fromkeys(reason_of(s).sentence for s in steps))

    def _together(self, line: Line, steps: list[LocalStep]) -> list[Paragraph]:
        assert line.of is not None
        readers = [s for s in steps if s.read is line.of.meta["base"]]
        found = []
        if len(readers) > 1:
            found.append(generic.added(readers[0].of, [s.out for s in readers]))
        if len(steps) > 1:
            formula = self.reader.line(line.target, line.node, line.alias)
            found.append(Paragraph(("All of it in one line",), "Together", formula))
        return found

    def _partners(self) -> dict[str, list[str]]:
        """For each backward line, the forward lines whose operations it goes back through, by their keys."""
        owner: dict[fx.Node, str] = {}
        for line in self.lines:
            if line.phase == "forward" and line.target:
                for node in (line.node, *self.layout.inlined(line.node)):
                    owner.setdefault(node.meta["base"], _key(line))
        return {
            _key(line): list(dict.fromkeys(owner[n] for n in self.paths.through(line.of.meta["base"]) if n in owner))
            for line in self.lines
            if line.of is not None
        }


def _key(line: Line) -> str:
    return f"{line.phase}-{line.target.split(',')[0]}"


def _linked(steps: list[Step], partners: dict[str, list[str]]) -> Iterator[Step]:
    """The steps with the keys of those that belong to them in the other pass, and of those that read them."""
    both: dict[str, list[str]] = {key: list(found) for key, found in partners.items()}
    for key, found in partners.items():
        for other in found:
            both.setdefault(other, []).append(key)
    for step in steps:
        gives = step.formula.parts[0].names if step.formula is not None else step.targets  # mul_g is read as mul.g
        used = [s.key for s in steps if s is not step and not set(gives).isdisjoint(s.reads)]
        yield replace(step, partners=tuple(both.get(step.key, ())), used_by=tuple(used))
