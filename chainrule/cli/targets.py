"""FILE.py:NAME: the code that a person means by it, with its example inputs."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import traceback
import types
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
from chainrule.cli.candidates import candidates
from chainrule.cli.inputs import inputs_of, own_inputs, required, signature_of, variables
from chainrule.diagnosis.reading.forms import form_of, is_function_class, names_a_backward
from chainrule.diagnosis.report import Report
from chainrule.errors import ChainruleError
from chainrule.recording.names import tells_its_class


@dataclass(frozen=True)
class Target:
    """A callable from a person's file, with the inputs to run it on."""

    path: Path
    name: str
    code: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def derive(self, wrt: Sequence[str] | None = None, upstream: bool = False) -> cr.Derivation:
        code = self.code if callable(self.code) else self.code.forward
        with blamed_on(self.path):
            given = torch.randn_like(code(*self.args, **self.kwargs)) if upstream else None
            d = cr.derive(code, *self.args, wrt=wrt, upstream=given, **self.kwargs)
        if not d.grads:
            raise Refused(f"{self.name} has no gradient: its output is computed from no floating-point input")
        return d

    def check(self, wrt: Sequence[str] | None = None, loss: str | None = None) -> Report:
        said = {k: v for k, v in (("wrt", wrt), ("loss", loss)) if v}
        with blamed_on(self.path):
            return cr.check(self.code, *self.args, **said, **self.kwargs)


def load(target: str, given: Sequence[str] = ()) -> Target:
    """The function or model that a person wrote as FILE.py:NAME, with `given` inputs written as NAME=KIND:SHAPE."""
    path, name = parts(target)
    return loaded(path, name, given, lambda code: code if callable(code) else code.forward)


def load_to_check(target: str, given: Sequence[str] = ()) -> Target:
    """As `load`, for code with a hand-written backward pass: the inputs are those of the forward pass that goes with it."""
    path, name = parts(target)
    methods = [c for c in candidates(path) if c.startswith(f"{name}.")]
    if len(methods) > 1:
        raise Refused(f"{name} in {path} has no backward; name the method that leaves gradients: {', '.join(methods)}")
    return loaded(path, methods[0] if methods else name, given, lambda code: form_of(code).called)


def loaded(path: Path, name: str, given: Sequence[str], called: Callable[[Any], Any]) -> Target:
    """The code under a name, an object of it where it is a class, and the inputs of what `called` says is called."""
    torch.manual_seed(0)  # the same numbers in every run
    module = import_file(path)
    with blamed_on(path):
        code = object_of(module, named(module, name, path), path)
        subject = called(code)
        forward = subject.__name__ if isinstance(subject, types.FunctionType) else name.rpartition(".")[2]
        other = "" if forward == name.rpartition(".")[2] else forward
        args, kwargs = inputs_of(module, subject, name, path, given, other)
    return Target(path, name, code, args, kwargs)


def parts(target: str) -> tuple[Path, str]:
    """The file and the name in FILE.py:NAME."""
    file, _, name = target.rpartition(":")
    if not Path(target).exists() and target.endswith(".py"):
        raise Refused(f"there is no file {target}; give the path of a Python file")
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


def named(module: ModuleType, name: str, path: Path) -> Any:
    """What the file has under a name; a method of a class is that of an object."""
    found: Any = module
    for part in name.split("."):
        owner, found = found, getattr(found, part, None)
        if found is None:
            raise Refused(_not_there(owner, part, name, path))
        if (
            isinstance(owner, type)
            and isinstance(found, types.FunctionType)
            and not isinstance(inspect.getattr_static(owner, part), staticmethod)
        ):
            found = types.MethodType(found, object_of(module, owner, path))
    if not callable(found) and not callable(getattr(found, "forward", None)):
        methods = [n for n, v in inspect.getmembers(type(found), inspect.isfunction) if names_a_backward(n)]
        kind, instead = type(found).__name__, "a function, a model, or a layer with forward"
        instead = f"its method that computes gradients, {path}:{name}.{methods[0]}" if methods else instead
        raise Refused(f"{name} in {path} cannot be called (it is {kind}); name {instead}")
    return found


def _not_there(owner: Any, part: str, name: str, path: Path) -> str:
    """What stands in the file instead of a name: the nearest ones, or all."""
    own = isinstance(owner, ModuleType)
    known = [
        n
        for n, v in vars(owner).items()
        if not n.startswith("_")
        and tells_its_class(v)
        and (inspect.isfunction(v) or inspect.isclass(v) or callable(getattr(v, "backward", None)))
        and (not own or getattr(v, "__module__", owner.__name__) == owner.__name__)
    ]
    near = difflib.get_close_matches(part, known, 3)
    if near:
        return f"{path} has no {name}; did you mean {' or '.join(near)}?"
    return f"{path} has no {name}; it has {', '.join(known) or 'no functions'}"


def object_of(module: ModuleType, code: Any, path: Path) -> Any:
    """Of a class the object that the file has of it, or one that is made here: with no arguments, or with those that the
    file has under their names."""
    if not isinstance(code, type) or is_function_class(code):
        return code
    for value in vars(module).values():
        if type(value) is code:
            return value
    signature = signature_of(code)
    parameters = dict(signature.parameters) if signature is not None else {}
    needed = required(parameters)
    given = variables(vars(module), needed)
    if needed and len(given) < len(needed) and isinstance(own := own_inputs(module), dict):
        given |= {n: own[n] for n in needed if n in own}
    if missing := [n for n in needed if n not in given]:
        raise Refused(
            f"{code.__name__} in {path} needs arguments to be made ({', '.join(missing)}); add an object of it to the "
            f"file, such as {code.__name__.lower()} = {code.__name__}(...)"
        )
    if inspect.isabstract(code):
        without = ", ".join(sorted(getattr(code, "__abstractmethods__", ())))
        raise Refused(f"{code.__name__} in {path} is abstract (it has no {without}); name a class that is made of it")
    try:
        return code(**given)
    except TypeError as error:
        if any(Path(f.filename) == path.resolve() for f in traceback.extract_tb(error.__traceback__)):
            raise  # of their own code
        raise Refused(f"{code.__name__} in {path} cannot be made: {str(error).splitlines()[0]}") from error
