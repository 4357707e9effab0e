"""What the page on targets prints is what is printed; refusals; the command line."""

from __future__ import annotations

import linecache
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from sweeps import of_today

import chainrule as cr
from chainrule.checking.examples import of_rule
from chainrule.checking.other_libraries import LIBRARIES
from chainrule.cli import main
from chainrule.errors import ChainruleError
from chainrule.rules import BOOK

PAGE = (Path(__file__).parents[1] / "docs" / "targets.md").read_text()
TARGETS = ("layers", "numpy", "jax")


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def network() -> dict[str, Any]:
    """What the program of the page leaves."""
    code, file = blocks(PAGE)[0], "<page>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    space: dict[str, Any] = {}
    exec(compile(code, file, "exec"), space)
    return space


@pytest.mark.parametrize("style", [*TARGETS, "autograd"])
def test_the_page_shows_what_is_printed(network: dict[str, Any], style: str) -> None:
    section = PAGE.split(f'## `print(d.source("{style}"))`')[1]
    assert blocks(section)[0] == network["d"].source(style)


def test_the_page_uses_the_model_as_it_is(network: dict[str, Any]) -> None:
    section = PAGE.split('## `print(d.source("layers"))`')[1]
    code, use = blocks(section)[:2]
    space = {name: network[name].clone() for name in ("xb", "yb", "w1", "b1", "w2", "b2")}
    exec(code + use, space)
    for name, gradient in network["d"].grads.items():
        torch.testing.assert_close(space[name].g, gradient)  # type: ignore[attr-defined]


def test_the_numpy_of_the_page_learns(network: dict[str, Any]) -> None:
    space: dict[str, Any] = {}
    exec(network["d"].source("numpy"), space)
    values = [network[name].numpy().copy() for name in ("xb", "w1", "b1", "w2", "b2", "yb")]
    losses = []
    for _ in range(20):
        loss, gradients = space["forward_and_backward"](*values)
        losses.append(float(loss))
        for value, gradient in zip(values[1:5], gradients.values(), strict=True):
            value -= 0.1 * gradient
    assert losses[-1] < 0.5 * losses[0]


def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\n\n\ndef forward(x, w):\n    return torch.sigmoid(x @ w).sum()\n\n\n"
        "def inputs():\n    return torch.rand(4, 3), torch.rand(3, 2)\n"
    )
    return f"{file}:forward"


@pytest.mark.parametrize(
    ("style", "line"), [("layers", "class Model:"), ("numpy", "import numpy as np"), ("jax", "jax.nn.sigmoid(x @ w)")]
)
def test_the_command_writes_each_target(tmp_path: Path, style: str, line: str) -> None:
    out = tmp_path / "derived.py"
    done = CliRunner().invoke(main, ["derive", net(tmp_path), "--style", style, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert line in out.read_text()
    assert line in CliRunner().invoke(main, ["derive", net(tmp_path), "--style", style]).output


@pytest.mark.parametrize("style", ["numpy", "jax"])
def test_an_operation_without_words_is_refused_with_its_place(style: str) -> None:
    d = cr.derive(lambda x: torch.special.zeta(2.0, x + 1).sum(), torch.rand(3))
    with pytest.raises(
        ChainruleError, match=r"^special_zeta of \(3,\) has no short spelling in \w+; .*docs\.py:\d+\)$"
    ):
        d.source(style)


def test_jax_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    d = cr.derive(lambda x: (x * x).sum(), torch.rand(3))
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ChainruleError, match=r'pip install "chainrule\[jax\]"'):
        d.source("jax")


def test_a_style_that_there_is_not() -> None:
    d = cr.derive(lambda x: (x * x).sum(), torch.rand(3))
    with pytest.raises(ChainruleError, match='"layers", "numpy" and "jax"'):
        d.source("fortran")


@pytest.mark.parametrize("name", of_today([name for name in BOOK.rules if isinstance(name, str)], 3))
def test_rules_are_written_in_numpy_or_refused(name: str) -> None:
    sample = of_rule(BOOK.rules[name])
    if sample is None:
        return
    torch.manual_seed(0)
    d = sample.derive()
    try:
        source = d.source("numpy")
    except ChainruleError as error:
        assert "has no short spelling in NumPy" in str(error) or "has no dtype" in str(error)
        return
    inputs = [n.meta["val"] for n in d._arguments()] + (
        [] if d.program.upstream is None else [d.program.upstream.meta["val"]]
    )
    with LIBRARIES["numpy"]() as (there, back):
        space: dict[str, Any] = {}
        exec(source, space)
        _, gradients = space["forward_and_backward"](*(there(v.detach()) for v in inputs))
        for key, gradient in d.grads.items():
            if gradient is not None:
                torch.testing.assert_close(back(gradients[key]), gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("style", ["numpy", "jax"])
@pytest.mark.parametrize("option", [{"label_smoothing": 0.1}, {"ignore_index": 1}])
def test_a_refusal_names_the_option_that_has_no_words(style: str, option: dict[str, Any]) -> None:
    y = torch.tensor([0, 2, 1])
    d = cr.derive(lambda x: torch.nn.functional.cross_entropy(x, y, **option), torch.rand(3, 4))
    ((name, value),) = option.items()
    with pytest.raises(ChainruleError, match=rf"cross_entropy of \(3, 4\), \(3,\) with {name}={value} has no short"):
        d.source(style)
