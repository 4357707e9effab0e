"""Which hand-written value is whose gradient: told by `.g`, by what was returned, by an attribute, by a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.aliases import node_for
from chainrule.diagnosis.reading.claim import Claim, alike, before_step, names_meant, tensor_in
from chainrule.diagnosis.reading.clipped import before_clipping
from chainrule.diagnosis.reading.lists import Lists, lists_in
from chainrule.diagnosis.reading.made import is_given, is_parameter_of_an_object
from chainrule.diagnosis.reading.renewed import before_renewal
from chainrule.diagnosis.reading.returned import Returned
from chainrule.diagnosis.reading.spots import Spot
from chainrule.program import differentiable
from chainrule.run import needed


def _name_in(spot: Spot | None) -> str:
    """The variable whose `.g` a line sets."""
    assigned = source.assignment_at(spot.span) if spot is not None and spot.span is not None else None
    name = assigned.target.removesuffix(".g") if assigned is not None and assigned.target.endswith(".g") else ""
    return name if name.isidentifier() else ""


_OF_GRADIENTS = re.compile(r"(.*_)?(d|g|gs|.*(grad|nabla|deriv|delta|dparam).*)", re.IGNORECASE)


class Claims(Returned):
    """The gradients that a run left, in the order in which they were computed."""

    def explicit(self) -> list[Claim]:
        found = self._left()
        if self.hand.began or not any(c.value.op == "placeholder" for c in found):
            for claim in [*self._returned(), *self._attributes(), *self._stepped()]:
                if all(claim.value is not c.value for c in found):
                    found.append(claim)
        found = found or self._in_variables()
        for claim in found:
            self._undo_clipping(claim)
        return self._in_order(found)

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
            began = write.owner in self.used  # v.mul_(0.5) before the loss: it is what the loss is computed from
            value = write.owner if began else given.get(id(write.tensor)) or write.owner
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

    def _attributes(self) -> list[Claim]:
        """Gradients that an object keeps, or one that it holds: `self.dw`, `self.w_grad`, `self.grads["w"]`."""
        found: list[Claim] = []
        silent: list[Claim] = []
        inputs = [n for n in self.recorder.inputs if n.meta.get("name") in self.hand.parameters]
        given = {n.meta["name"]: n.meta.get("given", n.meta["val"]) for n in inputs}
        for owner, path in self.hand.objects:
            for name, held in vars(owner).items():
                own: dict[str, list[Any]] = {}  # several, of which the loss reads one: parameters, and their momentum
                for other, values in vars(owner).items():
                    for key, value in values.items() if isinstance(values, dict) else [(other, values)]:
                        if values is not held:
                            own.setdefault(str(key), []).append(value)
                pairs = held.items() if isinstance(held, dict) else [(name, held)]
                for label, value in pairs:
                    target = f'{path}.{name}["{label}"]' if isinstance(held, dict) else f"{path}.{name}"
                    keys = [*names_meant(str(label)), *([str(label)] if isinstance(held, dict) else [])]
                    meant = [value for n in keys for value in own.get(n, [])]
                    if not meant and path == "self":  # of what the layer was called with: forward(x, w)
                        meant = [given[n] for n in names_meant(str(label)) if n in given]
                    kept = self._kept(target, tensor_in(value), [tensor_in(m) for m in meant])
                    says = not isinstance(held, dict) or bool(names_meant(str(label)) or _OF_GRADIENTS.fullmatch(name))
                    (found if says else silent).extend(kept)
            for lists in lists_in(vars(owner), self._is_read):
                claims = self._in_list(f"{path}.{lists.name}", lists)
                if not claims and lists.whole:
                    self.untouched.append(f"{path}.{lists.name}")
                found += claims
        told = {claim.value for claim in found}  # what no name calls a gradient may be momentum, or a copy
        return found + [claim for claim in silent if claim.value not in told]

    def _is_read(self, tensor: torch.Tensor) -> bool:
        """Whether the loss is computed from a tensor."""
        entry = self.recorder.entry(tensor)
        return entry is not None and not self.used.isdisjoint(needed([entry.node]))

    def _in_list(self, path: str, lists: Lists) -> list[Claim]:
        """The gradients in a list, in the order in which most are right."""
        found = [
            [
                claim
                for i, (gradient, parameter) in enumerate(zip(lists.gradients, of, strict=True))
                for claim in self._kept(f"{path}[{i}]", gradient, [parameter])
            ]
            for of in lists.orders()
        ]
        if len(found) == 1 or not any(found):
            return found[0]
        truth = self.truths()
        best = max(found, key=lambda claims: sum(alike(c.tensor, c.tensor.shape, truth(c.value)) for c in claims))
        if best is not found[0] and lists.whole and [c.value for c in best] != [c.value for c in found[0]]:
            self.notes.append(f"the gradients in {path} stand in another order than what they are of")
        return best

    def _stepped(self) -> list[Claim]:
        """Gradients that an object keeps nowhere: what it has stepped along, `self.w = self.w - self.lr * grad_w`."""
        found: list[Claim] = []
        for owner, _ in self.hand.objects:
            for attribute, held in vars(owner).items():
                entry = self.recorder.entry(tensor) if isinstance(tensor := tensor_in(held), torch.Tensor) else None
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
            meant = [tensor_in(space[n]) for n in names_meant(label) if n in space]
            found += self._kept(label, tensor_in(value), meant)
        own = [claim.value.meta.get("name") for claim in found]
        for claim, name in zip(found, own, strict=True):
            if name and own.count(name) == 1:  # of the values that a loop gives a variable, the one that is meant
                claim.name = name
        return found

    def _kept(self, target: str, value: Any, meant: list[Any]) -> list[Claim]:
        entry = self.recorder.entry(value) if isinstance(value, torch.Tensor) else None
        if entry is None or (entry.node in self.forward and entry.node.op != "placeholder"):
            return []
        for parameter in meant:
            of = self.recorder.entry(parameter) if isinstance(parameter, torch.Tensor) else None
            node = before_step(of.node, entry.node) if of is not None else entry.node
            stepped = of is not None and node is not of.node
            kept = stepped or is_given(node) or is_parameter_of_an_object(node)
            label = re.findall(r"\w+", target)[-1]
            before = before_renewal(node, [*names_meant(label), label]) if node in self.used else None
            if node is not entry.node and node in self.forward and (kept or before is not None):
                return [
                    self._claim(node, target, value)
                    if before is None
                    else self._of_renewed(before, node, target, value)
                ]
        return []

    def _undo_clipping(self, claim: Claim) -> None:
        """Let a claim be what it was before it was clipped for the step that follows."""
        before = before_clipping(claim.node)
        if before is claim.node:
            return
        if not claim.tensor.equal(before.meta["val"]):
            self.notes.append(f"{claim.target} is clipped after it is computed; it is checked as it was before")
        claim.node = node_for(self.recorder.graph, [claim.target], before, self.forward) or before
        claim.tensor = before.meta["val"]
        claim.spot = claim.node.meta.get("spot") or claim.spot

    def _unsummed(self, name: str, shape: tuple[int, ...]) -> fx.Node | None:
        """The value of which `name` says so, and which was stretched to this shape, along an axis or more."""
        value = self._meant(name, None)
        kept = tuple(value.meta["val"].shape) if value is not None and differentiable(value) else ()
        fits = 0 < len(kept) <= len(shape) and all(a in (1, b) for a, b in zip(kept[::-1], shape[::-1], strict=False))
        return value if fits and kept != shape else None

    def _in_order(self, claims: list[Claim]) -> list[Claim]:
        position = {node: i for i, node in enumerate(self.recorder.graph.nodes)}
        return sorted(claims, key=lambda c: position[c.node])


def _before_zeroing(node: fx.Node) -> fx.Node:
    """A gradient as it was before `w.g.zero_()` made it ready for the next step."""
    while node.meta.get("written") in ("zero_", "fill_") and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
