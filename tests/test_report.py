"""A report as text, in a notebook and as a grade; docs/check.md lists the causes there are."""

from __future__ import annotations

import html.parser
import linecache
import logging
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import chainrule as cr
from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.report import Edit, Finding, Report, Row, row_cells

SOURCE = """\
def step(x, w):
    a = x @ w
    loss = (a < 1).sum()  # <b>

    a.g = 2 * a
    w.g = x.T @ a.g
    x.g = a.g @ w.T


def after():
    pass
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return str(path)


def report(finding: Finding) -> Report:
    rows = [
        Row("a", "right", 1e-9, 1e-9, (2, 3), (2, 3), 5, finding.file),
        Row(finding.name, "wrong", 0.5, 0.25, (3, 2), (3, 2), finding.line, finding.file),
    ]
    return Report(rows, [finding], ["x.g follows another convention <than> autograd"])


def wrong(file: str | None, **changed: Any) -> Finding:
    fields = {
        "name": "w",
        "line": 6,
        "cause": "wrong-scale",
        "message": "w.g is < off",
        "repair": "w.g = x.T @ a.g / 2",
    }
    return Finding(**{**fields, "file": file, **changed})


# -- text --------------------------------------------------------------------------------------------


def test_text_and_repr(file: str) -> None:
    finding = wrong(file, text="w.g = x.T @ a.g", proved=True, also=("sign", "transposed"))
    assert str(report(finding)).splitlines()[4:] == [
        "",
        "net.py:6: wrong-scale w.g is < off",
        "  - w.g = x.T @ a.g",
        "  + w.g = x.T @ a.g / 2   # proved",
        "  also possible: sign, transposed",
        "note: x.g follows another convention <than> autograd",
    ]
    assert repr(report(finding)) == "Report(1 of 2 gradients are right; net.py:6: wrong-scale w.g is < off)"
    assert str(wrong(None, line=None)) == str(wrong(file, line=None)) == "wrong-scale w.g is < off"
    two = wrong(file, repair="t = x.T\nw.g = t @ a.g", proved=True).change()
    assert two == ["+ t = x.T", "+ w.g = t @ a.g   # proved"]


def test_findings_first(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = report(wrong(file)).findings_first().splitlines()
    assert lines[0] == f"{file}:6: wrong-scale w.g is < off"
    assert lines[1] == "  + w.g = x.T @ a.g / 2"
    assert lines[3].startswith("gradient  status") and lines[-1].startswith("note: ")
    monkeypatch.chdir(tmp_path)
    assert report(wrong(file)).findings_first().startswith("net.py:6: wrong-scale")
    assert report(wrong("<cell>")).findings_first().startswith("<cell>:6: wrong-scale")
    assert Report([]).findings_first().endswith("no gradient was found")


# -- notebooks ---------------------------------------------------------------------------------------


class Read(html.parser.HTMLParser):
    """The text of a page; every tag that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.colours: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in ("div", "table", "thead", "tbody", "tr", "th", "td", "p", "b", "i", "br", "pre", "span"), tag
        self.colours += [value for key, value in attrs if key == "style"]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(finding: Finding) -> list[str]:
    """The lines of source that a notebook shows, with their marks."""
    text = report(finding)._repr_html_()
    source = re.search(r"<pre[^>]*>(.*)</pre>", text, re.DOTALL)
    return Read(source[1]).text.splitlines() if source else []


def test_html(file: str) -> None:
    page = Read(report(wrong(file, proved=True, also=("sign",)))._repr_html_())
    for said in ("a.g", "(2, 3)", "1 of 2 gradients are right", f"{file}:6: wrong-scale", "w.g is < off"):
        assert said in page.text
    assert CAUSES["wrong-scale"] in page.text and "also possible: sign" in page.text and "was run" in page.text
    assert "another convention <than> autograd" in page.text
    for style in page.colours:  # text keeps the theme's colour
        assert not re.search(r"(^|;)\s*color", style)


def test_html_shows_the_lines_around(file: str) -> None:
    assert shown(wrong(file)) == [
        "     3      loss = (a < 1).sum()  # <b>",
        "     4  ",
        "     5      a.g = 2 * a",
        "-    6      w.g = x.T @ a.g",
        "+           w.g = x.T @ a.g / 2",
        "     7      x.g = a.g @ w.T",
        "     8  ",
        "     9  ",
    ]


@pytest.mark.parametrize(
    "first, last, marks",
    [
        (6, 6, [(" ", 5), ("-", 6), ("+", None), (" ", 7)]),
        (5, 6, [("-", 5), ("-", 6), ("+", None), (" ", 7)]),
        (7, 6, [(" ", 5), (">", 6), ("+", None), (" ", 7)]),
        (1, 0, [("+", None), (" ", 1), (" ", 5), (">", 6), (" ", 7)]),
        (12, 11, [(">", 6), (" ", 9), (" ", 11), ("+", None)]),
    ],
)
def test_html_shows_an_edit(file: str, first: int, last: int, marks: list[tuple[str, int | None]]) -> None:
    lines = shown(wrong(file, edit=Edit(file, first, last, ("    new",))))
    seen = [(line[0], int(line[2:6]) if line[2:6].strip() else None) for line in lines]
    assert [m for m in seen if m in marks] == marks
    assert seen.count(("+", None)) == 1 and len(seen) == len(set(seen))


def test_html_of_a_missing_gradient_shows_where_it_goes(file: str) -> None:
    lines = shown(wrong(file, line=None, edit=Edit(file, 8, 7, ("    b.g = a.g.sum(0)",))))
    assert "+           b.g = a.g.sum(0)" in lines and lines[2].endswith("x.g = a.g @ w.T")


@pytest.mark.parametrize("file", [None, "<cell>", "/no/such/file.py"])
def test_html_without_a_source(file: str | None) -> None:
    assert shown(wrong(file, text="w.g = x")) == ["-    6  w.g = x", "+       w.g = x.T @ a.g / 2"]
    assert shown(wrong(file, line=None, repair="")) == []


def test_html_of_a_source_that_changed(file: str) -> None:
    Path(file).write_text("# another line above\n" + SOURCE)
    linecache.checkcache(file)
    assert shown(wrong(file, text="w.g = x.T @ a.g")) == ["-    6  w.g = x.T @ a.g", "+       w.g = x.T @ a.g / 2"]


def test_html_of_a_check(file: str) -> None:
    x, w = torch.randn(4, 3), torch.randn(3, 2)

    def step(x: Any, w: Any) -> Any:
        a = x @ w
        a.g = 2 * a
        w.g = -x.T @ a.g
        return a.pow(2).sum()

    page = Read(cr.check(step, x, w)._repr_html_()).text
    assert re.search(r"^- +\d+ +w\.g = -x\.T @ a\.g$", page, re.MULTILINE)
    assert re.search(r"^\+ +w\.g = x\.T @ a\.g$", page, re.MULTILINE)
    Read(cr.check(lambda: setattr(w, "g", torch.ones(3, 2)) or w.sum())._repr_html_())


# -- grades ------------------------------------------------------------------------------------------

LINES = ["out.g = 2 * out", "w.g = x.T @ out.g", "b.g = out.g.sum(0)", "x.g = out.g @ w.T"]


def student(*lines: str, before: str = "") -> Callable[..., Any]:
    body = "\n    ".join([before or "pass", "out = x @ w + b", "loss = out.pow(2).sum()", *lines])
    space: dict[str, Any] = {"torch": torch, "sys": sys, "warnings": warnings, "logging": logging}
    exec(compile(f"def step(x, w, b):\n    {body}\n", "<student>", "exec"), space)
    return space["step"]


def grade(code: Any, **kwargs: Any) -> float:
    return cr.testing.grade(code, torch.randn(5, 4), torch.randn(4, 3), torch.randn(3), **kwargs)


def test_grade() -> None:
    assert grade(student(*LINES)) == 1.0
    assert grade(student(*LINES), points=4) == 4.0 and isinstance(grade(student(*LINES), points=4), float)
    assert grade(student("out.g = out", *LINES[1:])) == 0.75  # the others are right for what they were given
    assert grade(student("out.g = out", "w.g = 3 * x.T @ out.g", *LINES[2:]), points=2) == 1.0
    assert grade(student(*LINES[:-1])) == pytest.approx(1.0)  # no one asked for the gradient of the data
    assert grade(student("b.g = torch.ones(3)"), points=10) in (0.0, 5.0)


@pytest.mark.parametrize(
    "code",
    [
        student(),
        student("raise ValueError"),
        student("sys.exit(3)"),
        student("w.g = x @ out"),
        student("w.g = None"),
        student("w.g = 'text'"),
        student("return undefined"),
        None,
        lambda x: x,
    ],
)
def test_code_that_fails_gets_nothing(code: Any) -> None:
    assert grade(code) == 0.0


def test_grade_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    loud = "print('out'); print('err', file=sys.stderr); warnings.warn('w'); logging.getLogger('own').error('e')"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert grade(student(*LINES, before=loud)) == 1.0
        assert grade(student("print('out'); 1 / 0")) == 0.0
    assert capfd.readouterr() == ("", "") and not seen


@pytest.mark.parametrize("points", [-1.0, float("nan"), float("inf")])
def test_points_that_are_none(points: float) -> None:
    with pytest.raises(cr.ChainruleError, match="points"):
        grade(student(*LINES), points=points)


# -- documentation -----------------------------------------------------------------------------------


def test_the_causes_are_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "check.md").read_text()
    said = re.findall(r"^- `([a-z-]+)`: (.*(?:\n  .*)*)", text, re.MULTILINE)
    assert {cause: " ".join(about.split()) for cause, about in said} == CAUSES
    assert [cause for cause, _ in said] == list(CAUSES)


def test_the_documented_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from chainrule.cli import main

    text = (Path(__file__).parents[1] / "docs" / "check.md").read_text()
    (tmp_path / "net.py").write_text(re.search(r"```python\n(# net\.py\n.*?)```", text, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    result = CliRunner().invoke(main, ["check", "net.py:step"])
    assert result.exit_code == 1
    said = re.search(r"prints\n\n```\n(.*?)```", text, re.DOTALL)[1]
    assert without_rounding(result.stdout) == without_rounding(said), f"docs/check.md is to show\n{result.stdout}"


def without_rounding(text: str) -> str:
    """Rounding errors are other ones on each machine, and with them the width of a column."""
    return re.sub(r" +", " ", re.sub(r"\b\d(\.\d)?e-\d\d\b", "tiny", text))


def test_a_gradient_of_zero_is_relative_to_nothing() -> None:
    zero = Row("b", "right", 5.6e-16, 1.7, (5,), (5,), 16)
    assert row_cells(zero)[4] == "" and row_cells(replace(zero, status="wrong"))[4] == "1.7"
    assert row_cells(replace(zero, max_abs=1.5, max_rel=0.75))[4] == "0.75"  # another convention among equal elements
