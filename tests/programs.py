"""Random straight-line programs, as Python text, built from what the rule book covers.

A program starts from two inputs; each line makes a value from earlier ones, and asks for a further
input where it needs one of a certain shape. Values are computed on the way, so that shapes are known
and numbers stay tame.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

SIZES = (1, 2, 3, 5)
_files = count()


@dataclass
class Program:
    """Text under way; `pick(n)` is a number from 0 to n - 1, drawn by hypothesis or by a seed."""

    pick: Callable[[int], int]
    inputs: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def one_of(self, items: Any) -> Any:
        items = list(items)
        return items[self.pick(len(items))]

    def fresh(self, shape: tuple[int, ...]) -> str:
        """A new input of `shape`, or one that is there already."""
        known = [n for n, v in self.inputs.items() if v.dtype == torch.float64 and tuple(v.shape) == shape]
        if known and self.pick(2):
            return str(self.one_of(known))
        return self.input(torch.randn(shape, dtype=torch.float64, generator=self.generator()), "x")

    def input(self, value: Tensor, letter: str) -> str:
        name = f"{letter}{len(self.inputs)}"
        self.inputs[name] = self.values[name] = value
        return name

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.pick(1000))

    def indices(self, high: int, shape: tuple[int, ...]) -> str:
        return self.input(torch.randint(high, shape, generator=self.generator()), "i")

    def mask(self, shape: tuple[int, ...]) -> str:
        return self.input(torch.rand(shape, generator=self.generator()) > 0.4, "m")

    def value(self, least: int = 0, most: int = 3) -> str | None:
        """A value of a rank between `least` and `most`, a late one more often than an early one."""
        fit = [n for n, v in self.values.items() if v.dtype == torch.float64 and least <= v.ndim <= most]
        if not fit:
            return None
        return fit[max(self.pick(len(fit)), self.pick(len(fit)))]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def axis(self, name: str) -> int:
        return self.pick(self.values[name].ndim)

    def mate(self, name: str) -> str:
        """A value that broadcasts with `name`, made to order half of the time."""
        shape = self.shape(name)
        if self.pick(2):
            cut = shape[self.pick(len(shape) + 1) :]
            return self.fresh(tuple(1 if self.pick(3) == 0 else s for s in cut))
        return str(self.one_of(n for n, v in self.values.items() if v.dtype == torch.float64 and fits(v.shape, shape)))

    def line(self, expression: str) -> bool:
        """Add `name = expression`, if its value is a finite floating tensor of moderate size."""
        value = eval(expression, {"torch": torch, "F": torch.nn.functional}, dict(self.values))
        if not isinstance(value, Tensor) or value.dtype != torch.float64 or value.ndim > 4:
            return False
        if not 0 < value.numel() <= 400 or not value.isfinite().all() or value.abs().max() > 1e3:
            return False
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        self.values[name] = value
        return True

    def end(self) -> None:
        """A scalar from the last value and, often, from one more."""
        made = [n for n in self.values if n.startswith("v")] or [n for n in self.values if n.startswith("x")]
        parts = [self.scalar(made[-1])]
        if self.pick(3):
            parts.append(self.scalar(str(self.one_of(made))))
        self.lines.append(f"return {' + '.join(parts)}")

    def scalar(self, name: str) -> str:
        endings = ("{}.sum()", "{}.mean()", "({} ** 2).mean()", "{}.sin().sum()", "({} * {}).sum() / 3")
        return str(self.one_of(endings)).replace("{}", name)

    @property
    def text(self) -> str:
        used = [n for n in self.inputs if any(n in line for line in self.lines)]
        self.arguments = [self.inputs[n] for n in used]
        return "\n    ".join([f"def program({', '.join(used)}):", *self.lines]) + "\n"

    def function(self) -> Callable[..., Tensor]:
        text = self.text
        file = f"<program {next(_files)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        space: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
        exec(compile(text, file, "exec"), space)
        made: Callable[..., Tensor] = space["program"]
        return made


def fits(a: Any, b: Any) -> bool:
    try:
        torch.broadcast_shapes(a, b)
    except RuntimeError:
        return False
    return True


UNARY = ("{}.tanh()", "torch.sin({})", "{}.exp().log1p()", "{}.sigmoid()", "-{}", "{} ** 2", "{} ** 3", "torch.relu({})",
         "{}.abs()", "F.gelu({})", "F.silu({})", "F.softplus({})", "({} * {} + 1).sqrt()", "({}.abs() + 0.5).log()",
         "({} * {} + 0.5) ** 1.5", "{}.clamp(-0.7, 0.7)", "1 / ({} * {} + 1)", "{}.cos() * {}", "({} * {} + 1).rsqrt()",
         "2 - {} / 3", "{}.square()", "F.elu({})", "{} + {}", "F.leaky_relu({}, 0.2)", "{}.detach() * {}", "{} ** 1")  # fmt: skip
BINARY = ("{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b} * {b} + 1)", "torch.maximum({a}, {b})",
          "torch.minimum({a}, {b})", "{a} * {b} + {a}", "torch.where({a} > {b}, {a}, {b} * 2)", "{b} * {a}.exp() / 9",
          "torch.lerp({a}, {b}, 0.3)", "({a} - {b}) ** 2", "{a} - 0.5 * ({a} + {b})", "({a} * {a} + 0.5) ** {b}.tanh()")  # fmt: skip


def unary(p: Program) -> str | None:
    v = p.value()
    return v and str(p.one_of(UNARY)).replace("{}", v)


def binary(p: Program) -> str | None:
    a = p.value()
    return a and str(p.one_of(BINARY)).format(a=a, b=p.mate(a))


def product(p: Program) -> str | None:
    a = p.value(1)
    if a is None:
        return None
    *lead, inner = p.shape(a)
    other = p.one_of(SIZES)
    kinds = ["{a} @ {w}", "F.linear({a}, {wt})", "{a} @ {vec}", "torch.einsum('...i,ij->...j', {a}, {w})"]
    if lead:
        kinds += ["{a} @ {a}.mT", "{a}.mT @ {a}", "{left} @ {a}", "F.linear({a}, {wt}, {bias})", "{row} @ {a}"]
    if len(lead) == 1:
        kinds += [
            "torch.addmm({bias}, {a}, {w})",
            "{a}.T @ {a}",
            "{a}.mm({w})",
            "{a}.mv({vec})",
            "torch.einsum('ij,kj->ik', {a}, {wt})",
        ]
    if len(lead) == 2:
        kinds += ["torch.bmm({a}, {batched})", "{a} @ {batched}", "torch.einsum('bij,bkj->bik', {a}, {a})"]
    if not lead:
        kinds += ["torch.outer({a}, {vec})", "{a}.dot({vec})", "{a} @ {a}"]
    kind = str(p.one_of(kinds))
    shapes = {"w": (inner, other), "wt": (other, inner), "vec": (inner,), "bias": (other,), "left": (other, lead[-1] if lead else 1),
              "row": (lead[-1] if lead else 1,), "batched": (*lead[:1], inner, other)}  # fmt: skip
    return kind.format(a=a, **{k: p.fresh(s) for k, s in shapes.items() if "{" + k + "}" in kind})


def reduction(p: Program) -> str | None:
    v = p.value(1)
    if v is None:
        return None
    kinds = ["sum", "mean", "logsumexp", "amax", "amin", "prod", "norm", "max", "min"]
    if p.shape(v)[d := p.axis(v)] > 1:
        kinds += ["var", "std"]
    kind, keep = p.one_of(kinds), ", keepdim=True" if p.pick(2) else ""
    d = d - p.values[v].ndim if p.pick(2) else d
    if kind in ("sum", "mean", "amax") and p.values[v].ndim == 3 and p.pick(2):
        return f"{v}.{kind}(({p.pick(2)}, 2){keep})"
    if kind == "norm":
        return f"torch.linalg.vector_norm({v}, dim={d}{keep})"
    return f"{v}.{kind}({d}{keep})" + (".values" if kind in ("max", "min") else "")


def scan(p: Program) -> str | None:
    v = p.value(1)
    if v is None:
        return None
    kinds = ("{}.softmax({d})", "{}.log_softmax({d})", "{}.cumsum({d})", "({} * {} + 0.5).cumprod({d})", "{} / {}.sum({d}, keepdim=True).exp()",
             "{} - {}.mean({d}, keepdim=True)", "{}.flip({d})", "{}.roll(1, {d})", "F.layer_norm({}, {}.shape[-1:])")  # fmt: skip
    return str(p.one_of(kinds)).replace("{}", v).replace("{d}", str(p.axis(v)))


def shaping(p: Program) -> str | None:
    v = p.value(1)
    if v is None:
        return None
    shape, n = p.shape(v), len(p.shape(v))
    times = ", ".join(str(1 + p.pick(2)) for _ in shape)
    turned = ", ".join(str((k + 1) % n) for k in range(n))
    d, new = p.axis(v), p.pick(n + 1)
    kinds = ["{}.reshape(-1)", "{}.flatten()", "{}.unsqueeze(NEW)", "{}.transpose(0, -1)", "{}.squeeze()", "{}[None]",
             "{}.repeat(TIMES)", "{}.contiguous()", "{}.expand(2, KEPT)", "{}.reshape({}.shape[0], -1)", "{}.chunk(2, D)[0]",
             "torch.stack([{}, {} * 2], NEW)", "{}.movedim(0, -1)", "{}.permute(TURNED)", "{}.unbind(0)[-1]"]  # fmt: skip
    if n == 2:
        kinds += ["{}.T", "{}.tril()", "{}.triu(1)", "{}.diagonal()", "{}.t().contiguous()"]
    kind = str(p.one_of(kinds)).replace("{}", v).replace("TIMES", times).replace("TURNED", turned)
    return kind.replace("KEPT", ", ".join(["-1"] * n)).replace("NEW", str(new)).replace("D)", f"{d})")


def indexing(p: Program) -> str | None:
    v = p.value(1)
    if v is None:
        return None
    shape, d = p.shape(v), p.axis(v)
    n, full = shape[d], ":, " * d
    k, start = p.pick(n), p.pick(n)
    kind = p.pick(11)
    if kind == 0:
        return f"{v}[{full}{k}]"
    if kind == 1:
        return f"{v}[{full}{start}:]"
    if kind == 2:
        return f"{v}[{full}::2]"
    if kind == 3:
        return f"{v}[..., {p.pick(shape[-1]) - shape[-1]}]"
    if kind == 4:
        return f"{v}[{full}{p.indices(n, (p.one_of(SIZES),))}]"
    if kind == 5:
        return f"{v}[{p.mask(shape)}].sum() * {v}"
    if kind == 6:
        return f"{v}.index_select({d}, {p.indices(n, (4,))})"
    if kind == 7:
        return f"{v}.gather({d}, {p.indices(n, (*shape[:d], p.one_of(SIZES), *shape[d + 1 :]))})"
    if kind == 8:
        return f"{v}.narrow({d}, {start}, {n - start})"
    if kind == 9:
        return f"{v}.masked_fill({p.mask(shape)}, 0.5)"
    return f"{v}[{start}:, None]"


def joining(p: Program) -> str | None:
    v = p.value(1)
    if v is None:
        return None
    shape, d = p.shape(v), p.axis(v)
    other = p.fresh((*shape[:d], p.one_of(SIZES), *shape[d + 1 :]))
    kinds = (f"torch.cat([{v}, {other}], {d})", f"torch.cat([{v}, {v} * 2, {v}], dim={d})", f"torch.cat(({other}, {v}), {d})",
             f"torch.where({p.mask(shape)}, {v}, {p.mate(v)}).tanh()", f"torch.stack([{v}, {p.fresh(shape)}]).sum(0)",
             f"torch.where({v} > 0, {v} * 2, {v} - 1)")  # fmt: skip
    return str(p.one_of(kinds))


FAMILIES: dict[str, tuple[Callable[[Program], str | None], ...]] = {
    "elementwise": (unary, binary),
    "broadcasting": (binary, binary, shaping),
    "products": (product, unary, product),
    "reductions": (reduction, binary, unary),
    "scans": (scan, reduction, binary),
    "shaping": (shaping, binary, product),
    "indexing": (indexing, binary, unary),
    "joining": (joining, shaping, unary, binary),
    "networks": (product, scan, unary, reduction, binary),
    "everything": (unary, binary, product, reduction, scan, shaping, indexing, joining),
}


def random_program(pick: Callable[[int], int], family: str, longest: int = 7) -> Program:
    p = Program(pick)
    for _ in range(2):
        p.fresh(tuple(SIZES[pick(len(SIZES))] for _ in range(pick(4))))
    for _ in range(2 + pick(longest - 1)):
        expression = p.one_of(FAMILIES[family])(p)
        if expression:
            p.line(expression)
    p.end()
    return p
