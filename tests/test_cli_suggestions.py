"""The `--input` options that an error suggests: given as they stand, they work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chainrule.cli import main

HEAD = "import numpy as np\nimport torch\n\n\n"
CODE = {
    "elementwise": "def step(x):\n    loss = (x**2).sum()\n    x.g = 2 * x\n",
    "affine": (
        "def step(x, w, b):\n    out = x @ w + b\n    loss = out.pow(2).sum()\n    out.g = 2 * out\n"
        "    w.g = x.T @ out.g\n    b.g = out.g.sum(0)\n"
    ),
    "targets": (
        "def step(x, w, b, t):\n    e = np.dot(x, w) + b - t\n    loss = np.sum(e**2)\n"
        "    return loss, {'w': np.dot(x.T, 2 * e), 'b': 2 * e.sum(0)}\n"
    ),
    "labels": (
        "def step(x, y):\n    e = np.exp(x - x.max(1, keepdims=True))\n    p = e / e.sum(1, keepdims=True)\n"
        "    loss = -np.log(p[np.arange(len(y)), y]).sum()\n    dx = p.copy()\n    dx[np.arange(len(y)), y] -= 1\n"
        "    return loss, dx\n"
    ),
    "net": (
        "class Net:\n    def __init__(self):\n        self.w = torch.linspace(-1, 1, 21).reshape(7, 3)\n\n"
        "    def forward(self, x):\n        print('heard')\n        self.x = x\n        return x @ self.w\n\n"
        "    def backward(self, dout):\n        self.dw = self.x.T @ dout\n        return dout @ self.w.T\n"
    ),
    "images": (
        "def pool_forward(x):\n    n, c, h, w = x.shape\n"
        "    return np.mean(x.reshape(n, c, h // 2, 2, w // 2, 2), axis=(3, 5)), x.shape\n\n\n"
        "def pool_backward(dout, cache):\n    return np.repeat(np.repeat(dout, 2, axis=2), 2, axis=3) / 4\n"
    ),
}
NAMES = {"net": "Net", "images": "pool_backward"}


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["check", *arguments])
    assert result.exit_code == code, result.output
    return result


def suggestion(target: str) -> list[str]:
    message = run(target, code=2).stderr
    assert "heard" not in message
    return shlex.split(re.search(r"or give (--input .*)", message)[1])  # type: ignore[index]


@pytest.mark.parametrize("name", CODE)
def test_what_is_suggested_works(tmp_path: Path, name: str) -> None:
    file = tmp_path / "net.py"
    file.write_text(HEAD + CODE[name])
    target = f"{file}:{NAMES.get(name, 'step')}"
    assert "gradients are right" in run(target, *suggestion(target)).stdout


def test_where_no_shapes_are_known_the_form_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    code = "def step(x, y):\n    x, loss = x.reshape(7, 11, 13), 0\n    x[y].g = loss\n"
    file.write_text(HEAD + code)
    told = " ".join(suggestion(f"{file}:step"))
    assert told == "--input x=randn:SHAPE --input y=randint:CLASSES:SHAPE, where a SHAPE is written as 64,784"
