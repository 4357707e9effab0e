"""`chainrule explain`: an explanation on a terminal, as JSON, or in a file to share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.syntax import Syntax
from rich.text import Text

from chainrule.cli import Refused, answers, targets
from chainrule.explain import Explanation, Step
from chainrule.explain.prose import sentence
from chainrule.show.mathematics import latex, text

WIDTH = 100  # of prose
_WRITERS: dict[str, Callable[[Explanation, Path, str], str]] = {
    ".html": lambda explanation, file, title: explanation.to_html(file, title),
    ".md": lambda explanation, file, title: explanation.to_markdown(file, title),
    ".tex": lambda explanation, file, title: explanation.to_latex(file, title),
}


def run(
    target: str,
    name: str | None,
    inputs: Sequence[str],
    as_json: bool,
    wrt: Sequence[str] | None,
    upstream: bool,
    output: Path | None,
) -> None:
    if output is not None and output.suffix not in _WRITERS:
        raise Refused(f"{output} says no format; end its name in {', '.join(_WRITERS)}")
    explanation = targets.load(target, inputs).derive(wrt, upstream).explain()
    steps = [explanation[name]] if name is not None else explanation.steps
    if output is not None:
        write(explanation, output, target)
    if as_json:
        answers.print_json({"target": target, "steps": [_of_step(step) for step in steps]})
    elif output is not None:
        click.echo(f"wrote {output}")
    else:
        if name is not None and name not in steps[0].targets:
            click.echo(f"{name} is {', '.join(steps[0].targets)}")
        phase = ""
        for step in steps:
            if name is None and step.formula is None:
                continue  # an input has nothing to be explained
            if name is None and step.phase != phase:
                phase = step.phase
                answers.console().print(Text(f"# {phase}", "dim"))
            show(step, whole=name is not None)


def write(explanation: Explanation, file: Path, target: str) -> None:
    path, _, name = target.rpartition(":")
    _WRITERS[file.suffix](explanation, file, f"Backpropagation through {name} in {Path(path).name}")


def show(step: Step, whole: bool) -> None:
    """A line, its formula, its shapes and its reason, and the derivation where the `whole` of it is asked for."""
    console = answers.console()
    code = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(step.code)
    code.rstrip()
    console.print(code)
    if step.formula is not None:
        console.print(Text(f"    {text(step.formula)}", "bold"))
    console.print(Text(f"    {step.shapes}", "dim"))
    if step.reason:
        console.print(Text(_wrapped(sentence(step.reason), "    ")))
    if whole:
        for paragraph in step.derivation:
            console.print()
            prose, *formulas = str(paragraph).split("\n")
            console.print(Text("\n".join([_wrapped(prose), *formulas])))
        where = f"{Path(step.file).name}, line {step.line}" if step.file else ""
        facts = {
            "computed from": ", ".join(step.reads),
            "in the other pass": ", ".join(_name(key) for key in step.partners),
            "read by": ", ".join(_name(key) for key in step.used_by),
            "written in": where,
        }
        console.print()
        for what, said in facts.items():
            if said:
                console.print(Text(f"{what}: {said}", "dim"))


def _wrapped(prose: str, indent: str = "") -> str:
    return textwrap.fill(prose, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _name(key: str) -> str:
    return key.partition("-")[2]


def _of_step(step: Step) -> dict[str, Any]:
    return {
        "key": step.key,
        "phase": step.phase,
        "targets": list(step.targets),
        "code": step.code,
        "formula": text(step.formula) if step.formula is not None else None,
        "latex": latex(step.formula) if step.formula is not None else None,
        "shapes": step.shapes,
        "shape": list(step.value.shape),
        "reason": step.reason,
        "derivation": [
            {
                "title": p.title,
                "text": "".join(q if isinstance(q, str) else text(q) for q in p.pieces).strip(),
                "formula": text(p.display) if p.display is not None else None,
                "latex": latex(p.display) if p.display is not None else None,
            }
            for p in step.derivation
        ],
        "reads": list(step.reads),
        "partners": list(step.partners),
        "used_by": list(step.used_by),
        "file": Path(step.file).name if step.file else None,
        "line": step.line,
    }
