"""Files and lines of equal functions in several files, and of functions whose file was edited and loaded again."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import chainrule as cr
from chainrule.recording.names import is_person, is_rule, site_of

SQUARE = "import sys\ndef square(x):\n    y = x * x\n    return y.sum(), sys._getframe()\n"


def loaded(path: Path, text: str) -> types.ModuleType:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equal_functions_of_two_files_have_their_own_places(tmp_path: Path) -> None:
    first, second = (loaded(tmp_path / name, SQUARE).square for name in ("one.py", "two.py"))
    assert first.__code__ == second.__code__  # the file is no part of the comparison
    for function, name in ((first, "one.py"), (second, "two.py"), (first, "one.py")):
        site = site_of(function(torch.ones(2))[1])
        assert site is not None
        assert (Path(site.file).name, site.line, site.function) == (name, 4, "square")


def test_equal_code_is_the_persons_by_its_file() -> None:
    def code(file: str) -> types.CodeType:
        return next(c for c in compile(SQUARE, file, "exec").co_consts if isinstance(c, types.CodeType))

    inside = str(Path(cr.__file__).parent / "rules" / "square.py")
    torchs = str(Path(torch.__file__).parent / "square.py")
    assert code("own.py") == code(torchs) == code(inside)
    assert [is_person(code(file)) for file in ("own.py", torchs, "own.py")] == [True, False, True]
    assert [is_rule(code(file)) for file in ("own.py", inside, "own.py")] == [False, True, False]


def test_findings_of_equal_functions_name_their_files(tmp_path: Path) -> None:
    text = "def net(x, w):\n    y = x @ w\n    loss = (y * y).sum()\n    x.g = y @ w.T\n    w.g = 2 * x.T @ y\n    return loss\n"
    generator = torch.Generator().manual_seed(3)
    for name in ("one.py", "two.py"):
        net = loaded(tmp_path / name, text).net
        args = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 5))]
        (finding,) = cr.check(net, *args).findings
        assert finding.file is not None and (Path(finding.file).name, finding.line) == (name, 4)


HALF = "def half(x):\n    n = x.shape[0]\n    return (x**2).sum() * ({})\n"


def reloaded(tmp_path: Path, text: str) -> Any:
    return loaded(tmp_path / "half.py", text).half


def redefined(_: Path, text: str) -> Any:
    """As a notebook does: each cell has a file name of its own, or the same one with another text."""
    import linecache

    file, space = "<cell>", {}
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), space)
    return space["half"]


@pytest.mark.parametrize("again", [reloaded, redefined])
def test_a_hidden_size_is_seen_in_the_source_as_it_stands(
    again: Callable[[Path, str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    x = torch.ones(3, 4, dtype=torch.float64)
    for product, hidden in (("n * 0.5", False), ("0.5 * n", True), ("n * 0.5", False)):
        comment = "  # the float takes the value of n in C" if hidden else ""
        code = str(cr.derive(again(tmp_path, HALF.format(product) + comment), x))
        assert ("assert x.shape[0] == 3" in code) == hidden, code
