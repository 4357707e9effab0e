"""Views of one memory: a write to one tensor is a new value of every tensor that shares its memory.

The tensor that was written gets the new value at once. From it the values of the tensors that it is a
view of are put together, up to the one that owns the memory; every other view is taken again from there
when it is next read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from chainrule.errors import ChainruleError, Site
from chainrule.recording import calls, writes
from chainrule.recording.dispatch import plain
from chainrule.recording.entries import Entry, version_of

if TYPE_CHECKING:
    from chainrule.recording.recorder import Recorder


@dataclass(slots=True)
class View:
    """How a tensor was taken from another one that shares its memory."""

    of: torch.Tensor
    operation: str
    take: Callable[[torch.Tensor], torch.Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Memory:
    """Which of a recorder's tensors share memory, and what is written to it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._taken: dict[int, View] = {}  # by the id of the view, which the recorder keeps alive
        self._overwritten: list[torch.Tensor] = []  # inputs that the program wrote to

    def saw(self, function: Any, operation: str, args: Any, kwargs: Any, result: Any) -> None:
        """A call was recorded; note it if what it gave shares memory with what it read."""
        if operation not in _PUT_BACK or not args or not isinstance(args[0], torch.Tensor):
            return
        for index, part in enumerate(result if isinstance(result, tuple | list) else (result,)):
            if not isinstance(part, torch.Tensor) or not _share(args[0], part):
                continue

            def take(base: torch.Tensor, index: int = index) -> torch.Tensor:
                again = function(base, *args[1:], **kwargs)
                return again[index] if isinstance(again, tuple | list) else again

            which = {"part": index} if isinstance(result, tuple | list) else {}
            self._taken[id(part)] = View(args[0], operation, take, args[1:], {**kwargs, **which})

    def reshaped(self, tensor: torch.Tensor, call: calls.Call, change: Callable[[], Any]) -> Any:
        """`change()` gives `tensor` another shape in place: it becomes a view of an object that has the old one."""
        recorder = self.recorder
        old = recorder.alias(tensor, recorder.node_of(tensor, [], None))
        for view in self._taken.values():
            if view.of is tensor:
                view.of = old
        if id(tensor) in self._taken:
            self._taken[id(old)] = self._taken.pop(id(tensor))
        result = change()
        recorder.entries[id(old)].version = version_of(old)
        operation, args, kwargs = call.operation, call.args[1:], call.kwargs

        def take(base: torch.Tensor) -> torch.Tensor:
            taken: torch.Tensor = getattr(base, operation)(*args, **kwargs)
            return taken

        self._taken[id(tensor)] = View(old, operation, take, args, kwargs)
        return result

    def overwrites(self, given: torch.Tensor) -> None:
        """The memory of an input is about to be written to."""
        self._overwritten.append(given)

    def was_overwritten(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor`, which no recorded call made, shares memory with an input that was written to."""
        return any(_share(tensor, other) and _overlap(tensor, other) for other in self._overwritten)

    def base(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What `tensor` is a view of."""
        view = self._taken.get(id(tensor))
        return None if view is None else view.of

    def written(self, tensor: torch.Tensor, site: Site | None) -> None:
        """`tensor` has a new value: so have the tensors that it is a view of."""
        view = self._taken.get(id(tensor))
        if view is None:
            return
        put_back = _PUT_BACK[view.operation]
        if put_back is None:
            raise ChainruleError(
                f"a value {tuple(tensor.shape)} made by {view.operation} is written in place, and it shares its memory "
                f"with {tuple(view.of.shape)}; write it as a new value",
                site,
            )
        recorder = self.recorder
        base, new = self._as_recorded(view.of), self._as_recorded(tensor)
        node = recorder.entries[id(view.of)].node
        if view.operation == "data" and node.op != "placeholder":  # which leaves the tensor's version as it was
            node.meta["version"] = -1
        with recorder:
            value = put_back(base, new, *view.args, **view.kwargs)
        entry = recorder.entry(value)
        assert entry is not None
        recorder.point(view.of, entry.node)
        self.written(view.of, site)

    def read(self, tensor: torch.Tensor, site: Site | None) -> None:
        """`tensor` is read after a write to its memory: take it again from what was written."""
        view, recorder = self._taken.get(id(tensor)), self.recorder
        if view is None:
            entry = recorder.entry(tensor)
            shown = (entry.node.meta.get("name") or entry.node.name) if entry else "a tensor"
            raise ChainruleError(
                f"{shown} {tuple(tensor.shape)} was changed in place {self._how_changed(entry)}write it as a new value",
                site,
            )
        recorder.node_of(view.of, [], site)
        with recorder:
            value = view.take(self._as_recorded(view.of))
        entry = recorder.entry(value)
        assert entry is not None
        recorder.point(tensor, entry.node)

    def _how_changed(self, entry: Entry | None) -> str:
        for region in self.recorder.regions:
            if region.function is not None and entry is not None and entry.node in region.nodes:
                name = region.function.__name__
                return f"by {name}.forward, which cannot be followed from outside; give {name} alone, or "
        return "in a way that cannot be followed; "

    def replace(self, function: Any, call: calls.Call, args: Any, kwargs: Any, site: Site | None) -> Any:
        """A write that is recorded as the value that it leaves."""
        with self.recorder:
            value = writes.REPLACED[call.operation](*call.args, **call.kwargs)
        result = function(*plain(args), **plain(kwargs))
        entry = self.recorder.entry(value)
        if entry is not None:
            entry.node.meta["written"] = function.__name__
            self.recorder.point(call.written, entry.node)
            self.written(call.written, site)
        return result

    def before_writing(self, call: calls.Call, tensor: torch.Tensor, site: Site | None) -> None:
        """An input that the program overwrites is kept as it was, for running the program again."""
        if (base := self.base(tensor)) is not None:
            self.before_writing(call, base, site)
        entry = self.recorder.entry(tensor)
        if entry is None:
            return
        meta = entry.node.meta
        if entry.node.op == "placeholder":
            kept = tensor.detach().clone()
            meta.update(given=tensor, val=kept, overwritten=site, version=version_of(kept))
            self.overwrites(tensor)
            return
        cut = meta.get("constant") or self.recorder.every_path or not tensor.dtype.is_floating_point
        if not torch.is_grad_enabled() and self.recorder.phase == "forward" and not cut:
            raise ChainruleError(
                f"a value {tuple(tensor.shape)} that carries a gradient is written in place under torch.no_grad: "
                "its gradient would be that of another value; write the result to a new name",
                site,
            )
        if call.operation in writes.OF_THE_SHAPE and meta["val"] is tensor:
            meta["val"] = tensor.detach()  # which keeps the shape that it had

    def _as_recorded(self, tensor: torch.Tensor) -> torch.Tensor:
        """An object for the value that `tensor` has in the recording, whatever its memory holds by now."""
        entry = self.recorder.entry(tensor)
        assert entry is not None
        return self.recorder.alias(tensor, entry.node)


def _share(a: torch.Tensor, b: torch.Tensor) -> bool:
    try:
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() > 0
    except (RuntimeError, NotImplementedError):  # tensors without storage
        return False


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    (first, last), (start, stop) = _extent(a), _extent(b)
    return first < stop and start < last


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its memory from its first element to its last."""
    size, first = tensor.element_size(), int(tensor.storage_offset())
    last = first + sum((int(n) - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first * size, (last + 1) * size


def _reshaped(base: torch.Tensor, new: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return new.reshape(base.shape)


def _swapped(base: torch.Tensor, new: torch.Tensor, dim0: int, dim1: int) -> torch.Tensor:
    return new.transpose(dim0, dim1)


def _permuted(base: torch.Tensor, new: torch.Tensor, *axes: Any, dims: Any = ()) -> torch.Tensor:
    dims = axes or dims
    order = [d % base.ndim for d in (dims[0] if isinstance(dims[0], tuple | list) else dims)]
    return new.permute([order.index(axis) for axis in range(base.ndim)])


def _moved(base: torch.Tensor, new: torch.Tensor, source: Any, destination: Any) -> torch.Tensor:
    return new.movedim(destination, source)


def _narrowed(base: torch.Tensor, new: torch.Tensor, dim: int, start: int, length: int) -> torch.Tensor:
    start = start + base.shape[dim] if start < 0 else start
    return torch.slice_scatter(base, new, dim, start, start + length)


def _piece(base: torch.Tensor, new: torch.Tensor, split_size: Any, dim: int = 0, *, part: int) -> torch.Tensor:
    start = sum(split_size[:part]) if isinstance(split_size, tuple | list) else part * split_size
    return torch.slice_scatter(base, new, dim, start, min(start + new.shape[dim], base.shape[dim]))


def _chunk(base: torch.Tensor, new: torch.Tensor, chunks: int, dim: int = 0, *, part: int) -> torch.Tensor:
    return _piece(base, new, -(-base.shape[dim] // chunks), dim, part=part)


def _unbound(base: torch.Tensor, new: torch.Tensor, dim: int = 0, *, part: int) -> torch.Tensor:
    return torch.select_scatter(base, new, dim, part)


def _unseen(base: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """A write through `.data`: another value, with the gradient that the old one had."""
    return base + (new - base).detach()


# How a written view goes back into the tensor that it was taken from; None where that is not known.
_PUT_BACK: dict[str, Callable[..., torch.Tensor] | None] = {
    "getitem": lambda base, new, index: writes.set_item(base, index, new),
    "select": torch.select_scatter,
    "narrow": _narrowed,
    "slice": lambda base, new, dim=0, start=None, end=None, step=1: torch.slice_scatter(base, new, dim, start, end, step),
    "diagonal": torch.diagonal_scatter,
    "split": _piece, "split_with_sizes": _piece, "tensor_split": None, "chunk": _chunk, "unbind": _unbound,
    **dict.fromkeys(("view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze"),
                    _reshaped),
    "data": _unseen,
    "transpose": _swapped, "permute": _permuted, "movedim": _moved,
    **dict.fromkeys(("T", "t"), lambda base, new: new.T),
    **dict.fromkeys(("mT",), lambda base, new: new.mT),
    **dict.fromkeys(("alias", "contiguous", "view_copy"), lambda base, new, *_, **__: new),
    **dict.fromkeys(("as_strided", "unfold", "expand", "expand_as", "real", "imag", "view_as_real", "view_as_complex",
                     "hsplit", "vsplit", "dsplit", "H", "mH", "adjoint", "swapaxes", "detach"), None),
}  # fmt: skip
