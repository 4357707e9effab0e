"""The spelling of a program in JAX: NumPy's words where they are the same, and what JAX has besides."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.show import jax_helpers
from chainrule.show.numpy import NumPy
from chainrule.show.numpy_reductions import SYNONYMS, over
from chainrule.show.numpy_words import OPERATIONS, Library, Spelling, Write, axes, helper
from chainrule.show.python import ATOM, Spelled
from chainrule.show.terms import Term, known


def jax(np: Library) -> Term:
    return Term(np._by, "jax")


def _nn(name: str) -> Spelling:
    return lambda np, x: getattr(jax(np).nn, name)(x)


def _special(name: str) -> Spelling:
    return lambda np, *args: getattr(jax(np).scipy.special, name)(*args)


_SIZES = ("shape", "shape_entry", "numel")
_OPEN = ("masked_select", "nonzero", "argwhere", "masked_scatter")


def _no_words(np: Library, *args: Any, **kwargs: Any) -> Any:
    """For what has a shape that depends on values, which jax.jit cannot trace."""
    return NotImplemented


def _getitem(np: Library, x: Any, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    masks = [p for p in parts if getattr(known(p), "dtype", None) in (torch.bool, torch.uint8)]
    return NotImplemented if masks else OPERATIONS["getitem"](np, x, index)


WORDS: dict[str, Spelling] = {
    **{name: _nn(name) for name in ("relu", "relu6", "sigmoid", "silu", "soft_sign")},
    **{name: _special(name) for name in ("erf", "erfc", "digamma", "xlogy", "i0", "i0e", "i1", "i1e", "ndtri")},
    "logsigmoid": _nn("log_sigmoid"),
    "lgamma": _special("gammaln"),
    "special_gammaln": _special("gammaln"),
    "erfinv": _special("erfinv"),
    "special_ndtr": _special("ndtr"),
    "special_entr": _special("entr"),
    "special_ndtri": _special("ndtri"),
    "special_xlog1py": _special("xlog1py"),
    "mish": lambda np, x: jax(np).nn.mish(x),
    "rsqrt": lambda np, x: jax(np).lax.rsqrt(x),
    "gelu": lambda np, x, approximate="none": jax(np).nn.gelu(x, approximate=approximate == "tanh"),
    "softplus": lambda np, x, beta=1, threshold=20: (
        np.where(x > threshold, x, jax(np).nn.softplus(x)) if beta == 1 else OPERATIONS["softplus"](np, x, beta, threshold)
    ),
    "elu": lambda np, x, alpha=1.0: jax(np).nn.elu(x, **({"alpha": alpha} if alpha != 1 else {})),
    "leaky_relu": lambda np, x, negative_slope=0.01: (
        jax(np).nn.leaky_relu(x, **({"negative_slope": negative_slope} if negative_slope != 0.01 else {}))
    ),
    "softmax": lambda np, x, dim: jax(np).nn.softmax(x, **_axis(dim)),
    "log_softmax": lambda np, x, dim: jax(np).nn.log_softmax(x, **_axis(dim)),
    "logsumexp": lambda np, x, dim, keepdim=False: jax(np).nn.logsumexp(x, **{"axis": axes(dim)} | over(x, dim, keepdim)),
    "one_hot": lambda np, y, n=-1: jax(np).nn.one_hot(y, n, dtype=int) if isinstance(n, Term) or n > 0 else NotImplemented,
    "block_diag": lambda np, *arrays: jax(np).scipy.linalg.block_diag(*arrays),
    "mT": lambda np, x: x.T if known(x).ndim == 2 else x.mT,
    "getitem": _getitem,
    **dict.fromkeys(_OPEN, _no_words),
}  # fmt: skip


WORDS["argsort"] = lambda np, x, dim=-1, stable=False: x.argsort(axis=dim)


WORDS |= {name: WORDS[theirs] for name, theirs in SYNONYMS.items() if theirs in WORDS}


def _axis(dim: int) -> dict[str, int]:
    return {} if dim == -1 else {"axis": dim}


class Jax(NumPy):
    """Spells nodes in JAX."""

    library, module = "JAX", "jnp"
    imported = frozenset(("jax", "jnp", "math"))
    operations = OPERATIONS | WORDS

    def imports(self, text: str) -> list[str]:
        whole = ["import jax"] if re.search(r"\bjax\.", text) else []
        return [*whole, "import jax.numpy as jnp"]

    def brought(self, helper: Callable[..., Any]) -> str:
        text = inspect.getsource(helper).rstrip("\n").replace(', kind="stable"', "")  # as JAX sorts anyway
        text = re.sub(r"np\.add\.at\((\w+), (.*), (\w+)\)$", r"\1 = \1.at[\2].add(\3)", text, flags=re.MULTILINE)
        return re.sub(r"\bnp\.", "jnp.", text)

    def condition(self, node: fx.Node) -> str:
        """Under jax.jit there are no values to look at: there, only shapes are held to."""
        text, read = super().condition(node), self._values_of(node)
        return f"{helper(Library(self, node), jax_helpers.traced)._text}({', '.join(read)}) or {text}" if read else text

    def _values_of(self, node: fx.Node) -> list[str]:
        """The names of the values that a condition looks into, and not at their shapes alone."""
        if isinstance(node.meta["val"], torch.Tensor) and (name := self.variable(node)):
            return [name]
        below = [] if node.meta["operation"] in _SIZES else node.all_input_nodes
        return list(dict.fromkeys(name for n in below for name in self._values_of(n)))

    def found(self, node: fx.Node) -> Any:
        found = super().found(node)
        return self._updated(found) if isinstance(found, Write) else found

    @staticmethod
    def _updated(write: Write) -> Term:
        """`x.at[index].set(value)`: arrays of JAX are never written in place."""
        place = write.base.at[write.index]
        return place.set(write.value) if write.how == "set" else place.add(write.value)

    def why_refused(self, node: fx.Node) -> str:
        if node.meta["operation"] in (*_OPEN, "getitem") and node.meta["operation"] in self.operations:
            return "has a shape that depends on values, which jax.jit cannot trace"
        return super().why_refused(node)

    def needs_line(self, node: fx.Node) -> bool:
        return False

    def promoted(self, values: list[Any]) -> torch.dtype | None:
        """JAX lets an integer beside a float take the float's dtype, as torch does."""
        found = [v._value.dtype for v in values if isinstance(v, Term) and isinstance(v._value, torch.Tensor)]
        floating = [d for d in found if d.is_floating_point or d.is_complex]
        if not floating and any(isinstance(v, float) for v in values):
            return self.quotient
        return functools.reduce(torch.promote_types, floating or found) if found else None

    def own_dtype(self, data: Any) -> torch.dtype | None:
        """JAX has a default of its own for floats, set by the program that calls."""
        return None if isinstance(data, float) else super().own_dtype(data)

    def index(self, np: Library, part: Any) -> Any:
        return np.array(part) if isinstance(part, list | range) else part

    def constant(self, value: Any) -> Spelled:
        return ("int", ATOM) if value == torch.int64 else super().constant(value)
