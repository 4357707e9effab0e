"""`chainrule audit`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chainrule.cli import main

NET = """\
import torch

w = torch.randn(4, 3)
b = torch.randn(3)

def step(x):
    out = x @ w + b
    loss = out.pow(2).sum()
    out.g = 2 * out
    w.g = x.T @ out.g
    b.g = out.g.sum(0)
"""
TESTS = """\
import torch, unittest
from net import b, step, w

def compare(also_b):
    print("said by the test")
    x = torch.randn(5, 4)
    step(x)
    out = x @ w + b
    torch.testing.assert_close(w.g, x.T @ (2 * out))
    if also_b:
        torch.testing.assert_close(b.g, (2 * out).sum(0))

def test_good():
    compare(True)

def test_bad():
    compare(False)

class TestStep(unittest.TestCase):
    def test_good(self):
        compare(True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "test_net.py").write_text(TESTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("net", "test_net"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("test", ["test_good", "TestStep.test_good"])
def test_command_of_a_good_test(folder: Path, test: str) -> None:
    result = CliRunner().invoke(main, ["audit", f"test_net.py:{test}", "net.py:step"])
    assert result.exit_code == 0, result.output
    assert f"{test} catches" in result.output and "said by" not in result.output


def test_command_of_a_bad_test(folder: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "test_net.py:test_bad", "net.py:step", "--input", "x=randn:6,4"])
    assert result.exit_code == 1, result.output
    assert "net.py:11: sign b.g is off by 200 % and the test passes\n  - b.g = out.g.sum(0)" in result.output
    assert "hint: b.g is not compared" in result.output


def test_command_as_json(folder: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "test_net.py:test_bad", "net.py:step", "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 1 and answer["ok"] is False and 0 < answer["share"] < 1
    assert {m["gradient"] for m in answer["survived"]} == {"b.g"} and "not compared" in answer["survived"][0]["hint"]


@pytest.mark.parametrize(
    "test, code, said",
    [
        ("test_net.py", "net.py:step", "does not say which function"),
        ("test_net.py:nothing", "net.py:step", "has no nothing"),
        ("none.py:test", "net.py:step", "there is no file none.py"),
        ("test_net.py:compare", "net.py:step", "compare takes also_b"),
    ],
)
def test_command_misused(folder: Path, test: str, code: str, said: str) -> None:
    result = CliRunner().invoke(main, ["audit", test, code])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
