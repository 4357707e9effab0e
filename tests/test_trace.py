"""The trace: every value under its name, where it comes from and who uses it, runs side by side, the command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import click
import pytest
import torch
from agreement import assert_close, normal
from click.testing import CliRunner
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.cli import main
from chainrule.errors import ChainruleError
from chainrule.traces.summary import block, summary


@every_entry
def test_every_line_has_its_step_and_knows_its_neighbours(entry: Entry) -> None:
    d = case(entry).d
    t = d.trace()
    names = [step.name for step in t]
    for name, gradient in d.grads.items():
        if gradient is not None:
            assert_close(t[f"{d.layout.variables[d.node(name)]}.g"].value, gradient)
    for step in t:
        assert step.shape == tuple(step.value.shape)
        known = {other.name for other in step.comes_from}
        words = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*\b(?:\.g\b)?(?!\()", step.code.partition(" = ")[2]))
        assert known <= words, step
        assert words & set(names) - {step.name} <= known, step
        for other in step.comes_from:
            assert step in other.used_by and t.steps.index(other) < t.steps.index(step)
        for other in step.used_by:
            assert step in other.comes_from
        assert step.name in str(step) and "comes from" in str(step)
    assert all(line.strip() for line in str(t).split("\n"))
    assert t._repr_html_().count("<tr>") == len(t) + 1


@every_entry
def test_after_an_update_the_values_are_those_of_the_function(entry: Entry) -> None:
    c = case(entry)
    found = c.d.trace(update=1e-3)
    tensors = [tensor for tensor, g in c.d.pairs() if g is not None]
    kept = [tensor.clone() for tensor in tensors]
    with torch.no_grad():
        for tensor, gradient in zip(tensors, (g for g in c.d.grads.values() if g is not None), strict=True):
            tensor.data -= 1e-3 * gradient  # by .data: the case is shared, and autograd counts other writes
        try:
            output = entry(*c.args)
        finally:
            for tensor, before in zip(tensors, kept, strict=True):
                tensor.data.copy_(before)
    assert_close(found[c.d.layout.variables[c.d.program.output]].value, output, 1e-9)
    beside = c.d.trace().beside(found)
    assert len(beside.pairs) == len(found) == len(str(beside).splitlines()) - 1
    assert all(math.isfinite(pair.change) for pair in beside.pairs)


def network(x: Tensor, w1: Tensor, b1: Tensor) -> Tensor:
    l1 = x @ w1 + b1
    l2 = l1.clamp_min(0.0)
    loss = (l2**2).mean()
    return loss


def derived(n: int = 4) -> cr.Derivation:
    torch.manual_seed(0)
    return cr.derive(network, normal(n, 3), normal(3, 5), normal(5), wrt=["w1", "b1"])


def test_origin_and_users_have_their_lines() -> None:
    t = derived().trace()
    first = network.__code__.co_firstlineno
    assert [s.name for s in t["l1"].comes_from] == ["x", "w1", "b1"]
    assert [(s.name, s.line) for s in t["l1"].used_by] == [("l2", first + 2), ("l1.g", first + 1)]
    assert [s.name for s in t["l1.g"].comes_from] == ["l2.g", "l1"]
    assert [s.name for s in t["l1.g"].used_by] == ["b1.g", "w1.g"]
    text = str(t["l1.g"])
    assert f"comes from: l2.g (line {first + 2}), l1 (line {first + 1})" in text
    assert "    w1.g (backward): w1.g = x.T @ l1.g" in text
    assert "used by: nothing" in str(t["w1.g"]) and "it is given" in str(t["x"])
    assert repr(t["l1"]) == f"<Step l1 (line {first + 1}) (4, 5)>"
    with pytest.raises(ChainruleError, match="no step is named 'l7'; there are x, w1"):
        t["l7"]


def test_a_gradient_of_two_values_is_found_under_both_names() -> None:
    def forward(x: Tensor, b: Tensor) -> Tensor:
        l1 = x + b
        l2 = l1 + 1
        return l2.sin().sum()

    d = cr.derive(forward, torch.rand(3, 2), torch.rand(2))
    trace = d.trace()
    assert trace["l2.g"] is trace["l1.g"]
    assert d.explain()["l2.g"].targets == ("l1.g",)
    with pytest.raises(cr.ChainruleError, match=r"no step is named 'l3.g'"):
        trace["l3.g"]


def test_parts_of_a_call_have_steps_of_their_own() -> None:
    def forward(x: Tensor) -> Tensor:
        a, b = x.chunk(2)
        return (a * b).sum()

    t = cr.derive(forward, torch.arange(4.0)).trace()
    assert t["b"].value.tolist() == [2, 3] and t["b"].code == "b = x.chunk(2)[1]"
    assert [s.name for s in t["b"].comes_from] == ["x"]


def test_large_values_are_summarised() -> None:
    d = derived(1000)
    d["x"].value[3, 1] = math.nan  # after the run: the values of the trace are the program's
    text = str(d.trace())
    assert max(map(len, text.splitlines())) < 160
    row = next(line for line in text.splitlines() if line.startswith("  x "))
    assert "(1000, 3)" in row and "1 NaN" in row and "mean" in row and "[999, 2] = " in row
    assert "% zeros" in next(line for line in text.splitlines() if line.startswith("  l2 "))


@pytest.mark.parametrize(
    "value, text",
    [
        (torch.tensor(2.0), "2"),
        (torch.zeros(0, 3), "[]"),
        (torch.zeros(0, 3, 2), "no elements"),
        (torch.tensor([[1.0, -0.0]]), "[1 0]"),
        (torch.tensor([True, False]), "[True, False]"),
        (torch.tensor([1 + 2j]), "[1+2j]"),
        (torch.full((100,), math.nan), "no finite element, 100 NaN; [0] = nan, [99] = nan"),
        (torch.tensor([0.0, math.inf] * 50), "0 .. 0, mean 0, 50% zeros, 50 infinite; [0] = 0, [99] = inf"),
        (torch.ones(7, 7, dtype=torch.bool), "100% True; [0, 0] = True, [6, 6] = True"),
        (torch.arange(100), "0 .. 99, mean 49.5, 1% zeros; [0] = 0, [99] = 99"),
    ],
)
def test_a_value_in_few_words(value: Tensor, text: str) -> None:
    assert summary(value) == text


def test_the_corners_of_a_large_value() -> None:
    text = block(torch.arange(5 * 90.0).view(5, 9, 10))
    assert text.splitlines()[0] == "[ 0  1 …  8  9]" and text.splitlines()[-1] == "[80 81 … 88 89]"


def test_two_runs_side_by_side() -> None:
    d = derived()
    beside = d.trace().beside(d.trace(update=0.1))
    w1, g = d["w1"].value, d.grads["w1"]
    assert g is not None
    assert_close(beside["w1"].after, w1 - 0.1 * g)
    assert beside["loss"].change < 0 and beside["x"].change == 0
    row = next(line for line in str(beside).splitlines() if line.startswith("loss"))
    assert f"{d.output:.6g}" in row
    assert "largest change" in beside._repr_html_()
    with pytest.raises(ChainruleError, match="are of different programs"):
        d.trace().beside(cr.derive(lambda x: x.sum(), normal(2)).trace())
    with pytest.raises(ChainruleError, match=r"update is the size of a gradient step.*not 'much'"):
        d.trace(update="much")  # type: ignore[arg-type]


def test_a_step_into_another_branch_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return (2 * x).sum() if x.sum() > 1.0 else (x**2).sum()

    d = cr.derive(forward, torch.tensor([1.0, 0.5]))
    assert d.trace(update=0.1)["x"].value.tolist() == pytest.approx([0.8, 0.3])
    with pytest.raises(ChainruleError, match=r"takes another branch .* \(test_trace.py:\d+\)"):
        d.trace(update=0.5)


def test_another_batch_stands_beside_as_well() -> None:
    text = str(derived(4).trace().beside(derived(6).trace()))
    assert "(4, 5), (6, 5)" in text and "another shape" in text


# -- the command ---------------------------------------------------------------------------------

NET = """
import torch
torch.manual_seed(0)
w1, b1 = torch.randn(4, 3), torch.zeros(3)

def forward(inp, targ):
    l1 = inp @ w1 + b1
    diff = l1[:, 0] - targ
    loss = diff.pow(2).mean()
    return loss

def inputs():
    return torch.randn(5, 4), torch.randn(5)
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(NET)
    return f"{file}:forward"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["trace", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_one_value(net: str) -> None:
    text = run(net, "--value", "l1.g")
    assert text.startswith("l1.g = ") and "diff.g (line 8)" in text and "w1.g (backward): w1.g = inp.T @ l1.g" in text
    answer = json.loads(run(net, "--value", "l1", "--json"))
    assert answer["comes_from"] == ["inp", "w1", "b1"] and answer["line"] == 7 and "diff" in answer["used_by"]
    assert "no step is named 'l9'" in run(net, "--value", "l9", code=2)


def test_an_update(net: str) -> None:
    text = run(net, "--update", "0.1", "--wrt", "w1")
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert rows["b1"].endswith(" 0") and not rows["w1"].endswith(" 0") and "before" in rows["step"]
    answer = json.loads(run(net, "--update", "0.1", "--json"))
    loss = next(pair for pair in answer["pairs"] if pair["name"] == "loss")
    assert loss["after"]["value"] < loss["before"]["value"] and loss["change"] < 0


def test_an_output_that_is_no_scalar(tmp_path: Path) -> None:
    file = tmp_path / "lin.py"
    file.write_text("import torch\nw = torch.ones(2, 2)\ndef lin():\n    out = w @ w\n    return out\n")
    assert "add --upstream" in run(f"{file}:lin", code=2)
    assert "  out_g" in run(f"{file}:lin", "--upstream")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--step"], "--step waits for keys, and this is no terminal"),
        (["--step", "--json"], "--step waits for keys, --json prints for programs"),
        (["--step", "--value", "l1"], "choose one"),
        (["--update", "1", "--value", "l1"], "choose one"),
    ],
)
def test_what_the_command_refuses(net: str, options: list[str], message: str) -> None:
    assert message in run(net, *options, code=2)


def test_one_step_at_a_time(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key goes on, b goes back, q ends."""
    from chainrule.cli import steps

    keys = iter("n bbnnq")
    monkeypatch.setattr(steps, "in_terminal", lambda: True)
    monkeypatch.setattr(click, "getchar", lambda: next(keys))
    text = run(net, "--step")
    assert [int(n) for n in re.findall(r"^# (\d+) of \d+, ", text, re.MULTILINE)] == [1, 2, 3, 2, 1, 2, 3]
    assert "used by:" in text and next(keys, None) is None
    monkeypatch.setattr(click, "getchar", lambda: "\r")
    shown = [int(n) for n in re.findall(r"^# (\d+) of ", run(net, "--step"), re.MULTILINE)]
    assert shown == list(range(1, shown[-1] + 1)) and f"of {shown[-1]}, backward" in run(net, "--step")
