"""The engine "torch": the step as straight-line Python, calls of torch that write into memory planned ahead."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.compiling import products
from chainrule.compiling.lowering import Lowered
from chainrule.compiling.memory import Arena, Interval, arranged, is_view, most_alive, owner, size_of
from chainrule.compiling.merging import parts
from chainrule.compiling.moves import Moves
from chainrule.compiling.schedule import Line, lives, scheduled
from chainrule.errors import ChainruleError
from chainrule.compiling.spelling import COPIES, Names, in_place, literal, overwritable, spelling


LARGE = 1 << 17  # bytes: a value of this size is allocated when it is made, so that its memory is free after it
RESERVED = (
    "torch",
    "step",
    "isfinite",
    "stop",
    "arena",
    "check",
    "optimiser",
    "lr",
    "taken",
    "sgd_",
    "adam_",
    "move",
    "_",
    *products.SPACE,
)


@dataclass
class Buffer:
    """Memory that a value lies in: at `offset` of the arena, or (None) allocated by its line."""

    name: str
    shape: tuple[int, ...]
    size: int
    offset: int | None
    first: int
    last: int


@dataclass
class Emitted:
    """A step as code, with what it refers to."""

    text: str
    space: dict[str, Any]
    lines: int
    buffers: list[Buffer]
    arena: int  # bytes held between steps
    allocated: int  # the most bytes allocated at one time beside the arena
    constants: int  # bytes
    choices: list[tuple[str, products.Choice]] = field(default_factory=list)
    names: dict[fx.Node, str] = field(default_factory=dict)


class Straight:
    """Writes the lines of a step. `moves` says how parameters move; without it, gradients are returned."""

    def __init__(self, lowered: Lowered, moves: Moves | None) -> None:
        self.lowered, self.moves = lowered, moves
        self.names = Names()
        self.functions: dict[str, str] = {}  # the names of operations in the code
        for name in RESERVED:
            self.names.fresh(name)
        for node in lowered.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload):
                self.functions.setdefault(spelling(node.target).name, "")
        self.functions = {name: self.names.fresh(name) for name in self.functions}
        if moves is not None:
            moves.name = self.names.fresh
        self.text_of: dict[fx.Node, str] = {}
        self.tensors: dict[fx.Node, torch.Tensor] = {}  # what is known before the step runs
        self.space: dict[str, Any] = {"torch": torch}
        self.at: dict[fx.Node, str] = {}  # "arena", "allocated" or "over": in the memory of what it overwrites
        self.over: dict[fx.Node, fx.Node] = {}
        self.choices: list[tuple[str, products.Choice]] = []
        self.ways: dict[fx.Node, products.Way] = {}
        self.folded: dict[fx.Node, fx.Node] = {}
        self.outputs: set[fx.Node] = set()

    def emitted(self) -> Emitted:
        """The code, with what it refers to."""
        lines, alive, constants = self._arranged()
        intervals = self._intervals(alive)
        arena = arranged(i for i in intervals if self.at[i.node] == "arena")
        self._allocate(arena, lines)
        body = self._body(lines, alive)
        fresh = [i for i in intervals if self.at[i.node] == "allocated"] + self._copied(alive)
        buffers = [
            Buffer(self.text_of[i.node], tuple(i.node.meta["val"].shape), i.size, arena.offsets.get(i.node), i.first, i.last)
            for i in sorted(intervals, key=lambda i: i.first)
        ]
        return Emitted(
            body, self.space, len(lines), buffers, arena.size, most_alive(fresh), constants, self.choices, self.text_of
        )

    def peak(self) -> int:
        """The bytes that the step will need, beside parameters and batch."""
        lines, alive, constants = self._arranged()
        intervals = self._intervals(alive)
        arena = arranged(i for i in intervals if self.at[i.node] == "arena")
        fresh = [i for i in intervals if self.at[i.node] == "allocated"] + self._copied(alive)
        return arena.size + most_alive(fresh) + constants

    def _arranged(self) -> tuple[list[Line], dict[fx.Node, tuple[int, int]], int]:
        """The lines in order, how long each value lives, and the bytes of constants."""
        self._inputs()
        constants = self._constants()
        self.folded = self.moves.folded(self.lowered) if self.moves else {}
        self._choose_ways(self.folded)
        together = self.moves.together(self.lowered) - set(self.folded) if self.moves else set()
        lines = scheduled(self.lowered, self.moves is not None, self.folded, together)
        self.outputs = {self.lowered.loss} | (set() if self.moves else set(self.lowered.gradients.values()))
        alive = lives(lines, self.folded, self.outputs)
        self._place(lines, alive, self.outputs)
        self._name_groups()
        return lines, alive, constants

    # -- what is known before ----------------------------------------------------------------------

    def _name(self, node: fx.Node) -> str:
        if node not in self.text_of:
            self.text_of[node] = self.names.fresh(self.lowered.names.get(node, node.name))
        return self.text_of[node]

    def _keep(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """A tensor that the code refers to by name."""
        self.tensors[node] = tensor
        self.space[self._name(node)] = tensor

    def _inputs(self) -> None:
        for node in self.lowered.batch:
            if node is not None:
                self._name(node)
        for node, tensor in self.lowered.held.items():
            self._keep(node, tensor.detach())
        for node in self.lowered.drawn:
            like = node.meta["val"]
            self._keep(node, torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device))

    def _constants(self) -> int:
        """Compute what depends on no input, once."""
        known: dict[fx.Node, Any] = {}
        for node in self.lowered.graph.nodes:
            random = (
                isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
            )
            if node.op == "call_function" and not random and all(n in known for n in node.all_input_nodes):
                args = fx.map_arg(node.args, known.__getitem__)
                with torch.no_grad():
                    known[node] = node.target(*args, **fx.map_arg(node.kwargs, known.__getitem__))  # type: ignore[operator]
        used = {n for n in known if any(u not in known for u in n.users) and isinstance(known[n], torch.Tensor)}
        for node in used:
            self._keep(node, known[node])
        self.constant = set(known)
        return sum(size_of(known[n]) for n in used)

    def _choose_ways(self, folded: dict[fx.Node, fx.Node]) -> None:
        """Measure the ways of each product, and of each move that a product could be folded into."""
        homes = {node: p for p, node in folded.items()}
        for node in self.lowered.graph.nodes:
            found = products.operands(node)
            if found is None or node in self.constant:
                continue
            a, b, bias = (n.meta["val"] if n is not None else None for n in found)
            with torch.no_grad():
                choice = products.fastest(a, b, bias)  # type: ignore[arg-type]
            self.ways[node] = choice.way
            if node in homes and choice.way is not products.MM:
                del folded[homes[node]]  # a faster product, and then the move
            self.choices.append((self._name(node), choice))

    # -- where values lie ----------------------------------------------------------------------------

    def _place(self, lines: list[Line], alive: dict[fx.Node, tuple[int, int]], outputs: set[fx.Node]) -> None:
        returned = {owner(n) for n in outputs}
        for i, line in enumerate(lines):
            node = line.node
            if line.kind != "operation" or node is None or node in self.constant or owner(node) is not node:
                continue
            overwritten = self._dying_operand(node, i, alive, returned)
            if overwritten is not None:
                self.at[node], self.over[node] = "over", overwritten
                root = self._root(owner(overwritten))
                alive[root] = (alive[root][0], max(alive[root][1], alive[node][1]))
            elif node not in returned and self._writes_into_memory(node):
                self.at[node] = "arena"
            elif isinstance(node.meta.get("val"), torch.Tensor):
                self.at[node] = "allocated"

    def _name_groups(self) -> None:
        """Values that are written over one another have one name: the person's, where one of them has one."""
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node, first in self.over.items():
            while first in self.over:
                first = self.over[first]
            groups.setdefault(first, []).append(node)
        for root, members in groups.items():
            named = next((n for n in (*reversed(members), root) if n in self.lowered.names), root)
            name = self._name(named)
            for node in (root, *members):
                self.text_of[node] = name

    def _root(self, node: fx.Node) -> fx.Node:
        """The value whose memory this one was written over."""
        while node in self.over:
            node = owner(self.over[node])
        return node

    def _writes_into_memory(self, node: fx.Node) -> bool:
        if not isinstance(node.meta["val"], torch.Tensor) or size_of(node.meta["val"]) >= LARGE:
            return False
        if node in self.ways:
            return self.ways[node].into
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return False
        if spelling(target).rest and node.meta["val"].shape != node.args[0].meta["val"].shape:  # type: ignore[union-attr]
            return False  # a loss: torch sizes the memory as if it were not reduced, and warns
        return target in COPIES or spelling(target).out is not None

    def _dying_operand(
        self, node: fx.Node, i: int, alive: dict[fx.Node, tuple[int, int]], returned: set[fx.Node]
    ) -> fx.Node | None:
        """An operand of the same layout that nobody reads after this operation, which may write over it."""
        value = node.meta.get("val")
        for operand in overwritable(node):
            home = owner(operand)
            root = self._root(home)
            given = operand.meta["val"]
            ours = self.at.get(root) in ("arena", "allocated") and (
                node not in returned or self.at[root] == "allocated"
            )
            same = given.shape == value.shape and given.stride() == value.stride() and given.dtype == value.dtype
            same = same and torch._debug_has_internal_overlap(_blank(given)) == 0
            dies = max(alive.get(home, (0, -1))[1], alive.get(root, (0, -1))[1]) == i
            if ours and same and dies and size_of(given) == size_of(root.meta["val"]):
                return operand
        return None

    def _intervals(self, alive: dict[fx.Node, tuple[int, int]]) -> list[Interval]:
        found = [
            Interval(node, size_of(node.meta["val"]), *alive[node])
            for node, where in self.at.items()
            if where != "over" and isinstance(node.meta.get("val"), torch.Tensor)
        ]
        return found

    def _copied(self, alive: dict[fx.Node, tuple[int, int]]) -> list[Interval]:
        """Operands that are copied while an operation runs: the left one of oneDNN, unless it lies in rows."""
        found = []
        for node, (line, _) in alive.items():
            copied: Any = None
            if node in self.ways and not self.ways[node].into:
                a, b, _ = products.operands(node)  # type: ignore[misc]
                left, step = (b, 0) if self.ways[node].transposed else (a, 1)
                copied = left if left.meta["val"].stride(step) != 1 else None
            elif node.target is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
                copied = node.args[0]
            if copied is not None:
                found.append(Interval(copied, size_of(copied.meta["val"]), line, line))
        return found

    def _allocate(self, arena: Arena, lines: list[Line]) -> None:
        """Make the tensors that lie in the arena, and all views of what is known."""
        device = next((t.device for t in self.tensors.values()), torch.device("cpu"))
        memory = torch.empty(arena.size, dtype=torch.uint8, device=device)
        self.space["arena"] = memory
        for line in lines:
            node = line.node
            if line.kind != "operation" or node is None or node in self.tensors:
                continue
            value = node.meta.get("val")
            if self.at.get(node) == "arena":
                start = arena.offsets[node]
                flat = memory[start : start + size_of(value)].view(value.dtype)
                self._keep(node, flat.as_strided(value.shape, value.stride()))
            elif self.at.get(node) == "over" and self.over[node] in self.tensors:
                self._keep(node, self.tensors[self.over[node]])
            elif is_view(node) and node.args[0] in self.tensors:
                args = fx.map_arg(node.args, lambda n: self.tensors[n])
                view = node.target(*args, **node.kwargs)  # type: ignore[operator]
                for part, tensor in (
                    [(parts(node)[k], view[k]) for k in parts(node)]
                    if isinstance(view, list | tuple)
                    else [(node, view)]
                ):
                    self._keep(part, tensor)

    # -- code ----------------------------------------------------------------------------------------

    def _body(self, lines: list[Line], alive: dict[fx.Node, tuple[int, int]]) -> str:
        body: list[str] = []
        if self.moves:
            body += self.moves.opening(self.space)
        for node, again in self.lowered.drawn.items():
            name = self._name(node)
            body.append(f"{name}.copy_({self._object(f'draw_{name}', again)}())")
        dying = self._deaths(lines, alive)
        for i, line in enumerate(lines):
            if line.kind == "operation" and line.node is not None:
                body += self._operation(line.node)
            elif line.kind == "check":
                body += self._check()
            elif line.kind == "write" and line.home is not None and line.node is not None:
                body.append(f"{self._arg(line.home)}.copy_({self._arg(line.node)})")
            elif line.kind == "close" and self.moves:
                homes = {g: p for p, g in self.lowered.gradients.items()}
                late = [(homes[g], self._arg(homes[g]), self._arg(g)) for g in line.late]
                body += self.moves.closing(late, self.space)
            elif self.moves and line.home is not None and line.node is not None:
                body += self._move(line.node, line.home)
            if dying.get(i):
                body.append(f"del {', '.join(dying[i])}")
        body.append(f"return {self._returned()}")
        arguments = ", ".join(
            self._name(n) if n is not None else self.names.fresh("unused") for n in self.lowered.batch
        )
        inner = "\n".join(f"    {line}" for line in body)
        return f"def step({arguments}):\n{inner}\n"

    def _check(self) -> list[str]:
        """The look at the loss and the guards, before anything that stays is written."""
        lines: list[str] = []
        if self.moves or self.lowered.writes:
            arguments = ", ".join(self._name(n) for n in self.lowered.batch if n is not None)
            lines += [f"if not isfinite({self._arg(self.lowered.loss)}.item()):", f"    stop({arguments})"]
        for guard, meaning in self.lowered.guards:
            lines += [f"if not {self._arg(guard)}.item():", f"    {self._object('refuse', _refusal(meaning))}()"]
        return lines

    def _deaths(self, lines: list[Line], alive: dict[fx.Node, tuple[int, int]]) -> dict[int, list[str]]:
        """The local variables that end after each line."""
        found: dict[int, list[str]] = {}
        for node in [n for line in lines if line.kind == "operation" and (n := line.node) is not None]:
            if node in self.tensors or node in self.constant or not isinstance(node.meta.get("val"), torch.Tensor):
                continue
            home = owner(node)
            if home in alive and alive[home][1] < len(lines) and self._root(home) not in self._returned_roots:
                names = found.setdefault(alive[self._root(home)][1], [])
                if self._name(node) not in names:
                    names.append(self._name(node))
        return found

    @property
    def _returned_roots(self) -> set[fx.Node]:
        outputs = [self.lowered.loss] + ([] if self.moves else list(self.lowered.gradients.values()))
        return {self._root(owner(n)) for n in outputs}

    def _object(self, wanted: str, value: Any) -> str:
        """The name under which the code knows an object."""
        for name, known in self.space.items():
            if known is value:
                return name
        name = self.names.fresh(wanted)
        self.space[name] = value
        return name

    def _arg(self, value: Any) -> str:
        return literal(value, self._name, lambda v: self._object("constant", v))

    def _call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        given = [self._arg(a) for a in args] + [f"{k}={self._arg(v)}" for k, v in kwargs.items()]
        known = self.functions.get(name)
        if known is None or self.space.setdefault(known, function) is not function:
            known = self._object(name, function)
        return f"{known}({', '.join(given)})"

    def _operation(self, node: fx.Node) -> list[str]:
        if node in self.constant or (is_view(node) and node.args[0] in self.tensors):
            return []
        if node.target is operator.getitem:
            call = node.args[0]
            assert isinstance(call, fx.Node)
            if isinstance(call.target, torch._ops.OpOverload):
                return []  # taken apart where it was made
            return [f"{self._name(node)} = {self._arg(call)}[{node.args[1]!r}]"]
        if node in self.ways:
            return [self._product(node)]
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return [
                f"{self._name(node)} = {self._call(getattr(target, '__name__', 'call'), target, node.args, node.kwargs)}"
            ]
        spelled, name = spelling(target), self._name(node)
        args, kwargs = spelled.completed(node.args, node.kwargs)
        where = self.at.get(node)
        if where == "over":
            return [self._over(node)]
        if where == "arena" and target in COPIES:
            return [f"{name}.copy_({self._arg(node.args[0])})"]
        if where == "arena":
            assert spelled.out is not None and spelled.out_function is not None
            return [f"{self._call(spelled.name, spelled.out_function, args, kwargs)[:-1]}, {spelled.out}={name})"]
        call_text = self._call(spelled.name, spelled.function, args, kwargs)
        if isinstance(node.meta["val"], tuple | list):
            found = parts(node)
            names = [self._name(found[k]) if k in found else "_" for k in range(len(node.meta["val"]))]
            return [f"{', '.join(names)}{',' if len(names) == 1 else ''} = {call_text}"]
        return [f"{name} = {call_text}"]

    def _over(self, node: fx.Node) -> str:
        """An elementwise operation that writes over one of its operands."""
        target: Any = node.target
        operand, spelled, method = self.over[node], spelling(target), in_place(target)
        if method is not None and node.args[0] is operand:
            rest = [self._arg(a) for a in node.args[1:]] + [f"{k}={self._arg(v)}" for k, v in node.kwargs.items()]
            return f"{self._arg(operand)}.{target._schema.name.split('::')[1]}_({', '.join(rest)})"
        assert spelled.out is not None and spelled.out_function is not None
        args, kwargs = spelled.completed(node.args, node.kwargs)
        inner = self._call(spelled.name, spelled.out_function, args, kwargs)[:-1]
        return f"{inner}, {spelled.out}={self._arg(operand)})"

    def _product(self, node: fx.Node) -> str:
        found = products.operands(node)
        assert found is not None
        way, name = self.ways[node], self._name(node)
        text = self._product_text(way, found, name)
        return (
            text
            if way.into and node in self.tensors
            else f"{name} = {text}"
            if not way.into
            else self._fresh_product(node, way, found)
        )

    def _fresh_product(self, node: fx.Node, way: products.Way, found: tuple[fx.Node, fx.Node, fx.Node | None]) -> str:
        code = way.code.replace(", out={out}", "")
        return f"{self._name(node)} = {self._formatted(code, found, '')}"

    def _product_text(self, way: products.Way, found: tuple[fx.Node, fx.Node, fx.Node | None], out: str) -> str:
        return self._formatted(way.code, found, out)

    def _formatted(self, code: str, found: tuple[fx.Node, fx.Node, fx.Node | None], out: str) -> str:
        a, b, bias = found
        for name in ("mm", "addmm", "onednn"):
            if code.startswith(f"{name}("):
                self.space[name] = products.SPACE[name]
        return code.format(
            a=self._arg(a), b=self._arg(b), bias=self._arg(bias), out=out,
            at=self._transposed(a) if "{at}" in code else "", bt=self._transposed(b) if "{bt}" in code else "",
        )  # fmt: skip

    def _transposed(self, node: fx.Node) -> str:
        """The transpose of a matrix: what it is the transpose of, or a view made now, or in the step."""
        if node.target in (torch.ops.aten.t.default, torch.ops.aten.permute.default, torch.ops.aten.transpose.int):
            return self._arg(node.args[0])
        if node in self.tensors:
            return self._object(f"{self._name(node)}_t", _same(self.space, self.tensors[node].t()))
        return f"{self._arg(node)}.t()"

    def _move(self, gradient: fx.Node, p: fx.Node) -> list[str]:
        assert self.moves is not None
        if p in self.folded:
            found = products.operands(gradient)
            assert found is not None
            return self.moves.by_product(p, self._arg(p), self._arg(found[0]), self._arg(found[1]), self.space)
        return self.moves.by_gradient(p, gradient, self._arg(p), self._arg(gradient), self.space)

    def _returned(self) -> str:
        loss = self.lowered.loss
        text = self._arg(loss)
        if loss in self.tensors or owner(loss).op == "placeholder":
            text += ".clone()"
        if self.moves:
            return text
        taken: set[fx.Node] = set()
        gradients = []
        for p, g in self.lowered.gradients.items():
            home = self._root(owner(g))
            shared = home in taken or home.op == "placeholder" or home in self.constant or home in self.tensors
            taken.add(home)
            gradients.append(f"{self.lowered.names[p]!r}: {self._arg(g)}{'.clone()' if shared else ''}")
        return f"{text}, {{{', '.join(gradients)}}}"


def _blank(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(value.shape, value.stride(), device="meta")


def _refusal(meaning: str) -> Callable[[], None]:
    def refuse() -> None:
        raise ChainruleError(meaning)

    return refuse


def _same(space: dict[str, Any], view: torch.Tensor) -> torch.Tensor:
    """The view that the code already has of this memory, if there is one."""
    for known in space.values():
        if (
            isinstance(known, torch.Tensor)
            and known.data_ptr() == view.data_ptr()
            and known.shape == view.shape
            and known.stride() == view.stride()
            and known.dtype == view.dtype
        ):
            return known
    return view
