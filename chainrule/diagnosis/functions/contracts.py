"""What a torch.autograd.Function promises besides right numbers: each promise is tried, each broken one is a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.diagnosis.functions.function_calls import (
    Calls,
    Failed,
    Refused,
    equal,
    is_once_differentiable,
    laid,
    layouts_of,
)
from chainrule.diagnosis.functions.operators import broken_promises_of_operator
from chainrule.diagnosis.functions.ordinary_call import OrdinaryCall
from chainrule.diagnosis.functions.second_order import first_order_errors, second_order_error
from chainrule.diagnosis.report import Finding

__all__ = ["broken_promises", "broken_promises_of_operator"]

_CUT_OFF = "@torch.autograd.function.once_differentiable"
_SINGLE = (5e-9, 1e-5)  # relative errors that float32 inside a float64 computation leaves


def broken_promises(function: Any, args: Sequence[Any], reference: Callable[..., Any] | None = None) -> list[Finding]:
    """What the Function's backward breaks under other circumstances than ordinary contiguous inputs.

    `args` are the sample arguments of one call, tensors of any shapes and others; `reference` computes the same
    outputs in plain torch. Whether the gradients are right for `args` themselves is not asked. A circumstance that
    the forward refuses is skipped, and so is a Function whose backward fails for `args` as they are.

    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g.mul_(2)
    >>> [finding.cause for finding in broken_promises(Double, [torch.ones(3)])]
    ['inplace-corruption']
    """
    calls = Calls(function, args)
    if not calls.floating or any(calls.values[i].layout is not torch.strided for i in calls.tensors):
        return []
    promises = _Promises(calls, reference)
    if promises.ready():
        promises.try_all()
    return promises.findings


class _Promises(OrdinaryCall):
    """The promises of one Function, tried in turn on the same arguments."""

    def try_all(self) -> None:
        self._inputs_alone()
        self._values_intact()
        in_place = bool(self.told & {"upstream ", "saved "})
        if not in_place:
            self._strided_inputs()
        if "upstream " not in self.told:
            self._strided_upstreams()
        self._empty_batch()
        if len(self.forward.outputs) > 1:
            self._one_output()
        self._precision_and_second_order(skip_second=in_place)

    # -- the promises -----------------------------------------------------------------------------

    def _inputs_alone(self) -> None:
        for i in self.calls.wanted if len(self.calls.wanted) > 1 else []:
            name = self.names[i]
            try:
                _, alone = self.calls.gradients(wanted=[i])
            except Refused:
                continue
            except Failed as error:
                what = f"raises where {name} alone requires a gradient; compute a gradient only if needed, and each by itself"
                self.say("alone", name, "contract", what, error)
                continue
            if not self.different(alone, {i: self.gradients[i]}):
                continue
            cause = "missing-gradient" if alone[i] is None else "contract"
            how = "returns None for" if alone[i] is None else "gives another gradient of"
            what = f"{how} {name} where {name} alone requires one; test ctx.needs_input_grad[{i}] for it"
            self.say("alone", name, cause, what)

    def _values_intact(self) -> None:
        calls = self.calls
        forward = calls.forward()
        before = [v.detach().clone() if isinstance(v, Tensor) else v for v in forward.inputs]
        for i in calls.wanted:
            given = forward.inputs[i]
            dirty = any(out is given for out in forward.every)
            # running statistics, which no gradient reads, are updated in place as a custom
            if hasattr(calls.function, "operator"):  # its schema says what it changes, which opcheck looks at
                continue
            if not dirty and not equal(calls.values[i], given) and self._matters(i):
                what = f"changes {self.names[i]} in place; call ctx.mark_dirty({self.names[i]}) and return it, or copy it first"
                self.say("forward", self.names[i], "inplace-corruption", what)
        upstreams = calls.upstreams(forward.outputs)
        try:
            first = calls.backward(forward, [u.clone() for u in upstreams], retain_graph=True)
        except Failed:
            return
        if calls.watch.upstream_changed:
            what = f"writes into {self.upstream} in place, which autograd still needs; compute a new tensor"
            self.say("upstream", "", "inplace-corruption", what)
        names = [
            self.names[i]
            for i, old in enumerate(before)
            if isinstance(old, Tensor) and not equal(old, forward.inputs[i])
        ]
        if names or calls.watch.saved_changed:
            which = " and ".join(names) or "a tensor that forward saved"
            self.say("saved", "", "inplace-corruption", f"changes {which} in place; compute a new tensor")
            return
        try:
            again = calls.backward(forward, [u.clone() for u in upstreams], retain_graph=True)
        except Failed as error:
            what = "raises when it runs twice (retain_graph=True); leave ctx and what it holds as they are"
            self.say("twice", "", "contract", what, error)
            return
        for i in self.different(again, first):
            what = f"gives another gradient of {self.names[i]} when it runs twice (retain_graph=True); leave what ctx holds as it is"
            self.say("twice", "", "inplace-corruption", what)

    def _matters(self, i: int) -> bool:
        kept = {t.untyped_storage().data_ptr() for t in self.saved}
        given = self.forward.inputs[i]
        return self.gradients.get(i) is not None or given.untyped_storage().data_ptr() in kept

    def _strided_inputs(self) -> None:
        for i in self.calls.tensors:
            for layout, words in layouts_of(self.calls.values[i]):
                if self._laid_input(i, layout, words):
                    break

    def _laid_input(self, i: int, layout: str, words: str) -> bool:
        calls, name, values = self.calls, self.names[i], list(self.calls.values)
        expanded = layout.startswith("expanded")
        values[i] = laid(values[i], layout).contiguous()
        repair = f"{name} = {name}.contiguous()" if name.isidentifier() else ""
        advice = f"start forward with {name} = {name}.contiguous(), or use reshape for view"
        try:
            plain, truth = calls.gradients(values)
            forward = calls.forward(values, layouts={i: layout})
        except (Refused, Failed):
            return False
        pairs = list(zip(forward.outputs, plain.outputs, strict=False))
        if not all(self.agree(a, b) for a, b in pairs):
            # ties among equal elements may be broken otherwise, so an expanded input says nothing here
            if not expanded and self.stable(values):
                self.say("forward", name, "contract", f"gives other values for {name} {words}; {advice}", None, repair)
                return True
            return False
        try:
            got = calls.backward(forward, calls.upstreams(forward.outputs))
        except Failed as error:
            self.say("strided", name, "contract", f"raises for {name} {words}; {advice}", error, repair)
            return True
        if expanded and got.get(i) is not None and truth[i] is not None:
            axis = int(layout.split()[1])  # what reaches the tensor that was expanded
            got, truth = {**got, i: got[i].sum(axis)}, {**truth, i: truth[i].sum(axis)}  # type: ignore[union-attr]
        different = self.different(got, truth)
        if different and self.stable(values):
            what = f"gives wrong gradients of {self._listed(different)} for {name} {words}; {advice}"
            self.say("strided", name, "contract", what, None, repair)
            return True
        return False

    def _listed(self, places: Sequence[int]) -> str:
        return ", ".join(self.names[i] for i in places)

    def _strided_upstreams(self) -> None:
        calls, name = self.calls, self.upstream
        repair = f"{name} = {name}.contiguous()" if name.isidentifier() else ""
        advice = f"start with {name} = {name}.contiguous(), or use reshape for view"
        for k, out in enumerate(self.forward.outputs):
            kinds = [(layout, words) for layout, words in layouts_of(out) if not layout.startswith("expanded")]
            for layout, words in [*kinds, ("constant", "that is expanded, as from out.sum().backward()")]:
                ordinary = calls.upstreams(self.forward.outputs)
                if layout == "constant":
                    ordinary[k] = torch.full_like(ordinary[k], 0.75)
                special = list(ordinary)
                special[k] = (
                    torch.full((), 0.75).to(out).expand(out.shape)
                    if layout == "constant"
                    else laid(ordinary[k], layout)
                )
                truth = calls.backward(calls.forward(), ordinary)
                try:
                    got = calls.backward(calls.forward(), special)
                except Failed as error:
                    self.say("strides", "", "contract", f"raises for a gradient {words}; {advice}", error, repair)
                    return
                if different := self.different(got, truth):
                    what = f"gives wrong gradients of {self._listed(different)} for a gradient {words}; {advice}"
                    self.say("strides", "", "contract", what, None, repair)
                    return

    def _empty_batch(self) -> None:
        calls = self.calls
        batched = [i for i in calls.floating if calls.values[i].ndim]
        if not batched or not calls.values[batched[0]].shape[0]:
            return
        size = calls.values[batched[0]].shape[0]
        sharing = [i for i in calls.tensors if calls.values[i].ndim and calls.values[i].shape[0] == size]
        for empty in [sharing, batched[:1]]:
            values = [v[:0].contiguous() if i in empty else v for i, v in enumerate(calls.values)]
            try:
                forward = calls.forward(values)
            except Refused:
                continue
            advice = "let every shape come from the tensors, and divide by no size that may be 0"
            try:
                found = calls.backward(forward, calls.upstreams(forward.outputs))
            except Failed as error:
                self.say("empty", "", "contract", f"raises for an empty batch; {advice}", error)
                return
            if any(t.numel() for t in forward.outputs):
                return
            for i, g in found.items():
                if g is not None and not equal(g, torch.zeros_like(g)):
                    what = f"gives {self.names[i]} a gradient that is not zero for an empty batch; {advice}"
                    self.say("empty", self.names[i], "contract", what)
            return

    def _one_output(self) -> None:
        calls = self.calls
        for k in range(len(self.forward.outputs)):
            forward = calls.forward()
            upstreams = calls.upstreams(forward.outputs)
            zeros = [u if j == k else torch.zeros_like(u) for j, u in enumerate(upstreams)]
            truth = calls.backward(calls.forward(), zeros)
            where = f"where only output {k} has a gradient"
            advice = "treat None as zeros, or leave ctx.set_materialize_grads(True)"
            try:
                got = calls.backward(forward, upstreams, only=k)
            except Failed as error:
                self.say("outputs", "", "contract", f"raises {where}; {advice}", error)
                return
            if different := self.different(got, truth):
                what = f"gives wrong gradients of {self._listed(different)} {where}; {advice}"
                self.say("outputs", "", "lost-path", what)
                return

    def _precision_and_second_order(self, skip_second: bool) -> None:
        calls, floats = self.calls, [self.calls.values[i] for i in self.calls.floating]
        plain = all(t.dtype == torch.float64 for t in [*floats, *self.forward.outputs])
        errors = first_order_errors(calls, self.gradients) if plain else {}
        for i, error in errors.items():
            raw = self.returned[i] if i < len(self.returned) else None
            narrow = isinstance(raw, Tensor) and raw.dtype != torch.float64
            if narrow or (error is not None and _SINGLE[0] < error < _SINGLE[1]):
                how = f"returns {raw.dtype} for" if narrow else f"gives, right only to {error:.0e}, the gradient of"  # type: ignore[union-attr]
                what = f"{how} {self.names[i]} although all inputs are float64; make constants and casts in the dtype of the inputs"
                self.say("dtype", self.names[i], "contract", what)
        if skip_second or is_once_differentiable(calls.function):  # its second derivatives raise, as they should
            return
        honest = bool(errors) and all(e is not None and e < _SINGLE[1] for e in errors.values())
        try:
            wrong = second_order_error(calls, self.gradients, self.reference, plain, honest, self.tolerance)
        except Failed as failed:
            what = (
                f"raises under create_graph=True; write it with differentiable operations, or put {_CUT_OFF} above it"
            )
            self.say("second", "", "contract", what, failed, _CUT_OFF)
            return
        if wrong:
            listed = ", ".join(self.upstream if i < 0 else self.names[i] for i in wrong)
            what = (
                f"gives second derivatives (create_graph=True) that are wrong or cut off with respect to {listed}; save "
                f"inputs or outputs alone and compute from them in torch operations, or put {_CUT_OFF} above it"
            )
            self.say("second", "", "contract", what, None, _CUT_OFF)
