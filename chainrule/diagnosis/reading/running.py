"""Runs a person's forward and backward pass under the recorder, and collects the gradients that it leaves."""

from __future__ import annotations

import inspect
import types
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.arrays.code import is_numpy_code, named
from chainrule.arrays.values import as_arrays, as_tensors
from chainrule.deriving import arguments_of, record_call
from chainrule.diagnosis.reading.arguments import (
    as_parameters,
)
from chainrule.diagnosis.reading.forms import has_backward
from chainrule.diagnosis.reading.handed import apart, followed
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Met
from chainrule.diagnosis.reading.losses import loss_of, scalars_in
from chainrule.diagnosis.reading.made import name_parameters
from chainrule.diagnosis.reading.objects import objects, objects_in
from chainrule.diagnosis.reading.pairs import Pairs, takes_upstream
from chainrule.diagnosis.reading.writes import watched
from chainrule.errors import ChainruleError
from chainrule.recording import Region
from chainrule.recording.names import caller, reachable
from chainrule.run import needed, restore


def run_handwritten(asked: Asked, seed: int = 0, met: Met | None = None) -> Handwritten:
    """Run the code once; everything that it computes, its hand-written gradients too, is recorded. `met` is told of each
    input, by its place, before it is read."""
    if not callable(asked.code) and not has_backward(asked.code):
        raise ChainruleError(
            f"check was given a {type(asked.code).__name__}; give it a function that computes gradients by hand, or an "
            "object with forward and backward"
        )
    return _Run(asked, seed, met).handwritten()


class _Run(Pairs):
    def handwritten(self) -> Handwritten:
        asked, recorder = self.asked, self.recorder
        subject = asked.forward or asked.reference or asked.code
        if asked.forward is None and asked.reference is None and callable(getattr(asked.code, "forward", None)):
            subject = asked.code
        if has_backward(asked.code) and is_numpy_code(type(asked.code).backward, (asked.args, asked.kwargs)):
            self.object = as_arrays(asked.code)
            subject = self.object if subject is asked.code else subject
        elif isinstance(asked.code, types.MethodType) and is_numpy_code(asked.code, (asked.args, asked.kwargs)):
            self.object = as_arrays(self.object)
            self.code = types.MethodType(asked.code.__func__, self.object)
            if isinstance(asked.forward, types.MethodType) and asked.forward.__self__ is asked.code.__self__:
                forward = types.MethodType(asked.forward.__func__, self.object)
                self.asked = replace(asked, code=self.code, forward=forward)
            subject = self.code if subject is asked.code else self.asked.forward or subject
        recorder.forward = subject
        args, kwargs = as_tensors((asked.args, asked.kwargs))
        recorder.arguments = arguments_of(subject, args, kwargs, caller(1))
        before = {id(t): t.__dict__.get("g") for t in reachable(recorder.arguments, subject)}
        regions: list[Region] = []

        def whole(*given: Any, **named: Any) -> Any:
            found = self._run(given, named)
            regions.extend(r for r in recorder.regions if r.function is not None)
            return found

        following = followed(recorder, self.spots, asked.following)
        with torch.enable_grad(), watched(recorder, self.spots) as writes, following as calls:
            output, result = record_call(recorder, whole, args, kwargs)
            result = apart(recorder, result, calls)
        self.spots.forget()
        if self.bare and (writes.made or result is None):  # the gradients are those that it left
            self.began, result = 0, None
        for node in recorder.graph.nodes:
            if node.meta.get("operation") == "part" and "spot" in node.all_input_nodes[0].meta:
                node.meta.setdefault("spot", node.all_input_nodes[0].meta["spot"])
        if output is None:
            output = loss_of(recorder, result, asked.loss, asked.name, bool(regions))
        elif asked.reference is not None and not self.began:
            self.own = next((o for o in scalars_in(result) if self._alike(o, output)), None)
        entry = recorder.entry(output)
        if entry is None:
            raise ChainruleError(
                f"the output {tuple(output.shape)} of {asked.name} was made by no recorded operation (a kernel, an "
                f"extension); check {asked.name} alone and give its forward pass in torch with reference="
            )
        if output.numel() != 1 and self.upstream is None:
            self.upstream = self._random(output)
        ids = {n: id(n.meta.get("given", n.meta["val"])) for n in recorder.inputs}
        passed = {id(v) for v in recorder.arguments.values()}  # data, which often has a .g from elsewhere
        set_now = {id(w.tensor) for w in writes.made}
        stale = [n for n, at in ids.items() if before.get(at) is not None and at not in passed | set_now]
        _as_it_was(entry.node)
        held = self._objects()
        name_parameters(recorder, held)
        hand = Handwritten(
            asked, recorder, output, self.upstream, writes.made, result, self.object, stale, regions, self.began,
            list(recorder.arguments), self.kept, self.own, calls, held, self.bare, self.left_out,
        )  # fmt: skip
        for node in hand.without_grad() if asked.cutting else ():
            node.meta["constant"] = True
        return hand

    def _objects(self) -> list[tuple[Any, str]]:
        if self.object is not None:
            return objects(self.object, "self")
        return objects_in({**self.globals, **self.recorder.locals})

    def _run(self, args: Any, kwargs: Any) -> tuple[torch.Tensor | None, Any]:
        """The forward and the backward pass; the output where it is known, and what was returned."""
        asked = self.asked
        if asked.forward is not None or asked.reference is not None:
            return self._pair(args, kwargs)
        if not has_backward(asked.code):
            with self._numpy(asked.code):
                result = self._called(*self._given(asked.code, args), **self._given_by_name(asked.code, kwargs))
                self.globals = named(asked.code) if isinstance(asked.code, types.FunctionType) else {}
                return None, as_tensors(result)
        code = self.object
        forward = code if callable(code) else getattr(code, "forward", None)
        if forward is None:
            raise ChainruleError(
                f"{type(code).__name__} has no forward(); check a function that computes the loss with it, calls "
                "backward() and returns the loss"
            )
        with self._numpy(type(asked.code).backward):
            out = as_tensors(forward(*self._given(asked.code, args), **self._given_by_name(asked.code, kwargs)))
            named_forward = getattr(code, "forward", None) or type(code).__call__
            if (found := self._of_several(named_forward, out, args, kwargs)) is not None:
                return found
            outs, out = out, out[0] if isinstance(out, tuple) and out else out
            if not isinstance(out, torch.Tensor):
                raise ChainruleError(f"{asked.name} returned {type(out).__name__}, not a tensor; return the output")
            takes = _required(asked.code.backward)
            self.began = self.spots.count + 1 if takes else 0
            if takes > 1:
                given = self._by_name(asked.code.backward, named_forward, outs, out, out, args, kwargs)
                placed, by_name = as_parameters(code.backward, self._given(asked.code, given))
                return out, as_tensors(code.backward(*placed, **by_name))
            if out.numel() != 1 or takes:
                self.upstream = self._given_upstream(out)
            if takes:
                try:
                    return out, as_tensors(code.backward(*self._given(asked.code, (self.upstream,))))
                except (TypeError, ValueError, IndexError, RuntimeError) as error:
                    if out is outs:
                        raise
                    raise ChainruleError(
                        f"{asked.name}.backward fails when it is given the gradient of the first of {len(outs)} outputs "
                        f"({error}); take the gradient of each as a parameter, backward(self, da, db)"
                    ) from error
            if self.upstream is not None:
                out.g = self.upstream  # type: ignore[attr-defined]
            self.began, self.bare = self.spots.count + 1, True
            return out, as_tensors(code.backward())

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.code(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if "backward" not in self.asked.name and not takes_upstream(self.asked.code):
                raise
            raise ChainruleError(
                f"{self.asked.name} is a backward pass, which fails for the inputs of a forward pass ({error}); "
                "give that pass too: forward="
            ) from error


def _required(function: Any) -> int:
    """How many arguments a method must be given."""
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _as_it_was(output: fx.Node) -> None:
    """Give the forward values back what they were when the loss was computed, if the code overwrote any since."""
    for node in needed([output]):
        node.meta.pop("overwritten", None)
    restore(output)
