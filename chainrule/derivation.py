"""What a person gets back: the derived backward pass of one forward pass, to read, run and question."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.backward import Program, backward_pass, differentiable, reached_from
from chainrule.errors import ChainruleError
from chainrule.recording import Recorder
from chainrule.recording.names import caller
from chainrule.recording.sizes import lent
from chainrule.rules import BOOK
from chainrule.run import needed, run
from chainrule.show import dialects
from chainrule.show.names import keys
from chainrule.simplify import simplify

if TYPE_CHECKING:
    from chainrule.checking.oracles import Verdict
    from chainrule.trace import Trace


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
    >>> d.source().splitlines()[-1]
    'w.g = x'
    """
    recorder = new_recorder()
    recorder.forward = forward
    recorder.arguments = arguments_of(forward, args, kwargs, caller())
    with torch.enable_grad():
        output = record_call(recorder, forward, args, kwargs)
    return derivation(recorder, output, wrt, upstream)


def new_recorder() -> Recorder:
    return Recorder(BOOK.whole, BOOK.opened, BOOK.of_code)


def record_call(recorder: Recorder, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run the forward pass under the recorder; what it returned."""
    for name, value in recorder.arguments.items():
        for path, tensor in _tensors(value, name):
            recorder.leaf(tensor, name=path)
    recorder.watch.start(caller(0), inclusive=False)
    try:
        with lent(recorder, recorder.forward), recorder.recording("forward"):
            return forward(*args, **kwargs)
    except ChainruleError:
        raise
    except Exception as error:
        steps = sum(n.op != "placeholder" for n in recorder.graph.nodes)
        last = next((n for n in reversed(recorder.graph.nodes) if n.meta.get("site")), None)
        where = f"; the last was {last.meta['operation']} at {last.meta['site']}" if last else ""
        error.add_note(f"chainrule had recorded {steps} operations of this forward pass{where}")
        raise
    finally:
        recorder.locals = recorder.watch.finish()
        recorder.regions.clear()


def arguments_of(forward: Any, args: Any, kwargs: Any, frame: Any) -> dict[str, Any]:
    """The arguments by the names that the person would use for them."""
    own = not isinstance(forward, types.FunctionType | types.MethodType)
    target = getattr(forward, "forward", forward) if own else forward
    try:
        signature = inspect.signature(target)
        parameters = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        parameters = {f"arg{i}": a for i, a in enumerate(args)} | kwargs
        space = {**frame.f_globals, **frame.f_locals}
        for position, value in list(parameters.items()):
            known = next((k for k, v in space.items() if v is value and not k.startswith("_")), None)
            if known and isinstance(value, torch.Tensor):
                parameters = {known if k == position else k: v for k, v in parameters.items()}
        return parameters
    named: dict[str, Any] = {}
    for name, value in parameters.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = value
    return named


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
    recorder: Recorder, output: Any, wrt: Any, upstream: torch.Tensor | None, check: bool = True
) -> Derivation:
    """The derivation of `output`, a tensor that `recorder` saw being made."""
    if not isinstance(output, torch.Tensor):
        raise ChainruleError(
            f"forward returned {_described(output)}, not a tensor; return the one tensor whose gradient you want"
        )
    entry = recorder.entry(output)
    if entry is None:
        raise ChainruleError(
            f"forward returned a tensor {tuple(output.shape)} that no recorded operation made; "
            "compute it with torch operations from the inputs"
        )
    node = entry.node
    if not differentiable(node):
        raise ChainruleError(f"forward returned {_described(output)}, which has no gradient", node.meta.get("site"))
    if upstream is None and output.numel() != 1:
        raise ChainruleError(
            f"forward returned shape {tuple(output.shape)}, not a scalar; reduce it (sum, mean) or give upstream= "
            "of the same shape",
            node.meta.get("site"),
        )
    if upstream is not None and upstream.shape != output.shape:
        raise ChainruleError(
            f"upstream has shape {tuple(upstream.shape)}, the output {tuple(output.shape)}; they must be equal",
            node.meta.get("site"),
        )
    wanted = _wanted(recorder, node, wrt)
    base = backward_pass(recorder, node, upstream, wanted)
    return Derivation(base, explicit=upstream is not None, check=check)


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else f"a {type(value).__name__}"


def _wanted(recorder: Recorder, output: fx.Node, wrt: Any) -> list[fx.Node]:
    inputs = [n for n in recorder.inputs if n.meta["operation"] == "input"]
    if wrt is None or wrt is EVERYTHING:
        used = set(needed([output]))
        floating = [n for n in inputs if differentiable(n) and n in used]
        asked = [n for n in floating if n.meta.get("given", n.meta["val"]).requires_grad]
        return asked if asked and wrt is None else floating
    names = {name: node for node, name in keys(inputs).items()}
    chosen = []
    for item in [wrt] if isinstance(wrt, str | torch.Tensor) else list(wrt):
        chosen.append(_one_wanted(recorder, names, item))
    reached = {n: output in reached_from([n], recorder.graph) for n in chosen}
    for node, depends in reached.items():
        if not depends:
            raise ChainruleError(
                f"the output {tuple(output.meta['val'].shape)} does not depend on {node.meta['name']} "
                f"{tuple(node.meta['val'].shape)}; leave it out of wrt, or see where the path is cut (no_grad, detach)",
                output.meta.get("site"),
            )
    return chosen


def _one_wanted(recorder: Recorder, names: dict[str, fx.Node], item: Any) -> fx.Node:
    if isinstance(item, torch.Tensor):
        entry = recorder.entry(item)
        if entry is None or entry.node.op != "placeholder":
            raise ChainruleError(
                f"wrt names a tensor {tuple(item.shape)} that forward did not read; it read {_list(names)}"
            )
        node = entry.node
    elif item in names:
        node = names[item]
    else:
        raise ChainruleError(f"wrt names {item!r}, which forward did not read; it read {_list(names)}")
    if not differentiable(node) or node.meta["val"].dtype.is_complex:
        dtype = str(node.meta["val"].dtype).removeprefix("torch.")
        raise ChainruleError(
            f"{node.meta['name']} {tuple(node.meta['val'].shape)} is {dtype}; "
            "a gradient needs a real floating dtype: convert it with .float(), or leave it out of wrt"
        )
    return node


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "no tensors"


class Value:
    """A named value of the program: `.value`, its gradient `.g`, `.shape`, and the `.line` that made it."""

    def __init__(self, name: str, value: torch.Tensor, g: torch.Tensor | None, site: Any) -> None:
        self.name, self.value, self.g = name, value, g
        self.shape = value.shape
        self.line: int | None = site.line if site else None
        self.site = site

    def __repr__(self) -> str:
        return f"{self.name}: value {tuple(self.shape)}, gradient {'none' if self.g is None else tuple(self.g.shape)}"


class Derivation:
    """A derived backward pass. `print` it to read it; see `derive` for how to get one."""

    def __init__(self, base: Program, explicit: bool, check: bool = True) -> None:
        self._base, self._explicit = base, explicit
        self.program = base.seeded(explicit)
        simplify(self.program)
        self._names = keys(self.program.graph.nodes)
        self._close_graph()
        self._run()
        self.fallbacks: list[str] = sorted(set(base.fallbacks))
        self.notes: list[str] = []
        if check:
            from chainrule.checking.oracles import confirm

            confirm(self)
        self._report_not_finite()

    def _close_graph(self) -> None:
        """Name the inputs as the person does, and return (output, {name: gradient})."""
        program = self.program
        for node in [*program.inputs, *([program.upstream] if program.upstream else [])]:
            node._rename(self._names.get(node, node.name).replace(".", "_"))
            node.target = node.name
        gradients = {self._names[w]: program.gradients.get(w) for w in program.wanted}
        closing = program.graph.output((program.output, gradients))
        closing.meta.update(operation="output", phase="output", val=None)

    # -- values ----------------------------------------------------------------------------------

    def _run(self) -> None:
        program = self.program
        asked = [program.gradients[w] for w in program.wanted if w in program.gradients]
        forward = {n: n.meta["val"] for n in program.graph.nodes if n.meta["phase"] == "forward"}
        todo = needed(asked, given=forward)
        self._refuse_overwritten(todo)
        with torch.no_grad():
            values = run(todo, forward)
        for node, value in values.items():
            node.meta["val"] = value
            node.meta.pop("planned", None)

    def _refuse_overwritten(self, backward: list[fx.Node]) -> None:
        for node in backward:
            if node.meta["phase"] != "backward" or node.meta["operation"] in (
                "shape",
                "numel",
                "ones_like",
                "zeros_like",
            ):
                continue
            for used in node.all_input_nodes:
                value, version = used.meta["val"], used.meta.get("version")
                changed = isinstance(value, torch.Tensor) and version is not None and value._version != version
                if used.meta["phase"] == "forward" and (changed or "overwritten" in used.meta):
                    writer = next(
                        (n for n in used.graph.nodes if n.meta.get("written") and n.meta["val"] is value), None
                    )
                    how = f"{writer.meta['operation']}_ " if writer else "an in-place operation "
                    raise ChainruleError(
                        f"{how}changed {used.meta.get('name') or used.meta['operation']} {tuple(value.shape)} in place, "
                        "but the backward pass needs the value that it had; write the result to a new name",
                        writer.meta.get("site") if writer else used.meta.get("overwritten") or used.meta.get("site"),
                    )

    @property
    def output(self) -> torch.Tensor:
        """What forward returned."""
        value: torch.Tensor = self.program.output.meta["val"]
        return value

    @cached_property
    def grads(self) -> dict[str, torch.Tensor | None]:
        """The gradients by name, in the order of the inputs; None where the output does not depend on one."""
        program = self.program
        asked = [n for n in program.inputs if n in set(program.wanted)]
        return {self._names[n]: self._gradient(n) for n in asked}

    def _gradient(self, node: fx.Node) -> torch.Tensor | None:
        gradient = self.program.gradients.get(node)
        if gradient is not None and not gradient.meta.get("erased") and not gradient.meta.get("planned"):
            return gradient.meta["val"].detach()
        return node.meta.get("g")

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """(tensor, gradient) for each input that was asked for: the person's own tensor objects."""
        asked = set(self.program.wanted)
        return [(n.meta.get("given", n.meta["val"]), self._gradient(n)) for n in self.program.inputs if n in asked]

    def leave_gradients(self, inputs_only: bool = False) -> None:
        """Set `.g` on the person's tensors: the inputs, and the values on the way."""
        for node in self._base.gradients:
            if node.op == "placeholder" or not inputs_only:
                tensor, gradient = node.meta.get("given", node.meta["val"]), node.meta.get("g")
                if isinstance(tensor, torch.Tensor) and gradient is not None:
                    tensor.g = gradient  # type: ignore[attr-defined]
        for tensor, gradient in self.pairs():
            if gradient is not None:
                tensor.g = gradient  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> Value:
        for node, known in self._names.items():
            if known == name:
                return Value(name, node.meta["val"].detach(), self._gradient(node), node.meta.get("site"))
        raise ChainruleError(f"no value is named {name!r}; there are {', '.join(self._names.values())}")

    @property
    def names(self) -> list[str]:
        """The names that `d[...]` knows, inputs first."""
        return list(self._names.values())

    # -- code ------------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[str]:
        """The names of the arguments of the emitted function, in order."""
        return [self._names[n] for n in self._arguments()]

    def _arguments(self) -> list[fx.Node]:
        used = set(needed([self.program.output, *self.program.gradients.values()]))
        return [n for n in self.program.inputs if n in used or n in self.program.wanted]

    def source(self, style: str = "dotg") -> str:
        """Stand-alone code, importing torch only.

        "dotg" leaves `.g` on tensors; "function" defines `forward_and_backward(...)`, which returns
        (output, {name: gradient}); "autograd" defines a torch.autograd.Function.
        """
        if style == "dotg":
            return dialects.dotg(self.program)
        if style == "function":
            return dialects.function(self.program, self._arguments())
        if style == "autograd":
            program = self._base.seeded(explicit=True)
            simplify(program)
            arguments = [n for n in program.inputs if self._names[self._twin(program, n)] in self.inputs]
            return dialects.autograd(program, arguments, "Derived")
        raise ChainruleError(f'no style is called {style!r}; there are "dotg", "function" and "autograd"')

    def _twin(self, program: Program, node: fx.Node) -> fx.Node:
        return self.program.inputs[program.inputs.index(node)]

    @cached_property
    def _emitted(self) -> Callable[..., Any]:
        return dialects.executed(self.source("function"), "forward_and_backward")

    def function(self, *args: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Run the emitted `forward_and_backward`; inputs that are left out at the end are as recorded."""
        recorded = [n.meta["val"] for n in self._arguments()]
        if self._explicit and self.program.upstream is not None:
            recorded.append(self.program.upstream.meta["val"])
        with torch.no_grad():
            result: tuple[torch.Tensor, dict[str, torch.Tensor]] = self._emitted(*args, *recorded[len(args) :])
        return result

    def __str__(self) -> str:
        text = dialects.described(self.program)
        if self.fallbacks:
            text += f"\n# one step each taken from autograd: {', '.join(self.fallbacks)}"
        return "\n".join([text, *(f"# note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k} {'none' if g is None else tuple(g.shape)}" for k, g in self.grads.items())
        return f"<Derivation of output {tuple(self.output.shape)}; gradients: {shapes}>"

    @property
    def graph(self) -> fx.Graph:
        """The torch.fx.Graph: forward and backward pass, inputs as placeholders, values in `node.meta`."""
        return self.program.graph

    # -- questions -------------------------------------------------------------------------------

    def verify(self, directions: int = 3, seed: int = 0) -> Verdict:
        """Rule, autograd and float64 central differences side by side; truthy when they agree."""
        from chainrule.checking.oracles import verify

        return verify(self, directions, seed)

    def trace(self) -> Trace:
        """Every step, forward and backward: code, shape, values."""
        from chainrule.trace import Trace

        return Trace(self)

    def _report_not_finite(self) -> None:
        values: Sequence[Any] = [self.output, *self.grads.values()]
        if all(bool(torch.isfinite(v).all()) for v in values if v is not None):
            return
        for node in self.program.graph.nodes:
            value = node.meta["val"]
            if not isinstance(value, torch.Tensor) or "planned" in node.meta or not differentiable(node):
                continue
            if not bool(torch.isfinite(value).all()):
                kind = "NaN" if bool(torch.isnan(value).any()) else "infinity"
                operation = node.meta["operation"]
                what = (
                    f"the input {self._names.get(node)}"
                    if operation == "input"
                    else f"{operation} in the {node.meta['phase']} pass"
                )
                note = f"{kind} first appears in {what} {tuple(value.shape)}"
                note += f" ({node.meta['site']})" if node.meta.get("site") else ""
                self.notes.append(note)
                warnings.warn(note, RuntimeWarning, stacklevel=5)
                return
