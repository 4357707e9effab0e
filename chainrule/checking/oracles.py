"""Three oracles for a gradient: the rules, autograd, and central differences in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.checking.difference import close, difference
from chainrule.errors import ChainruleError
from chainrule.program import Program
from chainrule.recording import Region
from chainrule.rules import BOOK
from chainrule.rules.autograd import RuleInAutograd
from chainrule.run import double, filled, needed, run

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


def forward_values(program: Program, inputs: dict[fx.Node, Any], convert: Any = lambda v: v) -> dict[fx.Node, Any]:
    """The forward pass run again on `inputs`."""
    return run(needed([program.output]), inputs, convert)


def copier(program: Program) -> Callable[[torch.Tensor], torch.Tensor]:
    """How inputs are copied for running `program` again: as they lie in memory, where it can see that."""
    return copy.deepcopy if any(n.meta["operation"] == "as_strided" for n in program.graph.nodes) else torch.clone


def autograd_gradients(
    d: Derivation, inputs: list[torch.Tensor], upstream: torch.Tensor, convert: Any = lambda v: v
) -> list[torch.Tensor | None]:
    """Autograd's gradients of the replayed forward pass, for the inputs that were asked for."""
    program = d._base
    given = [n for n in program.inputs if n is not program.upstream]
    asked = {n for n in program.wanted if "no_gradient" not in n.meta or n in program.gradients}
    copied = copier(program)
    leaves = {n: copied(v).requires_grad_() if n in asked else v for n, v in zip(given, inputs, strict=True)}
    with torch.enable_grad():
        output = _replay(program, leaves, convert)[program.output]
        same_output(d, output)
        order = [n for n in program.wanted if n in asked]
        if not output.requires_grad or not order:
            return [None for _ in program.wanted]
        scalar = (
            output * upstream.to(output.dtype).conj()
        ).real.sum()  # giving autograd the upstream itself imports sympy
        found = torch.autograd.grad(scalar, [leaves[n] for n in order], allow_unused=True)
    by_node = dict(zip(order, found, strict=True))
    return [by_node.get(n) for n in program.wanted]


def _rewritten(d: Derivation) -> bool:
    """Whether an input was changed by an operation that means to, so that constants may be made of what it was."""
    return any("rewritten" in n.meta for n in d._base.inputs)


def same_output(d: Derivation, found: torch.Tensor) -> None:
    """Raise if the recorded forward pass, run again, gives another output than the person's run gave; inputs that
    have moved since, as parameters do, give another one by right."""
    if _rewritten(d) or d.inputs_have_moved():
        return
    dtypes = {getattr(n.meta["val"], "dtype", None) for n in d._base.graph.nodes if "val" in n.meta}
    tolerance = max(_LENIENT.get(dtype, 1e-6) for dtype in dtypes)
    if not close(d.output.detach(), found.detach(), tolerance):
        raise ChainruleError(
            f"the recorded forward pass gives another output {tuple(d.output.shape)} than the run that was recorded "
            f"(largest difference {difference(d.output.detach(), found.detach()):.3g}): a value was changed out of "
            "sight (through .data, NumPy, or memory that two tensors share); write it as a new value"
        )


_LENIENT: dict[Any, float] = {torch.float32: 2e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}


def _replay(program: Program, leaves: dict[fx.Node, Any], convert: Any) -> dict[fx.Node, Any]:
    """The forward pass again; constants (no_grad, detach) are cut off, a person's Function is applied."""
    values = dict(leaves)
    for node in needed([program.output]):
        if node in values:
            continue
        values |= run([node], values, convert)
        region = node.meta.get("region")
        leaves_it = node is program.output or any(u.meta.get("region") is not region for u in node.users)
        if region is not None and leaves_it:
            values[node] = _by_region(region, values[node], values, node.meta.get("output"))
        elif _is_cut(program, node) and isinstance(values[node], torch.Tensor):
            values[node] = values[node].detach()
    return values


def _is_cut(program: Program, node: fx.Node) -> bool:
    """Whether no gradient passes: a constant, or what is read only where the operation defines no gradient."""
    return bool(node.meta.get("constant")) or ("no_gradient" in node.meta and node not in program.gradients)


def _by_region(region: Region, out: Any, values: dict[fx.Node, Any], position: int | None) -> Any:
    """The output (of several, the one at `position`) of a call that has a backward step of its own, with that step as its gradient."""
    arguments = filled(region.arguments, values)
    if region.function is None:
        rule = BOOK.of_code(region.code)
        return RuleInAutograd.apply(rule, out.detach(), *arguments.values())  # type: ignore[no-untyped-call]
    applied = region.function.apply(*arguments)
    applied = applied if position is None else applied[position]
    return applied if isinstance(applied, torch.Tensor) and applied.shape == out.shape else out


def inputs_of(program: Program) -> dict[fx.Node, Any]:
    return {n: n.meta["val"].detach() for n in program.inputs}


def _upstream(d: Derivation) -> torch.Tensor:
    upstream = d.program.upstream
    return torch.ones_like(d.output) if upstream is None else upstream.meta["val"]


def confirm(d: Derivation) -> None:
    """Raise unless the derived gradients are autograd's, to the precision of their dtype.

    Where the person's tensors require gradients, autograd's own tape of their run is asked, which knows
    nothing of the recording; elsewhere the recorded forward pass is run again under autograd.
    """
    inputs = list(inputs_of(d.program).values())
    truth = _from_the_run(d)
    if any(t is _NOT_ASKED for t in truth):
        again = autograd_gradients(d, inputs, _upstream(d))
        truth = [again[i] if t is _NOT_ASKED else t for i, t in enumerate(truth)]
    wrong = [i for i, n in enumerate(d.program.wanted) if not close(d._gradient(n), truth[i])]
    if not wrong:
        return
    floor = floor_of(d)
    exact, upstream = [double(v) for v in inputs], double(_upstream(d))  # rounding, or a wrong rule?
    replayed = autograd_gradients(d, exact, upstream, double)
    derived = derived_gradients(d.program, dict(zip(d.program.inputs, exact, strict=True)), upstream)
    repeated = derived_gradients(d.program, inputs_of(d.program), _upstream(d), lambda value: value, d)
    for i in wrong:
        node, ours = d.program.wanted[i], d._gradient(d.program.wanted[i])
        lenient = 2e-3 if node.meta["val"].dtype != torch.float64 else 1e-6
        if not close(derived[node], replayed[i], 1e-7, floor):
            why, size = "a rule is wrong", difference(derived[node], replayed[i])
        elif (not _rewritten(d) and not close(ours, repeated[node], lenient, floor)) or (
            not close(ours, truth[i], lenient, floor)
            and difference(ours, truth[i]) > 100 * _rounding(ours, derived[node])
        ):
            why, size = "the recording lost a path", difference(ours, truth[i])
        else:
            continue
        operations = sorted({n.meta["operation"] for n in needed([d.program.output]) if n.op != "placeholder"})
        raise ChainruleError(
            f"the derived gradient of {d._names[node]} {tuple(node.meta['val'].shape)} is not autograd's "
            f"(largest difference {size:.3g}): {why}, please report it; operations: {', '.join(operations)}"
        )


def floor_of(d: Derivation) -> float:
    """Below this a gradient is what rounding left of terms that cancel (a bias before a batch norm)."""
    d.values()
    values = [g.meta["val"] for g in d._base.gradients.values()]
    sizes = [float(v.abs().max()) for v in values if v.numel()]
    return 1e-3 * max([s for s in sizes if math.isfinite(s)], default=0.0)


def _rounding(ours: Any, exact: Any) -> float:
    """How far our own gradient lies from itself in float64: what cancellation does to these numbers."""
    return 0.0 if ours is None or exact is None else difference(ours.double(), exact)


_NOT_ASKED: Any = object()


def _from_the_run(d: Derivation) -> list[Any]:
    """Autograd's gradients from the person's own run, for the inputs that require one."""
    program, output = d._base, d.program.output.meta["val"]
    tensors = [n.meta.get("given", n.meta["val"]) for n in program.wanted]
    asked = [
        t for t in tensors if t.requires_grad and output.requires_grad and "overwritten" not in d.program.output.meta
    ]
    looked_into = any("without_grad" in n.meta and not n.meta.get("constant") for n in needed([program.output]))
    if not asked or looked_into:  # torch.no_grad, of which the run's own tape knows nothing
        return [_NOT_ASKED for _ in tensors]
    try:
        with torch.enable_grad():
            scalar = (output * _upstream(d).to(output.dtype).conj()).real.sum()
            found = torch.autograd.grad(scalar, asked, allow_unused=True, retain_graph=True)
    except RuntimeError as error:  # overwritten in place what it needs, or a reentrant checkpoint
        d.notes.append(f"autograd refuses this forward pass: {str(error).splitlines()[0].split(': [')[0]}")
        return [_NOT_ASKED for _ in tensors]
    by_tensor = {id(t): g for t, g in zip(asked, found, strict=True)}
    return [by_tensor.get(id(t), _NOT_ASKED) for t in tensors]


def derived_gradients(
    program: Program, inputs: dict[fx.Node, Any], upstream: torch.Tensor, convert: Any = double, of: Any = None
) -> dict[fx.Node, Any]:
    """The derived program run on `inputs`, in float64 unless `convert` says otherwise; with the derivation that it
    is `of`, its output is compared as well."""
    asked = {n: program.gradients[n] for n in program.wanted if n in program.gradients}
    known = dict(inputs)
    if program.upstream is not None:
        known[program.upstream] = upstream
    with torch.no_grad():
        values = run(needed([*asked.values(), program.output]), known, convert)
    if of is not None:
        same_output(of, values[program.output])
    return {n: values[asked[n]] if n in asked else None for n in program.wanted}


def confirm_pullback(program: Program) -> None:
    """Raise unless the gradient of the one value asked for, at a random upstream, is autograd's; in float64."""
    (wrt,) = program.wanted
    seed, root = program.upstream, program.gradients[wrt]
    assert seed is not None
    known = {n: double(n.meta["val"]) for n in program.graph.nodes if n.op == "placeholder" and n is not seed}
    known[wrt] = double(wrt.meta["val"].detach())
    shape = program.output.meta["val"].shape
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    upstream = upstream.to(known[wrt].device)
    with torch.no_grad():
        values = run(needed([root, program.output], given=known), {**known, seed: upstream}, double)
    with torch.enable_grad():
        leaf = known[wrt].clone().requires_grad_()
        output = _replay(program, {**known, wrt: leaf}, double)[program.output]
        scalar = (output * upstream).sum()
        (truth,) = torch.autograd.grad(scalar, leaf, allow_unused=True) if scalar.requires_grad else (None,)
    gradients = [values[g] for g in program.gradients.values() if g in values and values[g].numel()]
    floor = 1e-3 * max([s for g in gradients if math.isfinite(s := float(g.abs().max()))], default=0.0)
    if not close(values[root], truth, 1e-7, floor):
        name, of = (node.meta.get("name") or node.meta["operation"] for node in (wrt, program.output))
        raise ChainruleError(
            f"the derivative of {of} {tuple(shape)} with respect to {name} {tuple(leaf.shape)} is not autograd's (largest "
            f"difference {difference(values[root], truth):.3g}); please report it",
            program.output.meta.get("site"),
        )
