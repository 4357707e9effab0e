"""The command line: what it prints, its exit codes, and that it asks for torch only when it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chainrule.cli import main
from chainrule.rules import BOOK

NET = """
import torch
torch.manual_seed(0)
w1, b1 = torch.randn(4, 3), torch.zeros(3)
w2, b2 = torch.randn(3, 1), torch.zeros(1)

def lin(inp, w, b):
    return inp @ w + b

def forward(inp, targ):
    l1 = lin(inp, w1, b1)
    l2 = l1.clamp_min(0.)
    out = lin(l2, w2, b2)
    diff = out[:, 0] - targ
    loss = diff.pow(2).mean()
    return loss

def alone():
    return (w1 ** 2).sum()

def right(inp):
    out = inp @ w1
    loss = out.sum()
    out.g = torch.ones_like(out)
    w1.g = inp.T @ out.g

def wrong(inp):
    out = inp @ w1
    loss = out.sum()
    out.g = torch.ones_like(out)
    w1.g = 2 * inp.T @ out.g

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, inp):
        return self.layer(inp).tanh().sum()

class Sized(torch.nn.Module):
    def __init__(self, width):
        super().__init__()

def broken(inp):
    return inp @ w2

size = 3
"""
EXAMPLES = """
def inputs():
    return torch.randn(5, 4), torch.randn(5)
"""
BATCH = ["--input", "inp=randn:5,4"]


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(NET)
    return str(file)


@pytest.fixture
def ready(tmp_path: Path) -> str:
    """The same file with its own inputs()."""
    file = tmp_path / "ready.py"
    file.write_text(NET + EXAMPLES)
    return str(file)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def parsed(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout, parse_constant=pytest.fail)


def test_help_does_not_wait_for_torch() -> None:
    check = "import sys; from chainrule.cli import main; main(['--help'], standalone_mode=False); "
    check += "sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in main.commands:
        assert command in done.stdout
        assert run(command, "--help").stdout.startswith("Usage:")


def test_the_package_does_not_import_torch_before_a_verb_is_used() -> None:
    check = "import sys, chainrule; assert 'torch' not in sys.modules; chainrule.derive; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_derive_shows_code_with_shapes(ready: str) -> None:
    text = run("derive", f"{ready}:forward").stdout
    assert "w1.g = inp.T @ l1.g" in text
    assert "# (4, 3)" in text
    assert "\x1b[" not in text  # no colours in a pipe


@pytest.mark.parametrize("style, line", [("dotg", "w1.g ="), ("function", "w1_g ="), ("autograd", "class Derived(")])
def test_derive_in_each_style(ready: str, style: str, line: str) -> None:
    assert line in run("derive", f"{ready}:forward", "--style", style).stdout


@pytest.mark.parametrize(
    ("comments", "said"), [("shapes", "# (4, 3)"), ("math", "# ∂L/∂w1 = inpᵀ ∂L/∂l1"), ("why", "w1.g ")]
)
def test_derive_with_comments(ready: str, tmp_path: Path, comments: str, said: str) -> None:
    target = f"{ready}:forward"
    text = run("derive", target, "--comments", comments).stdout
    assert said in text and text != run("derive", target, "--style", "dotg").stdout
    assert parsed("derive", target, "--comments", comments)["source"].strip() == text.strip()
    file = tmp_path / "out.py"
    run("derive", target, "--comments", comments, "-o", str(file))
    plain = tmp_path / "plain.py"
    run("derive", target, "-o", str(plain))
    assert file.read_text() != plain.read_text()


@pytest.mark.parametrize("command", ["derive", "explain", "trace"])
@pytest.mark.parametrize("given", ["x=randint:5:3", "x=rand:3"])
def test_a_function_without_a_gradient(tmp_path: Path, command: str, given: str) -> None:
    file = tmp_path / "const.py"
    file.write_text("import torch\ndef const(x):\n    return torch.tensor(3.0)\n")
    result = run(command, f"{file}:const", "--input", given, code=2)
    assert result.stdout == ""
    assert result.stderr == "error: const has no gradient: its output is computed from no floating-point input\n"


def test_derive_with_inputs_from_the_command_line(net: str) -> None:
    answer = parsed("derive", f"{net}:forward", *BATCH, "--input", "targ=rand:5", "--wrt", "w1,b2")
    assert list(answer["gradients"]) == ["w1", "b2"]
    assert answer["gradients"]["w1"]["shape"] == [4, 3]
    assert answer["inputs"]["inp"]["shape"] == [5, 4]
    assert answer["fallbacks"] == []


def test_derive_a_function_without_arguments(ready: str) -> None:
    assert "w1.g = 2 * w1" in run("derive", f"{ready}:alone").stdout


def test_derive_a_model(net: str) -> None:
    assert set(parsed("derive", f"{net}:Model", *BATCH)["gradients"]) == {"layer.weight", "layer.bias"}


@pytest.mark.parametrize(
    "call",
    [
        ["forward", "--input", "targ=rand:5"],
        ["lin", "--input", "w=rand:4,3", "--input", "b=zeros:3", "--upstream"],
        ["Model"],
    ],
)
def test_the_written_file_runs_alone(net: str, tmp_path: Path, call: list[str]) -> None:
    name, *options = call
    file = tmp_path / "derived.py"
    run("derive", f"{net}:{name}", *BATCH, *options, "-o", str(file))
    done = subprocess.run([sys.executable, "-W", "error", str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "output" in done.stdout and ".g (" in done.stdout


def test_check(net: str) -> None:
    assert "right" in run("check", f"{net}:right", *BATCH).stdout
    text = run("check", f"{net}:wrong", *BATCH, code=1).stdout
    line = next(i for i, code in enumerate(NET.split("\n"), 1) if "w1.g = 2 *" in code)
    assert f"{net}:{line}: " in text
    answer = parsed("check", f"{net}:wrong", *BATCH, code=1)
    assert not answer["ok"]
    assert [f["name"] for f in answer["findings"]] == ["w1"]
    assert {"name": "w1", "status": "wrong", "line": line, "file": net}.items() <= answer["rows"][-1].items()


def test_trace(ready: str) -> None:
    assert "w1.g = inp.T @ l1.g" in run("trace", f"{ready}:forward").stdout
    steps = parsed("trace", f"{ready}:forward")["steps"]
    assert {s["phase"] for s in steps} == {"input", "forward", "backward"}
    loss = next(s for s in steps if s["code"].startswith("loss ="))
    assert loss["shape"] == [] and loss["value"] > 0


def test_numbers_that_json_has_no_word_for(tmp_path: Path) -> None:
    file = tmp_path / "infinite.py"
    file.write_text("import torch\nx = torch.zeros(1)\ndef forward():\n    return x.log().sum()\n")
    assert parsed("derive", f"{file}:forward")["output"]["value"] == "-inf"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["derive", "{net}:nothing"], "has no nothing; it has lin, forward"),
        (["derive", "{net}"], "write it as FILE.py:NAME"),
        (["derive", "missing.py:forward"], "there is no file missing.py"),
        (["derive", "{net}:forward"], "forward needs the inputs inp, targ; define inputs() in"),
        (["derive", "{net}:size"], "cannot be called"),
        (["derive", "{net}:Sized"], "needs arguments to be made"),
        (["derive", "{net}:Model", "--input", "inp=norm:3"], "is not understood"),
        (["derive", "{net}:Model", "--input", "inp=randn:3,x"], "is not understood"),
        (["derive", "{net}:Model", "--input", "inp=randint:3"], "is not understood"),
        (["derive", "{net}:lin", *BATCH, "--input", "v=rand:4"], "lin has no argument v; it has inp, w, b"),
        (["derive", "{net}:lin", *BATCH, "--input", "w=rand:4,3", "--input", "b=rand:3"], "add --upstream"),
        (["derive", "{net}:alone", "--wrt", "w7"], "w7"),
        (["derive", "{net}:alone", "-o", "no/such/folder/x.py"], "cannot write no/such/folder/x.py"),
        (["derive", "{net}:broken", *BATCH], "net.py:46: RuntimeError: mat1 and mat2"),
        (["check", "{net}:alone"], "alone left no .g"),
        (["rules", "sofmax"], "did you mean softmax"),
    ],
)
def test_misuse_is_one_line(net: str, arguments: list[str], message: str) -> None:
    result = run(*(a.format(net=net) for a in arguments), code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_file_that_does_not_parse(tmp_path: Path) -> None:
    file = tmp_path / "typo.py"
    file.write_text("x = 1\ndef forward(:\n")
    assert f"{file}:2: " in run("derive", f"{file}:forward", code=2).stderr


def test_a_file_sees_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("def square(x):\n    return x * x\n")
    (tmp_path / "uses.py").write_text("from beside_it import square\ndef forward(x):\n    return square(x).sum()\n")
    assert "x.g = 2 * x" in run("derive", f"{tmp_path / 'uses.py'}:forward", "--input", "x=randn:3").stdout


def test_the_rule_book() -> None:
    text = run("rules").stdout
    assert "products: " in text and "matmul" in text
    book = parsed("rules")
    assert "clamp_min" in book["selections"]["rules"]


def test_coverage() -> None:
    text = run("rules", "--coverage", "sin", "to_sparse").stdout
    assert "elementary" in text and "to_sparse: refused: its result is a sparse tensor" in text
    assert "1 rules, 1 refused" in text
    answer = parsed("rules", "--coverage", "masked.", "--part", "7:0.1")
    assert answer["part"] == "7:0.1" and answer["entries"] == 2 and answer["totals"] == {"rules": 2}
    assert "no differentiable entry 'sinus'" in run("rules", "--coverage", "sinus", code=2).stderr
    assert "go with --coverage" in run("rules", "sin", "cos", code=2).stderr


def test_coverage_that_finds_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule.rules import Rule

    def wrong(out: Any, x: Any) -> None:
        x.g = out.g

    monkeypatch.setitem(BOOK.rules, "sin", Rule("sin", None, wrong))  # type: ignore[arg-type]
    assert "sin: crashed: sample 0: the derived gradient" in run("rules", "--coverage", "sin", code=1).stdout


def test_colours_on_a_terminal(ready: str) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "40"}
    command = [sys.executable, "-m", "chainrule", "derive", f"{ready}:forward"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "\x1b[" in done.stdout
    assert max(map(len, done.stdout.split("\n"))) > 60  # no line is cut or wrapped


def test_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code, said = readme.split("```python\n")[1].split("```")[0], readme.split("prints\n\n```\n")[1].split("```")[0]
    explained = readme.split("down to single elements:\n\n```\n")[1].split("```")[0]
    file = tmp_path / "readme.py"
    file.write_text(f'{code}\nprint(d.explain()["b1.g"])\n')
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    assert done.stdout == said + explained, done.stderr
