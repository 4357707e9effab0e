"""What some code can reach and change, as it was: each run of it starts from the same state."""

from __future__ import annotations

import array
import collections
import contextlib
import copy
import dis
import functools
import itertools
import opcode
import random
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from chainrule.diagnosis.reading.undoing import (
    Undo,
    of_array,
    of_bindings,
    of_cell,
    of_class,
    of_collection,
    of_dictionary,
    of_sequence,
    of_slot,
    of_tensor,
    slots_of,
    value_in,
)
from chainrule.recording.names import is_person, is_person_file

_DEPTH = 6  # how far below a function's names its state is looked for
_OBJECTS = 50_000  # of which the state is kept at the most
_WIDTH = 10_000  # elements of one list into which is looked; the list itself is kept whole
_BYTES = 2**28  # of a NumPy array that is copied at the most
_PLAIN = (str, bytes, int, float, complex, types.NoneType)


class State:
    """What some code can reach and change, and the random numbers: tensors and their gradients, arrays, what lists and
    the like hold, attributes, and what the names that the code binds outside of itself stand for.

    An iterator or a file that the code reads from stays where it is.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._undo: list[Undo] = []
        self._seen: dict[int, Any] = {}  # kept alive, so that an id stays that of one object
        self.add(roots)
        self._random = _random_state()
        self._bare: list[torch.Tensor] = []

    def add(self, roots: Iterable[Any]) -> None:
        level = list(roots)
        for _ in range(_DEPTH):
            below: list[Any] = []
            for value in level:
                if not isinstance(value, _PLAIN) and id(value) not in self._seen and len(self._seen) < _OBJECTS:
                    self._seen[id(value)] = value
                    below.extend(itertools.islice(self._note(value), _WIDTH))
            level = below

    def restore(self) -> None:
        """Everything as it was when it was noted."""
        for undo in self._undo:
            undo()
        for undo in self._random:
            undo()
        for tensor in self._bare:
            _drop_gradients(tensor)

    def without_gradients(self, tensors: Iterable[torch.Tensor]) -> None:
        """From now on `restore` leaves no gradient on these tensors: one from an earlier run hides a missing one."""
        self._bare = list(tensors)

    def _note(self, value: Any) -> Iterable[Any]:
        """Remember how `value` is; what can be reached from it."""
        if isinstance(value, torch.Tensor):
            self._undo.append(of_tensor(value))
            return ()
        if isinstance(value, types.MethodType):
            return value.__func__, value.__self__
        if isinstance(value, types.FunctionType):
            return self._note_function(value) if is_person(value.__code__) else ()
        if isinstance(value, types.ModuleType):
            return self._note_module(value) if is_person_file(getattr(value, "__file__", None) or "<") else ()
        if isinstance(value, type):
            own = is_person_file(getattr(sys.modules.get(value.__module__), "__file__", None) or "<")
            return self._note_class(value) if own else ()
        if isinstance(value, property):
            return value.fget, value.fset
        if isinstance(value, functools.partial):
            return value.func, value.args, value.keywords
        return itertools.chain(self._note_held(value), self._note_object(value))

    def _note_function(self, function: types.FunctionType) -> Iterable[Any]:
        bound = _bound_outside(function.__code__)
        if bound:
            self._undo.append(of_bindings(function.__globals__, bound))
        self._undo += [of_cell(cell) for cell in function.__closure__ or ()]
        self._undo.append(of_dictionary(function.__dict__))
        return _read_by(function)

    def _note_module(self, module: types.ModuleType) -> Iterable[Any]:
        self._undo.append(of_bindings(vars(module), vars(module)))
        return list(vars(module).values())

    def _note_class(self, cls: type) -> Iterable[Any]:
        self._undo.append(of_class(cls))
        return [*(getattr(v, "__func__", v) for v in vars(cls).values()), *cls.__bases__]

    def _note_held(self, value: Any) -> Iterable[Any]:
        """What lists and the like hold."""
        if isinstance(value, tuple | frozenset):
            return value
        if isinstance(value, dict):
            self._undo.append(of_dictionary(value))
            return list(value.values())
        if isinstance(value, list | bytearray | array.array):
            self._undo.append(of_sequence(value))
            return list(value) if isinstance(value, list) else ()
        if isinstance(value, set):
            self._undo.append(of_collection(value, value.update))
            return list(value)
        if isinstance(value, collections.deque):
            self._undo.append(of_collection(value, value.extend))
            return list(value)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            if value.flags.writeable and value.nbytes <= _BYTES:
                self._undo.append(of_array(value))
            return value.ravel().tolist() if value.dtype.hasobject else ()
        return ()

    def _note_object(self, value: Any) -> Iterable[Any]:
        if isinstance(value, torch.Generator):
            drawn = value.get_state()
            self._undo.append(lambda: _ignored(value.set_state(drawn)))
            return ()
        if isinstance(value, random.Random):
            own = value.getstate()
            self._undo.append(lambda: value.setstate(own))
            return ()
        bits = getattr(value, "bit_generator", None)
        if bits is not None:
            held = copy.deepcopy(bits.state)
            self._undo.append(lambda: setattr(bits, "state", copy.deepcopy(held)))
            return ()
        slots = [(slot, value_in(slot, value)) for slot in slots_of(type(value))]
        self._undo += [of_slot(slot, value, held) for slot, held in slots]
        space = getattr(value, "__dict__", None)
        if not isinstance(space, dict):
            return [type(value), *(held for _, held in slots)] if slots else ()
        self._undo.append(of_dictionary(space))
        return [type(value), *(held for _, held in slots), *space.values()]


def _ignored(value: Any) -> None:
    pass


def _read_by(function: types.FunctionType) -> list[Any]:
    """What a function reads by name: globals, what it closes over, its defaults."""
    names = {name for code in _codes_in(function.__code__) for name in code.co_names}
    found = [function.__globals__[n] for n in sorted(names) if n in function.__globals__]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    wrapped = getattr(function, "__wrapped__", None)
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*found, *defaults, *([wrapped] if wrapped is not None else [])]


_BINDS = [opcode.opmap["STORE_GLOBAL"], opcode.opmap["DELETE_GLOBAL"]]


def _bound_outside(code: types.CodeType) -> set[str]:
    """The globals that the code binds anew or deletes."""
    binding = [c for c in _codes_in(code) if any(op in c.co_code[::2] for op in _BINDS)]
    return {i.argval for c in binding for i in dis.get_instructions(c) if i.opcode in _BINDS}


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for held in code.co_consts:
        if isinstance(held, types.CodeType):
            yield from _codes_in(held)


def _drop_gradients(tensor: torch.Tensor) -> None:
    tensor.__dict__.pop("g", None)
    with torch._C.DisableTorchFunction():
        if tensor.is_leaf:
            tensor.grad = None


def _random_state() -> list[Undo]:
    cpu, own = torch.get_rng_state(), random.getstate()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    found: list[Undo] = [
        lambda: torch.set_rng_state(cpu),
        lambda: random.setstate(own),
        lambda: torch.set_default_dtype(dtype),  # a test that fails half-way leaves its settings behind
        lambda: torch._C._set_grad_enabled(grad),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        cuda = torch.cuda.get_rng_state_all()
        found.append(lambda: torch.cuda.set_rng_state_all(cuda))
    if (numpy := sys.modules.get("numpy")) is not None:
        numbers = numpy.random.get_state()
        found.append(lambda: numpy.random.set_state(numbers))
    return found
