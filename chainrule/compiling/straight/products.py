"""Matrix products: the exact ways to compute one, and which is fastest here, by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import fx

aten = torch.ops.aten

LONGEST = 0.005  # seconds that measuring one product may take, beyond one call of each candidate

# A long sum that is added up one term after another loses digits that a gradient, where terms cancel, cannot spare.
ROUNDING = 16.0  # of a result's last place: what any way may lose
CARELESS = 4.0  # times what the most careful way loses: beyond both, a way is not taken
SAMPLE = 8  # rows and columns by which the loss is told


@dataclass(frozen=True)
class Way:
    """One way to compute a @ b (+ bias). `code` is written with {a}, {b}, {bt} (transposed), {bias}, and {out}
    where it can write into memory that is given."""

    label: str
    code: str
    transposed: bool = False  # whether its result lies in memory transposed

    @property
    def copied(self) -> bool:
        return ".contiguous()" in self.code

    @property
    def into(self) -> bool:
        return "{out}" in self.code


MM = Way("mm", "mm({a}, {b}, out={out})")
ADDMM = Way("addmm", "addmm({bias}, {a}, {b}, out={out})")
ONEDNN = Way("oneDNN", 'onednn({a}, {bt}, {bias}, "none", [], "")')
ONEDNN_COPIED = Way("oneDNN, left operand copied", 'onednn({a}.contiguous(), {bt}, {bias}, "none", [], "")')
ONEDNN_SWAPPED = Way("oneDNN, transposed", 'onednn({bt}, {a}, None, "none", [], "").t()', transposed=True)
ONEDNN_SWAPPED_COPIED = Way(
    "oneDNN, transposed, right operand copied",
    'onednn({bt}.contiguous(), {a}, None, "none", [], "").t()',
    transposed=True,
)

SPACE: dict[str, Callable[..., torch.Tensor]] = {
    "mm": torch.mm,
    "addmm": torch.addmm,
    "onednn": torch.ops.mkldnn._linear_pointwise if hasattr(torch.ops.mkldnn, "_linear_pointwise") else torch.mm,
}


@dataclass(frozen=True)
class Choice:
    """What was measured for one product, and the way that was taken."""

    shape: tuple[int, int, int]
    way: Way
    measured: dict[Way, float]

    @property
    def seconds(self) -> dict[str, float]:
        return {way.label: seconds for way, seconds in self.measured.items()}

    def in_rows(self) -> Choice:
        """The fastest way whose result lies in rows, as readers of the result take for granted."""
        allowed = [way for way in self.measured if not way.transposed] or [self.way]
        return replace(self, way=min(allowed, key=lambda way: self.measured.get(way, 0.0)))


_chosen: dict[object, Choice] = {}


def operands(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """(a, b, bias) where `node` is a matrix product."""
    if node.target is aten.mm.default:
        a, b = node.args
        return a, b, None  # type: ignore[return-value]
    if node.target is aten.addmm.default and not node.kwargs:
        bias, a, b = node.args
        return a, b, bias  # type: ignore[return-value]
    return None


def ways(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> list[Way]:
    """The exact candidates for a product of such operands."""
    found = [MM if bias is None else ADDMM]
    if not _is_onednn_able(a) or not (a.numel() and b.numel()) or (bias is not None and bias.ndim != 1):
        return found
    if _overlaps(a) or _overlaps(b):  # oneDNN has no word for that
        return found
    in_rows = a.stride(-1) == 1
    found.append(ONEDNN)
    if not in_rows:
        found.append(ONEDNN_COPIED)
    if bias is None:
        found.append(ONEDNN_SWAPPED)
        if b.stride(0) != 1:
            found.append(ONEDNN_SWAPPED_COPIED)
    return found


def _is_onednn_able(a: torch.Tensor) -> bool:
    """Whether oneDNN has an exact product for such an operand on this machine: of bfloat16 not on every processor."""
    if a.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    return a.dtype == torch.float32 or (a.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _overlaps(t: torch.Tensor) -> bool:
    """Whether rows of a matrix share elements, as those of `unfold` do."""
    (near, length), (far, count) = sorted(zip(t.stride(), t.shape, strict=True))
    return count > 1 and 0 < far < near * length


def fastest(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> Choice:
    """The fastest way to compute a product of operands with these shapes and strides; measured once."""
    key = (a.shape, a.stride(), b.shape, b.stride(), bias is None, a.dtype, a.device, torch.get_num_threads())
    if key not in _chosen:
        _chosen[key] = _measured(*(None if t is None else like(t) for t in (a, b, bias)))  # type: ignore[arg-type]
    return _chosen[key]


def like(t: torch.Tensor) -> torch.Tensor:
    """A tensor of numbers, of the same shape and strides."""
    made = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)
    return made.fill_(0.5)


def _measured(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> Choice:
    shape = (a.shape[0], a.shape[1], b.shape[1])
    candidates = ways(a, b, bias)
    if len(candidates) == 1:
        return Choice(shape, candidates[0], {})
    best = shortest({way: _call(way, a, b, bias) for way in careful(candidates, a, b, bias)})
    return Choice(shape, min(best, key=best.__getitem__), best)


def careful(candidates: list[Way], a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> list[Way]:
    """The ways that sum with little rounding; some of what `a` and `b` hold is made random to tell."""
    rows, columns = a[:SAMPLE], b[:, :SAMPLE]
    draw = torch.Generator(a.device).manual_seed(0)
    for part in (rows, columns):
        if 0 not in part.stride():  # of an expanded operand, all terms are alike
            part.uniform_(generator=draw)
    right = rows.double() @ columns.double()
    if bias is not None:
        right += bias[:SAMPLE]
    lost = {way: _lost(_call(way, a, b, bias)()[:SAMPLE, :SAMPLE], right) for way in candidates}
    allowed = max(ROUNDING, CARELESS * min(lost.values()))
    return [way for way in candidates if lost[way] <= allowed]


def _lost(found: torch.Tensor, right: torch.Tensor) -> float:
    """The largest error of a product of positive numbers, in units of its last place."""
    return float(((found - right) / right).abs().max()) / torch.finfo(found.dtype).eps


Key = TypeVar("Key")


def shortest(calls: dict[Key, Callable[[], object]], longest: float = LONGEST) -> dict[Key, float]:
    """The least seconds that each call took, all tried in turn, those that fall behind no more."""
    best = {way: _seconds(call, 1) for way, call in calls.items()}  # also warms up
    spent, behind = time.perf_counter(), 4.0
    while time.perf_counter() - spent < longest:
        promising = [way for way in calls if best[way] < behind * min(best.values()) + 1e-4 * (behind - 1)]
        if len(promising) == 1 and behind < 2:
            break
        behind = max(1 + (behind - 1) / 2, 1.2)
        for way in promising:
            repeats = max(1, int(1e-4 / max(best[way], 1e-7)))
            best[way] = min(best[way], _seconds(calls[way], repeats))
    return best


def call_of(way: Way, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> Callable[[], torch.Tensor]:
    """A product of tensors with such shapes and strides, ready to be called."""
    return _call(way, like(a), like(b), None if bias is None else like(bias))


def _call(way: Way, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> Callable[[], torch.Tensor]:
    out = a.new_empty(a.shape[0], b.shape[1])
    code = way.code.format(a="a", b="b", bt="bt", bias="bias", out="out")
    space = {**SPACE, "a": a, "b": b, "bt": b.t(), "bias": bias, "out": out}
    call: Callable[[], torch.Tensor] = eval(f"lambda: {code}", space)
    return call


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def products_time(graph: fx.Graph) -> float:
    """The seconds that all matrix products of a graph take, each by its fastest way."""
    total = 0.0
    for node in graph.nodes:
        found = operands(node)
        if found is not None:
            with torch.no_grad():
                choice = fastest(*(n.meta["val"] if n is not None else None for n in found))  # type: ignore[arg-type]
            total += min(choice.seconds.values(), default=0.0)
    return total
