"""What a person means by the code that they give to check: one half of a pair, a class, a torch.autograd.Function."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from chainrule.diagnosis.reading.returns import function_of
from chainrule.errors import ChainruleError

_BACKWARD = frozenset("backward backwards back bwd bprop backprop backpropagation grad gradient gradients vjp".split())  # noqa: SIM905
_FORWARD = frozenset("forward fwd fprop".split())  # noqa: SIM905
_FILLING = frozenset(("prop", "propagation", "pass", "propagate"))  # back_prop, forward_pass
_LOSS = frozenset(("loss", "cost", "criterion", "objective"))
_CACHE = re.compile(r"caches?|ctx|saved|memory|mem|tape|state", re.IGNORECASE)
_OUTPUT = frozenset(("out", "output", "y", "a"))
_INPUT = frozenset(("input", "inp", "x", "z"))
_TARGETS = frozenset("y t target targets targ labels label truth y_true ytrue".split())  # noqa: SIM905
_UPSTREAM = re.compile(
    r"d_?(out|output|y|z|a|h|x|scores?|values?|logits)\w?|d[A-Z]\w*|d[lL]_?d\w+|grad\w*|\w+_grad(ient)?|g|up|g_?(out|y|z)\w*|"
    r"(upstream|top|next)\w*|out_g|delta\w*"
)


@dataclass(frozen=True)
class Form:
    """Code that computes gradients, with the forward pass of it where that is another function."""

    code: Any
    forward: Callable[..., Any] | None = None
    certain: bool = True  # else the code may also be a whole step, which is tried first

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
    if not isinstance(code, types.FunctionType):
        return Form(code)
    space = {n: v for n, v in code.__globals__.items() if type(v) is types.FunctionType}  # not what __class__ says
    pairs = pairs_of_names(dict.fromkeys([code.__name__, *space]))
    if code.__name__ in pairs:
        return _pair(code, space[pairs[code.__name__]])
    backward = next((space[b] for b, f in pairs.items() if f == code.__name__ and b in space), None)
    return Form(code) if backward is None else replace(_pair(backward, code), certain=False)


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
    own_context = function.setup_context is torch.autograd.Function.setup_context
    whole = inspect.signature(function.forward)
    signature = whole.replace(parameters=list(whole.parameters.values())[own_context:])

    def apply(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return function.apply(*bound.args, *bound.kwargs.values())

    apply.__name__, apply.__signature__ = function.__name__, signature  # type: ignore[attr-defined]
    return apply


def made(kind: type) -> Any:
    """An object of a class that needs no arguments. Raises ChainruleError where it needs some."""
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


def is_cache(name: str) -> bool:
    """Whether a parameter is called as what a forward pass keeps for its backward pass."""
    return _CACHE.fullmatch(name) is not None


def upstream_of(names: list[str], known: Mapping[str, Any]) -> str | None:
    """Which parameter of a backward function is the upstream gradient: the first, unless that is an input, a cache or
    the output, or else one that is named as a gradient.

    >>> upstream_of(["dout", "cache"], {"x": 1}), upstream_of(["x", "dz"], {"x": 1}), upstream_of(["x"], {"x": 1})
    ('dout', 'dz', None)
    """
    free = [n for n in names if n not in known and not is_cache(n)]
    named = [n for n in free if _UPSTREAM.fullmatch(n)]
    renamed = len(names) == len(known) and names[1:] == list(known)[1:]  # the first input, called something else
    first = [n for n in free[:1] if n == names[0] and n not in ("out", "output") and not renamed]
    return next(iter([*named, *first]), None)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()))


def arguments_by_name(
    names: list[str],
    known: Mapping[str, Any],
    taken: str | None,
    upstream: Any,
    out: Any,
    called: str | None,
    kept: Any,
    inputs: tuple[Any, ...],
) -> list[Any]:
    """The arguments of a backward function: the inputs under their names, the upstream gradient for the parameter `taken`,
    the output for one that is named as it is (`called`), and for others what the forward pass kept. Where it kept
    nothing, what is called a cache is the inputs, `x` or `z` the input that has another name in the forward pass, and
    another name the output.

    >>> arguments_by_name(["dout", "cache"], {"x": 1}, "dout", "up", "y", None, (1, 2), (1,))
    ['up', (1, 2)]
    >>> arguments_by_name(["dp", "x", "p"], {"x": 1}, "dp", "up", "y", None, None, (1,))
    ['up', 1, 'y']
    >>> arguments_by_name(["dA", "Z"], {"x": 1}, "dA", "up", "y", None, None, (1,))
    ['up', 1]
    """
    if len(names) == 2 and taken == names[0] and names[1] not in known and kept is not None:
        return [upstream, kept]
    if taken is None and len(names) == len(inputs) and names[1:] == list(known)[1:]:
        known = {**known, names[0]: inputs[0]}  # the first input, called something else
    free = [n for n in known if n not in names]
    renamed = dict(
        zip([n for n in names if n not in known and n != called and n.casefold() in _INPUT], free, strict=False)
    )

    def given(name: str) -> Any:
        if name in known:
            return known[name]
        if name == taken:
            return upstream
        if kept is None and name in renamed:
            return known[renamed[name]]
        if name in _OUTPUT or name == called or (kept is None and not is_cache(name)):
            return out
        return inputs if kept is None else kept

    return [given(name) for name in names]


def with_an_input(backward: Any, forward: Any) -> Any:
    """A backward function whose parameter of a name that tells nothing is an input of the forward pass, under another
    name there: `a_backward(dout, s)` of `a(x)`, where `s` may also be the output. None where there is none."""
    if type(backward) is not types.FunctionType or not callable(forward):
        return None
    names, known = list(inspect.signature(backward).parameters), inspect.signature(forward).parameters
    out = names_returned(forward)
    taken = upstream_of(names, known)
    if taken is None or len(out) != 1:
        return None
    told = [n for n in names if n.casefold() in _INPUT and n not in (*known, *out)]
    free = [n for n, p in known.items() if n not in names and p.default is p.empty][len(told) :]
    open_ = [
        n for n in names if n not in (*known, *told, *out, taken) and n.casefold() not in _OUTPUT and not is_cache(n)
    ]
    return renamed(backward, dict(zip(open_, free, strict=False))) if open_ and free else None


def names_returned(function: Any) -> list[str]:
    """The names of what the last `return` of a function gives, "" for an expression; none where there is no source.

    >>> names_returned(names_returned)
    ['']
    """
    code = getattr(function, "__code__", None)
    tree = function_of(code) if code is not None else None
    returns = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return)] if tree is not None else []
    if not returns:
        return []
    parts = returns[-1].elts if isinstance(returns[-1], ast.Tuple) else [returns[-1]]
    return [p.id if isinstance(p, ast.Name) else "" for p in parts]


def renamed(function: types.FunctionType, names: Mapping[str, str]) -> types.FunctionType:
    """The same function, with other names in its signature."""
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__module__ = function.__kwdefaults__, function.__module__
    own = inspect.signature(function)
    parameters = [p.replace(name=names.get(n, n)) for n, p in own.parameters.items()]
    made.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return made


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
    more = [n for n in takes if n not in known and n != upstream and not is_cache(n) and n not in _OUTPUT]
    whole = (
        _with_loss(forward, set(takes) - set(known)) if upstream is None or not _UPSTREAM.fullmatch(upstream) else None
    )
    if whole is not None:
        return Form(backward, whole)
    own = not more and upstream is None and set(takes) <= set(known)
    return Form(backward, forward, certain=not own)


def _with_loss(forward: types.FunctionType, beyond: set[str]) -> Callable[..., Any] | None:
    """The forward pass with the loss behind it, where the backward pass takes what only the loss of the file takes: the
    targets."""
    own = inspect.signature(forward)
    for name, loss in forward.__globals__.items():
        if type(loss) is not types.FunctionType or not _words(name) & _LOSS or _words(name) & _BACKWARD:
            continue
        takes = inspect.signature(loss).parameters
        targets = [p for n, p in takes.items() if n in beyond and n not in own.parameters]
        outputs = [
            n for n in takes if n not in beyond and n not in own.parameters and takes[n].default is inspect._empty
        ]
        if targets and len(outputs) == 1:
            return _composed(forward, loss, outputs[0], own, targets)
    return None


def _composed(
    forward: types.FunctionType,
    loss: types.FunctionType,
    output: str,
    own: inspect.Signature,
    targets: list[inspect.Parameter],
) -> Callable[..., Any]:
    kept = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in (*own.parameters.values(), *targets)]
    kept = [p for p in kept if p.default is p.empty] + [p for p in kept if p.default is not p.empty]
    signature = own.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    of_loss = inspect.signature(loss).parameters

    def whole(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        out = forward(**{n: v for n, v in given.items() if n in own.parameters})
        first, *rest = out if isinstance(out, tuple) else (out,)
        return (loss(**{output: first}, **{n: v for n, v in given.items() if n in of_loss}), *rest)

    whole.__name__, whole.__signature__ = forward.__name__, signature  # type: ignore[attr-defined]
    return whole
