"""FILE.py:NAME and its example inputs, from the file's own `inputs()` or from the command line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import chainrule as cr
from chainrule.cli import Refused
from chainrule.errors import ChainruleError

_KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "randn": torch.randn,
    "rand": torch.rand,
    "zeros": torch.zeros,
    "ones": torch.ones,
}


@dataclass(frozen=True)
class Target:
    """A callable from a person's file, with the inputs to run it on."""

    path: Path
    name: str
    code: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def derive(self, wrt: Sequence[str] | None = None, upstream: bool = False) -> cr.Derivation:
        with blamed_on(self.path):
            given = torch.randn_like(self.code(*self.args, **self.kwargs)) if upstream else None
            d = cr.derive(self.code, *self.args, wrt=wrt, upstream=given, **self.kwargs)
        if not d.grads:
            raise Refused(f"{self.name} has no gradient: its output is computed from no floating-point input")
        return d

    def check(self) -> Any:
        with blamed_on(self.path):
            return cr.check(self.code, *self.args, **self.kwargs)


def load(target: str, given: Sequence[str] = ()) -> Target:
    """The target that a person wrote as FILE.py:NAME, with `given` inputs written as NAME=KIND:SHAPE."""
    path, name = parts(target)
    torch.manual_seed(0)  # the same numbers in every run
    module = import_file(path)
    code = _named(module, name, path)
    if isinstance(code, type):
        code = _instance(code, path)
    args, kwargs = _inputs(module, code, name, path, given)
    return Target(path, name, code, args, kwargs)


def parts(target: str) -> tuple[Path, str]:
    """The file and the name in FILE.py:NAME."""
    file, _, name = target.rpartition(":")
    if not file or not name:
        raise Refused(f"{target!r} does not say which function to take; write it as FILE.py:NAME")
    path = Path(file)
    if not path.is_file():
        raise Refused(f"there is no file {file}; give the path of a Python file")
    return path, name


def import_file(path: Path) -> ModuleType:
    """The module that `path` makes; it finds the modules beside it, as `python FILE` does."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise Refused(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.insert(0, beside)
    with blamed_on(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def blamed_on(path: Path) -> Iterator[None]:
    """An exception of the person's own code becomes one line with their file and line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"(NaN|infinity) first appears")  # printed with the derived code
            yield
    except (ChainruleError, Refused):
        raise
    except SyntaxError as error:
        raise Refused(f"{path}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.resolve()]
        if not frames:
            raise
        message = str(error).strip().split("\n")[0]
        raise Refused(f"{path}:{frames[-1].lineno}: {type(error).__name__}: {message}") from error


def _named(module: ModuleType, name: str, path: Path) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            own = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
            raise Refused(f"{path} has no {name}; it has {', '.join(own) or 'no functions'}")
    if not callable(found):
        raise Refused(f"{name} in {path} cannot be called (it is {type(found).__name__}); name a function or a model")
    return found


def _instance(kind: type, path: Path) -> Any:
    try:
        return kind()
    except TypeError as error:
        raise Refused(
            f"{kind.__name__} in {path} needs arguments to be made; make one in the file, model = {kind.__name__}(...), "
            "and name that"
        ) from error


def _inputs(
    module: ModuleType, code: Any, name: str, path: Path, given: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = _parameters(code)
    if given:
        made = dict(one_input(text) for text in given)
        unknown = next((n for n in made if parameters and n not in parameters), None)
        if unknown:
            raise Refused(f"{name} has no argument {unknown}; it has {', '.join(parameters)}")
        _refuse_missing(parameters, made, name)
        return (), made
    if not parameters:
        return (), {}
    if not callable(own := getattr(module, "inputs", None)):
        _refuse_missing(parameters, {}, name)
        return (), {}
    with blamed_on(path):
        found = own()
    if isinstance(found, dict):
        return (), found
    return (tuple(found) if isinstance(found, tuple | list) else (found,)), {}


def _refuse_missing(parameters: dict[str, inspect.Parameter], made: dict[str, Any], name: str) -> None:
    required = [
        n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if missing := [n for n in required if n not in made]:
        raise Refused(
            f"{name} needs the input {missing[0]}; define inputs() in the file, or give --input {missing[0]}=randn:64,784"
        )


def _parameters(code: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(code.forward if isinstance(code, torch.nn.Module) else code).parameters)
    except (TypeError, ValueError):
        return {}


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
