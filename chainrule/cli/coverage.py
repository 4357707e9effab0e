"""`chainrule rules --coverage`: the rule book against torch's operator database, with a bar while it runs."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chainrule.checking.coverage import REFUSED, RULES, STEP, Result, measure_all
from chainrule.checking.covered import as_json, in_words, table
from chainrule.checking.entries import chosen, named
from chainrule.cli.answers import console, print_json


def run(entries: tuple[str, ...], part: str | None, for_programs: bool) -> bool:
    """Measure and print; whether nothing was wrong."""
    names = chosen(named(entries), part or "0:1")
    results = list(_watched(names))
    if for_programs:
        print_json({"part": part, **as_json(results)})
    else:
        if part:
            click.echo(f"part {part}: {len(names)} entries")
        _print(results)
    return all(r.ok for r in results)


def _watched(names: list[str]) -> Iterator[Result]:
    """The results one by one; on a terminal with a bar, which is on stderr and goes away."""
    columns = (TextColumn("{task.description:<32.32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = Console(stderr=True)  # and no thread of its own, because the processes part after it starts
    with Progress(*columns, console=screen, transient=True, auto_refresh=False, disable=not screen.is_terminal) as bar:
        task = bar.add_task("reading the database", total=len(names))
        for result in measure_all(names):
            bar.update(task, advance=1, description=result.entry, refresh=True)
            yield result


def _print(results: list[Result]) -> None:
    """The table by family, what is not by rules with the reasons, and the totals."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    shown.add_column("family", no_wrap=True)
    for column in ("entries", "by rules", "autograd step", "refused", "wrong"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in table(results):
        counts = [len(row.results), *(row.count(status) for status in (RULES, STEP, REFUSED))]
        counts.append(sum(not r.ok for r in row.results))
        shown.add_row(row.name, *(Text(str(n) if n else "") for n in counts))
    console().print(shown)
    for r in sorted(results, key=lambda r: r.entry):
        if r.status != RULES:
            click.secho(f"{r.entry}: {r.status}", fg=None if r.ok else "red", bold=True, nl=False)
            click.echo(f": {r.reason}")
    click.echo(in_words(results))
