"""The demo: two derivations, training without autograd, and the files that it leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from chainrule.cli import main
from chainrule.train.digits import TRAIN, Digits, digits
from chainrule.train.loop import Momentum, Step, steps_in, train


@pytest.fixture(autouse=True)
def one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("regress", "classify", "regress_", "classify_"):
        sys.modules.pop(name, None)


def test_a_short_demo_leaves_its_files() -> None:
    result = CliRunner().invoke(main, ["demo", "--out", "here", "--epochs", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    out = Path("here")
    assert {p.name for p in out.iterdir()} == {"regress.py", "classify.py", "classify_backward.py", "loss.png"}
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "w1.g = inp.T @ l1.g" in result.output
    assert result.output.count("agree") == 9
    assert "\x1b[" not in result.output and len(result.output.split("\n")) < 100  # a log, not a flood


def test_the_derived_file_needs_torch_alone() -> None:
    CliRunner().invoke(main, ["demo", "--epochs", "1"], catch_exceptions=False)
    file = Path("chainrule-demo") / "classify_backward.py"
    assert "chainrule" not in file.read_text()
    done = subprocess.run([sys.executable, "-W", "error", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "w1.g (64, 50)" in done.stdout


def test_the_full_demo_learns_without_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule.cli import tour

    found: list[Step] = []

    def watched(*args: object, **kwargs: object) -> Iterator[Step]:
        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", pytest.fail)
            patch.setattr(torch.autograd, "backward", pytest.fail)
            for step in train(*args, **kwargs):  # type: ignore[arg-type]
                found.append(step)
                yield step

    monkeypatch.setattr(tour, "train", watched)
    assert CliRunner().invoke(main, ["demo"], catch_exceptions=False).exit_code == 0
    accuracy = found[-1].accuracy
    assert accuracy is not None and accuracy >= 0.95


def test_the_digits_are_cut_the_same_way_every_time() -> None:
    first, held_out = digits()
    again, _ = digits()
    assert len(first) == TRAIN and len(first) + len(held_out) == 1797
    assert torch.equal(first.images, again.images)
    assert first.images.min() == 0 and first.images.max() == 1


def test_every_image_is_seen_once_an_epoch() -> None:
    data = Digits(torch.arange(10.0)[:, None], torch.arange(10))
    seen: list[list[int]] = []

    def backward(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen.append(labels.tolist())
        return images.mean(), {"w": torch.ones(1)}

    w = torch.zeros(1)
    steps = list(train(backward, Momentum({"w": w}, rate=1.0, momentum=0.5), data, lambda: 1.0, epochs=1, batch=4))
    assert [len(batch) for batch in seen] == [4, 4, 2] and len(steps) == steps_in(data, 1, 4)
    assert sorted(label for batch in seen for label in batch) == list(range(10))
    assert [s.accuracy for s in steps] == [None, None, 1.0]
    assert w.item() == -(1 + 1.5 + 1.75)
