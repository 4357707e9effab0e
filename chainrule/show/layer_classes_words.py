"""The names in classes of layers, and the renaming of variables in lines of code."""

from __future__ import annotations

import itertools
import re

from torch import fx

from chainrule.show.layer_classes_cut import Cut
from chainrule.show.names import Namer


def fresh(title: str, taken: set[str]) -> str:
    """Lin, Lin2, Lin3."""
    return next(name for k in itertools.count(1) if (name := title if k == 1 else f"{title}{k}") not in taken)


def kept(names: list[str]) -> list[str]:
    """The lines that keep values in `self`."""
    line = f"        {', '.join(f'self.{n}' for n in names)} = {', '.join(names)}"
    return [line] if len(line) <= 88 else [f"        self.{n} = {n}" for n in names]


def input_names(uses: list[Cut], held: list[fx.Node]) -> list[str]:
    """The name of each input of a class: the person's, where all uses agree, else one of its role."""
    found = []
    for i, node in enumerate(uses[0].inputs):
        names = {own_name(use, use.inputs[i], held) for use in uses}
        if len(names) == 1:
            found.append(names.pop())
        elif node in held:
            found.append("w" if node.meta["val"].ndim > 1 else "b")
        else:
            found.append("inp")
    return found


def own_name(cut: Cut, node: fx.Node, held: list[fx.Node]) -> str:
    """The name of the function's argument, or the person's; of parameters what their modules do not share."""
    name = cut.words.get(node) or str(node.meta.get("name") or "inp")
    if "." in name:
        paths = [str(n.meta.get("name")).split(".")[:-1] for n in cut.inputs if n in held]
        levels = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
        shared = sum(1 for _ in levels) if node in held else 0
        name = "_".join(name.split(".")[shared:]) if shared else name.rpartition(".")[2]
    return "inp" if name == "out" else name  # what it gives is its `out`


def without_clashes(names: list[str], variables: list[str]) -> dict[str, str]:
    """The final names of a class's variables, by those that its code was derived with."""
    namer = Namer()
    namer.taken |= {v for v in variables if not re.fullmatch(r"v\d+", v)} | {"self", "out"}
    return {f"v{i}": namer.give(name if not name.isdigit() else "w") for i, name in enumerate(names)}


_TEXT = r'"(?:[^"\\]|\\.)*"'


def tokens(line: str, name: str) -> list[str]:
    """Where a line of code mentions the variable `name`."""
    pattern = rf"{_TEXT}|(?<![\w.]){re.escape(name)}\b(?!=[^=])"
    return [m for m in re.findall(pattern, line) if not m.startswith('"')]


def mentions(line: str, name: str) -> bool:
    return bool(tokens(line, name))


def renamed(line: str, names: dict[str, str]) -> str:
    """A line of code with other variables; text, attributes and keywords stay."""
    if not names:
        return line
    words = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    return re.sub(rf"{_TEXT}|(?<![\w.])(?:{words})\b(?!=[^=])", lambda m: names.get(m[0], m[0]), line)
