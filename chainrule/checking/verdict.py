"""The three oracles side by side: rule, autograd and central differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.checking.difference import close, difference
from chainrule.checking.oracles import autograd_gradients, derived_gradients, floor_of, forward_values, inputs_of
from chainrule.run import double

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


@dataclass
class Row:
    """One input: the derivative along a random direction, by each oracle."""

    name: str
    rule: float
    autograd: float
    differences: float
    worst: float  # largest element-wise difference of rule and autograd, relative to the gradient's size
    alone: str  # the oracle that disagrees with the other two, "" where all agree


@dataclass
class Verdict:
    """Rule, autograd and finite differences side by side; truthy when they agree."""

    rows: list[Row]
    kinks: list[str]

    def __bool__(self) -> bool:
        return all(not row.alone for row in self.rows)

    def __str__(self) -> str:
        width = max([len(r.name) for r in self.rows] + [5])
        lines = [f"{'input':<{width}}  {'rule':>16}  {'autograd':>16}  {'differences':>16}  verdict"]
        for r in self.rows:
            said = "agree" if not r.alone else f"{r.alone} stands alone"
            lines.append(f"{r.name:<{width}}  {r.rule:>16.9g}  {r.autograd:>16.9g}  {r.differences:>16.9g}  {said}")
        lines.append("derivative of the output along a random direction of each input, in float64")
        lines += [f"note: {kink}" for kink in self.kinks]
        return "\n".join(lines)


def verify(d: Derivation, directions: int = 3, seed: int = 0, step: float = 1e-6) -> Verdict:
    """Compare the three oracles along `directions` random directions of each input, with a random upstream."""
    program = d.program
    generator = torch.Generator().manual_seed(seed)
    inputs = {n: double(v) for n, v in inputs_of(program).items()}
    shape = d.output.shape
    random = (
        torch.randn(shape, dtype=double(d.output).dtype, generator=generator)
        if program.upstream is not None
        else torch.ones(shape, dtype=torch.float64)
    )
    ours = derived_gradients(program, inputs, random)
    theirs = dict(zip(program.wanted, autograd_gradients(d, list(inputs.values()), random, double), strict=True))

    here = forward_values(program, inputs, double)
    constant = {n: v for n, v in here.items() if n.meta.get("constant") and n.op != "placeholder"}

    def output(changed: fx.Node, by: torch.Tensor) -> float:
        moved = {**inputs, **constant, changed: inputs[changed] + by}  # detached values stand still
        with torch.no_grad():
            return float((forward_values(program, moved, double)[program.output] * random.conj()).real.sum())

    rows, kinks = [], []
    for node in program.wanted:
        if "no_gradient" in node.meta and node not in program.gradients:
            kinks.append(f"{d._names[node]} has no gradient by definition")
            continue
        found = []
        for _ in range(directions):
            v = torch.randn(node.meta["val"].shape, dtype=inputs[node].dtype, generator=generator)
            v = v / max(float(v.norm()), 1e-12)
            h = step * max(1.0, float(inputs[node].abs().max()) if v.numel() else 1.0)
            up, down, mid = output(node, h * v), output(node, -h * v), output(node, 0 * v)
            values = [0.0 if g is None else float((g.conj() * v).real.sum()) for g in (ours[node], theirs[node])]
            differences = (up - down) / (2 * h)
            noise = 1e-9 * abs(mid) / h * 1e-6 + 1e-9 * abs(mid)
            one_sided = abs((up - mid) - (mid - down)) / h
            if one_sided > 1e-3 * (abs(differences) + 1e-9) + 100 * noise / 1e-3:
                kinks.append(f"{d._names[node]} lies where the slope jumps; autograd's convention is used there")
            found.append((*values, differences, noise))
        kink = any(k.startswith(d._names[node] + " ") for k in kinks)
        rows.append(_row(d._names[node], found, ours[node], theirs[node], kink, floor_of(d)))
    return Verdict(rows, sorted(set(kinks)))


def _row(name: str, found: list[tuple[float, ...]], ours: Any, theirs: Any, kink: bool, floor: float) -> Row:
    scale = max([abs(x) for f in found for x in f[:3]] + [1e-12, floor])
    rule, autograd, differences, _ = found[0]

    def near(i: int, j: int, tolerance: float) -> bool:
        return all(abs(f[i] - f[j]) <= tolerance * scale + f[3] for f in found)

    same = close(ours, theirs, 1e-9, floor)
    by_rule, by_autograd = near(0, 2, 1e-5), near(1, 2, 1e-5)
    if same:
        alone = "" if by_rule or kink else "differences"
    else:
        alone = (
            "autograd"
            if by_rule and not by_autograd
            else "rule"
            if by_autograd and not by_rule
            else "every one of them"
        )
    return Row(name, rule, autograd, differences, difference(ours, theirs) / scale, alone)
