"""Markdown: what GitHub, Quarto and Jupyter Book read alike, read here as CommonMark reads it before any mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from explained import explained
from markdown_it import MarkdownIt
from markdown_it.token import Token
from sweeps import of_today
from test_formulas import terms
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.explain.markdown import lines, mathematics

some_entries = pytest.mark.parametrize("entry", of_today(ENTRIES, 3), ids=lambda e: e.name)
PUNCTUATION = re.compile(r"\\([!-/:-@\[-`{-~])")  # what a backslash escapes in Markdown


def read(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def shown(tokens: list[Token]) -> Iterator[str]:
    """The text of each paragraph, heading and cell, as it is after Markdown was read."""
    for token in tokens:
        if token.type == "inline":
            assert not {"em_open", "link_open", "image", "html_inline"} & {c.type for c in token.children or ()}, token
            yield "".join("\n" if c.type == "softbreak" else c.content for c in token.children or ())


@some_entries
def test_mathematics_survives_markdown(entry: Entry) -> None:
    explanation = explained(entry)
    text = "\n".join(shown(read(explanation.to_markdown())))
    for step in explanation:
        for term in terms(step):
            assert PUNCTUATION.sub(r"\1", mathematics(term)) in text, mathematics(term)


@some_entries
def test_only_commands_that_every_reader_knows(entry: Entry) -> None:
    for step in explained(entry):
        for term in terms(step):
            formula = mathematics(term)
            assert not re.search(r"\\(operatorname|mbox|phantom|textless|textgreater|ensuremath)\b", formula)
            assert not re.search(r"(?<!\\)_\{|\\(?![A-Za-z_$%&#{}])|\$\$|<\S", formula), formula
            assert formula.replace(r"\{", "").replace(r"\}", "").count("{") == formula.replace(r"\{", "").replace(r"\}", "").count("}")  # fmt: skip


@some_entries
def test_formulas_stand_where_github_finds_them(entry: Entry) -> None:
    text = lines(explained(entry))
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("```"):
            continue
        if paragraph.startswith("$$"):
            assert re.fullmatch(r"\$\$\n[^\n$]+\n\$\$", paragraph), paragraph
            continue
        signs = [m.start() for m in re.finditer(r"(?<!\\)\$", paragraph)]
        assert len(signs) % 2 == 0
        for start, end in zip(signs[::2], signs[1::2], strict=True):
            assert not paragraph[max(start - 1, 0) : start].strip("([ \n"), paragraph[start - 9 : end]
            assert not paragraph[start + 1].isspace() and not paragraph[end - 1].isspace()
            assert not paragraph[end + 1 : end + 2].isalnum(), paragraph[start : end + 9]


@some_entries
def test_every_line_is_there(entry: Entry) -> None:
    explanation = explained(entry)
    tokens = read(explanation.to_markdown())
    code = [t.content.rstrip("\n") for t in tokens if t.type == "fence" and t.info == "python"]
    assert code == [s.code for s in explanation if s.phase != "input"]
    blocks = "".join(t.content for t in tokens if t.type == "html_block")
    assert blocks.count("<details>") == blocks.count("</details>") == sum(bool(s.derivation) for s in explanation)
    rows = sum(t.type == "tr_open" for t in tokens)
    assert rows == 1 + sum(s.phase == "input" for s in explanation)


def test_signs_in_names_and_titles_are_no_markdown(tmp_path: Path) -> None:
    w = {"a*b*|_c_`": torch.randn(3, 2), "<b>$x$": torch.randn(3, 2)}
    explanation = cr.derive(lambda x: (x @ w["a*b*|_c_`"] @ w["<b>$x$"].T).sum(), torch.randn(4, 3)).explain()
    text = explanation.to_markdown(tmp_path / "out.md", title="*a* $b$ <c>")
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == text
    said = list(shown(read(text)))
    assert said[0] == "*a* $b$ <c>"
    assert any("a*b*|_c_`" in cell for cell in said) and any("<b>$x$" in cell for cell in said)
