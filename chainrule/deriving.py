"""From a person's call to a derivation: run the forward pass, find what was asked for, derive."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from chainrule.backward import backward_pass
from chainrule.derivation import Derivation
from chainrule.errors import ChainruleError, Site
from chainrule.program import differentiable
from chainrule.reached import flat_between, leading_to, reached_from
from chainrule.recording import Recorder
from chainrule.recording.names import caller
from chainrule.recording.numbers import Tracked
from chainrule.recording.plainly import as_plain_python
from chainrule.recording.sizes import lent
from chainrule.rules import BOOK, RuleBook
from chainrule.run import needed, restore
from chainrule.show.names import keys

EVERYTHING = object()  # as `wrt`: every floating input, whether it requires a gradient or not


def derive(
    forward: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    upstream: torch.Tensor | None = None,
    **kwargs: Any,
) -> Derivation:
    """Run `forward(*args, **kwargs)` once and write its backward pass out.

    Tensors that `forward` closes over (globals, closures, module parameters, attributes) are inputs
    like its arguments. `wrt` names the inputs whose gradients are asked for, by name or as tensors;
    without it, those with `requires_grad` if there are any, else every floating input. `upstream` is
    dL/d(output), of the output's shape, for an output that is not a scalar.

    Raises ChainruleError where the output is no tensor, is not a scalar and has no upstream, or does
    not depend on what `wrt` names. The gradients are compared with autograd's before they are given.

    >>> x, w = torch.tensor([1., 2.]), torch.tensor([3., 4.])
    >>> d = derive(lambda: (x * w).sum(), wrt="w")
    >>> d.grads["w"]
    tensor([1., 2.])
    >>> d.source().splitlines()[-2]
    'w.g = x'
    """
    if not callable(forward):
        raise ChainruleError(f"derive was given {_described(forward)}, not a function; give the forward pass itself")
    recorder, output = _recorded(BOOK, forward, args, kwargs)
    return derivation(recorder, output, wrt, upstream)


def derivation_with(
    book: RuleBook,
    forward: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    upstream: torch.Tensor | None = None,
    **kwargs: Any,
) -> Derivation:
    """As `derive`, by the rules of `book`. No gradient is computed before it is asked for, and none is compared.

    >>> from chainrule.rules import KERNELS
    >>> d = derivation_with(KERNELS, lambda x: x.sigmoid().sum(), torch.zeros(2))
    >>> [n.meta["operation"] for n in d.graph.nodes][-2], d.grads["x"]
    ('sigmoid_backward', tensor([0.2500, 0.2500]))
    """
    recorder, output = _recorded(book, forward, args, kwargs)
    return derivation(recorder, output, wrt, upstream, check=False, book=book, word="params")


def _recorded(book: RuleBook, forward: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Recorder, Any]:
    """The forward pass under a recorder, and what it returned."""
    recorder = new_recorder(book)
    recorder.forward = forward
    recorder.arguments = arguments_of(forward, args, kwargs, caller(2))
    with torch.enable_grad():
        return recorder, record_call(recorder, forward, args, kwargs)


def new_recorder(book: RuleBook = BOOK) -> Recorder:
    own_rules = any(not isinstance(key, str) for key in BOOK.rules)
    return Recorder(book.whole, book.opened, book.of_code if own_rules else None)


def record_call(recorder: Recorder, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run the forward pass under the recorder; what it returned."""
    for name, value in recorder.arguments.items():
        for path, tensor in _tensors(value, name):
            recorder.leaf(tensor, name=path)
    recorder.watch.start(caller(0), inclusive=False)
    try:
        with lent(recorder.forward), as_plain_python(), recorder.recording("forward"):
            return forward(*args, **kwargs)
    except ChainruleError:
        raise
    except Exception as error:
        if isinstance(error, SystemError) and isinstance(error.__cause__, ChainruleError):
            raise error.__cause__ from None  # raised below an autograd.Function, in torch's own code
        steps = sum(n.op != "placeholder" for n in recorder.graph.nodes)
        last = next((n for n in reversed(recorder.graph.nodes) if n.meta.get("site")), None)
        where = f"; the last was {last.meta['operation']} at {last.meta['site']}" if last else ""
        error.add_note(f"chainrule had recorded {steps} operations of this forward pass{where}")
        raise
    finally:
        recorder.locals = recorder.watch.finish()
        recorder.regions.forget()


def arguments_of(forward: Any, args: Any, kwargs: Any, frame: Any) -> dict[str, Any]:
    """The arguments by the names that the person would use for them."""
    own = not isinstance(forward, types.FunctionType | types.MethodType)
    target = getattr(forward, "forward", forward) if own else forward
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        parameters = {f"arg{i}": a for i, a in enumerate(args)} | kwargs
        space = {**frame.f_globals, **frame.f_locals}
        for position, value in list(parameters.items()):
            known = next((k for k, v in space.items() if v is value and not k.startswith("_")), None)
            if known and isinstance(value, torch.Tensor):
                parameters = {known if k == position else k: v for k, v in parameters.items()}
        return parameters
    try:
        parameters = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        name = getattr(forward, "__name__", type(forward).__name__)
        raise ChainruleError(
            f"{name}{signature} was called with {len(args)} arguments: {error}", site_of_definition(target)
        ) from None
    named: dict[str, Any] = {}
    for name, value in parameters.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = value
    return named


def site_of_definition(function: Any) -> Site | None:
    """Where a function was written."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return Site(code.co_filename, code.co_firstlineno, code.co_name) if code is not None else None


def _tensors(value: Any, path: str) -> Iterable[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, list | tuple):
        for i, v in enumerate(value):
            yield from _tensors(v, f"{path}.{i}")
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _tensors(v, f"{path}.{k}")


def derivation(
    recorder: Recorder,
    output: Any,
    wrt: Any,
    upstream: torch.Tensor | None,
    check: bool = True,
    book: RuleBook = BOOK,
    word: str = "wrt",
) -> Derivation:
    """The derivation of `output`, a tensor that `recorder` saw being made. Without `check` it is neither run nor
    compared. `word` is what the person calls `wrt`."""
    name = getattr(recorder.forward, "__name__", "") or type(recorder.forward).__name__
    place = site_of_definition(recorder.forward)
    if not isinstance(output, torch.Tensor):
        raise ChainruleError(
            f"{name} returned {_described(output)}, not a tensor; return the one tensor whose gradient you want", place
        )
    entry = recorder.entry(output)
    if entry is None:
        raise ChainruleError(
            f"{name} returned a tensor {tuple(output.shape)} that no recorded operation made; "
            "compute it with torch operations from the inputs",
            place,
        )
    node = entry.node
    if not differentiable(node):
        raise ChainruleError(f"{name} returned {_described(output)}, which has no gradient", node.meta.get("site"))
    if upstream is None and output.numel() != 1:
        raise ChainruleError(
            f"{name} returned shape {tuple(output.shape)}, not a scalar; reduce it (sum, mean) or give upstream= "
            "of the same shape",
            node.meta.get("site"),
        )
    if upstream is not None and upstream.shape != output.shape:
        raise ChainruleError(
            f"upstream has shape {tuple(upstream.shape)}, the output {tuple(output.shape)}; they must be equal",
            node.meta.get("site"),
        )
    wanted = _wanted(recorder, node, wrt, word)
    if wanted and node not in reached_from(wanted, recorder.graph):
        flat = next((f for n in wanted if (f := flat_between(n, node))), "")
        why = (
            f"the gradient is 0 almost everywhere, as {flat} is flat between its steps"
            if flat
            else ("see where the path is cut (no_grad, detach, argmax, numpy)")
        )
        raise ChainruleError(
            f"the output {tuple(output.shape)} of {name} depends on no input that could have a gradient "
            f"({_list(keys(wanted).values())}); {why}",
            node.meta.get("site"),
        )
    restore(node)
    base = backward_pass(recorder, node, upstream, wanted, book)
    return Derivation(base, explicit=upstream is not None, check=check)


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    kind = type(value).__name__.removeprefix("Tracked").lower() if isinstance(value, Tracked) else type(value).__name__
    return "None" if value is None else f"a {kind}"


def _wanted(recorder: Recorder, output: fx.Node, wrt: Any, word: str) -> list[fx.Node]:
    inputs = [n for n in recorder.inputs if n.meta["operation"] == "input"]
    if wrt is None or wrt is EVERYTHING:
        used = set(needed([output]))
        floating = [n for n in inputs if differentiable(n) and n in used]
        asked = [n for n in floating if n.meta.get("given", n.meta["val"]).requires_grad]
        return asked if asked and wrt is None else floating
    names = {name: node for node, name in keys(inputs).items()}
    chosen = []
    for item in [wrt] if isinstance(wrt, str | torch.Tensor) else list(wrt):
        chosen.append(_one_wanted(recorder, names, item, word))
    leading = leading_to(output)
    for node in chosen:
        if node not in leading and output not in reached_from([node], recorder.graph):
            raise ChainruleError(
                f"the output {tuple(output.meta['val'].shape)} does not depend on {node.meta['name']} "
                f"{tuple(node.meta['val'].shape)}; leave it out of {word}, or see where the path is cut (no_grad, detach)",
                output.meta.get("site"),
            )
    return chosen


def _one_wanted(recorder: Recorder, names: dict[str, fx.Node], item: Any, word: str) -> fx.Node:
    if isinstance(item, torch.Tensor):
        entry = recorder.entry(item)
        if entry is None or entry.node.op != "placeholder":
            raise ChainruleError(
                f"{word} names a tensor {tuple(item.shape)} that forward did not read; it read {_list(names)}"
            )
        node = entry.node
    elif item in names:
        node = names[item]
    else:
        raise ChainruleError(f"{word} names {item!r}, which forward did not read; it read {_list(names)}")
    if not differentiable(node) or node.meta["val"].dtype.is_complex:
        dtype = str(node.meta["val"].dtype).removeprefix("torch.")
        raise ChainruleError(
            f"{node.meta['name']} {tuple(node.meta['val'].shape)} is {dtype}; "
            f"a gradient needs a real floating dtype: convert it with .float(), or leave it out of {word}"
        )
    return node


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "no tensors"
