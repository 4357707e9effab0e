"""`chainrule check` on classes, pairs, whole files and folders; where the inputs come from; what it says else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chainrule.cli import main
from chainrule.cli.candidates import candidates

NET = """\
import numpy as np


class Linear:
    def __init__(self, n_in, n_out):
        self.W, self.b = np.random.randn(n_in, n_out) * 0.1, np.zeros(n_out)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Net:
    def __init__(self, hidden=6):
        self.l1, self.l2 = Linear(4, hidden), Linear(hidden, 3)

    def forward(self, x):
        return self.l2.forward(self.l1.forward(x))

    def backward(self, dout):
        return self.l1.backward(self.l2.backward(dout))


def affine_forward(x, w):
    return x @ w, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout


def helper(x):
    return x + 1
"""
WRONG = NET.replace("self.db = dout.sum(axis=0)", "self.db = dout.mean(axis=0)")
INPUTS = '\n\ninputs = {"x": np.ones((5, 4)), "w": np.ones((4, 3))}\n'


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def written(folder: Path, text: str, name: str = "net.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def run(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def answers(*arguments: Any, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json", code=code).stdout)
    return found


def test_what_of_a_file_can_be_checked(tmp_path: Path) -> None:
    text = (
        NET
        + "\n\ndef step(x, w):\n    w.g = x\n\n\ndef test_step():\n    w.g = 1\n\n\nclass Old:\n    def loss(self, W):\n        dW = W\n"
    )
    text += "\n\nclass Base:\n    def backward(self): ...\n\n\nclass Layer(Base):\n    def backward(self): ...\n"
    text += "\n\nclass Last(Layer):\n    def bwd(self): ...\n"
    text += "\n\nclass Kept:\n    def __init__(self):\n        self.s, self.grads = 1, {}\n"
    text += "    def run(self, x):\n        grads = {}\n        grads['W1'] = x\n        return grads\n"
    found = candidates(written(tmp_path, text))
    assert found == ["Linear", "Net", "affine_backward", "step", "Old.loss", "Last", "Kept.run"]


def test_a_file_without_a_name(tmp_path: Path) -> None:
    """A layer that nobody made is checked in the net that holds it."""
    right, wrong = written(tmp_path / "a", NET + INPUTS), written(tmp_path / "b", WRONG + INPUTS)
    found = answers(right)
    assert found["ok"] and [r["target"] for r in found["reports"]] == [f"{right}:Net", f"{right}:affine_backward"]
    text = run(wrong, code=1).stdout
    assert f"{wrong}:14: wrong-scale" in text and "2 to check: 1 right, 1 wrong\n" in text


def test_what_could_not_be_checked_is_listed(tmp_path: Path) -> None:
    file = written(tmp_path, NET)
    result = run(file, code=2)
    assert "affine_backward needs the inputs x, w of affine_forward; define inputs() in" in result.stderr
    assert "3 to check: 3 not checked" in result.stdout


def test_a_class_that_cannot_be_made_is_listed(tmp_path: Path) -> None:
    """An abstract class, a protocol, and a global that raises when it is asked what it is keep nothing from the rest."""
    text = NET + INPUTS + "net = Net()\n\n\nimport abc, typing, weakref\n\n\nclass Layer(abc.ABC):\n"
    text += "    @abc.abstractmethod\n    def forward(self, x): ...\n    def backward(self, dout): ...\n"
    text += "\n\nclass Told(typing.Protocol):\n    def forward(self, x): ...\n    def backward(self, dout): ...\n"
    text += "\n\nclass Gone: ...\n\n\ngone = weakref.proxy(Gone())\n"
    file = written(tmp_path, text)
    result = run(file, code=2)
    assert f"Layer in {file} is abstract (it has no forward)" in result.stderr
    assert f"Told in {file} cannot be made: Protocols cannot be instantiated" in result.stderr
    assert "4 to check: 2 right, 2 not checked" in result.stdout
    assert "has no affine; did you mean" in run(f"{file}:affine", code=2).stderr


def test_a_folder(tmp_path: Path) -> None:
    written(tmp_path / "code", NET + INPUTS, "a.py")
    written(tmp_path / "code" / "more", WRONG + INPUTS, "b.py")
    for hidden in ("test_net.py", ".venv/c.py", "own/pyvenv.cfg", "own/d.py", "plain.py"):
        text = WRONG + INPUTS if hidden != "plain.py" else "raise SystemExit('never imported')\n"
        written((tmp_path / "code" / hidden).parent, text, Path(hidden).name)
    found = answers(tmp_path / "code", code=1)
    assert [Path(r["target"].split(":")[0]).name for r in found["reports"]] == ["a.py", "a.py", "b.py", "b.py"]
    written(tmp_path / "none", "x = 1\n")
    assert "no Python file in" in run(tmp_path / "none", code=2).stderr


def test_annotations_of_a_file_say_each_mistake_once(tmp_path: Path) -> None:
    text = WRONG + INPUTS + "\nlinear = Linear(4, 3)\n"
    lines = run(written(tmp_path, text), "--format", "github", code=1).stdout.splitlines()
    annotations = [line for line in lines if line.startswith("::error")]
    assert annotations and len(set(annotations)) == len(annotations)


@pytest.mark.parametrize("name", ["Linear", "linear", "Net", "affine_backward", "affine_forward"])
@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS,
        "\n\ndef inputs():\n    return {'x': np.ones((5, 4)), 'w': np.ones((4, 3))}\n",
        "\n\nx, w = np.ones((5, 4)), np.ones((4, 3))\n",
    ],
    ids=["value", "function", "variables"],
)
def test_where_inputs_are_found(tmp_path: Path, name: str, inputs: str) -> None:
    file = written(tmp_path, NET + inputs + "\nlinear = Linear(4, 3)\n")
    assert answers(f"{file}:{name}")["ok"]


def test_inputs_on_the_command_line_are_arrays_for_numpy_code(tmp_path: Path) -> None:
    file = written(tmp_path, NET)
    assert answers(f"{file}:affine_backward", "--input", "x=randn:5,4", "--input", "w=randn:4,3")["ok"]
    assert answers(f"{file}:Net", "--input", "x=randn:5,4")["ok"]


def test_an_object_is_made_with_what_the_file_has_under_the_names_of_its_arguments(tmp_path: Path) -> None:
    file = written(tmp_path, NET + INPUTS + "\nn_in, n_out = 4, 2\n")
    assert [row["shape"] for row in answers(f"{file}:Linear")["rows"]] == [[4, 2], [2], [5, 4]]


def test_a_method_that_leaves_gradients(tmp_path: Path) -> None:
    text = """\
import numpy as np

inputs = np.ones((5, 4))


class Model:
    def __init__(self):
        self.params = {"W": np.ones((4, 3))}

    def loss(self, x):
        W = self.params["W"]
        loss = np.sum((x @ W) ** 2)
        dW = 2 * x.T @ (x @ W)
        return loss, {"W": dW}

    def train(self, x):
        W = self.params["W"]
        dW = self.loss(x)[1]["W"]
        self.params["W"] = W - 0.1 * dW
"""
    file = written(tmp_path, text)
    assert answers(f"{file}:Model.loss")["ok"]
    assert "name the method that leaves gradients: Model.loss, Model.train" in run(f"{file}:Model", code=2).stderr
    one = written(tmp_path, text[: text.index("    def train")], "one.py")
    assert answers(f"{one}:Model")["ok"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("afine_backward", "has no afine_backward; did you mean affine_backward"),
        ("zzz", "has no zzz; it has Linear, Net, affine_forward, affine_backward, helper"),
        ("Net.bakward", "has no Net.bakward; did you mean backward"),
        (
            "Linear",
            "needs arguments to be made (n_in, n_out); add an object of it to the file, such as linear = Linear(...)",
        ),
        ("number", "cannot be called (it is int); name a function, a model, or a layer with forward"),
    ],
)
def test_what_cannot_be_found_or_made(tmp_path: Path, name: str, message: str) -> None:
    result = run(f"{written(tmp_path, NET + 'number = 3')}:{name}", code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1 and result.stdout == ""


def test_inputs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    file = written(tmp_path, NET + "\n\ndef inputs():\n    return np.ones(3), np.ones(4), np.ones(5)\n")
    said = run(f"{file}:affine_backward", code=2).stderr
    assert "gives 3 values, and affine_forward takes x, w; let it give a dictionary" in said


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\n", "has nothing to check"),
        ("def f(:\n", "net.py:1: invalid syntax"),
    ],
)
def test_a_file_with_nothing_to_check(tmp_path: Path, text: str, message: str) -> None:
    assert message in run(written(tmp_path, text), code=2).stderr


def test_a_file_that_is_not_there() -> None:
    assert run("no_such.py", code=2).stderr == "error: there is no file no_such.py; give the path of a Python file\n"


GELU = """\
import torch


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, dout):
        return 2 * dout


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return w * x**2

    @staticmethod
    def backward(ctx, dout):
        x, w = ctx.saved_tensors
        return 2 * w * x * dout, (x**2 * dout).sum(0)


twice = Double.apply


def double(x):
    return twice(x)


def model(x, w):
    return double(Square.apply(x, w)).sum()


def train(model, steps):
    raise SystemExit("never called")
    model(steps)


def main():
    raise SystemExit("never called")
    model(1, 2)
"""
ROWS = ["Square.x", "Square.w", "Double.x"]


def rows_of(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {r["target"].rpartition(":")[2]: [row["name"] for row in r.get("rows", [])] for r in answer["reports"]}


@pytest.mark.parametrize("inputs", ["def inputs():\n    return {0}\n", "inputs = {0}\n"])
@pytest.mark.parametrize(
    "given", ["torch.ones(5, 4), torch.ones(4)", '{"x": torch.ones(5, 4), "w": torch.ones(4), "steps": 3}']
)
def test_functions_are_checked_where_they_are_called(tmp_path: Path, inputs: str, given: str) -> None:
    """The file's inputs fit a function that calls torch.autograd.Functions; each of these is said once."""
    found = answers(written(tmp_path, GELU + inputs.format(given)))
    assert found["ok"] and list(rows_of(found)) == ["model"]
    assert sorted(rows_of(found)["model"]) == sorted(ROWS)


def test_functions_of_which_none_is_called_are_listed(tmp_path: Path) -> None:
    """Without inputs, and where a step that has gradients of its own calls them: then they are not checked with it."""
    result = run(written(tmp_path, GELU), code=2)
    assert "2 to check: 2 not checked" in result.stdout
    text = GELU + "def step(y):\n    loss = twice(y).sum()\n    y.g = 2 * torch.ones_like(y)\n"
    result = run(written(tmp_path, text + "inputs = {'y': torch.ones(3)}\n"), code=2)
    assert "net.py:Double\n" in result.stdout and "3 to check: 1 right, 2 not checked" in result.stdout


def test_a_function_that_is_wrong_is_said_once(tmp_path: Path) -> None:
    wrong = GELU.replace("return 2 * dout", "return 3 * dout")
    file = written(tmp_path, wrong + "inputs = torch.ones(5, 4), torch.ones(4)\n")
    found = answers(file, code=1)
    assert [f["line"] for r in found["reports"] for f in r["findings"]] == [11]
    assert run(file, "--fix", "--yes").exit_code == 0


STEP = """\
import numpy as np


class Scale:
    def __init__(self, w):
        self.w = w

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, dout):
        self.dw = (dout * self.x).sum(0)
        return dout * self.w


class Shift:
    @staticmethod
    def forward(x, b, by):
        return x + by * b, by

    @staticmethod
    def backward(dout, cache):
        return dout, cache * dout.sum(0)


scale = Scale(np.arange(1.0, 4.0))


def step(y, c):
    out, cache = Shift.forward(scale.forward(y), c, 2)
    loss = np.sum(out**2)
    dout = 2 * out
    dh, dc = Shift.backward(dout, cache)
    dy = scale.backward(dh)
    return loss, {"y": dy, "c": dc}


inputs = np.ones((5, 3)), np.array([0.5, 1.0, 2.0])
"""


def test_layers_of_a_step_that_was_checked_need_no_inputs(tmp_path: Path) -> None:
    """Objects of the file, and classes of static methods."""
    found = answers(written(tmp_path, STEP))
    assert found["ok"] and list(rows_of(found)) == ["step"]


def test_a_layer_whose_backward_no_one_calls_is_listed(tmp_path: Path) -> None:
    text = STEP.replace("dh, dc = Shift.backward(dout, cache)", "dh, dc = dout, 2 * dout.sum(0)")
    text = text.replace("scale.backward(dh)", "dh * scale.w")
    assert "3 to check: 1 right, 2 not checked" in run(written(tmp_path, text), code=2).stdout


def test_what_returned_gradients_are_of_and_which_is_the_loss(tmp_path: Path) -> None:
    text = "import torch\n\n\ndef step(x, w):\n    cost = (x * w).sum()\n    return [3 * x, w + 0]\n"
    text += "\n\ninputs = torch.ones(4), torch.linspace(0, 1, 4)\n"
    file = written(tmp_path, text)
    target = f"{file}:step"
    assert "or name it with --loss" in run(target, code=2).stderr
    assert "cannot be told apart" not in run(target, "--loss", "cost", code=1).stdout
    found = answers(target, "--loss", "cost", "--wrt", "w", "--wrt", "x", code=1)
    assert [(r["name"], r["status"]) for r in found["rows"]] == [("w", "wrong"), ("x", "right")]
    assert "and --wrt names 1" in run(target, "--loss", "cost", "--wrt", "w", code=2).stderr
    assert "say something of one FILE.py:NAME" in run(file, "--loss", "cost", code=2).stderr
    assert run(target, "--loss", "cost", "--wrt", "w,x", "--fix", "--yes").exit_code == 0
    assert "return [x, w + 0]" in file.read_text()


FLAGGED = """\
import numpy as np


class Dropout:
    def forward(self, x, train_flg=True):
        self.mask = np.random.rand(*x.shape) > 0.5 if train_flg else np.ones_like(x)
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Net:
    def __init__(self, w):
        self.w = w

    def loss(self, x, t):
        return ((x @ self.w - t) ** 2).sum()

    def gradient(self, x, t):
        self.loss(x, t)
        return {"w": x.T @ (2 * (x @ self.w - t))}


net = Net(np.ones((4, 3)))


def inputs():
    return np.ones((5, 4)), np.zeros((5, 3))
"""


def test_the_targets_are_no_flag(tmp_path: Path) -> None:
    file = written(tmp_path, FLAGGED)
    assert "inputs in" in run(f"{file}:Dropout", code=2).stderr
    file = written(tmp_path, FLAGGED.replace("np.ones((5, 4)), np.zeros((5, 3))", "np.ones((5, 4)), False"))
    assert answers(f"{file}:Dropout")["ok"]


def test_a_method_is_named_for_an_object_without_a_backward(tmp_path: Path) -> None:
    file = written(tmp_path, FLAGGED)
    assert f"name its method that computes gradients, {file}:net.gradient" in run(f"{file}:net", code=2).stderr
    assert answers(f"{file}:net.gradient")["ok"]
