"""How a parameter's move is written as calls of torch: folded into the product that makes its gradient, or one
kernel of torch's for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.memory import owner, size_of
from chainrule.compiling.optimisers import SGD, Adam, Gathering, Optimiser

SMALL = 1 << 14  # elements: smaller parameters are moved together, by one call
TERMS = 5  # as large as a parameter, at most alive at a time where it moves by the formula


@dataclass
class Moves:
    """The lines that move parameters, for one optimiser and its state (a list of tensors for each parameter)."""

    optimiser: Optimiser
    state: dict[fx.Node, list[torch.Tensor]]
    name: Callable[[str], str] = str  # a free name in the code

    def folded(self, lowered: Lowered) -> dict[fx.Node, fx.Node]:
        """The parameters whose gradient is a product that nothing else reads, so that it can be added in place."""
        sgd = self.optimiser
        plain = isinstance(sgd, SGD) and not sgd.nesterov and not (sgd.momentum and sgd.weight_decay)
        if not plain and not isinstance(sgd, Gathering):
            return {}
        staying = {*lowered.gradients, *lowered.writes}
        counts = list(lowered.outputs)
        return {
            p: g
            for p, g in lowered.gradients.items()
            if g.target is torch.ops.aten.mm.default
            and not any(user.op == "call_function" for user in g.users)
            and counts.count(g) == 1
            and not any(owner(n) in staying for n in g.all_input_nodes)
            and g.meta["val"].dtype == p.meta["val"].dtype
        }

    @property
    def adds(self) -> bool:
        """Whether gradients are added to what moves, however they lie; kernels go through memory in order."""
        sgd = self.optimiser
        return isinstance(sgd, Gathering) or (isinstance(sgd, SGD) and not sgd.momentum)

    def together(self, lowered: Lowered) -> set[fx.Node]:
        """The parameters that are small enough to be moved together, where a kernel of torch's does it."""
        if isinstance(self.optimiser, Gathering) or (isinstance(self.optimiser, SGD) and not self.optimiser.momentum):
            return set()
        return {p for p, g in lowered.gradients.items() if p.meta["val"].numel() <= SMALL and self._alike(p, g)}

    def _alike(self, p: fx.Node, gradient: fx.Node) -> bool:
        """Whether a parameter, its gradient and its state lie in memory in the same order, as torch's kernels take for
        granted."""
        return self._dense(p) and gradient.meta["val"].stride() == p.meta["val"].stride()

    def _dense(self, p: fx.Node) -> bool:
        """Whether a parameter and its state lie alike: what is made like a tensor does, unless that has gaps."""
        return all(state.stride() == p.meta["val"].stride() for state in self.state[p])

    def needs(self, p: fx.Node, gradient: fx.Node) -> int:
        """The bytes of what is made for a parameter's move: its gradient in another layout, or each term."""
        if self.adds or self._alike(p, gradient):
            return 0
        return (1 if self._dense(p) else TERMS) * size_of(p.meta["val"])

    def opening(self, space: dict[str, Any]) -> list[str]:
        if isinstance(self.optimiser, Gathering):
            return []
        space["optimiser"] = self.optimiser
        if isinstance(self.optimiser, Adam):
            space["taken"] = torch.zeros(())  # steps, as torch's kernel wants them
            return ["lr = optimiser.lr_now", "taken.fill_(optimiser.steps + 1)"]
        return ["lr = optimiser.lr_now"]

    def closing(self, late: Sequence[tuple[fx.Node, str, str]], space: dict[str, Any]) -> list[str]:
        """The move of the parameters (each with its name and that of its gradient) that move together."""
        lines: list[str] = []
        if isinstance(self.optimiser, Gathering):
            return lines
        if late:
            states = [", ".join(column) for column in zip(*(self._state(p, name, space) for p, name, _ in late))]
            names, gradients = (", ".join(column) for column in list(zip(*late))[1:])
            lines.append(self._kernel(names, gradients, states, len(late), space))
        return [*lines, "optimiser.steps += 1"]

    def by_product(self, p: fx.Node, name: str, a: str, b: str, space: dict[str, Any]) -> list[str]:
        sgd = self.optimiser
        if isinstance(sgd, Gathering):
            (total,) = self._state(p, name, space)
            return [f"{total}.addmm_({a}, {b}{self._scaled(sgd)})"]
        assert isinstance(sgd, SGD)
        if not sgd.momentum:
            beta = f"beta=1 - lr * {sgd.weight_decay!r}, " if sgd.weight_decay else ""
            return [f"{name}.addmm_({a}, {b}, {beta}alpha=-lr)"]
        (velocity,) = self._state(p, name, space)
        return [f"{velocity}.addmm_({a}, {b}, beta={sgd.momentum!r})", f"{name}.add_({velocity}, alpha=-lr)"]

    def by_gradient(self, p: fx.Node, g: fx.Node, name: str, gradient: str, space: dict[str, Any]) -> list[str]:
        sgd = self.optimiser
        if isinstance(sgd, Gathering):
            (total,) = self._state(p, name, space)
            return [f"{total}.add_({gradient}{self._scaled(sgd)})"]
        if isinstance(sgd, SGD) and not sgd.momentum:
            decay = [f"{name}.mul_(1 - lr * {sgd.weight_decay!r})"] if sgd.weight_decay else []
            return [*decay, f"{name}.add_({gradient}, alpha=-lr)"]
        states = self._state(p, name, space)
        if not self._dense(p):
            space["move"] = self._by_formula
            return [f"move({name}, {gradient}, [{', '.join(states)}])"]
        if not self._alike(p, g):
            space["laid_as"] = _laid_as
            gradient = f"laid_as({name}, {gradient})"
        return [self._kernel(name, gradient, states, 1, space)]

    @staticmethod
    def _scaled(gathering: Gathering) -> str:
        return f", alpha={gathering.share!r}" if gathering.every > 1 else ""

    def _by_formula(self, p: torch.Tensor, gradient: torch.Tensor, state: list[torch.Tensor]) -> None:
        moved = self.optimiser.moved(p, gradient, state, self.optimiser.numbers())
        for tensor, value in zip((p, *state), moved):
            tensor.copy_(value)

    def _state(self, p: fx.Node, name: str, space: dict[str, Any]) -> list[str]:
        names = [self.name(f"{name}_{s}") for s in self.optimiser.state_names]
        space.update(zip(names, self.state[p]))
        return names

    def _kernel(self, ps: str, gs: str, states: list[str], count: int, space: dict[str, Any]) -> str:
        """A call of torch's kernel for this optimiser, on `count` parameters."""
        optimiser = self.optimiser
        if isinstance(optimiser, SGD):
            space["sgd_"] = torch._fused_sgd_
            return (
                f"sgd_([{ps}], [{gs}], [{states[0]}], weight_decay={optimiser.weight_decay!r}, "
                f"momentum={optimiser.momentum!r}, lr=lr, dampening=0.0, nesterov={optimiser.nesterov}, "
                "maximize=False, is_first_step=False)"
            )
        assert isinstance(optimiser, Adam)
        space["adam_"] = torch._fused_adamw_ if optimiser.decoupled else torch._fused_adam_
        first, second = optimiser.betas
        steps = "[taken]" if count == 1 else f"[taken] * {count}"
        return (
            f"adam_([{ps}], [{gs}], [{states[0]}], [{states[1]}], [], {steps}, lr=lr, beta1={first!r}, beta2={second!r}, "
            f"weight_decay={optimiser.weight_decay!r}, eps={optimiser.eps!r}, amsgrad=False, maximize=False)"
        )


def _laid_as(like: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(like).copy_(value)
