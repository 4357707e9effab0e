"""Forward and backward passes that are functions of their own: how each is called, and the loss that is behind both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from chainrule.arrays.values import as_tensors
from chainrule.diagnosis.reading.arguments import (
    OUTPUT,
    UPSTREAM,
    arguments_by_name,
    as_parameters,
    is_cache,
    named_by,
    upstream_of,
    with_defaults,
)
from chainrule.diagnosis.reading.caches import kept, place_of
from chainrule.diagnosis.reading.calling import Calling
from chainrule.diagnosis.reading.forms import has_backward
from chainrule.diagnosis.reading.losses import tensor_behind
from chainrule.diagnosis.reading.outputs import left_out, named_within, names_within, upstreams_of, weighted
from chainrule.errors import ChainruleError


class Pairs(Calling):
    """The run of a backward pass with the forward pass that goes with it."""

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
            if asked.forward is None and "backward" not in asked.name and not takes_upstream(asked.code):
                named = self._given_by_name(asked.code, kwargs)
                return out, as_tensors(asked.code(*self._given(asked.code, args), **named))
            self.began = self.spots.count + 1
            if asked.function:
                self.upstream = self._given_upstream(out)
                return out, as_tensors(asked.code(*self._given(asked.code, [self.upstream])))
            theirs = out if theirs is None else theirs
            given = self._by_name(asked.code, asked.forward, outs, out, theirs, args, kwargs)
            placed, by_name = as_parameters(asked.code, self._given(asked.code, given))
            try:
                return out, as_tensors(asked.code(*placed, **by_name))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
                if not self.supposed or isinstance(error, ChainruleError):
                    raise
                raise ChainruleError(
                    f"{asked.name} fails ({type(error).__name__}: {error}) with what its forward pass returns or keeps given "
                    f"as {', '.join(self.supposed)}, of which nothing else is known; name it among the parameters of "
                    "forward=, or check a function that runs both passes"
                ) from error

    def _alike(self, theirs: Any, out: Any) -> bool:
        """Whether what their own forward pass gave was recorded, and is what the reference gives."""
        if not isinstance(theirs, torch.Tensor) or not isinstance(out, torch.Tensor) or theirs.shape != out.shape:
            return False
        with torch._C.DisableTorchFunction():
            alike = torch.allclose(theirs, out.to(theirs.dtype), rtol=1e-4, atol=1e-6)
        return alike and self.recorder.entry(theirs) is not None

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
        taken = upstream_of(names, {**known, **returned})
        if taken is not None or out.numel() != 1:
            self.upstream = self._given_upstream(out)
            if taken is None:
                theirs.g = self.upstream
        cache, layer = None, has_backward(self.asked.code)  # which keeps what it needs itself, but for what it calls so
        if isinstance(outs, tuple) and (not layer or any(map(is_cache, names))):
            cache = kept(self.recorder, forward, outs, place_of(forward, outs, 1), self.began)
        told = {*known, *returned} | ({taken} if taken is not None and UPSTREAM.fullmatch(taken) else set())
        self.supposed = [n for n in names if n not in told and not is_cache(n) and n not in OUTPUT]
        found = arguments_by_name(names, known, taken, self.upstream, theirs, returned, cache, args)
        if taken is None and out.numel() != 1 and cache is None and all(a is not theirs for a in found):
            raise ChainruleError(
                f"{function.__name__} takes no upstream gradient, and its forward pass gives shape {tuple(out.shape)}, not "
                "a scalar, so it is not known of which loss it is the gradient; give the whole loss: forward="
            )
        return found


def takes_upstream(code: Any) -> bool:
    first = next(iter(inspect.signature(code).parameters), "")
    return first.lower() in ("dout", "grad_out", "grad_output", "g", "upstream", "dy", "out_g", "grad", "dl_dout")
