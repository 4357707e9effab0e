"""Runs a person's forward and backward pass under the recorder, and collects the gradients that it leaves."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx

from chainrule.arrays.code import is_numpy_code, named
from chainrule.arrays.numpy_as_torch import numpy_as_torch
from chainrule.arrays.values import as_arrays, as_tensors
from chainrule.deriving import arguments_of, new_recorder, record_call
from chainrule.diagnosis.reading.aliases import saved
from chainrule.diagnosis.reading.arguments import (
    arguments_by_name,
    as_parameters,
    is_cache,
    named_by,
    upstream_of,
    with_defaults,
)
from chainrule.diagnosis.reading.caches import kept, place_of
from chainrule.diagnosis.reading.handed import apart, followed
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Met
from chainrule.diagnosis.reading.losses import loss_of, scalars_in, tensor_behind
from chainrule.diagnosis.reading.made import name_parameters
from chainrule.diagnosis.reading.objects import objects, objects_in
from chainrule.diagnosis.reading.outputs import left_out, named_within, names_within, upstreams_of, weighted
from chainrule.diagnosis.reading.spots import Spot, Spots
from chainrule.diagnosis.reading.writes import watched
from chainrule.errors import ChainruleError
from chainrule.recording import Region
from chainrule.recording.names import caller, reachable
from chainrule.recording.numbers import Tracked
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


class _Run:
    def __init__(self, asked: Asked, seed: int, met: Met | None) -> None:
        self.asked, self.seed = asked, seed
        self.recorder = new_recorder()
        self.recorder.every_path = True
        self.spots = Spots(self.recorder)
        self.recorder.noticed = self.spots
        self.recorder.met = met
        self.upstream: torch.Tensor | None = None
        self.own: torch.Tensor | None = None
        self.began = 0
        self.drawn = 0  # upstream gradients, each of other numbers
        self.left_out: list[str] = []  # parameters that may take the gradient of another output
        self.bare = False  # whether backward() took no upstream gradient
        self.kept: dict[str, tuple[float, Spot]] = {}
        self.code = asked.code
        self.globals: dict[str, Any] = {}  # that the code names, as they were while it ran
        self.object = _owner(asked.code)

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
            subject = self.code if subject is asked.code else subject
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
        forward = code if callable(code) else code.forward
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
            if "backward" not in self.asked.name and not _takes_upstream(self.asked.code):
                raise
            raise ChainruleError(
                f"{self.asked.name} is a backward pass, which fails for the inputs of a forward pass ({error}); "
                "give that pass too: forward="
            ) from error

    def _pair(self, args: Any, kwargs: Any) -> tuple[torch.Tensor, Any]:
        """A backward function of its own, called as its parameters say: upstream, cache, output, inputs."""
        asked = self.asked
        with self._numpy(asked.code):
            out = None
            if asked.function:
                context = asked.forward.context  # type: ignore[union-attr]
                context.saved, context.kept = self._saved, self._kept
            if asked.forward is not None:
                with self._numpy(asked.forward):
                    named = self._given_by_name(asked.forward, kwargs)
                    out = as_tensors(asked.forward(*self._given(asked.forward, args), **named))
                    out = tuple(out) if isinstance(out, list) else out
            if asked.function and isinstance(out, tuple):
                return self._of_function(out, args, kwargs)
            if asked.forward is not None and (found := self._of_several(asked.forward, out, args, kwargs)) is not None:
                return found
            outs, out = out, out[0] if isinstance(out, tuple) else out
            theirs = out = tensor_behind(self.recorder, out)
            if asked.reference is not None:
                out = asked.reference(*args, **kwargs)
                self.own = theirs if self._alike(theirs, out) else None
            if not isinstance(out, torch.Tensor):
                raise ChainruleError("forward= and reference= return the output, a tensor; one of them gave none")
            if asked.forward is None and "backward" not in asked.name and not _takes_upstream(asked.code):
                named = self._given_by_name(asked.code, kwargs)
                return out, as_tensors(asked.code(*self._given(asked.code, args), **named))
            self.began = self.spots.count + 1
            if asked.function:
                self.upstream = self._given_upstream(out)
                return out, as_tensors(asked.code(*self._given(asked.code, [self.upstream])))
            theirs = out if theirs is None else theirs
            given = self._by_name(asked.code, asked.forward, outs, out, theirs, args, kwargs)
            placed, by_name = as_parameters(asked.code, self._given(asked.code, given))
            return out, as_tensors(asked.code(*placed, **by_name))

    def _alike(self, theirs: Any, out: Any) -> bool:
        """Whether what their own forward pass gave was recorded, and is what the reference gives."""
        if not isinstance(theirs, torch.Tensor) or not isinstance(out, torch.Tensor) or theirs.shape != out.shape:
            return False
        with torch._C.DisableTorchFunction():
            alike = torch.allclose(theirs, out.to(theirs.dtype), rtol=1e-4, atol=1e-6)
        return alike and self.recorder.entry(theirs) is not None

    def _saved(self, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        """What ctx.save_for_backward keeps, under nodes of its own: a mistake may stand there."""
        spot = self.spots.of(sys._getframe(2))
        known = [self.recorder.entry(t) if isinstance(t, torch.Tensor) else None for t in tensors]
        nodes = [e.node if e is not None else None for e in known]
        return tuple(
            self.recorder.alias(t, saved(self.recorder.graph, n, spot, k)) if n is not None else t
            for k, (t, n) in enumerate(zip(tensors, nodes, strict=True))
        )

    def _kept(self, name: str, value: Any) -> Any:
        """What is kept as `ctx.name`: a number is noted, and a tensor stands under a node of its own."""
        spot = self.spots.of(sys._getframe(2))
        if isinstance(value, bool | int | float | Tracked):
            self.kept[name] = value.plain() if isinstance(value, Tracked) else value, spot
        return value

    def _of_function(self, outs: tuple[Any, ...], args: Any, kwargs: Any) -> tuple[torch.Tensor, Any]:
        """The backward of a torch.autograd.Function with several outputs, of which some may have no gradient."""
        asked, context = self.asked, self.asked.forward.context  # type: ignore[union-attr]
        given = [context.without_upstream(o) for o in outs]
        if asked.reference is not None:
            outs = self._of_reference(given, asked.reference(*args, **kwargs))
        having = [o if g is NotImplemented else None for o, g in zip(outs, given, strict=True)]
        if all(o is None for o in having):
            raise ChainruleError(f"no output of {asked.name} has a gradient, so there is none to check")
        return self._several(
            having,
            lambda upstreams: asked.code(
                *(u if g is NotImplemented else g for u, g in zip(upstreams, given, strict=True))
            ),
        )

    def _of_reference(self, given: Sequence[Any], outs: Any) -> tuple[Any, ...]:
        """The outputs of the reference in the places of theirs: all, or those that have a gradient."""
        open_ = [i for i, g in enumerate(given) if g is NotImplemented]
        outs = tuple(outs) if isinstance(outs, tuple | list) else (outs,)
        if len(outs) == len(given):
            return outs
        if len(outs) != len(open_):
            raise ChainruleError(
                f"{self.asked.name} returns {len(given)} outputs, and its reference {len(outs)}; return a tuple of as many"
            )
        found = dict(zip(open_, outs, strict=True))
        return tuple(found.get(i) for i in range(len(given)))

    def _several(self, outs: Sequence[Any], backward: Callable[[list[Any]], Any]) -> tuple[torch.Tensor, Any]:
        """Several outputs: the loss is their sum, each weighted by its upstream gradient."""
        total, upstreams = weighted(self.recorder, outs, self._random)
        self.began = self.spots.count + 1
        return total, as_tensors(backward(upstreams))

    def _of_several(self, forward: Any, outs: Any, args: Any, kwargs: Any) -> tuple[torch.Tensor, Any] | None:
        """The backward pass of a forward pass with several outputs, which the parameters tell; None for one output."""
        asked, known = self.asked, {**dict(zip(self.recorder.arguments, args, strict=False)), **kwargs}
        layer = asked.forward is None and has_backward(asked.code)
        backward = asked.code.backward if layer else asked.code
        if isinstance(outs, tuple):
            outs = getattr(type(outs), "_make", tuple)(tensor_behind(self.recorder, o) for o in outs)
        within = names_within(self.recorder, outs) if isinstance(outs, tuple) else []
        taken = upstreams_of(backward, forward, outs, known, layer, within)
        self.left_out = left_out(backward, outs, known, taken)
        if taken is None:
            return None

        def called(upstreams: list[Any]) -> Any:
            cache = args
            if isinstance(outs, tuple) and taken.places < len(outs):
                cache = kept(self.recorder, forward, outs, place_of(forward, outs, taken.places), self.began)
            found = {**named_within(self.recorder, outs), **named_by(forward, outs), **known, **taken.given(upstreams)}
            parameters = inspect.signature(backward).parameters
            needed_too = {n: cache for n in parameters if n not in found and (n in taken.needed or is_cache(n))}
            given = [{**found, **needed_too}.get(n, p.default) for n, p in parameters.items()]
            code = self.object.backward if layer else asked.code
            placed, by_name = as_parameters(code, self._given(asked.code, given))
            return code(*placed, **by_name)

        return self._several(taken.outs, called)

    def _by_name(
        self, function: Any, forward: Any, outs: Any, out: Any, theirs: Any, args: Any, kwargs: Any
    ) -> list[Any]:
        """The arguments of a backward function for the upstream gradient of `out`, which their forward pass gave as
        `theirs`, among `outs`. Where no parameter is the upstream gradient, that is left on the output, or is one."""
        names = list(inspect.signature(function).parameters)
        values = (theirs, *outs[1:]) if isinstance(outs, tuple) else (theirs,)
        returned = {**named_within(self.recorder, values), **named_by(forward, values)}
        known = {**dict(zip(self.recorder.arguments, args, strict=False)), **kwargs}
        known = with_defaults(function, forward, known, returned)
        taken = upstream_of(names, known)
        if taken is not None or out.numel() != 1:
            self.upstream = self._given_upstream(out)
            if taken is None:
                theirs.g = self.upstream
        cache, layer = None, has_backward(self.asked.code)  # which keeps what it needs itself, but for what it calls so
        if isinstance(outs, tuple) and (not layer or any(map(is_cache, names))):
            cache = kept(self.recorder, forward, outs, place_of(forward, outs, 1), self.began)
        found = arguments_by_name(names, known, taken, self.upstream, theirs, returned, cache, args)
        if taken is None and out.numel() != 1 and cache is None and all(a is not theirs for a in found):
            raise ChainruleError(
                f"{function.__name__} takes no upstream gradient, and its forward pass gives shape {tuple(out.shape)}, not "
                "a scalar, so it is not known of which loss it is the gradient; give the whole loss: forward="
            )
        return found

    @contextmanager
    def _numpy(self, code: Any) -> Iterator[None]:
        before, arrays = self.spots.arrays, is_numpy_code(code, (self.asked.args, self.asked.kwargs))
        self.spots.arrays = arrays
        try:
            with numpy_as_torch(code) if arrays else nullcontext():
                yield
        finally:
            self.spots.arrays = before

    def _given(self, code: Any, values: Any) -> Any:
        return as_arrays(tuple(values)) if is_numpy_code(code, (self.asked.args, self.asked.kwargs)) else values

    def _given_by_name(self, code: Any, values: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(values, self._given(code, values.values()), strict=True))

    def _given_upstream(self, out: torch.Tensor) -> torch.Tensor:
        """The upstream gradient that the backward pass is called with: random, for a loss too unless a 1 is asked for."""
        upstream = self._random(out)
        if self.asked.unit and out.numel() == 1:
            with torch._C.DisableTorchFunction():
                upstream = torch.ones_like(upstream)
        self.recorder.leaf(upstream, name="out_g").meta["upstream"] = True
        return upstream

    def _random(self, out: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(
            _OWN + self.seed + _APART * self.drawn
        )  # no numbers that they drew, too
        self.drawn += 1
        with torch._C.DisableTorchFunction():  # no operation of the person's program
            return torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)


_OWN, _APART = 0x5EED_C0DE, 0x1_0000_0001


def _owner(code: Any) -> Any:
    """The object whose attributes the code may use for parameters and gradients: itself, or that of its method."""
    if isinstance(code, types.MethodType):
        code = code.__self__
    return None if isinstance(code, types.FunctionType | types.ModuleType | type) else code


def has_backward(code: Any) -> bool:
    plain = isinstance(code, types.FunctionType | types.MethodType | type)
    return not plain and callable(getattr(code, "backward", None))


def _required(function: Any) -> int:
    """How many arguments a method must be given."""
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _takes_upstream(code: Any) -> bool:
    first = next(iter(inspect.signature(code).parameters), "")
    return first.lower() in ("dout", "grad_out", "grad_output", "g", "upstream", "dy", "out_g", "grad", "dl_dout")


def _as_it_was(output: fx.Node) -> None:
    """Give the forward values back what they were when the loss was computed, if the code overwrote any since."""
    for node in needed([output]):
        node.meta.pop("overwritten", None)
    restore(output)
