"""The engine "torch": the step as straight-line Python, calls of torch that write into memory planned ahead."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.merging import parts
from chainrule.compiling.memory import is_view, owner, size_of, transposes
from chainrule.compiling.straight import products
from chainrule.compiling.straight.arrangement import Arrangement
from chainrule.compiling.straight.schedule import Line
from chainrule.compiling.straight.spelling import COPIES, in_place, literal, spelling
from chainrule.errors import ChainruleError


class Straight(Arrangement):
    """Writes the lines of a step: `text`, which refers to the objects in `space`."""

    entry = "step"  # the name of the function

    def written(self) -> str:
        """The code."""
        self._allocate()
        return self._body(self.lines, self.alive)

    @property
    def views(self) -> list[tuple[str, str]]:
        """The views of memory that is held, made once before the step runs: name and code."""
        found = {}
        for line in self.lines:
            node = line.node
            if node is not None and is_view(node) and node in self.tensors and line.kind == "operation":
                name = node.target._schema.name.split("::")[1]  # type: ignore[union-attr]
                rest = [self._arg(a) for a in node.args[1:]]
                found[self._name(node)] = f"{self._arg(node.args[0])}.{name}({', '.join(rest)})"
        return list(found.items())

    def _allocate(self) -> None:
        """Make the tensors that lie in the arena, and all views of what is known."""
        device = next((t.device for t in self.tensors.values()), torch.device("cpu"))
        memory = torch.empty(self.memory.arena, dtype=torch.uint8, device=device)
        self.space["arena"] = memory
        for line in self.lines:
            node = line.node
            if line.kind != "operation" or node is None or node in self.tensors:
                continue
            value: Any = node.meta.get("val")
            if self.at.get(node) == "arena":
                start = self.arena.offsets[node]
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
                pairs = [(p, g) for p, g in self.lowered.gradients.items() if p in self.together]
                late = [(p, self._arg(p), self._arg(g)) for p, g in pairs]
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
        return f"def {self.entry}({arguments}):\n{inner}\n"

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
            return []  # taken apart where it was made
        if node in self.ways:
            return [self._product(node)]
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return [self._taken_apart(node, self._call(target.__name__, target, node.args, node.kwargs))]
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
        return [self._taken_apart(node, call_text)]

    def _taken_apart(self, node: fx.Node, call: str) -> str:
        """A call, with a name for each of its results."""
        if not isinstance(node.meta["val"], tuple | list):
            return f"{self._name(node)} = {call}"
        found = {k: part for k, part in parts(node).items() if part not in self.tensors}
        if not found and any(part in self.tensors for part in parts(node).values()):
            return call  # all that it gives lies in memory that stays
        names = [self._name(found[k]) if k in found else "_" for k in range(len(node.meta["val"]))]
        text = f"{', '.join(names)}{',' if len(names) == 1 else ''} = {call}"
        return f"{text}; del _" if "_" in names else text

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
        """A product in the way that was chosen: into memory that is held, or into new memory."""
        found = products.operands(node)
        assert found is not None
        a, b, bias = found
        code, name = self.ways[node].code, self._name(node)
        for known, function in products.SPACE.items():
            if code.startswith(f"{known}("):
                self.space[known] = function
        into = self.ways[node].into and node in self.tensors
        text = (code if into else code.replace(", out={out}", "")).format(
            a=self._arg(a), b=self._arg(b), bt=self._transposed(b) if "{bt}" in code else "",
            bias=self._arg(bias), out=name,
        )  # fmt: skip
        return text if into else f"{name} = {text}"

    def _transposed(self, node: fx.Node) -> str:
        """The transpose of a matrix: what it is the transpose of, or a view made now, or in the step."""
        source: Any = node.args[0] if is_view(node) else None
        if source is not None and source.meta["val"].ndim == 2:
            value, given = node.meta["val"], source.meta["val"]
            if value.shape == given.shape[::-1] and value.stride() == given.stride()[::-1] and transposes(node):
                return self._arg(source)
        if node in self.tensors:
            return self._object(f"{self._name(node)}_t", _same(self.space, self.tensors[node].t()))
        return f"{self._arg(node)}.t()"

    def _move(self, gradient: fx.Node, p: fx.Node) -> list[str]:
        assert self.moves is not None
        if p in self.folded:
            found = products.operands(gradient)
            assert found is not None
            return self.moves.by_product(
                p, self._moving(p, gradient), self._arg(found[0]), self._arg(found[1]), self.space
            )
        return self.moves.by_gradient(p, gradient, self._moving(p, gradient), self._arg(gradient), self.space)

    def _moving(self, p: fx.Node, gradient: fx.Node) -> str:
        """The name of what moves."""
        return self._arg(p)

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
