"""A functional graph of aten as a C function that is called with raw pointers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx

from chainrule.compiling.c.build import library, machine
from chainrule.compiling.c.lowering import Lowering
from chainrule.compiling.c.page import ALIGNMENT, Page, index_checks, write_page
from chainrule.compiling.c.schedule import Schedule
from chainrule.compiling.c.storage import Home, own_memory, stored_values
from chainrule.compiling.c.values import Buffer, Value, View, dims
from chainrule.errors import ChainruleError, NotFinite


class CStep:
    """The compiled step. Called with the tensors of the placeholders in order, it gives the outputs, in new tensors,
    and leaves the written values in place. Their types, shapes and strides are those of the graph: the caller sees to
    that. One step is not to be called from two threads at a time.

    `source` is the C text; `large_products` names the products that a tuned library is better at.
    """

    def __init__(
        self,
        page: Page,
        placeholders: Sequence[fx.Node],
        results: Sequence[tuple[tuple[int, ...], torch.dtype]],
        threads: int,
    ) -> None:
        self.source, self.large_products = page.text, page.large_products
        self._page, self._placeholders, self._results = page, list(placeholders), list(results)
        self._library = library(page.text, threads)
        self._function = self._library.step
        self._function.argtypes, self._function.restype = [ctypes.c_void_p], ctypes.c_int
        self._call: Callable[..., tuple[Tensor, ...]] | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self._call is None:
            self._call = self.bind({})
        return self._call(*tensors)

    @property
    def arena(self) -> int:
        """The bytes that it works in, held between calls."""
        return self._page.arena + ALIGNMENT

    def bind(
        self, fixed: Mapping[fx.Node, Tensor], scratch: Tensor | None = None, fresh: bool = False
    ) -> Callable[..., tuple[Tensor, ...]]:
        """The step with some placeholders fixed: their memory is looked up once. The function that comes back takes
        the other tensors, in order. It works in `scratch`, of `arena` bytes at least, or in memory of its own, or
        (`fresh`) in memory that is there for one call."""
        if scratch is None:
            scratch = torch.empty(0 if fresh else self.arena, dtype=torch.uint8)
        count = len(self._placeholders)
        pointers = (ctypes.c_void_p * (count + len(self._results) + 1))()
        for place, node in enumerate(self._placeholders):
            if node in fixed:
                pointers[place] = fixed[node].data_ptr()
        start = scratch.data_ptr()
        pointers[len(pointers) - 1] = start + -start % ALIGNMENT
        varying = [place for place, node in enumerate(self._placeholders) if node not in fixed]
        # Written out, for the loops would cost as much as the call.
        lines = [f"def call({', '.join(f'x{place}' for place in varying)}):"]
        lines += [f"    pointers[{place}] = x{place}.data_ptr()" for place in varying]
        for i in range(len(self._results)):
            lines += [f"    r{i} = empty_like(like[{i}])", f"    pointers[{count + i}] = r{i}.data_ptr()"]
        if fresh:
            lines += [f"    work = empty({self.arena}, dtype=uint8)", "    start = work.data_ptr()"]
            lines += [f"    pointers[{len(pointers) - 1}] = start + -start % {ALIGNMENT}"]
        lines += ["    status = function(address)", "    if status:", "        raise failure(status)"]
        lines += [f"    return ({''.join(f'r{i}, ' for i in range(len(self._results)))})"]
        scope = {
            "pointers": pointers,
            "address": ctypes.addressof(pointers),
            "function": self._function,
            "empty_like": torch.empty_like,
            "empty": torch.empty,
            "uint8": torch.uint8,
            "like": [torch.empty(shape, dtype=dtype) for shape, dtype in self._results],
            "failure": self._failure,
            "kept": (fixed, scratch),
        }
        exec("\n".join(lines), scope)
        return cast("Callable[..., tuple[Tensor, ...]]", scope["call"])

    def _failure(self, status: int) -> ChainruleError:
        if status > len(self._page.checks):
            return NotFinite("the loss is not finite; nothing was changed")
        return ChainruleError(f"{self._page.checks[status - 1]}; nothing was changed")


def compile_c(
    graph: fx.Graph,
    outputs: Sequence[fx.Node],
    writes: Mapping[fx.Node, fx.Node],
    names: Mapping[fx.Node, str] | None = None,
    threads: int | None = None,
    finite: fx.Node | None = None,
) -> CStep:
    """The graph, functional and of aten alone with static shapes, as one C function.

    `outputs` are given back in new tensors; `writes` says which placeholder is given the value of which node, in place.
    `names` are the person's, `threads` torch's number unless given. Where `finite`, one of the outputs, is not finite,
    nothing is written and a call raises NotFinite.

    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> x, w = torch.ones(4, 3), torch.ones(3, 2)
    >>> graph = make_fx(lambda x, w: (x @ w).sum(), tracing_mode="fake")(x, w).graph
    >>> result = next(n for n in graph.nodes if n.op == "output").args[0]
    >>> compile_c(graph, [result], {})(x, w)
    (tensor(24.),)

    Raises NoSpelling where C has no spelling for an operation, NoCompiler where no C compiler is found.
    """
    threads = threads or torch.get_num_threads()
    lowering = Lowering(graph, names or {})
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    homes: dict[Value, Home] = {}
    roots: list[Value] = []

    def root(value: Value, home: Home) -> None:
        """The value, or a copy of it where it is in memory already, is stored there."""
        if isinstance(value, Buffer) or value in homes:
            value = View(value.shape, value.dtype, value, dims(value.shape))
        homes[value] = home
        roots.append(value)

    for placeholder, node in writes.items():
        if lowering.values[node] is lowering.values[placeholder]:
            continue
        root(lowering.values[node], Home(lowering.buffers[placeholder], lowering.layout(placeholder)))
    results, first = [], None
    for node in outputs:
        value = lowering.values[node]
        home = own_memory(value, value.name or node.name)
        root(value, home)
        first = roots[-1] if node is finite else first
        results.append(home.buffer)
    checks = index_checks(roots)
    stored = stored_values([*(value for value, _ in checks), *roots])
    for value in stored:
        if value not in homes:
            homes[value] = own_memory(value, value.name or "t")
    schedule = Schedule(stored, homes, set(lowering.buffers.values()), {value for value, _ in checks}, first, threads)
    given = [*(lowering.buffers[n] for n in placeholders), *results]
    page = write_page(schedule, checks, given, machine(), threads, title(placeholders, writes))
    return CStep(page, placeholders, [(b.shape, b.dtype) for b in results], threads)


def title(placeholders: Sequence[fx.Node], writes: Mapping[fx.Node, fx.Node]) -> str:
    return f"{len(placeholders)} arguments, {len(writes)} of them written"
