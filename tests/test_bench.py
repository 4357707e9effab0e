"""The bench: contenders that are right, wrong and unable, the floor, memory, the command. Peers are in test_works.py."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from chainrule.bench import floor, memory, neighbours, ours, rounds
from chainrule.bench.agreement import STEPS, truth
from chainrule.bench.contender import OURS, Contender, OnTensors, Recipe, Unable, fresh
from chainrule.bench.measure import measure
from chainrule.bench.peers import PEERS
from chainrule.bench.peers.eager import Eager
from chainrule.bench.results import MEASURED, SKIPPED, WRONG, Block
from chainrule.bench.table import left_out
from chainrule.bench.works import DEPTHS, WORKS, Setup, Work, deeper
from chainrule.cli import main
from chainrule.errors import ChainruleError


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has gathered takes seconds to look through, each time."""
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)


BY_NAME = {work.name: work for work in WORKS}
PEER = {recipe.name: recipe for recipe in PEERS}
QUICK = {"samples": 1, "least": 1e-6}


class Wrong(Eager):
    """A stand-in of a step that is nearly right: its rate is a thousandth too large."""

    def __init__(self, work: Work, setup: Setup) -> None:
        super().__init__(dataclasses.replace(work, lr=1.001 * work.lr), setup)


def unable(work: Work, setup: Setup) -> Contender:
    raise Unable("not today")


def broken(work: Work, setup: Setup) -> Contender:
    raise RuntimeError("no compiler\nand more")


def statuses(block: Block) -> dict[str, str]:
    return {line.name: line.status for line in block.lines}


def test_a_wrong_step_is_reported_and_not_timed() -> None:
    wrong = Recipe("nearly", "eager", Wrong)
    block = measure(BY_NAME["mlp"], [wrong, PEER["eager"]], **QUICK)
    assert statuses(block) == {"nearly": WRONG, "eager": MEASURED}
    line = block.lines[0]
    assert not line.samples and line.memory is None
    assert line.apart == pytest.approx(1e-3, rel=0.2) and "is off by" in line.reason
    assert block.peer is block.lines[1]
    assert "seconds" not in line.as_json() and "samples" not in line.as_json()


def test_those_who_are_not_able_are_named() -> None:
    recipes = [Recipe("absent", "peer", unable), Recipe("broken", "peer", broken), Recipe("ours", OURS, broken)]
    block = measure(BY_NAME["regression"], [*recipes, PEER["eager"]], **QUICK)
    assert statuses(block) == {"absent": SKIPPED, "broken": SKIPPED, "ours": WRONG, "eager": MEASURED}
    assert [line.reason for line in block.lines[:3]] == ["not today", *["RuntimeError: no compiler"] * 2]


def test_a_parameter_that_is_not_a_number_is_furthest_off() -> None:
    work = BY_NAME["regression"]
    right = truth(work, fresh(work))
    assert right.apart(right.losses, right.after)[0] == 0
    off, where = right.apart(right.losses, {**right.after, "b": right.after["b"] * float("nan")})
    assert off != off and where == "the update of b"
    assert right.apart([*right.losses[:-1], right.losses[-1] * 1.5], right.after)[1] == f"the loss of step {STEPS}"


@dataclasses.dataclass
class SGD:
    lr: float


def test_the_compiled_step_of_chainrule_is_a_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    class Step:
        """A stand-in with a plan, on autograd."""

        def __init__(self, forward: Any, params: list[torch.Tensor], lr: float) -> None:
            self.forward, self.params, self.lr = forward, params, lr

        def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
            loss = self.forward(*batch)
            with torch.no_grad():
                for p, g in zip(self.params, torch.autograd.grad(loss, self.params)):
                    p.sub_(g, alpha=self.lr)
            return loss

        def plan(self) -> Any:
            return dataclasses.make_dataclass("Plan", ["buffers_bytes"])(10_000_000)

    def compile(forward: Any, *batch: torch.Tensor, params: Any, optimizer: SGD, engine: str) -> Step:
        if engine == "c":
            raise ChainruleError("no C compiler was found")
        return Step(forward, params, optimizer.lr * (1.01 if engine == "inductor" else 1))

    monkeypatch.setattr(ours.cr, "compile", compile, raising=False)
    monkeypatch.setattr(ours.cr, "SGD", SGD, raising=False)
    recipes = [recipe for recipe in ours.COMPILED if recipe.name.split()[1] in ("torch", "inductor", "c")]
    block = measure(BY_NAME["mlp"], [*recipes, PEER["eager"]], **QUICK)
    assert statuses(block) == {
        "chainrule torch": MEASURED, "chainrule inductor": WRONG, "chainrule c": SKIPPED, "eager": MEASURED,
    }  # fmt: skip
    assert block.lines[2].reason == "no C compiler was found"
    assert block.lines[0].memory > 10_000_000 > block.lines[3].memory
    assert block.ours is block.lines[0] and block.peer is block.lines[3]


def test_the_products_of_a_perceptron_are_counted() -> None:
    found = floor.Recorded()
    setup = fresh(BY_NAME["mlp"])
    with found:
        setup.forward(*setup.batch).backward()
    shapes = sorted(product.shapes for product in found.counts.elements())
    forward = [((64, 784), (784, 50)), ((64, 50), (50, 10))]
    weights = [((784, 64), (64, 50)), ((50, 64), (64, 10))]
    assert shapes == sorted([*forward, *weights, ((64, 10), (10, 50))])


@pytest.mark.parametrize("work", ["convolution", "gpt-64"])
def test_the_products_of_layers_are_counted(work: str) -> None:
    found = floor.Recorded()
    setup = fresh({**BY_NAME, **{w.name: w for w in deeper(2)}}[work])
    with found:
        setup.forward(*setup.batch).backward()
    kinds = [product.name for product in found.counts.elements()]
    if work == "convolution":
        assert kinds.count("convolution") == kinds.count("convolution_backward") == 2
        assert kinds.count("product") == 3
    else:  # four linear layers a block and the head, each three times; attention there and back
        assert kinds.count("product") == 3 * (2 * 4 + 1)
        assert sum("attention" in kind for kind in kinds) == 2 * 2


@pytest.mark.parametrize("shapes", [((5, 7), (7, 3)), ((5, 7), (7, 1)), ((2, 5, 7), (2, 7, 3))])
def test_every_way_of_a_product_runs(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = shapes
    for way, run in floor.ways(a, b).items():
        result = run()
        assert isinstance(result, torch.Tensor) and result.numel() == torch.Size(a[:-1]).numel() * b[-1], way


def test_the_floor_is_the_longer_of_products_and_bytes() -> None:
    setup = fresh(BY_NAME["regression"])
    found = floor.of(setup, 1, 1e-6)
    assert found.bytes == 4 * (100 * 4 + 100 * 2 + 2 * (4 * 2 + 2))
    assert found.computing == sum(t.seconds for t in found.products) > 0
    assert found.seconds == max(found.computing, found.copying)
    assert all(p.grad is None for p in setup.params.values())
    half = dataclasses.replace(found, products=[dataclasses.replace(t, seconds=t.seconds / 2) for t in found.products])
    assert floor.lower(found, half).computing == floor.lower(half, found).computing == found.computing / 2


def test_memory_is_the_peak_of_what_is_held() -> None:
    x = torch.ones(1000)
    assert 8000 <= memory.of_tensors(lambda: (x + 1) + 1) < 9000
    assert 12000 <= memory.of_tensors(lambda: [x + 1 for _ in range(3)]) < 13000
    import numpy as np

    assert 8000 <= memory.of_arrays(lambda: np.ones(1000)) < 10000


def test_samples_are_taken_in_turn() -> None:
    order: list[str] = []
    calls = {name: rounds.Call(lambda name=name: order.append(name)) for name in "ab"}
    samples = rounds.in_turn(calls, 2, least=0.0)
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 2, "b": 2}
    assert "".join(order[-8:]) == "aabbaabb"  # one to warm, one to time


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["bench", "--rounds", "1", "--threads", "1", *arguments])


def test_the_command_prints_a_table() -> None:
    result = bench("--only", "regression", "--contenders", "eager")
    assert result.exit_code == 0, result.output
    assert "regression: linear regression" in result.output and "floor" in result.output
    assert all(f"\n{name} " in result.output for name in ("eager", "eager foreach", "eager fused"))


def test_a_machine_that_is_not_quiet_is_told_of() -> None:
    block = measure(BY_NAME["regression"], [], samples=1, least=1e-6)
    assert block.others is None or 0 <= block.others <= 1.01
    for others, told in [(None, 0), (0.02, 0), (0.6, 1)]:
        block.others = others
        assert sum("other programs took 60%" in str(line) for line in left_out(block)) == told


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell what programs use")
def test_what_others_use_is_seen() -> None:
    before = neighbours.used()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1.0)
        by_one = neighbours.by_others(before)
        other.kill()
    assert by_one is not None and by_one > 0.5 / (os.cpu_count() or 1)


def test_the_command_saves_what_it_prints(tmp_path: Path) -> None:
    result = bench("--only", "regression", "--contenders", "eager", "--json", "--save", str(tmp_path))
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer == json.loads((tmp_path / "steps.json").read_text())
    assert [work["name"] for work in answer["works"]] == ["regression"]
    assert {c["status"] for c in answer["works"][0]["contenders"]} == {MEASURED}
    assert answer["machine"]["threads"] == 1
    assert "eager fused" in (tmp_path / "steps.txt").read_text()
    assert (tmp_path / "steps.png").stat().st_size > 10_000 and "<svg" in (tmp_path / "steps.svg").read_text()


def test_the_command_measures_growing_depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.bench.works.DEPTHS", DEPTHS[:2])
    result = bench("--scaling", "--only", "mlp-48", "--contenders", "eager", "--save", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "1 layer" in result.output and "2 layers" in result.output
    assert len(json.loads((tmp_path / "scaling.json").read_text())["works"]) == 2
    assert (tmp_path / "scaling.png").exists()


def test_a_wrong_contender_is_exit_code_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.bench.peers.PEERS", [Recipe("nearly", "eager", Wrong)])
    result = bench("--only", "mlp", "--contenders", "nearly")
    assert result.exit_code == 1
    assert "nearly: wrong, " in result.output


@pytest.mark.parametrize("wrong", [("--only", "mpl"), ("--contenders", "jacks"), ("--rounds", "0")])
def test_misuse_is_exit_code_two(wrong: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, ["bench", *wrong])
    assert result.exit_code == 2
    assert wrong[1] in result.output


def test_help_does_not_import_torch() -> None:
    code = "import sys; from chainrule.cli import main; main(['bench', '--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_contenders_start_from_equal_parameters() -> None:
    work = BY_NAME["mlp"]
    one, two = fresh(work), fresh(work)
    assert all(torch.equal(one.params[name], two.params[name]) for name in one.params)
    before = {name: p.detach().clone() for name, p in one.params.items()}
    contender = Eager(work, one)
    contender.step()
    assert isinstance(contender, OnTensors)
    assert any(not torch.equal(p, before[name]) for name, p in contender.parameters().items())
    assert all(torch.equal(p, before[name]) for name, p in two.params.items())
