"""`chainrule demo`: derive, verify, and train on the digits with the derived backward pass alone."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import matplotlib  # noqa: F401  (asked for here, so that a missing one is told before the work starts)
import sklearn  # noqa: F401
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import chainrule as cr
from chainrule.cli import Refused, targets
from chainrule.cli.answers import console, print_code
from chainrule.cli.standalone import runnable
from chainrule.train import curve
from chainrule.train.digits import Digits, digits
from chainrule.train.loop import Momentum, Step, steps_in, train

WEIGHTS = ["w1", "b1", "w2", "b2"]
SOURCES = Path(curve.__file__).parent


def run(out: Path, epochs: int) -> bool:
    """Run the demo, leaving its files in `out`; whether every verdict was right."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"cannot make the folder {out}: {error.strerror}") from error
    torch.set_num_threads(1)  # matrices as small as these only wait for a second thread
    _, _, right = show("1. Two layers and the squared error", out / "regress.py", ["inp", *WEIGHTS])
    network, d, also = show("2. The same with ten outputs and the cross-entropy", out / "classify.py", WEIGHTS)
    heading("3. Training with the derived backward pass alone, no autograd")
    steps = fit(d, network.code.__globals__, epochs)
    picture, code = out / "loss.png", out / "classify_backward.py"
    curve.draw(steps, picture, "Digits, trained with the derived backward pass")
    code.write_text(runnable(d), encoding="utf-8")
    heading("Yours to look at")
    rows = {
        "the loss curve": str(picture),
        "the derived code, torch alone": f"{command('python')} {code}",
        "every step with its values": f"{command('chainrule')} trace {out / 'classify.py'}:forward",
        "as a torch.autograd.Function": f"{command('chainrule')} derive {out / 'classify.py'}:forward --style autograd",
    }
    for what, where in rows.items():
        click.echo(f"{what:<30} {where}")
    return right and also


def show(title: str, file: Path, wrt: list[str]) -> tuple[targets.Target, cr.Derivation, bool]:
    """Derive one network of the demo, copied to `file`, and print what came of it; whether it is right."""
    heading(title)
    file.write_text((SOURCES / file.name).read_text(encoding="utf-8"), encoding="utf-8")
    click.echo(f"The forward pass is {file}:forward. chainrule ran it once and wrote this:\n")
    network = targets.load(f"{file}:forward")
    d = network.derive(wrt)
    print_code(str(d))
    click.echo("\nThe slope of the loss by the derived rules, by autograd, and by finite differences:\n")
    verdict = d.verify()
    click.echo(str(verdict))
    return network, d, bool(verdict)


def fit(d: cr.Derivation, network: dict[str, Any], epochs: int) -> list[Step]:
    """Train the weights of `network` in place; every step that was taken."""
    train_set, held_out = digits()
    parameters = {name: network[name] for name in WEIGHTS}

    def backward(images: torch.Tensor, labels: torch.Tensor) -> Any:
        given = {"inp": images, "targ": labels, **parameters}
        return d.function(*(given[name] for name in d.inputs))

    def accuracy() -> float:
        return float((network["model"](held_out.images).argmax(1) == held_out.labels).float().mean())

    click.echo(f"{len(train_set)} digits to train on, {len(held_out)} held out, {epochs} epochs")
    started = time.perf_counter()
    steps = []
    with progress(train_set, epochs) as report:
        for step in train(backward, Momentum(parameters, rate=0.1), train_set, accuracy, epochs):
            steps.append(step)
            report(step)
    seconds = time.perf_counter() - started
    click.secho(f"held-out accuracy {steps[-1].accuracy:.1%} after {len(steps)} steps in {seconds:.1f} s", bold=True)
    return steps


@contextmanager
def progress(data: Digits, epochs: int) -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal; elsewhere about five lines."""
    screen = console()
    if not screen.is_terminal:
        every = -(-epochs // 5)

        def line(step: Step) -> None:
            if step.accuracy is not None and (step.epoch % every == 0 or step.epoch == epochs):
                click.echo(f"epoch {step.epoch:>3}  loss {step.loss:.4f}  held-out accuracy {step.accuracy:.1%}")

        yield line
        return
    columns = (BarColumn(), TextColumn("loss {task.fields[loss]:.4f}  held-out {task.fields[accuracy]:.1%}"))
    with Progress(TextColumn("epoch {task.fields[epoch]:>3}"), *columns, TimeElapsedColumn(), console=screen) as bar:
        task = bar.add_task("", total=steps_in(data, epochs), epoch=0, loss=float("nan"), accuracy=0.0)

        def advance(step: Step) -> None:
            known = {} if step.accuracy is None else {"accuracy": step.accuracy}
            bar.update(task, advance=1, epoch=step.epoch, loss=step.loss, **known)  # type: ignore[arg-type]

        yield advance


def command(name: str) -> str:
    """How to call `name` of this environment from here: by its path where the shell would not find it."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not beside.exists() or (found and Path(found) == beside):
        return name
    return os.path.relpath(beside)


def heading(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)
    click.echo("-" * min(len(text), 100))
