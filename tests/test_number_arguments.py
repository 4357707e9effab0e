"""`check`: a parameter that is a plain Python number is an input as an array without axes is; other numbers are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from of_source import of_source

import chainrule as cr
from chainrule.cli import main
from chainrule.diagnosis.numbers import by_gradients
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.report import Report

COURSE = """\
import numpy as np


def inputs():
    r = np.random.RandomState(0)
    return r.randn(4, 1), {b}, r.randn(4, 9), (r.rand(1, 9) > 0.5).astype(float)


def propagate(w, b, X, Y, reg=0.4, eps=1e-9):
    m = X.shape[1]
    Z = np.dot(w.T, X) + b
    A = 1 / (1 + np.exp(-Z))
    cost = -np.sum(Y * np.log(A + eps) + (1 - Y) * np.log(1 - A + eps)) / m + reg / (2 * m) * np.sum(np.square(w))
    dA = -(Y / (A + eps) - (1 - Y) / (1 - A + eps)) / m
    dZ = dA * A * (1 - A)
    dreg = reg / m * w
    dw = np.dot(X, dZ.T) + dreg
    db = np.sum(dZ)
    {returned}
"""
DICTIONARY = 'return {"dw": dw, "db": db}, cost'
LINE = """\
def gradients(w, b, x, y):
    e = w * x + b - y
    loss = (e**2).mean()
    dw = 2 * (e * x).mean()
    db = 2 * e.mean()
    {returned}
"""
MISTAKES = [
    ("db = np.sum(dZ)", "db = np.sum(dZ) / m"),
    ("db = np.sum(dZ)", "db = -np.sum(dZ)"),
    ("db = np.sum(dZ)", "db = np.sum(dZ, axis=1)"),
    ("db = np.sum(dZ)", "db = np.sum(dA)"),
    ("db = np.sum(dZ)", "db = 2 * np.sum(dZ) + b"),
    ("dZ = dA * A * (1 - A)", "dZ = dA * A"),
    ("dw = np.dot(X, dZ.T) + dreg", "dw = np.dot(X, dZ.T)"),
]


def course(returned: str = DICTIONARY, b: str = "0.3", wrong: tuple[str, str] = ("db", "db")) -> dict[str, Any]:
    return of_source(COURSE.replace("{b}", b).replace("{returned}", returned).replace(*wrong))


def right(report: Report, *names: str) -> None:
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == list(names)


@pytest.mark.parametrize("b", ["0.3", "0", "0.0", "np.float64(0.3)", "np.float32(1)"])
@pytest.mark.parametrize(
    "returned",
    [
        DICTIONARY,
        "return cost, dw, db",
        "return cost, {'w': dw, 'b': db}",
        "return dict(dw=dw, db=db), float(cost)",
        "grads = {}; grads['dw'], grads['db'] = dw, db; return grads, cost",
        "loss = cost",  # in variables alone
    ],
)
def test_a_gradient_of_it_makes_it_an_input(returned: str, b: str) -> None:
    space = course(returned, b)
    found = cr.check(space["propagate"], *space["inputs"]())
    assert found.ok, str(found)
    assert {"w", "b"} <= {row.name for row in found.rows} <= {"w", "b", "Z", "A"}


def test_it_may_be_asked_for_by_name() -> None:
    space = course("return [np.dot(X, dZ.T) + dreg, np.sum(dZ)], cost")
    right(cr.check(space["propagate"], *space["inputs"](), wrt=["w", "b"]), "w", "b")


def test_it_may_be_given_by_name_or_be_a_default() -> None:
    space = course()
    w, b, X, Y = space["inputs"]()
    right(cr.check(space["propagate"], w=w, b=b, X=X, Y=Y), "w", "b")
    space = of_source(LINE.replace("b, x, y", "x, y, b=0.3").replace("{returned}", "return loss, dw, db"))
    right(cr.check(space["gradients"], 0.5, np.arange(5.0), np.ones(5)), "w", "b")


def test_numbers_alone_are_told_by_their_order() -> None:
    text = "x = torch.arange(5.0)\ndef order(w, b):\n    e = w * x + b - 1\n    loss = (e**2).mean()\n"
    space = of_source("import torch\n" + text + "    return (2 * (e * x).mean(), 2 * e.mean()), loss\n")
    right(cr.check(space["order"], 0.5, -0.2), "w", "b")


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_with_arrays_and_with_tensors(kind: Callable[..., Any]) -> None:
    space = of_source(LINE.replace("{returned}", "return loss, {'dw': dw, 'db': db}"))
    x, y = kind([0.5, 1.5, -1.0]), kind([1.0, 0.0, 2.0])
    right(cr.check(space["gradients"], 0.5, -0.2, x, y), "w", "b")
    wrong = of_source(LINE.replace("db = 2 *", "db =").replace("{returned}", "return loss, {'dw': dw, 'db': db}"))
    (finding,) = cr.check(wrong["gradients"], 0.5, -0.2, x, y).findings
    assert (finding.name, finding.line, finding.cause, finding.proved) == ("b", 5, "wrong-scale", True)
    assert finding.repair == "db = 2 * e.mean()"


@pytest.mark.parametrize("wrong", MISTAKES)
def test_a_mistake_is_found_as_with_an_array(wrong: tuple[str, str]) -> None:
    as_array = course(b="np.array(0.3)", wrong=wrong)
    expected = cr.check(as_array["propagate"], *as_array["inputs"]())
    space = course(wrong=wrong)
    found = cr.check(space["propagate"], *space["inputs"]())
    assert not found.ok and found.findings
    told = [(f.name, f.line, f.cause, f.message, f.repair, f.proved, f.text) for f in found.findings]
    assert told == [(f.name, f.line, f.cause, f.message, f.repair, f.proved, f.text) for f in expected.findings]
    assert [(r.name, r.status, r.line) for r in found.rows] == [(r.name, r.status, r.line) for r in expected.rows]


def test_numbers_without_a_gradient_stay_numbers() -> None:
    space = of_source(
        "import numpy as np\n"
        "def step(x, w, lr=0.1, p=0.5, eps=1e-5, n=3, t=2):\n"
        "    assert type(lr) is float and type(eps) is float and type(n) is int and type(t) is int\n"
        "    for _ in range(n):\n"
        "        dt = 1 / t\n"
        "    loss = p * np.sum((x @ w) ** 2 + eps)\n"
        "    dlr = lr * w\n"
        "    dp = 2 * p * (x @ w)\n"
        "    dw = x.T @ dp\n"
        "    w - dlr * dt\n"
        "    return loss, {'dw': dw}\n"
    )
    report = cr.check(space["step"], np.eye(3), np.ones((3, 2)))
    assert report.ok and [row.name for row in report.rows] == ["w"], str(report)


def test_only_those_that_have_a_gradient_are_inputs() -> None:
    seen: list[tuple[type, ...]] = []
    space = course()
    args = (*space["inputs"](), 0.4)
    asked = Asked(space["propagate"], args)

    def report(asked: Asked) -> Report:
        seen.append(tuple(type(a) for a in (asked.args[1], asked.args[4])))
        return cr.check(asked.code, *asked.args, **asked.kwargs)

    right(by_gradients(asked, report), "w", "b")
    assert seen[-1] == (np.ndarray, float)


HELD = """\
import numpy as np


class Regression:
    def __init__(self, p=0.5, lr=0.1):
        self.w, self.b, self.p, self.lr = np.ones((3, 1)), 0.25, p, lr

    def step(self, x, y):
        assert type(self.p) is float and type(self.lr) is float
        p = x @ self.w + self.b
        loss = self.p * np.sum((p - y) ** 2)
        dp = 2 * self.p * (p - y)
        dw = x.T @ dp
        db = np.sum(dp)
        self.w = self.w - self.lr * dw
        self.b -= self.lr * db
        return loss


def gradients(params, x, y):
    dp = x @ params["w"] + params["b"] - y
    loss = np.sum(dp**2) / 2
    return loss, {"w": x.T @ dp, "b": np.sum(dp)}
"""


@pytest.mark.parametrize("wrong", [False, True])
def test_in_an_object_and_in_a_dictionary(wrong: bool) -> None:
    space = of_source(HELD.replace("np.sum(dp)", "np.mean(dp)") if wrong else HELD)
    held, x, y = space["Regression"](), np.arange(12.0).reshape(4, 3), np.ones((4, 1))
    params = {"w": np.ones((3, 1)), "b": 0.25}
    reports = cr.check(held.step, x, y), cr.check(space["gradients"], params, x, y)
    for report in reports:
        assert [r.status for r in report.rows if r.name.endswith("b")] == ["wrong" if wrong else "right"], str(report)
        assert report.ok is not wrong and [f.cause for f in report.findings] == ["wrong-scale"] * wrong
    assert held.b == 0.25 and type(held.b) is float and params["b"] == 0.25


def test_a_run_that_was_tried_leaves_nothing_behind() -> None:
    space = of_source(
        "def step(x, w, reg=0.1):\n"
        "    loss = (x @ w).pow(2).sum()\n"
        "    dreg = 2 * x.T @ (x @ w)\n"
        "    calls.append(reg)\n"
        "    w.g = dreg if not hasattr(w, 'g') else w.g + dreg\n"
        "    return loss\n"
    )
    space["calls"] = []
    x, w = torch.arange(6.0).reshape(3, 2), torch.ones(2, 1)
    right(cr.check(space["step"], x, w), "w")
    assert len(space["calls"]) == 1


def test_an_error_is_that_of_the_code_as_it_was_called() -> None:
    space = course("raise KeyError('theirs')")
    with pytest.raises(KeyError, match="theirs"):
        cr.check(space["propagate"], *space["inputs"]())


def test_a_repair_is_written(tmp_path: Path) -> None:
    file = tmp_path / "course.py"
    text = COURSE.replace("{b}", "0.3").replace("{returned}", DICTIONARY)
    file.write_text(text.replace("db = np.sum(dZ)", "db = np.sum(dZ) / m"))
    result = CliRunner().invoke(main, ["check", f"{file}:propagate", "--fix", "--yes"])
    assert result.exit_code == 0, result.output
    assert file.read_text() == text


@pytest.mark.parametrize(("owner", "ok"), [("SquaredLoss", True), ("Metric", False)])
def test_a_dropped_scalar_is_the_loss_where_its_class_says_so(owner: str, ok: bool) -> None:
    code = (
        f"class {owner}:\n    def forward(self, p, t):\n        return ((p - t) ** 2).sum()\n\n\n"
        f"def step(w, x, t):\n    p = x @ w\n    {owner}().forward(p, t)\n    w.g = x.T @ (2 * (p - t))\n"
    )
    space = of_source(code)
    args = torch.randn(4, 3), torch.randn(5, 4), torch.randn(5, 3)
    if ok:
        assert cr.check(space["step"], *args).ok
    else:
        with pytest.raises(cr.ChainruleError, match="no loss was found"):
            cr.check(space["step"], *args)
