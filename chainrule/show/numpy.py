"""The spelling of a program in NumPy: the same lines and names, each operation in NumPy's words."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.program import Program
from chainrule.rules.book import KEYWORDS
from chainrule.show import (  # noqa: F401  (each adds its words)
    dialects,
    numpy_creation,
    numpy_indexing,
    numpy_layers,
    numpy_linalg,
    numpy_order,
    numpy_reductions,
    numpy_shapes,
    numpy_windows,
)
from chainrule.show.layout import Layout
from chainrule.show.numpy_operations import DIVIDING, MIXING
from chainrule.show.numpy_words import OPERATIONS, WRITES, Library, Spelling, Write
from chainrule.show.python import ATOM, Python, Spelled
from chainrule.show.terms import Term
from chainrule.show.text import broken

_DROPPED = ("device", "layout", "requires_grad", "pin_memory", "memory_format", "non_blocking", "inplace")
_PLAIN = frozenset(("shape", "shape_entry", "part"))


class NumPy(Python):
    """Spells nodes in NumPy, with the interface of `Python`. `helpers` are the functions that the code calls."""

    library, module = "NumPy", "np"
    imported = frozenset(("np", "math"))
    quotient: torch.dtype | None = torch.float64  # of integers
    operations: dict[str, Spelling] = OPERATIONS

    def __init__(self, variable: Callable[[fx.Node], str | None]) -> None:
        super().__init__(variable)
        self.reserved = set(self.imported)
        self.helpers: dict[str, Callable[..., Any]] = {}

    def imports(self, text: str) -> list[str]:
        return ["import numpy as np"]

    def brought(self, helper: Callable[..., Any]) -> str:
        """The text of a function that the code brings with it."""
        return inspect.getsource(helper).rstrip("\n")

    # -- one node --------------------------------------------------------------------------------

    def spell(self, value: Any) -> Spelled:
        return (value._text, value._binding) if isinstance(value, Term) else super().spell(value)

    def expression(self, node: fx.Node) -> Spelled:
        operation = node.meta["operation"]
        if operation == "part" and self.variable(whole := node.all_input_nodes[0]) is None:
            parts = self.found(whole)
            return self.spell(parts[node.args[1]])
        if node.op == "placeholder" or operation in _PLAIN or isinstance(node.meta["val"], bool | int | float):
            return super().expression(node) if operation != "numel" else (f"{self.text(node.args[0], ATOM)}.size", ATOM)
        found = self.found(node)
        if isinstance(found, Write):
            found = found.start(fresh=self._is_fresh(node))
        written = Counter(found._reads) if isinstance(found, Term) else Counter()
        self.repeated |= {n for n, times in written.items() if times > 1 and self.variable(n) is None}
        return self.spell(found)

    def found(self, node: fx.Node) -> Any:
        """What the library's words for the operation of `node` give."""
        operation = node.meta["operation"]
        spelling = self.operations.get(operation)
        if spelling is None or hasattr(node.target, "spell_step"):
            raise self.refused(node)
        args, kwargs = self._given(node)
        result = self._in_words(spelling, node, args, kwargs)
        if result is NotImplemented:
            raise self.refused(node, self._without_words(spelling, node, args, kwargs))
        return result

    def _in_words(self, spelling: Spelling, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
        bound = _bound(spelling, args, kwargs)
        return NotImplemented if bound is None else spelling(Library(self, node), *bound.args, **bound.kwargs)

    def _without_words(self, spelling: Spelling, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> str:
        """The option without which there would be words for the call, as a part of the sentence that refuses it."""
        for key, value in kwargs.items():
            others = {k: v for k, v in kwargs.items() if k != key}
            if self._in_words(spelling, node, args, others) is not NotImplemented:
                return f" with {key}={self.text(value)}"
        return ""

    def _given(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call as terms, those that torch would convert converted."""
        args = self._terms(node.args[:1] if node.target is getattr else node.args)
        kwargs = {k: self._terms(v) for k, v in node.kwargs.items() if k not in _DROPPED}
        if node.meta["operation"] in MIXING:
            args = tuple(self._promoted(args, node))
        return args, kwargs

    def _terms(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            text, binding = self.spell(value)
            return Term(self, text, binding, value, (value,) if _is_costly(value) else ())
        if isinstance(value, tuple | list):
            parts = [self._terms(v) for v in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, slice):
            return slice(*(self._terms(v) for v in (value.start, value.stop, value.step)))
        return value

    # -- dtypes ----------------------------------------------------------------------------------

    def _promoted(self, args: tuple[Any, ...], node: fx.Node) -> list[Any]:
        """The operands, with a conversion where the library would give another dtype than torch gives: of an integer
        beside a float32, or of a scalar beside an array."""
        operation, meant = node.meta["operation"], node.meta["val"].dtype
        chosen = args[:1] if operation == "where" else ()
        values = [a for a in args[len(chosen) :] if self.dtype_of(a) is not None]
        theirs = self.promoted(values)
        if theirs is not None and not theirs.is_floating_point and operation in DIVIDING:
            theirs = self.quotient
        if theirs is None or theirs == meant:
            return list(args)
        arrays: list[Any] = [a for a in values if isinstance(a, Term) and isinstance(a._value, torch.Tensor)]
        like = [a.dtype for a in arrays if self.made_as(a) == meant and a._text.isidentifier()]
        dtype = (like or [meant])[0]
        other = [a for a in arrays if self.made_as(a) != meant]  # `in` would write comparisons down
        return [*chosen, *(a.astype(dtype) if any(a is o for o in other) else a for a in args[len(chosen) :])]

    def made_as(self, term: Term) -> torch.dtype:
        """The dtype in which the code has this array: of ones and zeros, the one that all who read them calculate in."""
        value: Any = term._value
        node, dtype = term._node, value.dtype
        if node is not None and node.meta["operation"] == "one_hot" and self.library == "NumPy":
            found = {u.meta["val"].dtype for u in node.users if u.meta["operation"] in MIXING}
            alike = len(found) == 1 and all(u.meta["operation"] in MIXING for u in node.users)
            return found.pop() if alike else dtype
        return dtype

    def promoted(self, values: list[Any]) -> torch.dtype | None:
        """The dtype that the library gives to arithmetic of these operands."""
        given = [self.dtype_of(v) for v in values]
        return _FROM_NUMPY.get(np.result_type(*given)) if all(g is not None for g in given) else None

    def dtype_of(self, value: Any) -> Any:
        if isinstance(value, Term) and isinstance(value._value, torch.Tensor):
            return TO_NUMPY.get(self.made_as(value))
        value = value._value if isinstance(value, Term) else value
        return value if isinstance(value, bool | int | float | complex) else None

    def own_dtype(self, data: Any) -> torch.dtype | None:
        """The dtype that the library gives to arrays of such numbers."""
        return torch.bool if isinstance(data, bool) else torch.int64 if isinstance(data, int) else torch.float64

    def index(self, np: Library, part: Any) -> Any:
        """One part of an index as the library takes it."""
        return part

    def constant(self, value: Any) -> Spelled:
        if isinstance(value, torch.dtype):
            if value not in TO_NUMPY:
                raise ChainruleError(f"{self.library} has no dtype like {value}; convert the inputs to float32")
            return "bool" if value == torch.bool else f"{self.module}.{TO_NUMPY[value].name}", ATOM
        if value is int or value is bool:
            return value.__name__, ATOM
        if isinstance(value, float) and value in (float("inf"), -float("inf")):
            return (f"{self.module}.inf", ATOM) if value > 0 else (f"-{self.module}.inf", ATOM - 2)
        return super().constant(value)

    # -- values that are written in place --------------------------------------------------------

    def needs_line(self, node: fx.Node) -> bool:
        return node.meta["operation"] in WRITES and isinstance(node.meta["val"], torch.Tensor)

    def statements(self, target: str, node: fx.Node) -> list[str]:
        found = self.found(node) if self.needs_line(node) else None
        return found.statements(Term(self, target)) if isinstance(found, Write) else []

    def _is_fresh(self, node: fx.Node) -> bool:
        """Whether what `node` writes into is made in its own line."""
        base = node.args[0]
        return (
            isinstance(base, fx.Node)
            and self.variable(base) is None
            and base.meta["operation"] in ("zeros_like", "zeros", "new_zeros", "ones_like", "full_like", "ones")
        )

    # -- what cannot be written ------------------------------------------------------------------

    def refused(self, node: fx.Node, option: str = "") -> ChainruleError:
        values = [a.meta["val"] for a in node.all_input_nodes]
        shapes = ", ".join(str(tuple(v.shape)) for v in values if isinstance(v, torch.Tensor))
        operation = getattr(node.target, "name", None) or node.meta["operation"]
        return ChainruleError(
            f"{operation} of {shapes or 'numbers'}{option} {self.why_refused(node)}; write it with simpler operations, or take "
            'source("function"), which is PyTorch',
            _site(node),
        )

    def why_refused(self, node: fx.Node) -> str:
        return f"has no short spelling in {self.library}"


def _site(node: fx.Node) -> Any:
    """The person's line of `node`, or of the nearest value that it was made from."""
    queue, seen = [node], {node}
    while queue:
        current = queue.pop(0)
        if current.meta.get("site"):
            return current.meta["site"]
        queue += [n for n in current.all_input_nodes if n not in seen]
        seen.update(queue)
    return None


def _is_costly(node: fx.Node) -> bool:
    """Whether writing the value of `node` twice computes something twice."""
    free = ("T", "mT", "t", "detach", "shape", "shape_entry", "numel", "ones_like", "zeros_like")
    return isinstance(node.meta["val"], torch.Tensor) and node.meta["operation"] not in free


@functools.cache
def _signature(spelling: Spelling) -> inspect.Signature:
    return inspect.signature(spelling)


def _bound(spelling: Spelling, args: Any, kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
    """The arguments of a spelling after its first, for a call as it was recorded; None where it has no words for one."""
    signature = _signature(spelling)
    names = list(signature.parameters)[1:]
    renamed = {}
    for key, value in kwargs.items():
        known = key if key in names else KEYWORDS.get(key, key)
        known = names[known] if isinstance(known, int) and known < len(names) else known
        if known not in names:
            if value is None or value is False:
                continue
            return None
        renamed[str(known)] = value
    try:
        bound = signature.bind(None, *args, **renamed)
    except TypeError:
        return None
    del bound.arguments[next(iter(signature.parameters))]
    return inspect.BoundArguments(
        signature.replace(parameters=list(signature.parameters.values())[1:]), bound.arguments
    )


TO_NUMPY: dict[torch.dtype, np.dtype[Any]] = {
    getattr(torch, name): np.dtype(name)
    for name in ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
                 "complex128")
}  # fmt: skip
_FROM_NUMPY = {theirs: ours for ours, theirs in TO_NUMPY.items()}


def function(program: Program, inputs: list[fx.Node], speller: type[NumPy] = NumPy) -> str:
    """A stand-alone `forward_and_backward(...) -> (output, {name: gradient})` that imports the library alone."""
    layout = Layout(program, dotted=False, indent=4, speller=speller)
    lines = dialects.defined(layout, inputs)
    spelled = layout.python
    assert isinstance(spelled, NumPy)
    brought = [spelled.brought(helper) for helper in spelled.helpers.values()]
    text = "\n\n\n".join([*brought, "\n".join(p for line in "\n".join(lines).split("\n") for p in broken(line))])
    standard = ["import math", ""] if re.search(r"\bmath\.", text) else []
    return "\n".join([*standard, *spelled.imports(text), "", "", text, ""])
