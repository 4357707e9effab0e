"""A report in a notebook: the table, and each finding in the lines around it."""

from __future__ import annotations

import linecache
from html import escape

from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.report import HEAD, Finding, Report, clickable, row_cells

AROUND = 3  # lines of source shown before and after

# Translucent colours and inherited text read on light and dark pages; what they say, a mark says as well.
_WRONG = "background:rgba(220,50,47,.22)"
_REPAIR = "background:rgba(70,160,70,.22)"
_CELL = "text-align:left;padding:1px 10px"


def html(report: Report) -> str:
    """The report as HTML; everything from the person's code is escaped.

    >>> html(Report([])).startswith("<div>")
    True
    """
    parts = [_table(report), *map(_finding, report.findings)]
    parts += [f"<p>note: {escape(note)}</p>" for note in report.notes]
    return f"<div>{''.join(parts)}</div>"


def _table(report: Report) -> str:
    head = "".join(f'<th style="{_CELL}">{title}</th>' for title in HEAD)
    body = ""
    for row in report.rows:
        colour = "" if row.status in ("right", "close") else f' style="{_WRONG}"'
        cells = "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row_cells(row))
        body += f"<tr{colour}>{cells}</tr>"
    count = report.table().splitlines()[-1]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(count)}</p>"


def _finding(finding: Finding) -> str:
    about = CAUSES.get(finding.cause, "")
    file = clickable(finding.file)
    place = f"{file}:{finding.line}: " if file and finding.line else ""
    said = f"<p>{escape(place)}<b>{escape(finding.cause)}</b> {escape(finding.message)}"
    said += f"<br><i>{escape(about)}</i>" if about else ""
    said += f"<br>also possible: {escape(', '.join(finding.also))}" if finding.also else ""
    said += "<br>the repair was run: this gradient is right with it" if finding.proved else ""
    lines = "".join(_line(*line) for line in _lines(finding))
    code = f'<pre style="line-height:1.3;padding:4px 0">{lines}</pre>' if lines else ""
    return f"{said}</p>{code}"


def _line(mark: str, number: int | None, text: str) -> str:
    colour = {"-": f' style="{_WRONG}"', ">": f' style="{_WRONG}"', "+": f' style="{_REPAIR}"'}.get(mark, "")
    return f"<span{colour}>{mark} {'' if number is None else number:>4}  {escape(text)}</span>\n"


def _lines(finding: Finding) -> list[tuple[str, int | None, str]]:
    """Mark, number and text of the lines to show: `-` goes, `+` comes, `>` is where the mistake is if it stays."""
    edit, line = finding.edit, finding.line
    file = edit.file if edit is not None else finding.file
    at_line = line if file == finding.file else None
    source = _source(file, at_line, finding.text)
    if not source or (edit is None and at_line is None):
        wrong = [("-" if finding.repair else ">", line, text) for text in finding.text.splitlines()]
        return [*wrong, *(("+", None, text) for text in finding.repair.splitlines())]
    if edit is not None:
        first, last, new = edit.first, edit.last, list(edit.lines)
    else:
        assert line is not None
        first = last = line
        margin = source[line - 1][: len(source[line - 1]) - len(source[line - 1].lstrip())]
        new = [margin + text for text in finding.repair.splitlines()]
    near = {*range(first - AROUND, last + AROUND + 1)}
    near |= set() if at_line is None else {*range(at_line - AROUND, at_line + AROUND + 1)}
    shown: list[tuple[str, int | None, str]] = []
    before = None
    for number in sorted(n for n in {*near, last + 1} if n == last + 1 or 1 <= n <= len(source)):
        if before is not None and number > before + 1:
            shown.append((" ", None, "..."))
        if number == last + 1:
            shown += [("+", None, text) for text in new]
        if number <= len(source):
            goes = first <= number <= last and (edit is not None or bool(finding.repair))
            mark = "-" if goes else ">" if number == at_line else " "
            shown.append((mark, number, source[number - 1]))
        before = number
    return shown


def _source(file: str | None, line: int | None, told: str) -> list[str]:
    """The lines of the person's file, unless they cannot be read or are no longer those that were checked."""
    lines = [text.rstrip("\r\n") for text in linecache.getlines(file)] if file else []
    if line is None or not told.strip():
        return lines if line is None or 1 <= line <= len(lines) else []
    stands = 1 <= line <= len(lines) and lines[line - 1].strip() == told.strip().splitlines()[0].strip()
    return lines if stands else []
