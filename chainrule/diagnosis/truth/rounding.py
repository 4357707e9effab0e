"""How large rounding errors can be: Monte Carlo arithmetic on the recorded program.

The program is run a few times in float64, and every operation that rounds is given random errors of the
size that the dtype in question would make. How far the results scatter is the estimate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.rules import BOOK
from chainrule.rules.families import family_of
from chainrule.run import double, run, step

SAFETY = 2.0  # with 6 runs, 999 errors of 1000 are below the estimate (tests/test_rounding.py)
RMS_SHARE = 0.25  # an element whose errors happened to cancel in every run is lifted to this share of the rms

# Copies, choices and changes of sign; what the other operations compute is rounded.
_EXACT_FAMILIES = frozenset(
    ("shaping", "joining", "diagonals", "indexing", "selections", "padding", "windows", "order", "scattering")
)
_EXACT = frozenset((
    "part", "neg", "abs", "relu", "relu6", "hardtanh", "threshold", "hardshrink", "embedding", "item", "detach",
    "data", "tensor", "new_tensor", "full", "full_like", "new_full", "zeros_like", "ones_like", "real", "imag",
    "conj", "conj_physical", "resolve_conj", "resolve_neg", "mH", "H", "adjoint", "complex", "view_as_real",
    "view_as_complex", "copysign", "fft_fftshift", "fft_ifftshift", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "linalg_diagonal",
))  # fmt: skip
_SUMMING = frozenset((  # in those families, yet they add
    "sum_to_size", "col2im", "index_put", "index_add", "put", "scatter_add", "scatter_reduce", "index_reduce",
    "segment_reduce", "_unsafe_masked_index_put_accumulate", "quantile", "nanquantile", "softmax",
))  # fmt: skip
# Element-wise, but made of several roundings: the errors of the parts show as errors of the arguments.
_COMPOSED = frozenset((
    "addcmul", "addcdiv", "lerp", "tanhshrink", "logaddexp", "logaddexp2", "hypot", "logit", "special_logit",
    "lgamma", "digamma", "polygamma", "special_gammaln", "special_digamma", "special_psi", "special_polygamma",
    "mvlgamma", "special_multigammaln", "special_zeta", "hardswish", "hardsigmoid", "sinc", "special_sinc",
    "remainder", "fmod", "frac", "special_ndtri", "erfinv", "special_erfinv", "acosh", "atanh", "asinh",
))  # fmt: skip
# Constant between their jumps: the exact run decides on which side of a jump a value lies.
_STEPS = frozenset((
    "sign", "sgn", "floor", "ceil", "round", "trunc", "heaviside", "floor_divide", "unique", "empty_like", "new_empty",
))  # fmt: skip
# The smallest positive number of a dtype, by its eps: below it, errors are absolute.
_SMALLEST = {
    torch.finfo(torch.float16).eps: 2.0**-24,
    torch.finfo(torch.bfloat16).eps: torch.finfo(torch.bfloat16).tiny,
    torch.finfo(torch.float32).eps: torch.finfo(torch.float32).tiny,
}

_POOL = 1 << 15  # random numbers beyond those that the largest tensor needs


def rounding(
    nodes: Iterable[fx.Node],
    known: Mapping[fx.Node, Any],
    roots: Iterable[fx.Node],
    eps: float,
    *,
    inputs: bool = False,
    runs: int = 6,
    seed: int = 0,
) -> dict[fx.Node, torch.Tensor]:
    """For each of `roots`, element by element, how large its rounding error can be (float64, of its shape).

    `nodes` are in the order of the graph, `known` holds the values of the inputs, and `eps` is the unit of the
    dtype in which the program would be computed: `torch.finfo(dtype).eps`. Every operation that rounds gets
    relative errors up to `eps`; an operation that adds gets them on its terms too, so that sums which cancel are
    covered. Comparisons, signs, roundings, indices and integers are those of the run without errors: no branch
    flips; where the dtype itself would turn one around, the error is beyond the estimate. With `inputs`, the inputs
    are rounded as well. An element that is not finite has the estimate 0.

    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> total = graph.call_method("sum", (x,))
    >>> total.meta["operation"] = "sum"
    >>> terms = torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64)
    >>> error = rounding([x, total], {x: terms}, [total], 2.0**-23)[total]
    >>> bool(1e-8 < error < 1e-5)
    True
    """
    nodes, roots = list(nodes), list(roots)
    largest: dict[fx.Node, torch.Tensor] = {}
    with torch.no_grad():
        exact = run(nodes, {n: double(v) for n, v in known.items()}, double)
        plan = [(n, *_plan(n, exact, eps)) for n in nodes if n not in known and n.op not in ("placeholder", "output")]
        noise = _Noise(eps, max((t.numel() for v in exact.values() for t in _tensors(v)), default=0), seed)
        for _ in range(runs):
            values = _perturbed(plan, {n: exact[n] for n in known}, exact, noise, inputs)
            for root in roots:
                away = (torch.as_tensor(values[root]) - torch.as_tensor(exact[root])).abs().double()
                away = away.nan_to_num(0.0, 0.0, 0.0)
                largest[root] = torch.maximum(largest[root], away) if root in largest else away
    return {root: _estimate(away, exact[root], eps) for root, away in largest.items()}


def _estimate(away: torch.Tensor, exact: Any, eps: float) -> torch.Tensor:
    if not away.numel() or not away.any():
        return away
    lifted = away.clamp_min(RMS_SHARE * float(away.pow(2).mean().sqrt()))
    return (SAFETY * lifted).clamp_min(_SMALLEST.get(eps, 0.0)) * torch.as_tensor(exact).isfinite()


class _Noise:
    """Random relative errors of the size of a dtype's, from a generator of its own."""

    def __init__(self, eps: float, longest: int, seed: int) -> None:
        self.eps = eps
        self.smallest = _SMALLEST.get(eps, 0.0)
        self.places = random.Random(seed)
        # Drawn once: every tensor takes its errors from another place of it.
        pool = torch.rand(longest + _POOL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.pool = pool.mul_(2).sub_(1)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Numbers between -1 and 1, of the shape of `like`."""
        start = self.places.randrange(len(self.pool) - like.numel())
        return self.pool[start : start + like.numel()].view(like.shape).to(like.device)

    def on(self, value: Any, times: float = 1.0) -> Any:
        """`value` with errors of `times` eps on each floating element."""
        if isinstance(value, tuple | list):
            return tuple(self.on(v, times) for v in value)
        if not _floating(value) or not isinstance(value, torch.Tensor):
            return value
        if value.dtype.is_complex:  # rounded by its parts, each of which may be a difference
            return value + times * self.eps * value.abs() * torch.complex(self.uniform(value), self.uniform(value))
        u = self.uniform(value)
        made = torch.addcmul(value, value, u, value=times * self.eps)
        return made.add_(u, alpha=self.smallest) if self.smallest > 1e-10 else made


def _plan(node: fx.Node, exact: Mapping[fx.Node, Any], eps: float) -> tuple[str, float]:
    """How a node errs: "not", because it is "frozen" to the exact run or copies; by "result"; or by "terms" as well,
    so many times eps on each."""
    name = _name(node)
    if _frozen(node, name, exact):
        return "frozen", 0.0
    if _is_exact(node, name, exact):
        return "not", 0.0
    rule = BOOK.find(name)
    if name == "gelu" or (rule is not None and rule.elementwise and name not in _COMPOSED):
        return ("gelu" if name == "gelu" else "result"), 1.0
    # Sums in half precision are accumulated in single, except where values are added to rows in memory.
    in_turn = eps < 1e-4 or name in _SUMMING
    return "terms", _terms(node, exact) ** 0.25 if in_turn else 1.0


def _perturbed(
    plan: list[tuple[fx.Node, str, float]],
    known: Mapping[fx.Node, Any],
    exact: Mapping[fx.Node, Any],
    noise: _Noise,
    inputs: bool,
) -> dict[fx.Node, Any]:
    """The values of one run in which operations err."""
    values = {n: noise.on(v) if inputs else v for n, v in known.items()}
    for node, errs, times in plan:
        if errs == "frozen":
            values[node] = exact[node]
        elif errs == "not":
            values[node] = _parts(exact[node], step(node, values, double), lambda v: v)
        elif errs == "terms":
            read = {n: noise.on(values[n], times) for n in node.all_input_nodes}
            values[node] = _parts(exact[node], step(node, read, double), noise.on)
        else:
            values[node] = noise.on(step(node, values, double))
            if errs == "gelu":  # x * (1 + erf(x / sqrt 2)) / 2: where x is negative, a small difference
                x = values[node.args[0]]  # type: ignore[index]
                values[node] = torch.addcmul(values[node], x, noise.uniform(x), value=noise.eps / 2)
    return values


def _name(node: fx.Node) -> str:
    return str(node.meta.get("operation") or getattr(node.target, "__name__", node.target))


def _floating(value: Any) -> bool:
    """Whether there is a number in `value` that may err."""
    if isinstance(value, tuple | list):
        return any(map(_floating, value))
    if isinstance(value, torch.Tensor):
        return value.dtype.is_floating_point or value.dtype.is_complex
    return isinstance(value, float | complex)


def _frozen(node: fx.Node, name: str, exact: Mapping[fx.Node, Any]) -> bool:
    """Whether the exact run's value stands: integers, truth values, steps, and tensors made from no number."""
    if name in _STEPS or not _floating(exact[node]):
        return True
    return BOOK.find(name) is None and not any(_floating(exact[n]) for n in node.all_input_nodes)


def _is_exact(node: fx.Node, name: str, exact: Mapping[fx.Node, Any]) -> bool:
    """Whether the operation returns what it is given, or a multiple by a power of two."""
    if name in _SUMMING:
        return False
    if name in _EXACT or "max_pool" in name or "max_unpool" in name:
        return True
    rule = BOOK.find(name)
    if rule is not None and family_of(rule.backward) in _EXACT_FAMILIES:
        return True
    if not isinstance(exact[node], torch.Tensor):
        return True  # Python's numbers are in double precision
    if name in ("mul", "div") and len(node.args) == 2:
        numbers = node.args if name == "mul" else node.args[1:]
        return any(isinstance(n, int | float) and math.frexp(n)[0] in (0.0, 0.5, -0.5) for n in numbers)
    return False


def _parts(exact: Any, value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` changed, but where it is a tuple, its integer parts (indices) are the exact run's."""
    if isinstance(exact, tuple | list):
        return tuple(_parts(e, v, change) for e, v in zip(exact, value))
    return change(value) if _floating(exact) else exact


def _terms(node: fx.Node, exact: Mapping[fx.Node, Any]) -> float:
    """About how many terms each element of a sum or a product of matrices adds up."""
    sizes = sorted((v.numel() for n in node.all_input_nodes for v in _tensors(exact[n])), reverse=True)
    made = max((v.numel() for v in _tensors(exact[node])), default=1)
    if not sizes or not made:
        return 1.0
    one = sizes[0] / made
    two = math.sqrt(sizes[0] * sizes[1] / made) if len(sizes) > 1 else 1.0
    return max(1.0, one, two)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, tuple | list):
        return [t for v in value for t in _tensors(v)]
    return [value] if isinstance(value, torch.Tensor) and _floating(value) else []
