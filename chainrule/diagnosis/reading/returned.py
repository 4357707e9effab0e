"""Which of the values that some code returned is whose gradient: told by keys, by names, by the order of the arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.by_name import ByName, Item
from chainrule.diagnosis.reading.claim import Claim, alike, before_step, names_meant, tensor_in
from chainrule.diagnosis.reading.numbers import plain_numbers
from chainrule.diagnosis.reading.renewed import written_into
from chainrule.errors import ChainruleError, Untold
from chainrule.program import differentiable
from chainrule.run import needed

_TAKEN = frozenset(
    ("getitem", "select", "part", "clone", "detach", "copy")
)  # what takes a value, or some of it, as it is


class Returned(ByName):
    """The gradients among what the code returned."""

    def _returned(self) -> list[Claim]:
        result = self.hand.returned
        if self.hand.asked.function:
            return self._one_for_each_argument(result if isinstance(result, tuple) else (result,))
        listed, rest = self.in_lists(result, self._is_told) if self.hand.asked.wrt is None else ([], result)
        return [*listed, *self._among(rest)]

    def _by_keys(self, result: Any, items: list[Any]) -> list[Item] | None:
        """What stands under the names of the items in dictionaries, whatever the order there; None where not all do."""
        held = [(v, (v.way[-1], *names_meant(v.way[-1]))) for v in self._flat(result) if v.way]
        found = [[v for v, keys in held if isinstance(item, str) and item in keys] for item in items]
        return [vs[0] for vs in found] if all(len(vs) == 1 for vs in found) else None

    def _is_told(self, part: list[torch.Tensor]) -> bool:
        return any(self._meant_by(v) is not None for v in self._flat(part))

    def _among(self, result: Any) -> list[Claim]:
        """The gradients among what was returned."""
        loss = self.hand.output
        flat = [v for v in self._flat(result) if isinstance(v.value, torch.Tensor) and v.value is not loss]
        values = self._without_steps(self._in_order_of_layers(flat))
        labelled = [(v.label, v.value) for v in values]
        if not labelled:
            return []
        wrt = self.hand.asked.wrt
        if wrt is not None:
            items = [wrt] if isinstance(wrt, str | torch.Tensor) else list(wrt)
            order = [self._asked_for(item) for item in items]
            if (keyed := self._by_keys(result, items)) is not None:
                pairs = zip(order, keyed, strict=True)
                return [self._claim(n, v.label, v.value) for n, v in pairs if v.value is not None]
            every = [v for v in self._flat(result) if v.value is None or any(v.value is t for _, t in labelled)]
            if len(order) == len(every):  # None in the place of one is a gradient that is missing
                pairs = zip(order, every, strict=True)
                return [self._claim(n, v.label, v.value) for n, v in pairs if v.value is not None]
            if len(order) != len(labelled):  # a loss of their own may be among them
                labelled = [(label, t) for label, t in labelled if t.ndim and not self._is_state(label, t)]
            if len(order) != len(labelled):
                raise ChainruleError(
                    f"{self.hand.asked.name} returned {len(labelled)} gradients, and wrt= names {len(order)}; "
                    "name one for each, in order"
                )
            return [self._claim(v, label, t) for v, (label, t) in zip(order, labelled, strict=True)]
        if self.hand.bare:
            values = [v for v in values if self._is_of_an_input(v.value)]
        values = [v for v in values if not self._is_state(v.label, v.value)] or values
        values = [v for v in values if v.way or not self._is_stepped(v.value)]
        labelled = [(v.label, v.value) for v in values]
        found = [(self._meant_by(v), v.label, v.value) for v in values]
        if all(v is not None for v, _, _ in found) and len({v for v, _, _ in found}) == len(found):
            return [self._as_written(v, label, t) for v, label, t in found if v is not None]
        if self.hand.began and len(labelled) == 1:  # layer.backward(dout) gives the gradient of the layer's input
            inputs = [
                n for n in self.recorder.inputs if n.meta.get("name") in self.hand.parameters and differentiable(n)
            ]
            if len(inputs) == 1:
                return [self._claim(inputs[0], *labelled[0])]
        try:
            return self._by_numbers(values) or self._by_position(labelled)
        except Untold:  # a number under a name of its own beside them: the norm of the gradient
            rest = [item for item, (value, _, _) in zip(values, found, strict=True) if value is None]
            told = [value for value, _, _ in found if value is not None]
            if not told or not (self._are_beside(rest, found) or self._are_of_values_on_the_way(rest, told)):
                raise
            self.unsaid += [v.label for v in rest]
            return [self._claim(v, label, t) for v, label, t in found if v is not None]

    @staticmethod
    def _are_beside(rest: list[Item], found: list[tuple[fx.Node | None, str, torch.Tensor]]) -> bool:
        """Whether what no name tells is no gradient, but a number under a name of its own."""
        letters = {label[:1] for value, label, _ in found if value is not None}
        like = [v for v in rest if v.label[:1] in letters or "grad" in v.label]  # dw, db beside a dz
        return not like and all(v.label and not v.way and not v.value.ndim for v in rest)

    def _are_of_values_on_the_way(self, rest: list[Item], told: list[fx.Node]) -> bool:
        """Whether what no key tells, `grads["dA1"]`, is of no parameter: all in the containers of those that are told have
        their gradients."""
        stems = {self.names.get(n, "").rpartition(".")[0] for n in told}
        among = [n for n in self.names if n.op == "placeholder" and n in self.used and differentiable(n)]
        held = [n for n in among if self.names[n].rpartition(".")[0] in stems]
        shapes = {v.value.shape for v in rest}
        others = [n for n in among if "." in self.names[n] and n not in told and n.meta["val"].shape in shapes]
        meant = {m for v in rest for m in (v.label, *names_meant(v.label))}
        numbers = meant.intersection(plain_numbers(self.hand.asked))  # which may be parameters, too
        return (
            not numbers and "" not in stems and not others and all(n in told for n in held) and all(v.way for v in rest)
        )

    def _of_renewed(self, before: fx.Node, now: fx.Node, label: str, tensor: torch.Tensor) -> Claim:
        """A gradient of a parameter that was changed before it was used: of what it was, where it is right for that."""
        if alike(tensor, before.meta["val"].shape, self.truths()(before)):
            return self._claim(before, label, tensor)
        now.meta["renews"] = before
        claim = self._claim(now, label, tensor)
        claim.name = self.names.get(before, before.name)
        return claim

    def _as_written(self, value: fx.Node, label: str, tensor: torch.Tensor) -> Claim:
        """A gradient of an argument, which the code may have changed in place before it used it."""
        now = None if self.hand.began or value.op != "placeholder" else written_into(value, self.used)
        if now is None or not alike(tensor, now.meta["val"].shape, self.truths()(now)):
            return self._claim(value, label, tensor)
        claim = self._of_renewed(value, now, label, tensor)
        if claim.value is now:
            self.notes.append(f"{claim.target} is the gradient of {claim.name} as it is after it was changed in place")
        return claim

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

    def _is_stepped(self, tensor: torch.Tensor) -> bool:
        """Whether a variable that is returned was an input before the code bound it anew: `w = w - lr * dw`."""
        entry = self.recorder.entry(tensor)
        held = {name for name, known in self.recorder.locals.items() if tensor_in(known) is tensor}
        before = [n for n in needed([entry.node]) if n.meta.get("name") in held] if entry is not None else []
        return not self.hand.began and any(n.op == "placeholder" for n in before)

    def _one_for_each_argument(self, result: tuple[Any, ...]) -> list[Claim]:
        """What the backward of an autograd.Function returns."""
        found = []
        for node, gradient in zip(self.hand.given_to_function(), result, strict=False):
            if node is not None and isinstance(gradient, torch.Tensor):
                name = self.names.get(node, node.name)
                found.append(self._claim(node, f"the gradient of {name}", gradient))
        return found

    def _by_numbers(self, values: list[Item]) -> list[Claim]:
        """Where neither names nor positions tell them apart: each is of the input of which it is the right gradient."""
        inputs = [n for n in self.recorder.inputs if n in self.used and differentiable(n)]
        tensors = [v.value for v in values]
        if any(_fit(self._in_position(tensors), tensors)) or all(_says(v.label) for v in values):
            return []
        truth, found = self.truths(), []
        for value in values:
            of = [n for n in inputs if alike(value.value, n.meta["val"].shape, truth(n))]
            if len(of) != 1:
                return []
            found.append(self._claim(of[0], value.label, value.value))
        return found if len({c.value for c in found}) == len(found) else []

    def _in_position(self, returned: list[torch.Tensor]) -> list[fx.Node]:
        """The inputs of which what was returned may be the gradients, in order: arguments, or all that one of them holds."""
        inputs = {n.meta.get("name"): n for n in self.recorder.inputs if differentiable(n)}
        order = [inputs[name] for name in self.hand.parameters if name in inputs]
        if self.hand.began:
            order = order[: len(returned)]
        if len(order) != len(returned):
            order = [n for n in order if n.meta.get("given", n.meta["val"]).requires_grad]
        if not any(_fit(order, returned)):
            held = [[n for k, n in inputs.items() if k and k.startswith(f"{p}.")] for p in self.hand.parameters]
            found = [o for nodes in held if nodes for o in (nodes, nodes[::-1]) if all(_fit(o, returned))]
            if found and len({frozenset(o) for o in found}) == 1:
                truth = self.truths()  # a backward pass may leave the last layer first
                order = max(found, key=lambda o: sum(alike(t, t.shape, truth(n)) for n, t in zip(o, returned, strict=True)))  # fmt: skip
        return order

    def _by_position(self, labelled: list[tuple[str, torch.Tensor]]) -> list[Claim]:
        order = self._in_position([t for _, t in labelled])
        if len(order) != len(labelled) and (of_shapes := self._by_shapes(labelled)) is not None:
            return of_shapes
        if len(order) != len(labelled):
            raise Untold(
                f"{self.hand.asked.name} returned {len(labelled)} gradients, which cannot be told apart by name; say "
                'of what they are, in order: wrt=["w", "b"]'
            )
        pairs = list(zip(order, labelled, strict=True))
        fits = _fit(order, [t for _, t in labelled])
        meant = [self.names.get(n) in names_meant(label) for n, (label, _) in pairs]  # whatever its shape
        told = zip(fits, meant, labelled, strict=False)
        if not any(fits) or any(label and not fit and not means for fit, means, (label, _) in told):
            raise Untold(
                f"{self.hand.asked.name} returned gradients {', '.join(label or str(tuple(t.shape)) for label, t in labelled)} "
                'that are of no argument by name or by shape; say of what they are, in order: wrt=["w", "b"]'
            )
        return [self._claim(v, label, t) for v, (label, t) in pairs]

    def _by_shapes(self, labelled: list[tuple[str, torch.Tensor]]) -> list[Claim] | None:
        """Each that no name tells, `grad`, of the one input of its shape, where no value on the way has that."""
        values = [n for n in self.used if n.op == "placeholder" or n.meta.get("name")]
        values = [n for n in values if isinstance(n.meta["val"], torch.Tensor) and differentiable(n)]
        of = [[n for n in values if n.meta["val"].shape == t.shape] for _, t in labelled]
        told = any(_says(label) or not t.ndim for label, t in labelled)
        if told or any(len(ns) != 1 for ns in of):
            return None
        return [self._claim(ns[0], label, t) for ns, (label, t) in zip(of, labelled, strict=True)]

    def _without_steps(self, values: list[Item]) -> list[Item]:
        """What was returned without the parameters that are returned beside their gradients: as they were, or stepped
        along these."""
        of = [self._meant_by(v) for v in values]
        nodes = [e.node if (e := self.recorder.entry(v.value)) is not None else None for v in values]

        def is_parameter(place: int) -> bool:
            value, node = of[place], nodes[place]
            if value is None or node is None:
                return False
            others = [n for k, n in enumerate(nodes) if k != place and of[k] is value and n is not None]
            return any(node is value or before_step(node, other) is value for other in others)

        return [v for i, v in enumerate(values) if not is_parameter(i)]

    def _in_order_of_layers(self, values: list[Item]) -> list[Item]:
        """Lists of what belongs to a layer each may begin with the last layer, as a backward pass does."""
        turned = [v._replace(way=v.turned) for v in values]
        if turned == values:
            return values
        truth = self.truths()
        return max((values, turned), key=lambda ordered: sum(self._is_right(v, truth) for v in ordered))

    def _is_right(self, returned: Item, truth: Callable[[fx.Node], torch.Tensor]) -> bool:
        value = self._standing_at(returned.way)
        return value is not None and alike(returned.value, value.meta["val"].shape, truth(value))

    def _flat(self, result: Any, way: tuple[str, ...] = (), turned: tuple[str, ...] = ()) -> list[Item]:
        """The values in what was returned, with the keys that lead to each, and its name: the last key, or the local
        variable that holds it."""
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            result = vars(result)
        if isinstance(result, tuple) and hasattr(result, "_asdict"):
            result = result._asdict()
        if isinstance(result, dict):
            return [
                found
                for key, value in result.items()
                for found in self._flat(value, (*way, str(key)), (*turned, str(key)))
            ]
        if isinstance(result, tuple | list):
            alike = isinstance(result, list) and all(isinstance(v, dict | tuple | list) for v in result)  # layers
            ways = [((*way, str(i)), (*turned, str(len(result) - 1 - i))) if alike else () for i in range(len(result))]
            return [found for value, inside in zip(result, ways, strict=True) for found in self._flat(value, *inside)]
        label = way[-1] if way else ""
        if not label and isinstance(result, torch.Tensor):
            held = [k for k, v in self.recorder.locals.items() if tensor_in(v) is result]
            meant = {k: self._meant(k, None) for k in reversed(held)}  # of several names, that of a gradient: db = dh
            told = [k for k, v in meant.items() if v is not None]
            told = [k for k in told if meant[k].op == "placeholder"] or told  # type: ignore[union-attr]
            entry = self.recorder.entry(result)
            named = (
                entry is not None and "upstream" not in entry.node.meta
            )  # what was given, returned: no name of theirs
            label = next(iter(told or meant), "") or str(entry.node.meta.get("name") or "" if named and entry else "")
        return [Item(label, result, way, turned)]

    def _asked_for(self, item: Any) -> fx.Node:
        if isinstance(item, torch.Tensor):
            entry = self.recorder.entry(item)
            if entry is not None:
                return entry.node
        elif (node := self.by_name.get(str(item).casefold())) is not None:
            return node
        known = ", ".join(self.names.values())
        raise ChainruleError(f"wrt names {item!r}, which {self.hand.asked.name} did not read; it read {known}")


def _says(label: str) -> bool:
    """Whether a name tells of what something is the gradient: not `grad`."""
    return label.casefold() not in ("", "g", "grad", "grads", "gradient", "gradients")


def _fit(nodes: list[fx.Node], tensors: list[torch.Tensor]) -> list[bool]:
    """Whether each tensor has the shape of its value; where there are others as many, one that does not."""
    if len(nodes) != len(tensors):
        return [False]
    return [n.meta["val"].shape == t.shape for n, t in zip(nodes, tensors, strict=True)]
