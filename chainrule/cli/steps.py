"""`chainrule trace`: all steps, one step at a time, one value, or two runs side by side."""

from __future__ import annotations

import sys

import click

import chainrule as cr
from chainrule.cli import Refused, answers


def print_trace(d: cr.Derivation, target: str, value: str | None, update: float | None, as_json: bool) -> None:
    trace = d.trace()
    if value is not None:
        step = trace[value]
        if as_json:
            answers.print_json({"target": target, **answers.of_step(step)})
        else:
            click.echo(str(step) if step.name == value else f"{value} is {step.name}\n{step}")
    elif update is not None:
        beside = trace.beside(d.trace(update=update))
        answers.print_json(answers.of_pairs(beside, target)) if as_json else click.echo(str(beside))
    elif as_json:
        answers.print_json(answers.of_trace(trace, target))
    else:
        answers.print_code(str(trace))


def one_by_one(d: cr.Derivation, as_json: bool) -> None:
    """Each step by itself; waits for a key before the next."""
    if as_json:
        raise Refused("--step waits for keys, --json prints for programs; leave one of them out")
    if not in_terminal():
        raise Refused("--step waits for keys, and this is no terminal; leave it out to print every step")
    steps, position = d.trace().steps, 0
    while position < len(steps):
        click.echo(f"# {position + 1} of {len(steps)}, {steps[position].phase}\n{steps[position]}\n")
        if position + 1 == len(steps):
            return
        key = click.getchar().lower()
        if key == "q":
            return
        position = max(0, position - 1) if key == "b" else position + 1


def in_terminal() -> bool:
    """Whether a person can press keys."""
    return sys.stdin.isatty() and sys.stdout.isatty()
