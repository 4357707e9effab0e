"""Gradients that an object keeps in a list beside the list of its parameters: `self.grads`, where there is `self.params`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from chainrule.diagnosis.reading.claim import names_meant, tensor_in

_OF_PARAMETERS = re.compile(r"_?(params?|parameters?|weights?|thetas?|ws)", re.IGNORECASE)
_OF_ALL = re.compile(r"_?(d|g|grads?|gradients?|derivatives?)", re.IGNORECASE)  # of whatever parameters there are


class Lists(NamedTuple):
    """A list of gradients, and what they are of."""

    name: str
    gradients: list[Any]
    of: list[torch.Tensor]

    def fit(self, of: list[torch.Tensor]) -> int:
        """How many gradients have the shape that they should."""
        return sum(_shape(g) == p.shape for g, p in zip(self.gradients, of, strict=True))

    def orders(self) -> list[list[torch.Tensor]]:
        """What the gradients may be of, one by one: in order, or from the last layer to the first, whose own gradients may
        be in the order of its parameters."""
        if Counter(map(_shape, self.gradients)) != Counter(map(_shape, self.of)):
            return [self.of]
        both = [self.of, self.of[::-1]]
        found = [of for of in both if self.fit(of) == len(of)]
        for of in both:
            alike = {p.shape: iter([q for q in of if q.shape == p.shape]) for p in of}
            found.append([next(alike[g.shape]) for g in self.gradients])
        return found

    @property
    def whole(self) -> bool:
        """Whether there is a gradient of the right shape for each."""
        return self.fit(self.of) == len(self.of)


def returned_of(name: str, gradients: list[torch.Tensor], groups: Mapping[str, list[torch.Tensor]]) -> list[Lists]:
    """The list of gradients that some code returned, with each group of as many parameters that has their shapes; of
    several, those that its name says.

    >>> groups = {"weights": [torch.ones(2, 3), torch.ones(1, 2)], "biases": [torch.ones(2, 1), torch.ones(1, 1)]}
    >>> [found.of is groups["biases"] for found in returned_of("grads", [torch.ones(2, 1), torch.ones(1, 1)], groups)]
    [True]
    """
    found = {k: Lists(name, gradients, of) for k, of in groups.items() if len(of) == len(gradients)}
    most = max((max(map(lists.fit, lists.orders())) for lists in found.values()), default=0)
    fitting = {k: lists for k, lists in found.items() if max(map(lists.fit, lists.orders())) == most}
    meant = [n.casefold() for n in names_meant(name)] if not _OF_ALL.fullmatch(name) else []
    told = [lists for k, lists in fitting.items() if any(_is_called(k.split(".")[-1].casefold(), m) for m in meant)]
    return told or (list(fitting.values()) if most else [])


def _is_called(group: str, name: str) -> bool:
    """Whether a list goes by a name: `weights` by `weight` and by `w`."""
    return group in (name, f"{name}s") or (len(name) < 3 and group.startswith(name))


def says_gradients(name: str) -> bool:
    """Whether a list is called as one of gradients is: `grads`, `nabla_w`."""
    return bool(_OF_ALL.fullmatch(name) or names_meant(name))


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def lists_in(space: Mapping[str, Any], is_read: Callable[[torch.Tensor], bool]) -> list[Lists]:
    """The lists of gradients among the attributes of an object, each with the one list of as many values, of which the
    loss reads some, that its name says, or, where it is called `grads`, that has their shapes.

    >>> w, b = torch.ones(2, 3), torch.ones(3)
    >>> space = {"params": [w, b], "grads": [0 * w, 0 * b], "sizes": [3, 2], "speed": [0 * w, 0 * b]}
    >>> [(found.name, found.of[0] is w) for found in lists_in(space, lambda t: t is w or t is b)]
    [('grads', True)]
    """
    held = {k: [tensor_in(v) for v in value] for k, value in space.items() if type(value) in (list, tuple) and value}
    held = {k: parts for k, parts in held.items() if any(isinstance(p, torch.Tensor) for p in parts)}
    found = list[Lists]()
    for name, gradients in held.items():
        told = {n for meant in names_meant(name) for n in (meant, f"{meant}s")}
        others = {
            k: Lists(name, gradients, parts)
            for k, parts in held.items()
            if k != name
            and len(parts) == len(gradients)
            and all(isinstance(p, torch.Tensor) for p in parts)
            and any(map(is_read, parts))
        }
        if told & set(others):
            others = {k: lists for k, lists in others.items() if k in told}
        elif not _OF_ALL.fullmatch(name):
            continue
        most = max((lists.fit(lists.of) for lists in others.values()), default=0)
        fitting = {k: lists for k, lists in others.items() if lists.fit(lists.of) == most}
        named = [lists for k, lists in fitting.items() if _OF_PARAMETERS.fullmatch(k)]  # beside copies, or momentum
        best = named if len(fitting) > 1 else list(fitting.values())
        found += best if len(best) == 1 else []
    return found
