"""The three dialects of emitted code: `.g` on tensors, a function, a torch.autograd.Function."""

from __future__ import annotations

import linecache
import re
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.show.folded import folded, in_dictionary
from chainrule.show.layers import layers_of
from chainrule.show.layout import Layout, Line
from chainrule.show.names import keys
from chainrule.show.text import broken, comment, docstring, signature, wrapped


def dotg(program: Program) -> str:
    """Lines that leave `.g` on tensors, to be run where the inputs exist under their names."""
    layout = Layout(program, dotted=True)
    body = [*comment(f"reads: {signature(layout, program.inputs)}"), *_body(layout)]
    asked = [layout.variables[w] for w in program.wanted if w in program.gradients]
    several = len(asked) > 1
    body += (
        _shapes_agree("t.g.shape == t.shape for t in (", asked)
        if several
        else _same_shapes([(f"{a}.g", a) for a in asked])
    )
    return _file("\n".join(body))


def function(program: Program, inputs: list[fx.Node]) -> str:
    """A stand-alone `forward_and_backward(...) -> (output, {name: gradient})`."""
    if stacks := layers_of(program):
        return _file(folded(program, inputs, stacks))
    return _file("\n".join(defined(Layout(program, dotted=False, indent=4), inputs)))


def defined(layout: Layout, inputs: list[fx.Node]) -> list[str]:
    """The lines of `forward_and_backward`, in the language of the layout."""
    program = layout.program
    names = keys(program.graph.nodes)
    grads = {names[w]: _gradient(layout, w) for w in program.wanted}
    pairs = [(_gradient(layout, w), layout.variables[w]) for w in program.wanted if w in program.gradients]
    given = [*inputs, *([program.upstream] if program.upstream is not None else [])]
    arguments = [layout.variables.get(n) or layout.namer.give(n.meta.get("name") or "t") for n in given]
    output = layout.python.text(program.output)
    return [
        wrapped("def forward_and_backward(", arguments, "):"),
        *docstring(f"{signature(layout, given)} -> ({output}, gradients).", "    "),
        *(f"    {line}" for line in _body(layout)),
        *(f"    {line}" for line in _same_shapes(pairs)),
        wrapped(f"    return {output}, {{", [f'"{k}": {v}' for k, v in grads.items()], "}"),
    ]


def autograd(program: Program, inputs: list[fx.Node], name: str) -> str:
    """A stand-alone torch.autograd.Function; `program` takes its upstream gradient as an input."""
    layout = Layout(program, dotted=False, indent=8, upstream_of_output=True)
    upstream = layout.variables[program.upstream] if program.upstream is not None else "out_g"
    arguments = [layout.variables.get(n) or layout.namer.give(n.meta.get("name") or "t") for n in inputs]
    kept = [n for n in layout.live if n.meta.get("kept") and isinstance(n.meta["val"], torch.Tensor)]
    tensors = [layout.variables[n] for n in kept]
    grads = [_gradient(layout, n) if n in program.wanted else "None" for n in inputs]
    forward, backward = layout.written("given", "forward", "holds", "kept"), _where_needed(layout, inputs)
    lines = [
        f"class {name}(torch.autograd.Function):",
        *docstring(f"{signature(layout, inputs)} -> {layout.python.text(program.output)}.", "    "),
        "",
        "    @staticmethod",
        wrapped("    def forward(", ["ctx", *arguments], "):"),
        *_indented(forward),
        *([wrapped("        ctx.save_for_backward(", tensors, ")")] if tensors else []),
        f"        return {layout.python.text(program.output)}",
        "",
        "    @staticmethod",
        "    @torch.autograd.function.once_differentiable",
        f"    def backward(ctx, {upstream}):",
        *([_unpacked(tensors)] if tensors else []),
        *_indented(backward),
        _returned(grads),
    ]
    return _file("\n".join(lines))


def _where_needed(layout: Layout, inputs: list[fx.Node]) -> list[str]:
    """The lines of the backward pass; a product that gives the gradient of one input alone is left out where that
    input needs none."""
    lines: list[str] = []
    read = {n for node in layout.live for n in node.all_input_nodes}
    for line in layout.part("backward"):
        products = [n for n in (line.node, *layout.inlined(line.node)) if _is_product(n)]
        if line.of not in inputs or line.alias or line.node in read or not products:
            lines += line.commented
            continue
        needed = f"ctx.needs_input_grad[{inputs.index(line.of)}]"
        code = f"{line.code} if {needed} else None"
        if len(f"{line.target} = {code}") <= layout.width:
            lines += replace(line, code=code).commented
        else:
            lines += [f"{line.target} = None", f"if {needed}:", *(f"    {text}" for text in line.commented)]
    return lines


def _is_product(node: fx.Node) -> bool:
    operation = node.meta["operation"]
    return operation in ("matmul", "mm", "bmm", "einsum", "outer") or operation.startswith("conv")


def _indented(lines: list[str]) -> list[str]:
    """The lines of a method, those that are too wide broken inside their brackets."""
    return [text for line in lines for text in (broken(f"        {line}") if "#" not in line else [f"        {line}"])]


def described(program: Program) -> str:
    """Forward and backward with the shape of each line beside it, for reading."""
    layout = Layout(program, dotted=True)
    rows: list[tuple[str, str]] = []
    for phase, title in (("forward", "# forward"), ("backward", "# backward")):
        rows.append((title, ""))
        for line in layout.lines:
            if line.phase == phase or (phase == "forward" and line.phase in ("given", "holds")):
                rows.append((line.text, _shape(line) if line.phase == phase else ""))
    width = min(max((len(text) for text, shape in rows if shape), default=0), 88)
    head = comment(f"inputs: {signature(layout, program.inputs)}")
    return "\n".join([*head, *(f"{text:<{width}}  # {shape}" if shape else text for text, shape in rows)])


def _shape(line: Line) -> str:
    value = line.node.meta["val"]
    values = value if isinstance(value, tuple | list) else [value]
    shapes = [str(tuple(v.shape)) for v in values if isinstance(v, torch.Tensor)]
    return ", ".join(shapes)


def _shapes_agree(condition: str, items: list[str]) -> list[str]:
    """A gradient has the shape of its value, or else something was stretched that was not when this was derived."""
    return wrapped(f"assert all({condition}", items, "))").split("\n")


def _same_shapes(pairs: list[tuple[str, str]]) -> list[str]:
    """The same for (gradient, value) pairs of names, in one line where that fits."""
    if len(pairs) < 2:
        return [f"assert {gradient}.shape == {value}.shape" for gradient, value in pairs]
    gradients, values = (", ".join(names) for names in zip(*pairs, strict=True))
    line = f"assert [g.shape for g in ({gradients})] == [t.shape for t in ({values})]"
    if len(line) <= 84:
        return [line]
    return _shapes_agree("g.shape == t.shape for g, t in (", [f"({g}, {v})" for g, v in pairs])


def _body(layout: Layout) -> list[str]:
    given = layout.written("given")
    lines = [*(["# holds for", *given] if given else []), "# forward", *layout.written("forward")]
    if held := layout.written("holds"):
        lines += ["# holds for", *held]
    return [*lines, "# backward", *layout.written("backward")]


def _gradient(layout: Layout, wanted: fx.Node) -> str:
    node = layout.program.gradients.get(wanted)
    if node is None:
        return "None"
    line = next((li for li in layout.part("backward") if li.of is wanted), None)
    return line.target if line else layout.python.text(node)


def _unpacked(names: list[str]) -> str:
    line = f"        {', '.join(names)} = ctx.saved_tensors"
    if len(names) > 1 and len(line) <= 88:
        return line
    return wrapped("        (", names, ",) = ctx.saved_tensors" if len(names) == 1 else ") = ctx.saved_tensors")


def _returned(values: list[str]) -> str:
    line = f"        return {', '.join(values)}"
    return line if len(line) <= 88 else wrapped("        return (", values, ")")


def _file(body: str) -> str:
    """The body with the imports that it needs."""
    head = "import torch\n"
    if re.search(r"\bF\.", body):
        head += "import torch.nn.functional as F\n"
    gap = "\n\n" if body.startswith(("def ", "class ")) else "\n"
    return f"{head}{gap}{body}\n"


def called(
    program: Program, function: Any, inputs: list[fx.Node], values: list[Any]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Call an emitted `forward_and_backward` with the values of `inputs`, and of the upstream gradient if it takes one."""
    if "below" not in function.__globals__:  # the tensors one by one
        result: tuple[torch.Tensor, dict[str, torch.Tensor]] = function(*values)
        return result
    names = keys(program.graph.nodes)
    held = in_dictionary(program, inputs)
    given = dict(zip(inputs, values, strict=False))
    plain = [v for n, v in given.items() if n not in held] + values[len(inputs) :]
    return function(*plain, {names[n]: given[n] for n in held})


def executed(source: str, space: dict[str, Any] | None = None) -> dict[str, Any]:
    """The namespace that the stand-alone `source` leaves; code that is no definition is compiled only."""
    file = f"<chainrule {abs(hash(source)):x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = dict(space or {})
    code = compile(source, file, "exec")
    if re.search(r"^(def|class) ", source, re.MULTILINE):
        exec(code, namespace)
    return namespace | {"__code__": code}
