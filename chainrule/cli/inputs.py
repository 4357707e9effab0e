"""The example inputs of a target: from the command line, the file's own `inputs`, or its variables of the same names."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from chainrule.arrays.code import is_numpy_code
from chainrule.cli import Refused
from chainrule.cli.suggestions import suggested

_KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "randn": torch.randn,
    "rand": torch.rand,
    "zeros": torch.zeros,
    "ones": torch.ones,
}
Given = tuple[tuple[Any, ...], dict[str, Any]]


def inputs_of(module: ModuleType, called: Any, name: str, path: Path, given: Sequence[str], forward: str = "") -> Given:
    """The arguments for `called`, which is the target or its forward pass of another name, `forward`. Raises Refused
    where one is not known, and says what to add."""
    signature = signature_of(called)
    parameters = dict(signature.parameters) if signature is not None else {}
    if given:
        made: dict[str, Any] = dict(one_input(text) for text in given)
        unknown = next((n for n in made if parameters and n not in parameters), None)
        if unknown:
            raise Refused(f"{name} has no argument {unknown}; it has {', '.join(parameters)}")
        if is_numpy_code(called, ()):
            made = {n: (v.double() if v.is_floating_point() else v).numpy() for n, v in made.items()}
        return _all_there(called, parameters, made, name, path, {}, forward)
    if not parameters:
        return (), {}
    found = own_inputs(module)
    if isinstance(found, dict):
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        made = {n: v for n, v in found.items() if open_ended or n in parameters}
        return _all_there(called, parameters, made, name, path, vars(module), forward)
    if found is None:
        return _all_there(called, parameters, {}, name, path, vars(module), forward)
    args = tuple(found) if isinstance(found, tuple | list) else (found,)
    assert signature is not None
    if not _takes(signature, args):
        raise Refused(
            f"inputs in {path} gives {len(args)} value{'s' * (len(args) != 1)}, and {forward or name} takes "
            f"{', '.join(parameters)}; "
            "let it give a dictionary, in which each finds its arguments by name"
        )
    return args, {}


def _takes(signature: inspect.Signature, args: Sequence[Any]) -> bool:
    """Whether these may be the arguments: as many as there are parameters, and no array for a flag, `train_flg=True`."""
    try:
        given = signature.bind(*args).arguments
    except TypeError:
        return False
    flags = [n for n, p in signature.parameters.items() if isinstance(p.default, bool)]
    return not any(getattr(given.get(n), "shape", ()) for n in flags)


def own_inputs(module: ModuleType) -> Any:
    """What the file's `inputs` is, or gives where it is a function; None where there is none."""
    found = getattr(module, "inputs", None)
    return found() if callable(found) else None if isinstance(found, ModuleType) else found


def signature_of(called: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(called.forward if isinstance(called, torch.nn.Module) else called)
    except (TypeError, ValueError):
        return None


def required(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """The names of those that must be given."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [n for n, p in parameters.items() if p.default is p.empty and p.kind not in open_ended]


def variables(space: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of `names` that are variables of the file: data, no functions, classes or modules."""
    code = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
    return {n: space[n] for n in names if n in space and not isinstance(space[n], code)}


def _all_there(
    called: Any,
    parameters: Mapping[str, inspect.Parameter],
    made: dict[str, Any],
    name: str,
    path: Path,
    space: Mapping[str, Any],
    forward: str,
) -> Given:
    """The arguments in order, those that were not given from the variables of the file."""
    needed = required(parameters)
    made = {**variables(space, [n for n in needed if n not in made]), **made}
    missing = [n for n in needed if n not in made]
    if missing:
        example = suggested(called, missing)
        several = "s" * (len(missing) > 1)
        raise Refused(
            f"{name} needs the input{several} {', '.join(missing)}{f' of {forward}' * bool(forward)}; define inputs() in {path}, which returns a dictionary "
            f"of {'them' if several else 'it'} by name, or give {example}"
        )
    ordered = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    first = next((i for i, n in enumerate(ordered) if n not in made), len(ordered))
    return tuple(made[n] for n in ordered[:first]), {n: v for n, v in made.items() if n not in ordered[:first]}


def one_input(text: str) -> tuple[str, torch.Tensor]:
    """A name and a tensor from `NAME=KIND:SHAPE`.

    >>> name, x = one_input("x=zeros:2,3")
    >>> name, x.shape
    ('x', torch.Size([2, 3]))
    >>> one_input("y=randint:10:4")[1].dtype
    torch.int64
    """
    name, _, rest = text.partition("=")
    kind, *numbers = rest.split(":")
    try:
        shape = [int(n) for n in numbers[-1].split(",") if n] if numbers else []
        if name.isidentifier() and kind in _KINDS and len(numbers) <= 1:
            return name, _KINDS[kind](shape)
        if name.isidentifier() and kind == "randint" and len(numbers) == 2:
            return name, torch.randint(int(numbers[0]), shape)
    except (ValueError, RuntimeError):
        pass  # a number that is none, or a negative size
    raise Refused(
        f"--input {text} is not understood; write x=randn:64,784 (or rand, zeros, ones) or y=randint:10:64 (below 10)"
    )
