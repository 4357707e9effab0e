"""From a derivation to the steps of its explanation: which lines belong together, and why each is what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.explain.local import LocalReader, LocalStep, Paths
from chainrule.explain.reasons import Reason, generic, reason_of
from chainrule.explain.shapes import meeting, shape_of
from chainrule.explain.step import Paragraph, Step
from chainrule.show.layout import Layout, Line
from chainrule.show.mathematics import Reader
from chainrule.show.mathematics.reader import gradient_named, is_gradient
from chainrule.show.mathematics.term import equation, gradient, name, number

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


def sentences(d: Derivation) -> dict[fx.Node, str]:
    """For each value of the program as it was derived, why the line of its gradient is what it is."""
    explainer = Explainer(d)
    found = {}
    for line in explainer.lines:
        own = [line.of] if line.of is not None else []
        for node in dict.fromkeys([*explainer.given_by(line), *own]):
            found[node.meta["base"]] = explainer.why(line)[1]
    return found


class Explainer:
    """Makes the steps of one derivation."""

    def __init__(self, d: Derivation) -> None:
        d.values()
        self.d, self.program = d, d.program
        self.layout = Layout(d.program, dotted=True)
        self.reader = Reader(self.layout.python.variable, d.program.upstream)
        self.order = {node: i for i, node in enumerate(d.program.graph.nodes)}
        self.lines = [li for li in self.layout.lines if li.phase in ("forward", "backward")]
        shown = {n.meta["base"]: v for n, v in self.layout.variables.items() if "base" in n.meta and self._is_shown(n)}
        variables = {of.meta["base"]: known for line in self.lines for of, known in self.given_by(line).items()}
        local = LocalReader(shown, variables, d._base.gradients, self.layout.namer.give)
        stops = {*variables, d.program.output.meta["base"]}
        forward = [n for n in d._base.graph.nodes if n.meta["phase"] == "forward"]
        self.paths = Paths(forward, stops, local)

    def _is_shown(self, node: fx.Node) -> bool:
        return node.meta["phase"] == "forward" and self.layout.python.variable(node) is not None

    def given_by(self, line: Line) -> dict[fx.Node, str]:
        """The forward values whose gradients a line gives, with their names in it; several where its operation has
        several results."""
        if line.of is not None:
            return {self._last(line): line.target}
        if line.phase != "backward" or not isinstance(line.node.meta["val"], tuple | list):
            return {}
        targets = [t.strip(",") for t in line.target.split(", ")]
        parts = [u for u in line.node.users if u.meta["operation"] == "part" and u in self.layout.owners]
        return {self.layout.owners[part]: targets[int(str(part.args[1]))] for part in parts}

    def _last(self, line: Line) -> fx.Node:
        """Of the values that have one gradient, since sums pass it on unchanged, the one nearest to the output."""
        assert line.of is not None
        if line.alias or line.of.op == "placeholder":
            return line.of
        same = {f for f, g in self.program.gradients.items() if g is line.node and f.op != "placeholder"}
        return max(same | {line.of}, key=self.order.__getitem__)

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
        if isinstance(value, tuple | list):
            value = next(v for v in value if isinstance(v, torch.Tensor))
        targets = tuple(t.strip(",") for t in line.target.split(", "))
        derivation, sentence = self.why(line) if line.phase == "backward" else ((), "")
        return Step(
            _key(line), line.phase, targets, line.text, formula,
            meeting(node, self.layout.python.variable, line.alias), torch.as_tensor(value).detach(),
            reads=tuple(dict.fromkeys(formula.parts[1].names)), derivation=derivation, reason=sentence,
            file=site.file if site else "", line=site.line if site else None,
        )  # fmt: skip

    def why(self, line: Line) -> tuple[tuple[Paragraph, ...], str]:
        """The derivation of a backward line, and its reason in a sentence."""
        values = [node.meta["base"] for node in self.given_by(line)]
        if not values:
            through = line.node.meta.get("rule")
            return (), f"a part of the step back through {through}" if through else "a part of the lines below"
        found: list[Paragraph] = []
        steps = list({(s.node, s.read): s for value in values for s in self.paths.back_to(value)}.values())
        if self.program.output.meta["base"] in (s.node for s in steps) and self.program.upstream is None:
            loss = gradient(self.layout.variables[self.program.output])
            said = "L is the loss itself, so the chain starts with"
            found.append(Paragraph((said,), "Start", equation(loss, number(1))))
        reasons = {step: reason_of(step) for step in steps}
        known: set[object] = set()
        for i, step in enumerate(steps):
            found += reasons[step].paragraphs if step.kind not in known else [generic.again(step)]
            known.add(step.kind)
            if step.readers > 1 and all(later.read is not step.read for later in steps[i + 1 :]):
                found.append(generic.added([s for s in steps if s.read is step.read]))
        if len(steps) > 1:
            formula = self.reader.line(line.target, line.node, line.alias)
            found.append(Paragraph(("All of it in one line",), "Together", formula))
        found = [*self._shorthands(found), *found]
        return (*self._unnamed(found), *found), _sentence(reasons, set(values))

    def _unnamed(self, paragraphs: list[Paragraph]) -> list[Paragraph]:
        """Whose gradients those are that the code names after an operation, since their values have no name."""
        used = {name for p in paragraphs for name in p.names}
        local = self.paths.reader
        return [
            Paragraph(
                (
                    gradient_named(variable),
                    " is the gradient of ",
                    local.value(node),
                    ", which has no name in the code.",
                )
            )
            for node, variable in local.variables.items()
            if variable in used and node not in local.names and is_gradient(variable)
        ] + [
            Paragraph(
                (gradient_named(variable), " is the gradient of ", local.value(node), " as well: what lies between the two passes "
                 "it on unchanged.")
            )
            for node, variable in local.variables.items()
            if variable in used and is_gradient(variable) and local.names.get(node, variable[:-2]) != variable[:-2]
        ]  # fmt: skip

    def _shorthands(self, paragraphs: list[Paragraph]) -> list[Paragraph]:
        """What the names stand for that were given to long expressions in these paragraphs."""
        short, used = self.paths.reader.short, [n for p in paragraphs for n in p.names]
        for known in used:  # grows on the way: an expression may hold another
            used += [n for n in short[known].names if n not in used] if known in short else []
        return [
            Paragraph(("For short,",), "", equation(name(known), short[known]))
            for known in dict.fromkeys(used)
            if known in short
        ]

    def _partners(self) -> dict[str, list[str]]:
        """For each backward line, the forward lines whose operations it goes back through, by their keys."""
        owner: dict[fx.Node, str] = {}
        for line in self.lines:
            if line.phase == "forward" and line.target:
                for node in (line.node, *self.layout.inlined(line.node)):
                    owner.setdefault(node.meta["base"], _key(line))
        found: dict[str, list[str]] = {}
        for line in self.lines:
            through = [n for of in self.given_by(line) for n in self.paths.through(of.meta["base"])]
            if through:
                found[_key(line)] = list(dict.fromkeys(owner[n] for n in through if n in owner))
        return found


def _sentence(reasons: dict[LocalStep, Reason], values: set[fx.Node]) -> str:
    """The reasons in one sentence; what goes without saying only where there is nothing else, or where paths meet."""
    first = {step.kind: (step, reason) for step, reason in reversed(reasons.items())}  # a loop has many alike
    told = [(step, reason) for step, reason in reversed(first.values())]
    meeting = [s for s in reasons if s.read in values and s.readers > 1]
    weighty = [r.sentence for s, r in told if not r.minor or s in meeting] or [r.sentence for _, r in told]
    paths = f"{len(meeting)} paths add up: " if meeting else ""
    return paths + "; ".join(dict.fromkeys(weighty))


def _key(line: Line) -> str:
    return f"{line.phase}-{line.target.split(',')[0]}"


def _linked(steps: list[Step], partners: dict[str, list[str]]) -> Iterator[Step]:
    """The steps with the keys of those that belong to them in the other pass, and of those that read them."""
    both: dict[str, list[str]] = {key: list(found) for key, found in partners.items()}
    for key, found in partners.items():
        for other in found:
            both.setdefault(other, []).append(key)
    readers: dict[str, list[str]] = {}
    for step in steps:
        for known in step.reads:
            readers.setdefault(known, []).append(step.key)
    for step in steps:
        used = dict.fromkeys(key for known in step.targets for key in readers.get(known, ()) if key != step.key)
        yield replace(step, partners=tuple(both.get(step.key, ())), used_by=tuple(used))
