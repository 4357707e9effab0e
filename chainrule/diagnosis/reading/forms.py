"""What a person means by the code that they give to check: one half of a pair, a class, a torch.autograd.Function."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from chainrule.diagnosis.reading.arguments import OUTPUT, UPSTREAM, is_cache, names_returned, renamed, upstream_of
from chainrule.errors import ChainruleError
from chainrule.recording import operators

_BACKWARD = frozenset("backward backwards back bwd bprop backprop backpropagation grad gradient gradients vjp".split())  # noqa: SIM905
_FORWARD = frozenset("forward fwd fprop".split())  # noqa: SIM905
_FILLING = frozenset(("prop", "propagation", "pass", "propagate"))  # back_prop, forward_pass
_LOSS = frozenset(("loss", "cost", "criterion", "objective"))
_PREDICTED = re.compile(r"y_?(hat|pred)|pred(s|ictions?)?|logits|probs?", re.IGNORECASE)
_TARGETS = frozenset("y t target targets targ labels label truth y_true ytrue".split())  # noqa: SIM905


@dataclass(frozen=True)
class Form:
    """Code that computes gradients, with the forward pass of it where that is another function."""

    code: Any
    forward: Callable[..., Any] | None = None
    certain: bool = True  # else the code may also be a whole step, which is tried first
    likely: bool = False  # where that is uncertain: the step is tried last

    @property
    def called(self) -> Any:
        """What takes the inputs."""
        subject = self.forward or self.code
        if isinstance(subject, types.FunctionType | types.MethodType | type):
            return subject
        own = isinstance(subject, torch.nn.Module) or not callable(subject)
        return getattr(subject, "forward", subject) if own else subject


def form_of(code: Any) -> Form:
    """The form of code; a function is paired by name with another one of its file.

    >>> form_of(len).forward is None
    True
    """
    if is_function_class(code):
        return Form(applied(code))
    if (operator := operators.overload_of(code)) is not None:
        return Form(operators.called(operator))
    if not isinstance(code, types.FunctionType):
        return Form(code)
    space = {n: v for n, v in code.__globals__.items() if type(v) is types.FunctionType}  # not what __class__ says
    pairs = pairs_of_names(dict.fromkeys([code.__name__, *space]))
    if code.__name__ in pairs:
        return _pair(code, space[pairs[code.__name__]])
    if (loss := _loss_beside(code, space)) is not None:
        return Form(code, loss, certain=False, likely=True)
    backward = next((space[b] for b, f in pairs.items() if f == code.__name__ and b in space), None)
    try:
        return Form(code) if backward is None else replace(_pair(backward, code), certain=False)
    except ChainruleError:  # its backward function is of another loss: it is what it is by itself
        return Form(code)


def _loss_beside(code: types.FunctionType, space: Mapping[str, types.FunctionType]) -> types.FunctionType | None:
    """The one loss that is called as this gradient is, and takes what it takes: `compute_cost` for `compute_gradient`."""
    words = _words(code.__name__)
    if not words & _BACKWARD:
        return None
    takes, found = set(inspect.signature(code).parameters), []
    for name, other in space.items():
        its = _words(name)
        called = its & _LOSS and not its & _BACKWARD and its - _LOSS == words - _BACKWARD
        if called and takes <= set(inspect.signature(other).parameters):
            found.append(other)
    return found[0] if len(found) == 1 else None


def has_backward(code: Any) -> bool:
    plain = isinstance(code, types.FunctionType | types.MethodType | type)
    return not plain and callable(getattr(code, "backward", None))


def is_function_class(code: Any) -> bool:
    return isinstance(code, type) and issubclass(code, torch.autograd.Function)


def applied(function: Any) -> Callable[..., Any]:
    """A torch.autograd.Function as a function of its inputs.

    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x): return 2 * x
    >>> inspect.signature(applied(Double))
    <Signature (x)>
    """

    def apply(*args: Any, **kwargs: Any) -> Any:
        return function.apply(*placed(function, args, kwargs))

    apply.__name__, apply.__signature__ = function.__name__, _signature(function)  # type: ignore[attr-defined]
    return apply


def placed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments of a torch.autograd.Function in their order, defaults filled in."""
    bound = _signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return [*bound.args, *bound.kwargs.values()]


def _signature(function: Any) -> inspect.Signature:
    own_context = function.setup_context is torch.autograd.Function.setup_context
    whole = inspect.signature(function.forward)
    return whole.replace(parameters=list(whole.parameters.values())[own_context:])


def made(kind: type) -> Any:
    """An object of a class that needs no arguments. Raises ChainruleError where it needs some, or is abstract."""
    if inspect.isabstract(kind):
        raise ChainruleError(
            f"check was given {kind.__name__}, which is abstract; give it an object of a class made of it"
        )
    try:
        inspect.signature(kind).bind()
    except TypeError:
        raise ChainruleError(
            f"check was given the class {kind.__name__}; give it an object, {kind.__name__}(...), as the class needs "
            "arguments to make one"
        ) from None
    except ValueError:  # no signature: it is tried
        pass
    return kind()


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()))


def names_a_backward(name: str) -> bool:
    """Whether a function is called as a backward pass is.

    >>> names_a_backward("relu_grad"), names_a_backward("loss")
    (True, False)
    """
    return bool(_words(name) & _BACKWARD)


def pairs_of_names(names: Iterable[str]) -> dict[str, str]:
    """The names of backward functions, each with that of its forward function.

    >>> pairs_of_names(["affine_forward", "affine_backward", "relu", "relu_grad", "update"])
    {'affine_backward': 'affine_forward', 'relu_grad': 'relu'}
    """
    told = {name: _words(name) for name in names}
    found = {}
    for name, words in told.items():
        stem = words - _BACKWARD - _FORWARD - _FILLING
        others = [
            (not its & _FORWARD, len(other), other)
            for other, its in told.items()
            if other != name and not its & _BACKWARD and its - _FORWARD - _FILLING == stem and (its & _FORWARD or stem)
        ]
        if words & _BACKWARD and others:
            found[name] = min(others)[2]
    return found


def _pair(backward: types.FunctionType, forward: types.FunctionType) -> Form:
    takes, known = list(inspect.signature(backward).parameters), inspect.signature(forward).parameters
    upstream = upstream_of(takes, known)
    more = [n for n in takes if n not in known and n != upstream and not is_cache(n) and n not in OUTPUT]
    if upstream is None or not UPSTREAM.fullmatch(upstream):
        beyond = set(takes) - set(known)
        if (behind := next(_losses(forward, beyond), None)) is not None:
            keeping, beside = behind.output in takes, any(map(is_cache, takes))
            code = renamed(backward, {behind.output: "cache"}) if keeping and not beside else backward
            return Form(code, behind.whole(keeping, beside))
        targets = [n for n in takes if n in beyond and n.casefold() in _TARGETS]
        rest = [n for n in takes if n in beyond and n not in targets and n != upstream]
        others = [n for n in rest if n.casefold() in OUTPUT or _PREDICTED.fullmatch(n)]
        if targets and others:
            raise ChainruleError(
                f"{backward.__name__} takes {targets[0]}, which {forward.__name__} does not, so it is the gradient of a loss "
                f"of {others[0]} and {targets[0]}; give the whole loss, a function of the inputs and {targets[0]}: forward="
            )
    own = not more and upstream is None and set(takes) <= set(known)
    return Form(backward, forward, certain=not own)


@dataclass(frozen=True)
class _Loss:
    """A loss behind a forward pass, whose targets the backward pass takes, too."""

    forward: types.FunctionType
    loss: types.FunctionType
    output: str  # the parameter of the loss that the output is given for
    targets: list[inspect.Parameter]

    def whole(self, keeping: bool, beside: bool) -> Callable[..., Any]:
        """The loss as a function of the inputs and the targets; with the output as a cache, for a backward pass that
        takes that, or `beside` a cache."""
        own = inspect.signature(self.forward)
        kept = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in (*own.parameters.values(), *self.targets)]
        kept = [p for p in kept if p.default is p.empty] + [p for p in kept if p.default is not p.empty]
        signature = own.replace(parameters=kept, return_annotation=inspect.Signature.empty)
        of_loss = inspect.signature(self.loss).parameters

        def whole(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            out = self.forward(**{n: v for n, v in given.items() if n in own.parameters})
            first, *rest = out if isinstance(out, tuple) else (out,)
            loss = self.loss(**{self.output: first}, **{n: v for n, v in given.items() if n in of_loss})
            return (loss, *([first] if keeping else []), *(rest if beside or not keeping else []))

        whole.__name__, whole.__signature__ = self.forward.__name__, signature  # type: ignore[attr-defined]
        return whole


def _losses(forward: types.FunctionType, beyond: set[str]) -> Iterator[_Loss]:
    """The losses of the file that take what the backward pass takes `beyond` the forward pass: the targets. One of those
    may be the output."""
    own = inspect.signature(forward).parameters
    for name, loss in forward.__globals__.items():
        if type(loss) is not types.FunctionType or not _words(name) & _LOSS or _words(name) & _BACKWARD:
            continue
        takes = {n: p for n, p in inspect.signature(loss).parameters.items() if n not in own}
        outputs = [n for n, p in takes.items() if n not in beyond and p.default is p.empty]
        if not outputs and (several := names_returned(forward))[1:]:
            outputs = [n for n in takes if n in several[:1]]
        elif not outputs and several:
            outputs = [n for n in takes if n in names_returned(forward)] or [
                n for n in takes if n.casefold() not in _TARGETS
            ]
        targets = [p for n, p in takes.items() if n in beyond and n not in outputs]
        if targets and len(outputs) == 1:
            yield _Loss(forward, loss, outputs[0], targets)
