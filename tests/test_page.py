"""The page: one file that is whole, small and sound, for every explanation of the menagerie."""

from __future__ import annotations

import base64
import hashlib
import re
import runpy
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from explained import explained
from sweeps import of_today
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.explain.page import cell

VOID = ("meta", "br", "input")
w1, b1 = torch.randn(64, 50) / 8, torch.zeros(50)
w2, b2 = torch.randn(50, 1) / 7, torch.zeros(1)


def forward(inp: torch.Tensor, targ: torch.Tensor) -> torch.Tensor:
    l1 = inp @ w1 + b1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2 + b2
    return (out[:, 0] - targ).pow(2).mean()


def course() -> cr.Derivation:
    return cr.derive(forward, torch.rand(1000, 64), torch.rand(1000), wrt=["inp", "w1", "b1", "w2", "b2"])


class Read(HTMLParser):
    """The elements of a page; every one that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def every(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]


@pytest.mark.parametrize("entry", of_today(ENTRIES, 5), ids=lambda e: e.name)
def test_pages_are_sound(entry: Entry) -> None:
    explanation = explained(entry)
    page = Read(explanation.to_html())
    ids = page.every("id")
    assert max(Counter(ids).values()) == 1
    assert {s.key for s in explanation} <= set(ids)
    assert all(link.startswith("#") and link[1:] in ids for link in page.every("href"))
    assert {key for keys in page.every("data-partners") for key in keys.split()} <= set(ids)
    assert {t for s in explanation for t in s.targets} - {"_"} <= set(page.every("data-name"))
    assert not page.every("onclick")


@pytest.mark.parametrize("entry", of_today(ENTRIES, 5), ids=lambda e: e.name)
def test_cells_are_sound(entry: Entry) -> None:
    explanation = explained(entry)
    page = Read(cell(explanation))
    assert not page.every("id") and "script" not in [tag for tag, _ in page.elements]
    for step in explanation:
        assert not Read(step._repr_html_()).every("id") and ("<details open>" in step._repr_html_()) == bool(
            step.derivation
        )
    rules = re.findall(r"([^{}]+)\{", cell(explanation).partition("<style>")[2].partition("</style>")[0])
    selectors = [s for rule in rules for s in rule.split(",")]
    assert selectors and all(s.strip().startswith(".chainrule-explanation") for s in selectors)
    assert explanation._repr_mimebundle_().keys() == {"text/html", "text/markdown", "text/latex", "text/plain"}


def test_a_page_fetches_nothing() -> None:
    page = course().explain().to_html().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"\b(src|srcset|action|data|poster)=|url\(|@import|https?://", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    script = re.search(r"<script>(.*)</script>", page, re.S)
    assert policy is not None and script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy[1] and f"'sha256-{digest}'" in policy[1]
    assert script[1].count("\n") < 200


def test_pages_are_small() -> None:
    assert len(course().explain().to_html().encode()) < 300_000
    examples = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "gpt2.py"), run_name="gpt2")
    gpt = cr.derive(examples["GPT"](layers=2), *examples["inputs"]())
    assert len(gpt.explain().to_html().encode()) < 3_000_000


def test_of_many_equal_lines_one_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(x: torch.Tensor, ws: list[torch.Tensor]) -> torch.Tensor:
        for w in ws:
            x = x + (x @ w).relu()
        return x.pow(2).mean()

    explanation = cr.derive(deep, torch.randn(4, 3), [torch.randn(3, 3) for _ in range(12)]).explain()
    whole = explanation.to_html()
    monkeypatch.setattr("chainrule.explain.page.html.LARGE", len(whole) - 1)
    brief = explanation.to_html()
    assert len(brief) < len(whole) / 2 and "<p>As for <a" not in whole
    derived, left = (set(re.findall(p, brief)) for p in (r'id="([^"]*)" data-gives', r'<p>As for <a href="#([^"]*)"'))
    assert left and left <= derived
    for key in left:
        item = brief[brief.index(f'id="{key}" data-gives') :].partition("</li>")[0]
        assert "<p>As for <a" not in item and "<h4>Jacobian</h4>" in item
    assert brief.count('<div class="derivation">') == whole.count('<div class="derivation">')
    assert brief.count('<div class="derivation"><p>As for <a') == brief.count("<p>As for <a") > 20


def test_a_large_value_is_not_on_the_page() -> None:
    small, large = (len(cr.derive(lambda x: (x * x).sum(), torch.rand(n, n)).explain().to_html()) for n in (9, 900))
    assert large < small + 1000


def test_names_are_escaped() -> None:
    w = {'a<b&"c': torch.randn(3, 2), "<script>": torch.randn(3, 2)}
    explanation = cr.derive(lambda x: (x @ w['a<b&"c'] @ w["<script>"].T).sum(), torch.randn(4, 3)).explain()
    page = explanation.to_html(title='<b>&"')
    Read(page)
    assert "a&lt;b&amp;&quot;c" in page and "&lt;b&gt;&amp;&quot;" in page
    assert 'a<b&"c' not in page and page.count("<script>") == 1


def test_it_shows_the_graph_and_small_values() -> None:
    pytest.importorskip("igraph", reason="igraph lays the graph out")
    d = course()
    page = d.explain().to_html()
    assert d.picture().svg in page and "<title>w2 beside w2.g</title>" in page
    assert "<title>w1 beside w1.g</title>" not in page  # 3200 numbers


def test_what_is_given_is_said() -> None:
    explanation = cr.derive(lambda x: x * x, torch.rand(3), upstream=torch.rand(3)).explain()
    assert "out_g, the gradient of the output" in explanation.to_html()
    assert "<dt>Given</dt>" in explanation.to_html() and "<dt>Given</dt>" not in course().explain().to_html()


def test_it_is_written_to_a_file(tmp_path: Path) -> None:
    page = course().explain().to_html(tmp_path / "page.html", title="Two layers")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert "<title>Two layers</title>" in page
