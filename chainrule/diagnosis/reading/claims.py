"""Which hand-written value is whose gradient: told by `.g`, by what was returned, by an attribute, by a name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.aliases import node_for
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.made import is_given, is_parameter_of_an_object
from chainrule.diagnosis.reading.spots import Spot
from chainrule.errors import ChainruleError
from chainrule.program import differentiable
from chainrule.recording import Recorder
from chainrule.run import needed

_PREFIX = re.compile(r"(?:dl_?d|dloss_?d|grad_?|delta_?|d_?|g_?)(.+)", re.IGNORECASE)
_SUFFIX = re.compile(r"(.+?)(?:_gradient|_grad|_g|_bar|_d|\.grad|\.g|grad)", re.IGNORECASE)


@dataclass(eq=False)
class Claim:
    """A hand-written value that says it is the gradient of `value`."""

    value: fx.Node
    node: fx.Node  # the node that computed it
    tensor: torch.Tensor  # in the person's dtype
    name: str  # of the value
    target: str  # as the person writes it: "w.g", "dw"
    spot: Spot | None  # where it was computed, or set
    explicit: bool = True  # told by the code, not guessed from a name


def guessed(node: fx.Node, value: fx.Node, name: str) -> Claim:
    """`node` as the gradient of `value`, which no code tells."""
    told = str(node.meta.get("name") or f"the gradient of {name}")
    return Claim(value, node, node.meta["val"], name, told, node.meta.get("spot"), False)


def names_meant(name: str) -> list[str]:
    """The names of which `name` may be the gradient, as people write it.

    >>> names_meant("dW1"), names_meant("out_grad"), names_meant("w.g")
    (['W1'], ['out'], ['w'])
    """
    found = [m.group(1) for p in (_SUFFIX, _PREFIX) if (m := p.fullmatch(name)) is not None]
    return list(dict.fromkeys(found))


def _name_in(spot: Spot | None) -> str:
    """The variable whose `.g` a line sets."""
    assigned = source.assignment_at(spot.span) if spot is not None and spot.span is not None else None
    name = assigned.target.removesuffix(".g") if assigned is not None and assigned.target.endswith(".g") else ""
    return name if name.isidentifier() else ""


_TAKEN = frozenset(
    ("getitem", "select", "part", "clone", "detach", "copy")
)  # what takes a value, or some of it, as it is


class Claims:
    """The gradients that a run left, in the order in which they were computed."""

    def __init__(self, hand: Handwritten, names: dict[fx.Node, str], forward: set[fx.Node]) -> None:
        self.hand, self.names, self.forward = hand, names, forward
        self.recorder: Recorder = hand.recorder
        self.by_name = {name.casefold(): node for node, name in reversed(names.items())}
        for node, name in reversed(names.items()):
            self.by_name.setdefault(name.split(".")[-1].casefold(), node)

    def explicit(self) -> list[Claim]:
        found = self._left()
        if self.hand.began or not any(c.value.op == "placeholder" for c in found):
            for claim in [*self._returned(), *self._attributes(), *self._stepped()]:
                if all(claim.value is not c.value for c in found):
                    found.append(claim)
        return self._in_order(found or self._in_variables())

    def by_convention(self, taken: Iterable[Claim]) -> list[Claim]:
        """Values on the way whose names say that they are gradients: `dz`, `l1_grad`."""
        nodes, values = {c.node for c in taken}, {c.value for c in taken}
        found: dict[fx.Node, Claim] = {}
        several = self._in_turns()
        for node in self.recorder.graph.nodes:
            name = node.meta.get("name")
            if not name or node in self.forward or node in nodes or node.meta["phase"] != "forward":
                continue
            shape = tuple(getattr(node.meta["val"], "shape", ()))
            value = self._meant(name, shape) or self._unsummed(name, shape)
            if name in several:
                continue
            if value is not None and value not in values and differentiable(node) and node.op != "placeholder":
                found[value] = Claim(
                    value, node, node.meta["val"], self.names[value], name, node.meta.get("spot"), False
                )
        return list(found.values())

    def _in_turns(self) -> set[str]:
        """Names that one line outside the forward pass binds several times, in a loop: each to another gradient."""
        found: dict[tuple[str, Any, int], int] = {}
        for node in self.recorder.graph.nodes:
            name, spot = node.meta.get("name"), node.meta.get("spot")
            if name and spot is not None and node not in self.forward and "same_as" not in node.meta:
                key = name, spot.code, spot.index
                found[key] = found.get(key, 0) + 1
        return {name for (name, _, _), times in found.items() if times > 1}

    # -- told by `.g` ----------------------------------------------------------------------------

    def _left(self) -> list[Claim]:
        found: dict[fx.Node, Claim] = {}
        given = {id(n.meta.get("given", n.meta["val"])): n for n in self.recorder.inputs}
        for write in self.hand.writes:
            now = write.tensor.__dict__.get("g") if write.attribute == "g" else write.value
            emptied = any(w.tensor is write.tensor and w.empties for w in self.hand.writes)
            if now is None or (write.value is not now and emptied):
                now = write.value  # emptied, or deleted, at the end, after a step
            if write.empties and any(w.tensor is write.tensor and not w.empties for w in self.hand.writes):
                continue
            value = given.get(id(write.tensor)) or write.owner
            if isinstance(now, int | float) and not isinstance(now, bool):
                now = torch.tensor(float(now))  # of no shape: w.g = 0.5
            if value is None or not isinstance(now, torch.Tensor):
                if value is not None:
                    found.pop(value, None)
                continue
            node = _before_zeroing(self._node(now))
            if node is not self._node(now) and write.kept is not None:
                now = write.kept
            if value is not self._output() or self.hand.upstream is None:
                found.pop(value, None)  # the last write counts, and its place in the order
                spot = node.meta.get("spot") if node is not write.node else write.spot
                found[value] = Claim(value, node, now, self.names.get(value, value.name), "", spot or write.spot)
        told = {c.name for c in found.values()}
        for value, claim in found.items():
            name = _name_in(claim.spot)
            if name and name not in told and value.meta.get("name") in (name, None):  # two values had it: z2_1
                claim.name = name
                told.add(name)
            claim.target = f"{claim.name}.g"
        return [*found.values(), *self._written_through(found)]

    def _written_through(self, found: dict[fx.Node, Claim]) -> list[Claim]:
        """A `.g` from before the run that was only written into: `w.g.add_(...)`."""
        claims = []
        for node in self.recorder.inputs:
            tensor = node.meta.get("given", node.meta["val"])
            g = tensor.__dict__.get("g") if isinstance(tensor, torch.Tensor) else None
            entry = self.recorder.entry(g) if isinstance(g, torch.Tensor) else None
            if node not in found and entry is not None and entry.node.meta.get("written"):
                name = self.names.get(node, node.name)
                claims.append(Claim(node, entry.node, g, name, f"{name}.g", entry.node.meta.get("spot")))  # type: ignore[arg-type]
        return claims

    # -- told by what was returned ---------------------------------------------------------------

    def _returned(self) -> list[Claim]:
        result, loss = self.hand.returned, self.hand.output
        if self.hand.asked.function:
            return self._one_for_each_argument(result if isinstance(result, tuple) else (result,))
        labelled = [(label, t) for label, t in self._flat(result) if isinstance(t, torch.Tensor) and t is not loss]
        if not labelled:
            return []
        wrt = self.hand.asked.wrt
        if wrt is not None:
            order = [self._asked_for(item) for item in ([wrt] if isinstance(wrt, str | torch.Tensor) else wrt)]
            if len(order) != len(labelled):  # a loss of their own may be among them
                labelled = [(label, t) for label, t in labelled if t.ndim and not self._is_state(label, t)]
            if len(order) != len(labelled):
                raise ChainruleError(
                    f"{self.hand.asked.name} returned {len(labelled)} gradients, and wrt= names {len(order)}; "
                    "name one for each, in order"
                )
            return [self._claim(v, label, t) for v, (label, t) in zip(order, labelled, strict=True)]
        if self.hand.bare:
            labelled = [(label, t) for label, t in labelled if self._is_of_an_input(t)]
        labelled = [(label, t) for label, t in labelled if not self._is_state(label, t)] or labelled
        found = [(self._meant(label, None), label, t) for label, t in labelled]
        if all(v is not None for v, _, _ in found) and len({v for v, _, _ in found}) == len(found):
            return [self._claim(v, label, t) for v, label, t in found if v is not None]
        if self.hand.began and len(labelled) == 1:  # layer.backward(dout) gives the gradient of the layer's input
            inputs = [
                n for n in self.recorder.inputs if n.meta.get("name") in self.hand.parameters and differentiable(n)
            ]
            if len(inputs) == 1:
                return [self._claim(inputs[0], *labelled[0])]
        return self._by_position(labelled)

    def _is_of_an_input(self, tensor: torch.Tensor) -> bool:
        """Whether what `backward()` returned may be the gradient of something: of no input, it is a step on the way."""
        shapes = {n.meta["val"].shape for n in self.recorder.inputs if n.meta.get("name") in self.hand.parameters}
        return tensor.shape in shapes

    def _is_state(self, label: str, tensor: torch.Tensor) -> bool:
        """Whether a value of the forward pass is returned beside the gradients: the last hidden state, the logits."""
        entry = self.recorder.entry(tensor)
        node = entry.node if entry is not None else None
        while node is not None and node not in self.forward and node.meta["operation"] in _TAKEN:
            node = next(iter(node.all_input_nodes), None)
        on_the_way = node is not None and node in self.forward and node.op != "placeholder"
        return on_the_way and self._meant(label, None) is None

    def _one_for_each_argument(self, result: tuple[Any, ...]) -> list[Claim]:
        """What the backward of an autograd.Function returns."""
        found = []
        for given, gradient in zip(self.hand.asked.args, result, strict=False):
            entry = self.recorder.entry(given) if isinstance(given, torch.Tensor) else None
            if entry is not None and isinstance(gradient, torch.Tensor) and differentiable(entry.node):
                name = self.names.get(entry.node, entry.node.name)
                found.append(self._claim(entry.node, f"the gradient of {name}", gradient))
        return found

    def _by_position(self, labelled: list[tuple[str, torch.Tensor]]) -> list[Claim]:
        inputs = {n.meta.get("name"): n for n in self.recorder.inputs if differentiable(n)}
        order = [inputs[name] for name in self.hand.parameters if name in inputs]
        if self.hand.began:
            order = order[: len(labelled)]
        if len(order) != len(labelled):
            order = [n for n in order if n.meta.get("given", n.meta["val"]).requires_grad]
        if len(order) != len(labelled):
            raise ChainruleError(
                f"{self.hand.asked.name} returned {len(labelled)} gradients, which cannot be told apart by name; say "
                'of what they are, in order: wrt=["w", "b"]'
            )
        pairs = list(zip(order, labelled, strict=True))
        fits = [v.meta["val"].shape == t.shape for v, (_, t) in pairs]
        if not any(fits) or any(label and not fit for fit, (_, (label, _)) in zip(fits, pairs, strict=True)):
            raise ChainruleError(
                f"{self.hand.asked.name} returned gradients {', '.join(label or str(tuple(t.shape)) for label, t in labelled)} "
                'that are of no argument by name or by shape; say of what they are, in order: wrt=["w", "b"]'
            )
        return [self._claim(v, label, t) for v, (label, t) in pairs]

    def _flat(self, result: Any, label: str = "") -> list[tuple[str, Any]]:
        """The tensors in what was returned, with their names: a key, or the local variable that holds them."""
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            result = vars(result)
        if isinstance(result, tuple) and hasattr(result, "_asdict"):
            result = result._asdict()
        if isinstance(result, dict):
            return [pair for key, value in result.items() for pair in self._flat(value, str(key))]
        if isinstance(result, tuple | list):
            return [pair for value in result for pair in self._flat(value, "")]
        if not label and isinstance(result, torch.Tensor):
            held = [k for k, v in self.recorder.locals.items() if _tensor(v) is result]
            meant = {k: self._meant(k, None) for k in reversed(held)}  # of several names, that of a gradient: db = dh
            told = [k for k, v in meant.items() if v is not None]
            told = [k for k in told if meant[k].op == "placeholder"] or told  # type: ignore[union-attr]
            entry = self.recorder.entry(result)
            named = (
                entry is not None and "upstream" not in entry.node.meta
            )  # what was given, returned: no name of theirs
            label = next(iter(told or meant), "") or str(entry.node.meta.get("name") or "" if named and entry else "")
        return [(label, result)]

    def _asked_for(self, item: Any) -> fx.Node:
        if isinstance(item, torch.Tensor):
            entry = self.recorder.entry(item)
            if entry is not None:
                return entry.node
        elif (node := self.by_name.get(str(item).casefold())) is not None:
            return node
        known = ", ".join(self.names.values())
        raise ChainruleError(f"wrt names {item!r}, which {self.hand.asked.name} did not read; it read {known}")

    def _attributes(self) -> list[Claim]:
        """Gradients that an object keeps, or one that it holds: `self.dw`, `self.w_grad`, `self.grads["w"]`."""
        found: list[Claim] = []
        inputs = [n for n in self.recorder.inputs if n.meta.get("name") in self.hand.parameters]
        given = {n.meta["name"]: n.meta.get("given", n.meta["val"]) for n in inputs}
        for owner, path in self.hand.objects:
            for name, held in vars(owner).items():
                own: dict[str, Any] = {}
                for other, values in vars(owner).items():
                    if not isinstance(values, dict):
                        own[other] = values
                    elif values is not held:
                        own |= {str(k): v for k, v in values.items()}
                pairs = held.items() if isinstance(held, dict) else [(name, held)]
                for label, value in pairs:
                    target = f'{path}.{name}["{label}"]' if isinstance(held, dict) else f"{path}.{name}"
                    meant = [
                        own[n]
                        for n in [*names_meant(str(label)), *([str(label)] if isinstance(held, dict) else [])]
                        if n in own
                    ]
                    if not meant and path == "self":  # of what the layer was called with: forward(x, w)
                        meant = [given[n] for n in names_meant(str(label)) if n in given]
                    found += self._kept(target, _tensor(value), [_tensor(m) for m in meant])
        return found

    def _stepped(self) -> list[Claim]:
        """Gradients that an object keeps nowhere: what it has stepped along, `self.w = self.w - self.lr * grad_w`."""
        found: list[Claim] = []
        for owner, _ in self.hand.objects:
            for attribute, held in vars(owner).items():
                entry = self.recorder.entry(tensor) if isinstance(tensor := _tensor(held), torch.Tensor) else None
                before = entry.node.args[0] if entry is not None and entry.node.args else None
                if (
                    entry is None
                    or not isinstance(before, fx.Node)
                    or entry.node.meta["operation"] not in ("sub", "add")
                ):
                    continue
                for node in needed([entry.node], given=self.forward) if before in self.forward else ():
                    label = node.meta.get("name") or ""
                    alike = getattr(node.meta["val"], "shape", None) == before.meta["val"].shape
                    if node not in self.forward and alike and attribute in names_meant(label):
                        found.append(self._claim(before, label, node.meta["val"]))
        return found

    def _in_variables(self) -> list[Claim]:
        """Gradients of inputs that a function leaves nowhere but in its variables: `grad_w1`, where there is a `w1`.
        What it calls `dh` may be the gradient of another value on the way, as of what h is computed from."""
        space = self.recorder.locals
        found: list[Claim] = []
        for label, value in space.items():
            meant = [_tensor(space[n]) for n in names_meant(label) if n in space]
            found += self._kept(label, _tensor(value), meant)
        return found

    def _kept(self, target: str, value: Any, meant: list[Any]) -> list[Claim]:
        entry = self.recorder.entry(value) if isinstance(value, torch.Tensor) else None
        if entry is None or (entry.node in self.forward and entry.node.op != "placeholder"):
            return []
        for parameter in meant:
            of = self.recorder.entry(parameter) if isinstance(parameter, torch.Tensor) else None
            node = _before_step(of.node, entry.node) if of is not None else entry.node
            stepped = of is not None and node is not of.node
            kept = stepped or is_given(node) or is_parameter_of_an_object(node)
            if node is not entry.node and node in self.forward and kept:
                return [self._claim(node, target, value)]
        return []

    # -- shared ----------------------------------------------------------------------------------

    def _meant(self, name: str, shape: tuple[int, ...] | None) -> fx.Node | None:
        """The forward value of which `name` says that it is the gradient."""
        for candidate in [*names_meant(name), *([name] if shape is None else [])]:
            node = self.by_name.get(candidate.casefold())
            bound_again = candidate == name and self.recorder.locals.get(name) is not None  # d = loss.backward()
            if node is None or (bound_again and node.op != "placeholder"):
                continue
            if shape is None or tuple(node.meta["val"].shape) == shape:
                return node
        return None

    def _unsummed(self, name: str, shape: tuple[int, ...]) -> fx.Node | None:
        """The value of which `name` says so, and which was stretched along an axis to this shape."""
        value = self._meant(name, None)
        kept = tuple(value.meta["val"].shape) if value is not None and differentiable(value) else ()
        fits = len(kept) == len(shape) and all(a in (1, b) for a, b in zip(kept, shape, strict=True))
        return value if fits and kept != shape else None

    def _claim(self, value: fx.Node, label: str, tensor: torch.Tensor) -> Claim:
        node = self._node(tensor)
        name = self.names.get(value, value.name)
        held = [text for text, known in self.recorder.locals.items() if _tensor(known) is tensor]
        node = node_for(self.recorder.graph, [label, *held], node, self.forward) or node
        return Claim(value, node, tensor, name, label or f"the gradient of {name}", node.meta.get("spot"))

    def _node(self, tensor: torch.Tensor) -> fx.Node:
        entry = self.recorder.entry(tensor)
        return entry.node if entry is not None else self.recorder.leaf(tensor, name="g")

    def _output(self) -> fx.Node | None:
        entry = self.recorder.entry(self.hand.output)
        return entry.node if entry is not None else None

    def _in_order(self, claims: list[Claim]) -> list[Claim]:
        position = {node: i for i, node in enumerate(self.recorder.graph.nodes)}
        return sorted(claims, key=lambda c: position[c.node])


def _before_step(node: fx.Node, gradient: fx.Node) -> fx.Node:
    """A parameter as it was before a step along its gradient: `self.w = self.w - lr * self.dw`."""
    before = node.args[0] if node.args else None
    step = node.meta["operation"] in ("sub", "add") and isinstance(before, fx.Node) and gradient.op != "placeholder"
    return before if step and gradient in needed([node]) else node  # type: ignore[return-value]


def _before_zeroing(node: fx.Node) -> fx.Node:
    """A gradient as it was before `w.g.zero_()` made it ready for the next step."""
    while node.meta.get("written") in ("zero_", "fill_") and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _tensor(value: Any) -> Any:
    return value if isinstance(value, torch.Tensor) else getattr(value, "tensor", value)
