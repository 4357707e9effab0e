"""Names of operations as people write them, and what the rule book has under them."""

from __future__ import annotations

import difflib
import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.cli import Refused
from chainrule.recording.calls import SYNONYMS, operation_name
from chainrule.rules import BOOK, Rule
from chainrule.show.python import path_of

_ROOMS = {
    "F": torch.nn.functional, "functional": torch.nn.functional, "nn": torch.nn, "torch": torch,
    "Tensor": torch.Tensor, "x": torch.Tensor, "linalg": torch.linalg, "special": torch.special, "fft": torch.fft,
}  # fmt: skip
_SEARCHED = (torch, torch.nn.functional, torch.Tensor, torch.linalg, torch.special, torch.fft)


@dataclass
class Entry:
    """What the book has under a name: a rule, an opening (recorded as its parts), or a constant."""

    name: str
    function: Any = None
    rule: Rule | None = None
    replacement: Any = None
    constant: str = ""

    @property
    def backward(self) -> Any:
        """The Python function that stands in the book."""
        return self.rule.backward if self.rule is not None else self.replacement


def find(name: str) -> Entry:
    """The entry for `name`, which may be written as `layer_norm`, `F.layer_norm` or `nn.LayerNorm`.

    >>> find("torch.nn.functional.layer_norm").name, find("Tensor.clip_").name, find("nn.LayerNorm").name
    ('layer_norm', 'clamp', 'layer_norm')
    """
    entry = _known(name) or next((e for f in _objects(name) if (e := _of(f)) is not None), None)
    if entry is not None:
        return entry
    near = _near(name.rpartition(".")[2])
    hint = f"did you mean {' or '.join(near)}?" if near else "see `chainrule rules` for the list"
    raise Refused(f"there is no rule for {name}; {hint}")


def _known(name: str) -> Entry | None:
    """What the book calls so itself."""
    name = SYNONYMS.get(name, name)
    rule = BOOK.rules.get(name)
    if rule is not None:
        return Entry(name, rule.function, rule)
    opened = next((f for f in BOOK.openings if getattr(f, "__name__", "") == name), None)
    if opened is not None:
        return Entry(name, opened, replacement=BOOK.openings[opened])
    if name not in BOOK.constants:
        return None
    function = next((getattr(place, name) for place in _SEARCHED if hasattr(place, name)), None)
    return Entry(name, function, constant=BOOK.constants[name])


def _of(function: Any) -> Entry | None:
    if inspect.isclass(function) and issubclass(function, torch.nn.Module):
        return _of_module(function)
    if function in BOOK.openings and operation_name(function) not in BOOK.rules:
        return Entry(function.__name__, function, replacement=BOOK.openings[function])
    return _known(operation_name(function))


def _of_module(module: type[torch.nn.Module]) -> Entry | None:
    """The first operation of the book that the module's forward calls."""
    for written in (module.forward, module):
        for called in re.findall(r"\b(?:F|torch|_VF)\.(\w+)\(", inspect.getsource(written)):
            entry = _known(called)
            if entry is not None and not entry.constant:
                return entry
    return None


def _objects(name: str) -> list[Any]:
    """What torch has under a name with or without dots."""
    *rooms, last = name.split(".")
    places: list[Any] = [*_SEARCHED, torch.nn]
    if rooms:
        if rooms[-1] not in _ROOMS:
            return []
        places = [_ROOMS[rooms[-1]]]
    found = (getattr(place, last, None) for place in places)
    return [f for f in found if callable(f) or inspect.isgetsetdescriptor(f)]


def _near(name: str) -> list[str]:
    names = [k for k in (*BOOK.rules, *BOOK.constants) if isinstance(k, str)]
    names += [f.__name__ for f in BOOK.openings if hasattr(f, "__name__")]
    return difflib.get_close_matches(name.lower(), list(dict.fromkeys(names)), 3)


def full_path(function: Any) -> str:
    """The name under which torch's documentation has a function.

    >>> full_path(torch.nn.functional.layer_norm), full_path(torch.Tensor.mT)
    ('torch.nn.functional.layer_norm', 'torch.Tensor.mT')
    """
    if inspect.isgetsetdescriptor(function):
        return f"torch.Tensor.{function.__name__}"
    return re.sub(r"^F\.", "torch.nn.functional.", path_of(function))


def spellings(entry: Entry) -> list[str]:
    """Every other way to write what the entry's function in the book stands for."""
    if entry.rule is not None:
        shared = [r for r in BOOK.rules.values() if r.backward is entry.rule.backward]
        names, functions = [r.name for r in shared], [r.function for r in shared]
    else:
        functions = [f for f, r in BOOK.openings.items() if entry.replacement and r is entry.replacement]
        names = [entry.name, *(getattr(f, "__name__", "") for f in functions)]
    found = [path_of(f) for f in functions if callable(f)]
    for name in [*names, *(k for k, v in SYNONYMS.items() if v in names)]:
        for place in _SEARCHED:
            for written in (name, f"{name}_"):
                function = getattr(place, written, None)
                if function is not None and callable(function) and operation_name(function) in names:
                    found.append(f"Tensor.{written}" if place is torch.Tensor else path_of(function))
    own = path_of(entry.function) if callable(entry.function) else entry.name
    short = dict.fromkeys(s.replace("torch.Tensor.", "Tensor.") for s in found)
    return [s for s in short if s != own.replace("torch.Tensor.", "Tensor.")]


_ROLE = re.compile(r":\w+:`~?([^`<]*?)(?: <[^`]*>)?`|``([^`]*)``|`([^`]*)`")


def first_sentence(function: Any) -> str:
    """The first sentence of torch's own docstring, where it is short and has no formulas; else "".

    >>> first_sentence(torch.nn.functional.layer_norm)
    'Apply Layer Normalization for last certain number of dimensions.'
    """
    text = inspect.getdoc(function) or ""
    blocks = [b for b in re.split(r"\n\s*\n", text) if b.strip() and not re.match(r"[\w.]+\(.*", b.strip())]
    sentence = " ".join(blocks[0].split()) if blocks else ""
    sentence = re.split(r"(?<=\w\w[.])\s", sentence)[0]
    if ":math:" in sentence or "\\" in sentence or re.match(r"See |Alias |In-place|\.\.|r\"", sentence):
        return ""
    sentence = _ROLE.sub(lambda m: m[1] or m[2] or m[3], sentence)
    return sentence if len(sentence) <= 120 and sentence.endswith(".") and "`" not in sentence else ""
