"""`chainrule check`: its answers as text, workflow annotations or JSON, and the repairs written on demand."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from chainrule.cli import MISUSE, WRONG, Refused
from chainrule.cli.answers import print_json
from chainrule.cli.candidates import expanded
from chainrule.cli.checked import Checked, Said, alone, each, without_parts
from chainrule.cli.repairs import Change, changes
from chainrule.diagnosis.report import Finding, Report, clickable

_AGAIN = "import sys; from chainrule.cli import main; main(sys.argv[1:])"


def run(names: Sequence[str], said: Said, as_json: bool, fix: bool, yes: bool, style: str | None) -> int:
    """Check every target and print the answers; the exit code."""
    if (said.wrt or said.loss is not None) and (len(names) > 1 or Path(names[0]).exists()):
        raise Refused("--wrt and --loss say something of one FILE.py:NAME; give one")
    if style is None:
        style = "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text"
    # what the person's code prints is no part of the JSON
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        wanted = [t for name in names for t in expanded(name)]
        whole = wanted != list(names)  # files and folders, without a name
        checked = each(wanted, said) if len(wanted) > 1 or whole else [alone(wanted[0], said)]
        checked = without_parts(checked) if whole else checked
    answer: dict[str, Any] = {}
    if as_json:
        answer = of_checked(checked, whole)
    else:
        _print(checked, style, whole)
    code = MISUSE if any(c.report is None for c in checked) else 0 if all(c.report for c in checked) else WRONG
    if fix and any(c.report is not None and not c.report.ok for c in checked):
        code = _repair(checked, names, said, yes, answer if as_json else None, code)
    if as_json:
        print_json(answer)
    return code


def _print(checked: list[Checked], style: str, whole: bool) -> None:
    for i, one in enumerate(checked):
        if len(checked) > 1 or whole:
            click.secho(f"{chr(10) if i else ''}{one.target}", bold=True)
        if one.report is None:
            click.echo(f"error: {one.refused}", err=True)
        else:
            _print_report(one, one.report)
    if whole:
        click.echo(f"\n{_counted(checked)}")
    if style == "github":
        _annotate(checked)


def _annotate(checked: list[Checked]) -> None:
    """An annotation for each finding; a mistake that a layer and the net that holds it have is said once."""
    before: set[tuple[str, int | None, str]] = set()
    for one in checked:
        found = one.report.findings if one.report is not None else []
        for finding in found:
            file = _file_of(finding, one)
            if (file, finding.line, finding.cause) not in before:
                click.echo(annotation(finding, _in_workspace(file)))
        before |= {(_file_of(f, one), f.line, f.cause) for f in found}


def _file_of(finding: Finding, one: Checked) -> str:
    return finding.file or str(one.path.resolve())


def _counted(checked: list[Checked]) -> str:
    right, wrong, refused = (
        sum(c.report is not None and c.report.ok for c in checked),
        sum(c.report is not None and not c.report.ok for c in checked),
        sum(c.report is None for c in checked),
    )
    told = [f"{n} {word}" for n, word in ((right, "right"), (wrong, "wrong"), (refused, "not checked")) if n]
    return f"{len(checked)} to check: {', '.join(told)}"


def _print_report(one: Checked, report: Report) -> None:
    """The table of gradients, and `FILE:LINE: cause message` with the repair for each mistake."""
    click.echo(report.table())
    for finding in report.findings:
        click.echo()
        click.secho(finding.at(one.file(finding.file)), fg="red")
        for line in finding.change():
            click.secho(f"  {line}", fg="green" if line.startswith("+") else None)
    for note in report.notes:
        click.echo(f"note: {note}")


def annotation(finding: Finding, file: str) -> str:
    """The command that makes GitHub show a finding beside the line, in a workflow.

    >>> annotation(Finding("w", 7, "sign", "w.g is wrong: 100% off", "w.g = x", text="w.g = -x"), "net.py")
    '::error file=net.py,line=7,title=sign::w.g is wrong: 100%25 off%0A- w.g = -x%0A+ w.g = x'
    """
    place = f"file={_escaped(file, ':,')}" + (f",line={finding.line}" if finding.line else "")
    text = "\n".join([finding.message, *finding.change()])
    return f"::error {place},title={_escaped(finding.cause, ':,')}::{_escaped(text)}"


def _escaped(text: str, also: str = "") -> str:
    for character in "%\r\n" + also:  # the percent sign first, as the others are written with it
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _in_workspace(file: str) -> str:
    """The path from the root of the repository, by which GitHub knows the file."""
    root = os.environ.get("GITHUB_WORKSPACE")
    below = root and Path(file).is_absolute() and Path(file).is_relative_to(root)
    return Path(os.path.relpath(file, root) if below else clickable(file)).as_posix()


def of_checked(checked: list[Checked], whole: bool = False) -> dict[str, Any]:
    """The answer for programs: the report of one target, or a list of them, as of a whole file."""
    answers = [_of_one(one) for one in checked]
    return answers[0] if len(answers) == 1 and not whole else {"ok": all(a["ok"] for a in answers), "reports": answers}


def _of_one(one: Checked) -> dict[str, Any]:
    if one.report is None:
        return {"target": one.target, "ok": False, "error": one.refused}

    def placed(entry: Any) -> dict[str, Any]:
        return {**dataclasses.asdict(entry), "file": one.file(entry.file) if entry.line else None}

    rows, findings = [placed(row) for row in one.report.rows], [placed(f) for f in one.report.findings]
    for finding in findings:
        if finding["edit"] is not None:
            finding["edit"]["file"] = one.file(finding["edit"]["file"])
    notes = list(one.report.notes)
    return {"target": one.target, "ok": one.report.ok, "rows": rows, "findings": findings, "notes": notes}


def _repair(
    checked: list[Checked],
    names: Sequence[str],
    said: Said,
    yes: bool,
    answer: dict[str, Any] | None,
    code: int,
) -> int:
    """Show the proved repairs, write them if the person agrees, and check again; the exit code."""
    made = changes(c.report for c in checked if c.report is not None)
    if not made:
        click.echo("error: nothing to write: no finding has a proved repair in a file", err=True)
        return code
    diff = "\n".join(change.diff() for change in made)
    skipped = [
        f"skipped: {f.at(clickable(f.file))} (its lines overlap with the repair of {other.name}.g; check again for it)"
        for change in made
        for f, other in change.skipped
    ]
    if answer is None:
        _print_diff(diff, skipped)
        if not yes and not _agreed():
            click.echo("nothing was written")
            return code
    for change in made:
        change.write()
        if answer is None:
            click.echo(f"wrote {_as_given(change, checked)}")
    if answer is None:
        click.echo("checking again\n")
    again = _check_again(names, said, answer is not None)
    if answer is not None:
        files = [_as_given(change, checked) for change in made]
        after = json.loads(again.stdout) if again.stdout else {"ok": False, "error": again.stderr.strip()}
        answer["fix"] = {"diff": diff, "written": files, "skipped": skipped, "after": after}
    else:
        click.echo(again.stdout, nl=False)
        click.echo(again.stderr, nl=False, err=True)
    return again.returncode


def _print_diff(diff: str, skipped: list[str]) -> None:
    click.echo()
    for line in diff.split("\n"):
        colour = {"+": "green", "-": "red"}.get(line[:1]) if line[:3] not in ("+++", "---") else None
        click.secho(line, fg=colour)
    for line in skipped:
        click.echo(line)


def _agreed() -> bool:
    try:
        return click.confirm("write?", default=False)
    except click.Abort:  # no one there to answer
        click.echo()
        return False


def _as_given(change: Change, checked: list[Checked]) -> str:
    file = str(change.path)
    return next((str(c.path) for c in checked if c.path.resolve() == change.path), clickable(file))


def _check_again(names: Sequence[str], said: Said, as_json: bool) -> subprocess.CompletedProcess[str]:
    """The same check in a new Python, in which every module is imported afresh."""
    command = [sys.executable, "-P", "-c", _AGAIN, "check", *names, *said.options(), "--format", "text"]
    return subprocess.run([*command, *(["--json"] if as_json else [])], capture_output=True, text=True)
