"""The rule book on the terminal: the list, and one card."""

from __future__ import annotations

import dataclasses
import textwrap

import click
from rich.table import Table
from rich.text import Text

from chainrule.cli.answers import console, print_code, print_json
from chainrule.cli.cards import CONSTANTS, Card, card
from chainrule.cli.lookup import find
from chainrule.rules import BOOK
from chainrule.rules.families import about, members

_LETTERS = (
    "r normal numbers, p positive, u between 0 and 1, z complex, i(n, ...) whole numbers below n, "
    "m a mask, s symmetric, l triangular"
)


def print_list(as_json: bool) -> bool:
    lines, own = about(), members()
    if as_json:
        print_json({name: {"about": line, "rules": own[name]} for name, line in lines.items()})
        return True
    for name, line in lines.items():
        _family(name, line, own[name])
    _family("no gradient", CONSTANTS, list(BOOK.constants))
    click.echo(f"\n{len(BOOK.rules)} rules; `chainrule rules matmul` shows one")
    return True


def _family(name: str, line: str, own: list[str]) -> None:
    click.secho(name, bold=True, nl=False)
    click.echo(f": {line}")
    click.echo(textwrap.fill(", ".join(own), 100, initial_indent="    ", subsequent_indent="    "))


def print_card(name: str, as_json: bool) -> bool:
    """The card of one operation; whether its example is right."""
    found = card(find(name))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _show(found)
    return found.ok is not False


def _show(found: Card) -> None:
    click.secho(found.name, bold=True, nl=False)
    click.echo(f"  ({found.kind}, {found.family})")
    _text("forward", f"{found.call}\n{found.about}")
    if found.code:
        _heading("rule" if found.kind == "rule" else "rule: recorded as these parts")
        print_code(textwrap.indent(found.code, "    "))
    _text("formula", "\n".join(found.formula))
    for gradient, paragraphs in found.derivation.items():
        _text(f"why {gradient} is so", "\n".join(paragraphs))
    _shapes(found)
    _text("source", found.source)
    _text("convention", found.note)
    _text("also written", textwrap.fill(", ".join(found.spellings), 100))
    if found.kind == "rule":
        _text("samples", "\n".join(f"{found.name}({s})" for s in found.samples) + f"\n# {_LETTERS}")
    if found.ok is None:
        return
    _heading("example: the first sample, derived and checked")
    print_code(textwrap.indent(found.example, "    "))
    click.echo()
    click.echo(textwrap.indent(found.verdict, "    "))


def _heading(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _text(title: str, text: str) -> None:
    if text:
        _heading(title)
        click.echo(textwrap.indent(text, "    "))


def _shapes(found: Card) -> None:
    if not found.shapes:
        return
    _heading("shapes in the first sample")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("", "value", "gradient"):
        table.add_column(column, no_wrap=True)
    for row in found.shapes:
        table.add_row(*(Text(cell) for cell in (row.name, row.value, row.gradient)))
    screen = console()
    with screen.capture() as captured:
        screen.print(table)
    click.echo(textwrap.indent("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")), "    "))
