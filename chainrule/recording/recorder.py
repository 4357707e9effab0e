"""The recorder: runs a program of torch calls and writes each down as a node of a torch.fx.Graph.

It knows no derivative. Forward and backward passes are recorded by the same object, one after the
other, into the same graph. Each node carries in `node.meta`:

    operation   the name under which the rule book knows it
    val         what it gave: a tensor, a tuple, a number
    name        the person's name for it, where it has one
    site        the person's line
    phase       "forward" or "backward"
    constant    True where no gradient passes: torch.no_grad, detach, random draws
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from chainrule.errors import ChainruleError, Site
from chainrule.recording import calls, names, writes
from chainrule.recording.numbers import Tracked, literal, track


@dataclass
class Entry:
    """A tensor that the recorder knows, the node that made it, and its version at that time."""

    tensor: torch.Tensor
    node: fx.Node
    version: int
    depth: int = 10_000  # how far inside the program its name was found; the outermost wins


@dataclass
class Guard:
    """What the recorded path took for granted: a node that must give True."""

    node: fx.Node
    site: Site | None


@dataclass
class Region:
    """A call whose inside is left to a backward step of its own: a person's function that has a rule,
    or a torch.autograd.Function."""

    code: types.CodeType
    arguments: Any  # tensors as nodes; by name for a function, in order for an autograd.Function
    function: Any = None  # the torch.autograd.Function
    values: Any = None  # the arguments themselves
    nodes: list[fx.Node] = field(default_factory=list)


# Functions that ask about a tensor and leave nothing to record.
_QUESTIONS = frozenset(
    [
        "dim",
        "ndim",
        "dtype",
        "device",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "stride",
        "storage_offset",
        "data_ptr",
        "layout",
        "requires_grad",
        "is_leaf",
        "grad_fn",
        "grad",
        "_version",
        "is_cuda",
        "names",
        "element_size",
        "tolist",
        "numpy",
        "array",
        "repr",
        "format",
        "str",
        "hash",
        "is_sparse",
        "is_quantized",
        "is_nested",
        "is_mkldnn",
        "is_meta",
        "untyped_storage",
        "is_same_size",
        "result_type",
        "promote_types",
        "can_cast",
        "is_tensor",
        "is_nonzero",
        "allclose",
        "equal",
        "requires_grad_",
        "backward",
        "register_hook",
        "retain_grad",
        "is_shared",
        "is_pinned",
        "get_device",
        "_set_grad_enabled",
        "manual_seed",
        "complex",
        "index",
        "dir",
        "reduce_ex",
        "deepcopy",
        "setstate",
    ]
)

_LITERALS = frozenset((int, float, bool, str, type(None), type(...)))
_recording = threading.local()  # the recorders under way in this thread, innermost last
_NUMBERS = frozenset(("shape", "size", "numel", "nelement", "item", "__len__", "__bool__", "__int__", "__float__"))


class Recorder(TorchFunctionMode):
    """Records torch calls. `whole(function)` says which Python functions of torch have a rule and
    are therefore recorded whole; the others are opened into their parts. `opened(function)` may
    give a function to run in place of another (dropout as a drawn mask and a product).
    `owned(code)` says which functions of the person's have a rule."""

    def __init__(
        self,
        whole: Callable[[Any], bool],
        opened: Callable[[Any], Any] = lambda function: None,
        owned: Callable[[types.CodeType], Any] = lambda code: None,
    ) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.whole, self.opened, self.owned = whole, opened, owned
        self.entries: dict[int, Entry] = {}
        self.guards: list[Guard] = []
        self.inputs: list[fx.Node] = []
        self.phase = "forward"
        self.watch = names.FrameWatch(self._bound)
        self.forward: Any = None
        self.arguments: dict[str, Any] = {}
        self.locals: dict[str, Any] = {}  # of the outermost function, when it returned
        self.regions: dict[types.FrameType, Region] = {}
        self.every_path = False  # look into torch.no_grad and torch.autograd.Function, as `check` does
        self._shapes: dict[fx.Node, fx.Node] = {}
        self._compared: set[tuple[Any, ...]] = set()

    # -- what the rest of the project asks -------------------------------------------------------

    def entry(self, tensor: torch.Tensor) -> Entry | None:
        return self.entries.get(id(tensor))

    def alias(self, value: Any, node: fx.Node) -> Any:
        """A fresh object for the value of `node`, so that each use can carry a `.g` of its own."""
        if isinstance(value, torch.Tensor):
            with torch._C.DisableTorchFunction():  # no operation of anybody's program
                fresh = value.detach()
            self.entries[id(fresh)] = Entry(fresh, node, _version(fresh))
            return fresh
        if isinstance(value, int | float) and not isinstance(value, bool):
            return track(self, value, lambda: node)
        if isinstance(value, torch.Size):
            return self._tracked_shape(node, value)
        return value

    @contextmanager
    def recording(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        stack = _recording.__dict__.setdefault("stack", [])
        stack.append(self)
        try:
            with self:
                yield
        finally:
            stack.pop()
            self.phase = before

    def assume(self, statement: fx.Node, site: Site | None = None) -> None:
        """The derived code will assert `statement`."""
        self.guards.append(Guard(statement, site))

    # -- one call --------------------------------------------------------------------------------

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _recording.stack[-1] is not self:  # a derivation inside the recorded code is no part of it
            return function(*args, **kwargs)
        operation = calls.operation_name(function)
        if operation in _QUESTIONS:
            return function(*_plain(args), **_plain(kwargs))
        frame = sys._getframe(1)
        frames = self.watch.look(frame) if self.phase == "forward" else []
        other = self.opened(function)
        if other is None and isinstance(function, _Function) and not self._recorded_whole(function):
            other = _without_dispatch(function)
        if other is not None:
            with self:
                return other(*args, **kwargs)
        if operation in _NUMBERS:
            return self._number(function, operation, args, kwargs, frame, frames)
        return self._record(function, args, kwargs, frame, frames)

    def _recorded_whole(self, function: Any) -> bool:
        return self.whole(function) or (calls._is_method(function) and function.__name__ in calls._REFLECTED)

    def _record(self, function: Any, args: Any, kwargs: Any, frame: Any, frames: Any) -> Any:
        call = calls.canonical(function, args, kwargs)
        site = names.site_of(frames[-1] if frames else frame) if self.phase == "forward" else None
        node_args = tuple([self._to_nodes(a, frames, site) for a in call.args])
        node_kwargs = {k: self._to_nodes(v, frames, site) for k, v in call.kwargs.items()} if call.kwargs else {}
        region = self._region(frame, frames, site) if self.phase == "forward" else None
        if call.written is not None:
            self._before_writing(call.written, site)
            if call.operation in writes.REPLACED:
                return self._replace(function, call, args, kwargs)
        result = function(*_plain(args), **_plain(kwargs)) if kwargs else function(*_plain(args))
        if call.written is None:
            known = self.entry(result) if isinstance(result, torch.Tensor) else None
            if known is not None:  # returned as it came: dropout with p=0, .contiguous(), .to(same)
                return result
        if not _has_tensor(result):
            return result
        node = self._write(call, node_args, node_kwargs, result, site)
        if region is not None:
            region.nodes.append(node)
            if region.function is None or not self.every_path:
                node.meta["region"] = region
        if not torch.is_grad_enabled() and self.phase == "forward" and region is None and not self.every_path:
            node.meta["constant"] = True
        return result

    def _region(self, frame: types.FrameType, frames: list[types.FrameType], site: Site | None) -> Region | None:
        """The outermost call under way that has a backward step of its own."""
        if not torch.is_grad_enabled():
            apply = self._function_frame(frame)
            if apply is not None:
                if apply not in self.regions:
                    given = apply.f_locals["args"]
                    nodes = self._to_nodes(given, frames, site)
                    self.regions[apply] = Region(apply.f_code, nodes, apply.f_locals["cls"], given)
                return self.regions[apply]
        for frame in frames:
            if self.owned(frame.f_code) is None:
                continue
            if frame not in self.regions:
                code = frame.f_code
                given = {name: frame.f_locals[name] for name in code.co_varnames[: code.co_argcount]}
                self.regions[frame] = Region(code, self._to_nodes(given, frames, site))
            return self.regions[frame]
        return None

    def _function_frame(self, frame: types.FrameType | None) -> types.FrameType | None:
        """The outermost torch.autograd.Function.apply under way."""
        found = None
        while frame is not None and frame is not self.watch.root:
            if frame.f_code is _APPLY:
                found = frame
            frame = frame.f_back
        return found

    def _replace(self, function: Any, call: calls.Call, args: Any, kwargs: Any) -> Any:
        """A write that is recorded as the value that it leaves."""
        with self:
            value = writes.REPLACED[call.operation](*call.args, **call.kwargs)
        result = function(*_plain(args), **_plain(kwargs))
        entry = self.entry(value)
        if entry is not None:
            entry.node.meta["written"] = True
            self._keep(call.written, entry.node)
        return result

    def _before_writing(self, tensor: torch.Tensor, site: Site | None) -> None:
        """An input that the program overwrites is kept as it was, for running the program again."""
        entry = self.entry(tensor)
        if entry is not None and entry.node.op == "placeholder":
            entry.node.meta.update(given=tensor, val=tensor.detach().clone(), overwritten=site)

    def _write(self, call: calls.Call, args: Any, kwargs: Any, result: Any, site: Site | None) -> fx.Node:
        random = call.operation in _DRAWS
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
            node.meta["written"] = True
        self._keep(result, node)
        if isinstance(result, tuple | list):
            for index, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    child = self.graph.call_function(operator.getitem, (node, index))
                    child.meta.update(operation="part", site=site, phase=self.phase)
                    self._keep(part, child)
        return node

    def _add(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> fx.Node:
        node = self.graph.create_node(kind, target, name=name)
        node.args = args  # set afterwards: create_node would search them for symbolic sizes, which takes longest
        if kwargs:
            node.kwargs = kwargs
        return node

    def _keep(self, value: Any, node: fx.Node) -> None:
        node.meta["val"] = value
        if isinstance(value, torch.Tensor):
            self.entries[id(value)] = Entry(value, node, _version(value))
            node.meta["version"] = _version(value)

    # -- inputs ----------------------------------------------------------------------------------

    def _node_of(self, tensor: torch.Tensor, frames: list[types.FrameType], site: Site | None) -> fx.Node:
        entry = self.entry(tensor)
        if entry is None:
            return self.leaf(tensor, frames)
        if entry.version != _version(tensor) and self.phase == "forward":
            shown = entry.node.meta.get("name") or entry.node.name
            raise ChainruleError(
                f"{shown} {tuple(tensor.shape)} was changed in place through another view of its memory; "
                "write it as a new value",
                site,
            )
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
        found = name or names.name_of_leaf(tensor, self.arguments, self.forward, frames or [])
        node = self.graph.placeholder(f"input_{len(self.inputs)}")
        self._first(node)
        node.meta.update(operation="input", name=found, site=None, phase="forward")
        node.meta["val"], node.meta["version"] = tensor, _version(tensor)
        self.entries[id(tensor)] = Entry(tensor, node, _version(tensor), depth=-1)
        return node

    def _first(self, node: fx.Node) -> None:
        """Inputs stand before everything that reads them."""
        if self.inputs:
            self.inputs[-1].append(node)
        elif (first := next(iter(self.graph.nodes))) is not node:
            first.prepend(node)
        self.inputs.append(node)

    def _to_nodes(self, value: Any, frames: Any, site: Site | None) -> Any:
        """`value` with each tensor and tracked number replaced by its node."""
        if isinstance(value, torch.Tensor):
            return self._node_of(value, frames, site)
        if type(value) in _LITERALS:
            return value
        if isinstance(value, Tracked):
            return value.node()
        if isinstance(value, tuple | list):
            if isinstance(value, tuple) and (whole := _whole_shape(value)) is not None:
                return whole
            parts = [self._to_nodes(v, frames, site) for v in value]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, slice):
            return slice(*(self._to_nodes(v, frames, site) for v in (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return {k: self._to_nodes(v, frames, site) for k, v in value.items()}
        return literal(value)

    # -- numbers ---------------------------------------------------------------------------------

    def _number(self, function: Any, operation: str, args: Any, kwargs: Any, frame: Any, frames: Any) -> Any:
        value = function(*_plain(args), **_plain(kwargs))
        tensor = args[0]
        known = self.entry(tensor)
        if known is None and operation in ("__bool__", "__int__", "__float__", "item"):
            return value  # asked of a tensor outside the program
        node = self._node_of(tensor, frames, names.site_of(frame))
        if operation == "shape" or (operation == "size" and isinstance(value, torch.Size)):
            return self._tracked_shape(self._shape_node(node), value)
        if operation == "size":
            return self._tracked_shape(self._shape_node(node), tensor.shape)[
                args[1] if len(args) > 1 else kwargs["dim"]
            ]
        if operation in ("numel", "item", "nelement"):
            method = "numel" if operation == "nelement" else operation
            return track(self, value, lambda: self._call(method, node, value))
        if operation == "__len__":  # len() makes a plain int of what it is given
            self.pinned(track(self, value, lambda: self.shape_entry(self._shape_node(node), 0, value)))
        elif operation == "__bool__" and names.is_person(frame.f_code):
            truth = self._call("item", node, value)
            self.assume(truth if value else self.number(operator.not_, (truth,), True), names.site_of(frame))
        elif operation in ("__int__", "__float__") and names.is_person(frame.f_code):
            self.pinned(track(self, value, lambda: self._call("item", node, value)))
        return value

    def _shape_node(self, node: fx.Node) -> fx.Node:
        if node not in self._shapes:
            shape = self.graph.call_function(getattr, (node, "shape"))
            shape.meta.update(operation="shape", phase=self.phase, val=node.meta["val"].shape)
            self._shapes[node] = shape
        return self._shapes[node]

    def _tracked_shape(self, shape: fx.Node, value: torch.Size) -> torch.Size:
        return torch.Size(
            track(self, size, functools.partial(self.shape_entry, shape, axis, size), (shape, axis))
            for axis, size in enumerate(value)
        )

    def shape_entry(self, shape: fx.Node, axis: int, size: int) -> fx.Node:
        node = self.graph.call_function(operator.getitem, (shape, axis))
        node.meta.update(operation="shape_entry", phase=self.phase, val=size)
        return node

    def _call(self, method: str, node: fx.Node, value: Any) -> fx.Node:
        made = self.graph.call_method(method, (node,))
        made.meta.update(operation=method, phase=self.phase, val=value)
        return made

    def number(self, function: Callable[..., Any], operands: tuple[Any, ...], value: Any) -> fx.Node:
        """The node of arithmetic between tracked numbers."""
        node = self.graph.call_function(function, self._to_nodes(operands, [], None))
        node.meta.update(
            operation=calls.SYNONYMS.get(function.__name__, function.__name__), phase=self.phase, val=value
        )
        return node

    def compared(self, function: Callable[..., Any], left: Any, right: Any, value: bool) -> None:
        """The program asked how two numbers compare: the path that it took holds for that answer."""
        frame = sys._getframe(2)
        if self.phase != "forward" or not names.is_person(frame.f_code):
            return
        site = names.site_of(frame)
        key = (function, repr(left), repr(right), site)
        if key not in self._compared:
            self._compared.add(key)
            node = self.number(function, (left, right), value)
            self.assume(node if value else self.number(operator.not_, (node,), True), site)

    def pinned(self, number: Any) -> None:
        """A size became a plain number (`len`, `math.sqrt`, `float`): the code holds for this size."""
        site = names.site_of(sys._getframe(2))
        if self.phase == "forward" and site is not None:
            self.assume(self.number(operator.eq, (number, number.plain()), True), site)

    # -- names -----------------------------------------------------------------------------------

    def _bound(self, tensor: torch.Tensor, name: str, depth: int) -> None:
        entry = self.entry(tensor)
        if entry is not None and entry.tensor is tensor and depth < entry.depth:
            entry.depth = depth
            entry.node.meta["name"] = name


def _version(tensor: torch.Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # inference tensors keep no version
        return 0


def _plain(value: Any) -> Any:
    """`value` with tracked numbers as plain ones, as torch's C++ wants them."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Tracked):
        return value.plain()
    if isinstance(value, tuple) and type(value) in (tuple, torch.Size):
        return tuple([_plain(v) for v in value])
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _whole_shape(value: tuple[Any, ...]) -> fx.Node | None:
    """The shape node that a tuple of sizes came from, where it is all of one shape."""
    origins = [v.origin if isinstance(v, Tracked) else None for v in value]
    if not origins or origins[0] is None:
        return None
    shape = origins[0][0]
    if len(shape.meta["val"]) == len(value) and origins == [(shape, axis) for axis in range(len(value))]:
        return shape
    return None


def _has_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_has_tensor(v) for v in value)
    return isinstance(value, torch.Tensor)


# What these give depends on no value that they read; other random operations (dropout, rrelu) have a gradient.
_DRAWS = frozenset(
    """rand rand_like randn randn_like randint randint_like randperm bernoulli multinomial normal uniform exponential
    cauchy geometric log_normal poisson binomial random""".split()  # noqa: SIM905  (reads better than forty quotes)
)


_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_Function = types.FunctionType


def _never(*_: Any) -> bool:
    return False


def _without_dispatch(function: types.FunctionType) -> types.FunctionType:
    """A copy of a Python function of torch that does not hand itself to the recorder again."""
    no = {
        "has_torch_function": _never,
        "has_torch_function_unary": _never,
        "has_torch_function_variadic": _never,
    }
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **no},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
