"""`chainrule audit`: finds the test and the code that it is about, and prints what survives."""

from __future__ import annotations

import contextlib
import sys
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import torch

import chainrule as cr
from chainrule.cli import targets
from chainrule.cli.answers import print_json
from chainrule.cli.inputs import inputs_of
from chainrule.diagnosis.auditing.audit_report import Mutant
from chainrule.diagnosis.reading.forms import form_of
from chainrule.diagnosis.report import clickable


def run(test: str, target: str, inputs: Sequence[str], as_json: bool) -> bool:
    """Audit the test and print the answer; whether it noticed every mistake."""
    # what the person's code prints is no part of the JSON
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        test_path, test_name = targets.parts(test)
        path, name = targets.parts(target)
        torch.manual_seed(0)  # the same numbers in every run
        tests, module = _loaded(test_path, path)
        code = targets.named(module, name, path)
        args, kwargs = _inputs(module, code, name, path, inputs)
        own = _test(tests, test_name, test_path)
        with targets.blamed_on(path):
            audit = cr.audit(own, code, *args, **kwargs)
    if as_json:
        print_json({"target": target, **audit.as_dict()})
    else:
        click.echo(audit.text(lambda m: click.style(m.at(_as_given(m, path)), fg="red")))
    return bool(audit)


def _loaded(test_path: Path, path: Path) -> tuple[ModuleType, ModuleType]:
    """The test's module, and that of the code, as the test imported it: an edit of another copy would not reach it."""
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    tests = targets.import_file(test_path)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).name == path.name and Path(file).resolve() == path.resolve():
            return tests, module
    return tests, targets.import_file(path)


def _inputs(
    module: ModuleType, code: Any, name: str, path: Path, given: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """None where nothing was said, so that those of the test's own call are used."""
    if not given and (isinstance(code, type) or getattr(module, "inputs", None) is None):
        return (), {}
    return inputs_of(module, form_of(code).called, name, path, given)


def _test(module: ModuleType, name: str, path: Path) -> Callable[[], Any]:
    """A function, or a method of a test class, written Class.test_name."""
    found: Callable[[], Any] = targets.named(module, name, path)
    kind, _, method = name.rpartition(".")
    owner = getattr(module, kind, None) if kind else None
    if not isinstance(owner, type):
        return found

    def test() -> Any:
        if issubclass(owner, unittest.TestCase):
            return owner(method).debug()
        instance = owner()
        getattr(instance, "setup_method", lambda: None)()
        return getattr(instance, method)()

    test.__name__ = name
    return test


def _as_given(mutant: Mutant, path: Path) -> str:
    return str(path) if Path(mutant.file) == path.resolve() else clickable(mutant.file)
