"""The pytest plugin: light until it is used, and failing tests that say which line is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import chainrule

pytest_plugins = "pytester"

ROOT = Path(chainrule.__file__).parents[1]
PLUGIN = "chainrule.pytest_plugin"
NET = """\
def right(x, w):
    loss = (x @ w).sum()
    w.g = x.sum(0)

def wrong(x, w):
    loss = (x @ w).sum()
    w.g = -x.sum(0)
"""
TESTS = """\
import torch
import chainrule as cr
import net

x, w = torch.ones(4, 3), torch.ones(3)

def test_right(check_gradients):
    check_gradients(net.right, x, w)

def test_fixture(check_gradients):
    check_gradients(net.wrong, x, w)

def test_assert_gradients():
    cr.testing.assert_gradients(net.wrong, x, w)

def test_plain_assert():
    assert cr.check(net.wrong, x, w)

def test_assert_ok():
    report = cr.check(net.wrong, x, w)
    assert report.ok, "not ok"

def test_other_failure():
    report = cr.check(net.right, x, w)
    assert not report
"""


@pytest.fixture(autouse=True)
def this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_the_plugin_does_not_import_torch() -> None:
    asked = f"import sys, {PLUGIN}; print([m for m in sys.modules if m == 'torch' or m.startswith('chainrule')])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.stdout == f"['chainrule', '{PLUGIN}']\n", done.stderr


def test_a_run_without_gradients_does_not_import_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n\n"
        "def test_one(check_gradients):\n    assert 'torch' not in sys.modules\n\n"
        "def test_two():\n    assert 'chainrule.diagnosis' in sys.modules\n"
    )
    pytester.runpytest_subprocess("-p", PLUGIN).assert_outcomes(passed=1, failed=1)


def test_failing_tests_name_the_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(net=NET, test_net=TESTS)
    result = pytester.runpytest_subprocess("-p", PLUGIN, "-p", "no:xdist")
    result.assert_outcomes(passed=1, failed=5)
    said = r"net\.py:7: \S+ w\.g"
    for test in ("test_fixture", "test_assert_gradients"):
        result.stdout.re_match_lines([rf"FAILED test_net\.py::{test} - AssertionError: net\.py:7: .*"])
    assert sum(re.match(rf"E +AssertionError: {said}", line) is not None for line in result.outlines) == 2
    result.stdout.no_fnmatch_line("*raise AssertionError*")
    sections = [line for line in result.outlines if "chainrule.check" in line and line.startswith("---")]
    assert len(sections) == 2  # of the two plain assertions on a wrong report
    at = result.outlines.index(sections[0])
    assert result.outlines[at + 1].startswith("net.py:7: ")


def test_the_entry_point_and_the_option_do_not_meet(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """As installed: the plugin is found by itself, and naming it as well is no error."""
    import tomllib

    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    found = pytester.mkdir("site") / "chainrule_entry-1.dist-info"
    found.mkdir()
    found.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: chainrule-entry\nVersion: 1\n")
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    found.joinpath("entry_points.txt").write_text(f"[pytest11]\n{lines}")
    monkeypatch.setenv("PYTHONPATH", f"{found.parent}:{ROOT}")
    pytester.makepyfile("def test_it(check_gradients):\n    assert callable(check_gradients)\n")
    for options in ([], ["-p", PLUGIN]):
        pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-p", f"no:{PLUGIN}").assert_outcomes(errors=1)
