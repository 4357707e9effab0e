"""The recorder: runs a program of torch calls and writes each down as a node of a torch.fx.Graph.

It knows no derivative. Forward and backward passes are recorded by the same object, one after the
other, into the same graph. Each node carries in `node.meta`:

    operation   the name under which the rule book knows it
    val         what it gave: a tensor, a tuple, a number
    name        the person's name for it, where it has one
    site        the person's line
    phase       "forward" or "backward"
    invocations the calls of the person's functions that were under way
    constant    True where no gradient passes: torch.no_grad, detach, random draws
"""

from __future__ import annotations

import functools
import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from chainrule.errors import ChainruleError, Site
from chainrule.recording import calls, names, operators, writes
from chainrule.recording.dispatch import DRAWS, NUMBERS, QUESTIONS, has_tensor, plain, without_dispatch
from chainrule.recording.entries import Entry, Guard, not_dense, version_of
from chainrule.recording.invocations import Invocations
from chainrule.recording.memory import Memory
from chainrule.recording.numbers import Tracked, literal, track
from chainrule.recording.precision import autocast_is_on, converted, without_autocast
from chainrule.recording.regions import Regions
from chainrule.recording.shapes import Numbers, whole_shape
from chainrule.recording.unseen import under_way
from chainrule.work import work

_JUDGEMENTS = frozenset(("equal", "allclose", "is_nonzero"))  # what a program branches on
_LITERALS = frozenset((int, float, bool, str, type(None), type(...)))


@dataclass(frozen=True, slots=True)
class _Way:
    """How calls of one function are treated: asked and forgotten, run as another function, asked for numbers."""

    operation: str
    asks: bool
    instead: Callable[..., Any] | None
    numbers: bool


class Recorder(TorchFunctionMode):
    """Records torch calls. `whole(function)` says which Python functions of torch have a rule and
    are therefore recorded whole; the others are opened into their parts. `opened(function)` may
    give a function to run in place of another (dropout as a drawn mask and a product).
    `owned(code)` says which functions of the person's have a rule."""

    def __init__(
        self,
        whole: Callable[[Any], bool],
        opened: Callable[[Any], Any] = lambda function: None,
        owned: Callable[[types.CodeType], Any] | None = None,
    ) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.whole, self.opened, self.owned = whole, opened, owned
        self.entries: dict[int, Entry] = {}
        self.guards: list[Guard] = []
        self.inputs: list[fx.Node] = []
        self.phase = "forward"
        self.watch = names.FrameWatch(self._bound)
        self.inside = names.FrameWatch(self._hinted, names.is_rule)  # functions run in place of others
        self.forward: Any = None
        self.arguments: dict[str, Any] = {}
        self.locals: dict[str, Any] = {}  # of the outermost function, when it returned
        self.regions = Regions(self)
        self.invocations = Invocations(self.entry)
        self.every_path = False  # look into torch.no_grad, Functions and registered operators, as `check` does
        self.met: Callable[[int, torch.Tensor], None] | None = None  # told of each input, before it is read
        self.noticed: Callable[[fx.Node, types.FrameType], None] | None = None  # told of each node and its frame
        self.numbers = Numbers(self)
        self.memory = Memory(self)
        self._how: dict[Any, _Way] = {}
        self.started = torch._C._autograd._get_sequence_nr()  # autograd's clock
        self.rule_code: types.CodeType | None = None  # the rule under way, whose own names its values may take
        self.rule_frame: types.FrameType | None = None

    # -- what the rest of the project asks -------------------------------------------------------

    def entry(self, tensor: torch.Tensor) -> Entry | None:
        return self.entries.get(id(tensor))

    def alias(self, value: Any, node: fx.Node) -> Any:
        """A fresh object for the value of `node`, so that each use can carry a `.g` of its own."""
        if isinstance(value, torch.Tensor):
            with torch._C.DisableTorchFunction():  # no operation of anybody's program
                fresh = value.detach()
            self.entries[id(fresh)] = Entry(fresh, node, version_of(fresh))
            return fresh
        if isinstance(value, int | float) and not isinstance(value, bool):
            return track(self.numbers, value, lambda: node)
        if isinstance(value, torch.Size):
            return self.numbers.tracked_shape(node, value)
        return value

    def left(self) -> dict[fx.Node, fx.Node]:
        """The inputs that the program overwrites, each with the value that it leaves in them: running statistics."""
        changed = [n for n in self.inputs if "overwritten" in n.meta]
        return {n: entry.node for n in changed if (entry := self.entry(n.meta["given"])) and entry.node is not n}

    @contextmanager
    def recording(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        stack = under_way()
        stack.append(self)
        try:
            with self:
                yield
        finally:
            stack.pop()
            self.phase = before
            self.invocations.forget()

    def assume(self, statement: fx.Node, site: Site | None = None) -> None:
        """The derived code will assert `statement`."""
        self.guards.append(Guard(statement, site))

    # -- one call --------------------------------------------------------------------------------

    def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if under_way()[-1] is not self:  # a derivation inside the recorded code is no part of it
            return function(*args, **kwargs)
        how = self._how.get(function)
        if how is None:
            how = self._how[function] = self._way(function)
        if how.asks:
            return function(*plain(args), **plain(kwargs))
        frame = sys._getframe(1)
        frames = self.watch.look(frame) if self.phase == "forward" else []
        if self.inside.root is not None and self.phase == "forward":
            self.inside.look(frame)
        if how.instead is not None:
            result = self._instead(how.instead, args, kwargs, frame)
            if result is not NotImplemented:
                return result
        if how.numbers:
            return self.numbers.ask(function, how.operation, args, kwargs, frame, frames)
        return self._record(function, args, kwargs, frame, frames)

    def _instead(self, function: Any, args: Any, kwargs: Any, frame: types.FrameType) -> Any:
        """What `function` gives in place of the call; its values take its own names, where the person gives none."""
        outermost = self.inside.root is None
        if outermost:
            self.inside.start(frame, inclusive=False)
        try:
            with self:
                return function(*args, **kwargs)
        finally:
            if outermost:
                self.inside.finish()
                self.inside.start(None, inclusive=False)

    def _way(self, function: Any) -> _Way:
        """How calls of `function` are treated; found once for each function."""
        operation = calls.operation_name(function)
        asks = operation in QUESTIONS or getattr(function, "__module__", "") == "torch.nn.init"
        instead = self.opened(function)
        if instead is None and self.every_path:
            instead = operators.opened(function)
        reflected = calls._is_method(function) and function.__name__ in calls._REFLECTED
        if instead is None and isinstance(function, types.FunctionType) and not self.whole(function) and not reflected:
            instead = without_dispatch(function)
        return _Way(operation, asks, instead, operation in NUMBERS)

    def _record(self, function: Any, args: Any, kwargs: Any, frame: Any, frames: Any) -> Any:
        call = calls.canonical(function, args, kwargs)
        if self.phase == "forward" and call.written is None and autocast_is_on():
            with self:
                found = converted(function, call.operation, args, kwargs)
            if found is not None:
                with self:
                    return without_autocast(lambda: function(*found[0], **found[1]))
        site = names.site_of(frames[-1] if frames else frame) if self.phase == "forward" else None
        node_args = tuple([self.to_nodes(a, frames, site) for a in call.args])
        node_kwargs = {k: self.to_nodes(v, frames, site) for k, v in call.kwargs.items()} if call.kwargs else {}
        region = self.regions.of(frame, frames, site) if self.phase == "forward" else None
        if self.rule_code is not None:
            caller = frame if frame.f_code is self.rule_code else frame.f_back  # torch.ops has a frame between
            if caller is not None and caller.f_code is self.rule_code:
                self.rule_frame = caller
        if call.written is not None:
            self.memory.before_writing(call, call.written, site)
            if call.operation in writes.REPLACED:
                return self.memory.replace(function, call, args, kwargs, site)
            if call.operation in writes.OF_THE_SHAPE and isinstance(call.written, torch.Tensor):
                result = self.memory.reshaped(call.written, call, lambda: function(*plain(args), **plain(kwargs)))
                self._write(call, node_args, node_kwargs, result, site)
                return result
        result = function(*plain(args), **plain(kwargs)) if kwargs else function(*plain(args))
        work.count(result, args)
        if call.written is None:
            known = self.entry(result) if isinstance(result, torch.Tensor) else None
            if known is not None:  # returned as it came: dropout with p=0, .contiguous(), .to(same)
                return result
        if not has_tensor(result):
            if isinstance(result, bool) and call.operation in _JUDGEMENTS and names.is_person(frame.f_code):
                said = self._add(f"call_{call.kind}", call.target, node_args, node_kwargs, call.operation)
                said.meta.update(operation=call.operation, phase=self.phase, val=result, site=site)
                self.assume(said if result else self.numbers.number(operator.not_, (said,), True), site)
            return result
        node = self._write(call, node_args, node_kwargs, result, site)
        if node.meta["operation"] == "drawn":
            node.meta.update(again=functools.partial(function, *plain(args), **plain(kwargs)), drawn_from=node_args)
        if self.phase == "forward":
            node.meta["invocations"] = self.invocations.of(frames)
            if self.noticed is not None:
                self.noticed(node, frames[-1] if frames else frame)
            if call.written is None:
                self.memory.saw(function, call.operation, args, kwargs, result)
            else:
                self.memory.written(call.written, site)
        if region is not None:
            region.nodes.append(node)
            if region.function is None or not self.every_path:
                node.meta["region"] = region
        if not torch.is_grad_enabled() and self.phase == "forward" and region is None:
            node.meta["without_grad" if self.every_path else "constant"] = True
        return result

    def _write(self, call: calls.Call, args: Any, kwargs: Any, result: Any, site: Site | None) -> fx.Node:
        random = call.operation in DRAWS
        if random:
            node = self.graph.placeholder(f"drawn_{len(self.inputs)}")
            self._first(node)
        elif call.kind == "attribute":
            node = self._add("call_function", getattr, (args[0], call.target), {}, call.operation)
        else:
            node = self._add(f"call_{call.kind}", call.target, args, kwargs, call.operation)
        node.meta.update(operation="drawn" if random else call.operation, site=site, phase=self.phase)
        if (random or call.operation in ("detach", "data")) and self.phase == "forward":
            node.meta["constant"] = True
        if call.written is not None:
            result = call.written
            node.meta["written"] = call.spelled
        self.keep(result, node)
        if isinstance(result, tuple | list):
            for index, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    child = self.graph.call_function(operator.getitem, (node, index))
                    child.meta.update(operation="part", site=site, phase=self.phase)
                    self.keep(part, child)
        return node

    def _add(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> fx.Node:
        node = self.graph.create_node(kind, target, name=name)
        node.args = args  # set afterwards: create_node would search them for symbolic sizes, which takes longest
        if kwargs:
            node.kwargs = kwargs
        return node

    def keep(self, value: Any, node: fx.Node) -> None:
        node.meta["val"] = value
        if isinstance(value, torch.Tensor):
            if (kind := not_dense(value)) and self.phase == "forward":
                raise ChainruleError(
                    f"{node.meta.get('name') or node.meta['operation']} is {kind}, which cannot be "
                    "followed; convert it with .to_dense(), .to_padded_tensor() or .dequantize() before the forward pass",
                    node.meta.get("site"),
                )
            self.entries[id(value)] = Entry(value, node, version_of(value))
            node.meta["version"] = version_of(value)

    def point(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """From here on, `tensor` is the value of `node`, which was computed elsewhere."""
        self.entries[id(tensor)] = Entry(tensor, node, version_of(tensor))
        if node.op != "placeholder":
            node.meta["given"] = tensor

    # -- inputs ----------------------------------------------------------------------------------

    def node_of(self, tensor: torch.Tensor, frames: list[types.FrameType], site: Site | None) -> fx.Node:
        entry = self.entry(tensor)
        if entry is None:
            return self.leaf(tensor, frames)
        if entry.version != version_of(tensor) and self.phase == "forward":
            self.memory.read(tensor, site)
            entry = self.entries[id(tensor)]
        if entry.node.meta.get("constant") and self.phase == "forward" and torch.is_grad_enabled():
            return self._cut(entry)
        return entry.node

    def _cut(self, entry: Entry) -> fx.Node:
        """What was computed under torch.no_grad leaves it as `.detach()`, so that the code says it."""
        node = entry.node
        if (
            node.op != "placeholder"
            and node.meta["operation"] not in ("detach", "data")
            and "detached" not in node.meta
        ):
            with self.graph.inserting_after(node):
                cut = self._add("call_method", "detach", (node,), {}, "detach")
            cut.meta.update(
                operation="detach", phase="forward", constant=True, val=node.meta["val"], site=node.meta["site"]
            )
            node.meta["detached"] = cut
        return node.meta.get("detached", node)

    def leaf(self, tensor: torch.Tensor, frames: list[types.FrameType] | None = None, name: str = "") -> fx.Node:
        """An input: a tensor that the program reads and that no recorded call made."""
        known = self.entry(tensor)
        if known is not None:
            return known.node
        if tensor.grad_fn is not None and not name and _sequence(tensor) >= self.started:
            raise ChainruleError(
                f"a tensor {tuple(tensor.shape)} was made by autograd out of the recorder's sight (torch.autograd.grad, "
                "torch.jit, an extension), so its gradient would be lost; compute it with recorded operations",
                names.site_of(sys._getframe()),
            )
        if self.memory.was_overwritten(tensor):
            raise ChainruleError(
                f"a tensor {tuple(tensor.shape)} is read for the first time after another one that shares its memory was "
                "written in place; read it before, or take it as a view inside of the forward pass",
                names.site_of(sys._getframe()),
            )
        found = name or names.name_of_leaf(tensor, self.arguments, self.forward, frames or [])
        node = self.graph.placeholder(f"input_{len(self.inputs)}")
        if self.met is not None:
            self.met(len(self.inputs), tensor)
        self._first(node)
        node.meta.update(operation="input", name=found, site=None, phase="forward")
        self.keep(tensor, node)
        if self.noticed is not None:  # a person's training step may change it where nobody sees: `w.data = ...`
            with torch._C.DisableTorchFunction():
                node.meta.update(given=tensor, val=tensor.detach().clone(), version=0)
        self.entries[id(tensor)].depth = -1
        return node

    def _first(self, node: fx.Node) -> None:
        """Inputs stand before everything that reads them."""
        if self.inputs:
            self.inputs[-1].append(node)
        elif (first := next(iter(self.graph.nodes))) is not node:
            first.prepend(node)
        self.inputs.append(node)

    def to_nodes(self, value: Any, frames: Any, site: Site | None) -> Any:
        """`value` with each tensor and tracked number replaced by its node."""
        if isinstance(value, torch.Tensor):
            return self.node_of(value, frames, site)
        if type(value) in _LITERALS:
            return value
        if isinstance(value, Tracked):
            return value.node()
        if isinstance(value, tuple | list):
            if isinstance(value, tuple) and (whole := whole_shape(value)) is not None:
                return whole
            parts = [self.to_nodes(v, frames, site) for v in value]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, slice):
            return slice(*(self.to_nodes(v, frames, site) for v in (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return {k: self.to_nodes(v, frames, site) for k, v in value.items()}
        return literal(value)

    # -- names -----------------------------------------------------------------------------------

    def _bound(self, tensor: torch.Tensor, name: str, depth: int) -> None:
        entry = self.entry(tensor)
        if entry is not None and entry.tensor is tensor and depth < entry.depth:
            entry.depth = depth
            entry.node.meta["name"] = name

    def _hinted(self, tensor: torch.Tensor, name: str, depth: int) -> None:
        entry = self.entry(tensor)
        if entry is not None and entry.node.op != "placeholder":
            entry.node.meta.setdefault("hint", name)


def _sequence(tensor: torch.Tensor) -> int:
    number = getattr(tensor.grad_fn, "_sequence_nr", None)
    return int(number()) if number else -1
