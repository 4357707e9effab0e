"""Misuse of the command line: one line on stderr, in its own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from chainrule.errors import ChainruleError

MISUSE = 2  # exit code


class Refused(click.ClickException):
    """Misuse: one line on stderr, exit code 2."""

    exit_code = MISUSE

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


_ON_THE_COMMAND_LINE = {  # what an error advises, in Python and here
    "give upstream= of the same shape": "add --upstream",
    'wrt=["w", "b"]': "--wrt w --wrt b",
    "wrt= names": "--wrt names",
    "name it with loss=": "name it with --loss",
}


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except ChainruleError as error:
        message = str(error)
        for python, option in _ON_THE_COMMAND_LINE.items():
            message = message.replace(python, option)
        raise Refused(message) from error
