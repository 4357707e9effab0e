"""`chainrule explain`: on a terminal, as JSON, in a file; and what docs/explain.md shows of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import chainrule as cr
from chainrule.cli import main

ROOT = Path(cr.__file__).parents[1]
DOCS = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
NET = re.search(r"```python\n(import torch.*?)```", DOCS, re.S)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert NET is not None
    (tmp_path / "net.py").write_text(NET[1])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "net.py"


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


def test_every_line_with_its_formula(net: Path) -> None:
    result = explain("net.py:forward")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    at = lines.index("w1.g = x.T @ l1.g")
    assert lines[at + 1 : at + 3] == ["    ∂L/∂w1 = xᵀ ∂L/∂l1", "    (4, 5) @ (5, 3) -> (4, 3)"]
    assert lines.index("# forward") < lines.index("# backward") < at
    assert max(map(len, lines)) <= 104


def test_the_output_in_the_docs_is_what_it_prints(net: Path) -> None:
    shown = re.findall(r"```\n\$ chainrule (explain .*?)\n(.*?)```", DOCS, re.S)
    assert shown
    for command, said in shown:
        result = explain(*command.split()[1:])
        assert result.stdout.strip() == said.strip(), f"docs/explain.md is to show\n{result.stdout}"


@pytest.mark.parametrize(
    ("suffix", "begins"), [("html", "<!doctype html>"), ("md", "# Backprop"), ("tex", "\\document")]
)
def test_it_is_written_in_each_format(net: Path, suffix: str, begins: str) -> None:
    result = explain("net.py:forward", "-o", f"out.{suffix}")
    assert (result.exit_code, result.stdout) == (0, f"wrote out.{suffix}\n")
    text = Path(f"out.{suffix}").read_text(encoding="utf-8")
    assert text.startswith(begins) and "Backpropagation through forward in net.py" in text


def test_json(net: Path) -> None:
    answer = json.loads(explain("net.py:forward", "w1.g", "--json").stdout)
    (step,) = answer["steps"]
    assert (answer["target"], step["phase"], step["targets"]) == ("net.py:forward", "backward", ["w1.g"])
    assert step["formula"] == "∂L/∂w1 = xᵀ ∂L/∂l1" and step["partners"] == ["forward-l1"]
    assert step["shape"] == [4, 3] and step["derivation"] and step["latex"].startswith(r"\frac{\partial L}")
    at = 1 + net.read_text().splitlines().index("    l1 = x @ w1 + b1")
    every = json.loads(explain("net.py:forward", "--json").stdout)["steps"]
    assert {s["phase"] for s in every} == {"input", "forward", "backward"}
    assert next(s for s in every if s["targets"] == ["l1"])["line"] == at


def test_wrt_and_upstream(net: Path) -> None:
    assert "w1.g = " not in explain("net.py:forward", "--wrt", "w2").stdout
    assert "out_g" in explain("net.py:layer", "--upstream").stdout
    assert explain("net.py:layer").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.py:forward", "w3.g"], "no line gives 'w3.g'; there are "),
        (["net.py:forward", "-o", "page.pdf"], "page.pdf says no format; end its name in .html, .md, .tex"),
        (["net.py:forward", "-o", "nowhere/page.html"], "cannot write a page of HTML to nowhere/page.html"),
        (["net.py:forward", "w1.g", "-o", "page.html"], "-o writes every line; leave out w1.g"),
        (["nothing.py:forward"], "there is no file nothing.py"),
    ],
)
def test_misuse_is_one_sentence(net: Path, arguments: list[str], said: str) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_gradient_of_two_values_is_found_under_both_names(net: Path) -> None:
    net.write_text("import torch\n\ndef f(x, b):\n    l1 = x + b\n    l2 = l1 + 1\n    return l2.sin().sum()\n"
                   "def inputs():\n    return torch.rand(3, 2), torch.rand(2)\n")  # fmt: skip
    for command in (["explain", "net.py:f", "l2.g"], ["trace", "net.py:f", "--value", "l2.g"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0 and result.stdout.startswith("l2.g is l1.g\nl1.g = ")


def test_help_asks_for_no_torch() -> None:
    code = "import sys; from chainrule.cli import main; main(['explain', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    assert (
        "FILE.py:NAME"
        in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
