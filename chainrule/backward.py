"""From a recorded forward pass to the same graph with its backward pass. Knows no operation.

The nodes are walked backwards; the rule of each is run under the recorder, and what it computes is
recorded as further nodes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.program import Program, differentiable
from chainrule.reached import reached_from
from chainrule.recording import Recorder, Region
from chainrule.recording.numbers import slot
from chainrule.rules import BOOK, Rule, RuleBook
from chainrule.rules.autograd import autograd_step, function_step
from chainrule.rules.broadcast import unbroadcast
from chainrule.run import blank


def backward_pass(
    recorder: Recorder, output: fx.Node, upstream: torch.Tensor | None, wanted: list[fx.Node], book: RuleBook = BOOK
) -> Program:
    """Record the backward pass from `output` to `wanted`, by the rules of `book`; values are computed on the way.

    `upstream` is dL/d(output); without it the output is the loss, and its gradient is one.
    """
    return _Walk(recorder, output, wanted, book).run(upstream)


def _is_complex(node: fx.Node) -> bool:
    """Whether complex numbers enter or leave: the rules are written for real ones."""
    values = [n.meta.get("val") for n in (node, *node.all_input_nodes)]
    return any(isinstance(v, torch.Tensor) and v.dtype.is_complex for v in values)


def _conjugate(value: Any) -> None:
    """Conjugate the gradients on tensors. If y = f(z) is complex-differentiable, z.g = y.g * conj(f'(z)), which
    is conj(conj(y.g) * f'(z)): the rule for real numbers, between two conjugates."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for v in value:
            _conjugate(v)
    elif isinstance(value, torch.Tensor) and getattr(value, "g", None) is not None:
        value.g = value.g.conj()  # type: ignore[attr-defined]


def _after(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes of the graph that follow."""
    while True:
        node = node.next
        yield node


class _Walk:
    def __init__(self, recorder: Recorder, output: fx.Node, wanted: list[fx.Node], book: RuleBook) -> None:
        self.recorder, self.output, self.wanted, self.book = recorder, output, wanted, book
        self.reached = reached_from(wanted, recorder.graph)
        self.parts: dict[fx.Node, list[torch.Tensor]] = defaultdict(list)
        self.pending: Counter[int] = Counter()  # how often each tensor waits among the parts, by its id
        self.used: list[int] = []  # tensors whose last reader may have been stepped through
        self.stepped: list[fx.Node] = []
        self.gradients: dict[fx.Node, fx.Node] = {}
        self.fallbacks: list[str] = []

    def run(self, upstream: torch.Tensor | None) -> Program:
        recorder, output = self.recorder, self.output
        nodes = [n for n in recorder.graph.nodes if n in self.reached]
        value = output.meta["val"].detach()
        seed = next((n for n in recorder.inputs if n.meta.get("upstream")), None)  # that a hand-written pass was given
        if seed is None:
            seed = recorder.leaf((torch.ones_like(value) if upstream is None else upstream).detach(), name="out_g")
        seed.meta["seed"] = True
        with recorder.recording("backward"), torch.no_grad():
            if output in self.reached:
                self._pass(output, recorder.alias(seed.meta["val"], seed))
            done: set[int] = set()
            for node in reversed(nodes):
                region: Region | None = node.meta.get("region")
                if region is not None and id(region) in done:
                    continue
                known = len(recorder.entries)
                if self._upstream_of(node) is None:
                    continue
                if region is not None:
                    done.add(id(region))
                    self._region(node, region)
                elif any(n in self.reached for n in node.all_input_nodes):
                    self._step(node)
                if node.meta["operation"] != "part":  # else its tuple will read the gradient
                    self._forget(known)
        return Program(recorder.graph, list(recorder.inputs), output, seed, self.gradients, self.wanted,
                       recorder.guards, self.fallbacks, recorder.left())  # fmt: skip

    def _pass(self, to: fx.Node, g: torch.Tensor, by: fx.Node | None = None) -> None:
        """Note that the step through `by` gives `to` the gradient `g`."""
        self.parts[to].append(g)
        self.pending[id(g)] += 1
        entry = self.recorder.entry(g)
        if by is not None and entry is not None:
            by.meta.setdefault("passes", {}).setdefault(to, []).append(entry.node)

    def _forget(self, known: int) -> None:
        """Let go of the numbers that the steps so far have used up: the graph can compute them again.
        `known` is how many tensors the recorder knew before the last step."""
        entries = self.recorder.entries
        for key in [*islice(reversed(entries), len(entries) - known), *self.used]:
            entry = entries.get(key)
            if entry is None or self.pending[key]:
                continue
            del entries[key]
            node = entry.node
            if node.meta["phase"] == "backward":
                node.meta.update(val=blank(node.meta["val"]), planned=True)
                if node.meta["operation"] == "part":
                    node.args[0].meta["val"] = blank(node.args[0].meta["val"])  # type: ignore[union-attr]
        for node in self.stepped:
            node.meta["g"] = blank(node.meta["g"])
        self.used, self.stepped = [], []

    def _upstream_of(self, node: fx.Node) -> torch.Tensor | None:
        """The gradient of `node`: the sum of what its readers passed back."""
        parts = self.parts.pop(node, None)
        if not parts:
            return None if not isinstance(node.meta["val"], tuple | list) else self._parts_of_tuple(node)
        for part in parts:
            self.pending[id(part)] -= 1
        total = parts[0]
        for part in parts[1:]:
            total = total + part
            if (added := self.recorder.entry(total)) is not None:
                added.node.meta["accumulated"] = True  # paths that meet, not terms of one derivative
        entry = self.recorder.entry(total)
        assert entry is not None
        self.gradients[node] = entry.node
        node.meta["g"] = total
        self.used += [*map(id, parts), id(total)]
        self.stepped.append(node)
        return total

    def _parts_of_tuple(self, node: fx.Node) -> Any:
        children = [user for user in node.users if user.meta.get("operation") == "part"]
        return True if any(child in self.gradients for child in children) else None

    def _step(self, node: fx.Node) -> None:
        if node.meta["operation"] == "part":
            return  # its tuple is stepped through as a whole
        complex_ = _is_complex(node)
        rules = [r for r in self.book.steps(node.meta["operation"]) if not complex_ or r.holomorphic or r.complex]
        args = self._slots(node.args)
        kwargs = self._slots(node.kwargs)
        if node.target is getattr:
            args = args[:1]
        out = self._out(node)
        before = next(reversed(self.recorder.graph.nodes))
        try:
            if not any(self._by_rule(rule, out, args, kwargs, complex_ and rule.holomorphic) for rule in rules):
                self.fallbacks.append(node.meta["operation"])
                self._pass_back(autograd_step(node, out, self.recorder, self.reached), node)
                return
        except ChainruleError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(n.meta["val"].shape)) for n in node.all_input_nodes if differentiable(n))
            raise ChainruleError(
                f"the backward step of {node.meta['operation']} {shapes} failed with {type(error).__name__}: {error}; "
                "give it a rule with cr.rule, and please report it",
                node.meta.get("site"),
            ) from error
        for made in takewhile(lambda n: n.op != "root", _after(before)):
            made.meta["rule"] = node.meta["operation"]
        self._collect((args, kwargs), node)

    def _by_rule(self, rule: Rule, out: Any, args: Any, kwargs: Any, conjugated: bool) -> bool:
        """Run `rule`, where it covers the call; whether it did."""
        if conjugated:
            _conjugate(out)
        bound = rule.bind(out, args, kwargs)
        covered = (
            bound is not None and self._run(rule, bound) is not NotImplemented and not self._missed((args, kwargs))
        )
        if conjugated:
            _conjugate((args, kwargs) if covered else out)
        return covered

    def _run(self, rule: Rule, bound: Any) -> Any:
        recorder = self.recorder
        recorder.rule_code, recorder.rule_frame = rule.backward.__code__, None
        result = rule.backward(*bound.args, **bound.kwargs)
        names: dict[str, Any] = getattr(recorder.rule_frame, "f_locals", {})
        for name, value in names.items():
            entry = recorder.entry(value) if isinstance(value, torch.Tensor) else None
            if entry is not None and entry.node.meta["phase"] == "backward":
                entry.node.meta.setdefault("hint", name)  # `scale` says more than `rsqrt`
        recorder.rule_code = recorder.rule_frame = None
        return result

    def _missed(self, value: Any) -> bool:
        """Whether the rule left out a slot through which a gradient should pass."""
        if isinstance(value, tuple | list):
            return any(self._missed(v) for v in value)
        if isinstance(value, dict):
            return self._missed(list(value.values()))
        if not isinstance(value, torch.Tensor) or hasattr(value, "g"):
            return False
        entry = self.recorder.entry(value)
        return entry is not None and entry.node in self.reached

    def _region(self, node: fx.Node, region: Region) -> None:
        """A call with a backward step of its own, which stands for all that is inside."""
        if region.function is not None:
            self.fallbacks.append(region.function.__name__)
            outputs = [node, *(n for n in region.nodes if self._upstream_of(n) is not None)]
            self._pass_back(function_step(outputs, region, self.recorder, self.reached), node)
            return
        rule = self.book.of_code(region.code)
        assert rule is not None
        args = self._slots(region.arguments)
        bound = rule.bind(self._out(node), tuple(args.values()), {})
        if bound is None:
            raise ChainruleError(f"the rule for {rule.name} does not take its arguments", node.meta.get("site"))
        self._run(rule, bound)
        self._collect(args, node)

    def _pass_back(self, gradients: dict[fx.Node, torch.Tensor], by: fx.Node) -> None:
        for read, gradient in gradients.items():
            if read in self.reached:
                self._pass(read, gradient, by)

    def _out(self, node: fx.Node) -> Any:
        if not isinstance(node.meta["val"], tuple | list):
            return self._upstream_on(self.recorder.alias(node.meta["val"], node), node.meta["g"])
        children = {u.args[1]: u for u in node.users if u.meta.get("operation") == "part"}
        outs: list[Any] = []
        for index, value in enumerate(node.meta["val"]):
            child = children.get(index)
            if child is None or not differentiable(child):
                outs.append(value)
                continue
            alias = self.recorder.alias(value, child)
            g = child.meta["g"] if child in self.gradients else torch.zeros_like(alias)
            alias.reached = child in self.gradients
            outs.append(self._upstream_on(alias, g))
        return tuple(outs)

    @staticmethod
    def _upstream_on(out: Any, g: torch.Tensor) -> Any:
        out.g = g
        return out

    def _slots(self, value: Any) -> Any:
        """A slot for each argument: a tensor of its own, even where one tensor is passed twice."""
        if isinstance(value, fx.Node):
            alias = self.recorder.alias(value.meta["val"], value)
            if isinstance(alias, torch.Tensor):
                alias.reached = value in self.reached  # type: ignore[attr-defined]
            return alias
        if isinstance(value, tuple):
            return tuple(self._slots(v) for v in value)
        if isinstance(value, list):
            return [self._slots(v) for v in value]
        if isinstance(value, dict):
            return {k: self._slots(v) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(self._slots(value.start), self._slots(value.stop), self._slots(value.step))
        if type(value) in (int, float, complex):
            return slot(value)
        return value

    def _collect(self, value: Any, by: fx.Node) -> None:
        """Pass back what the rule of the step through `by` left on the slots."""
        if isinstance(value, tuple | list):
            for v in value:
                self._collect(v, by)
        elif isinstance(value, dict):
            self._collect(list(value.values()), by)
        elif isinstance(value, torch.Tensor) and hasattr(value, "g"):
            entry = self.recorder.entry(value)
            assert entry is not None
            g: Any = value.g
            if g is None:
                entry.node.meta["no_gradient"] = True  # the operation defines none, in autograd either
            elif entry.node in self.reached:
                if g.dtype.is_complex and not value.dtype.is_complex:
                    g = g.real
                g = unbroadcast(g, value)  # summed before it is rounded
                self._pass(entry.node, g if g.dtype == value.dtype else g.to(value.dtype), by)
