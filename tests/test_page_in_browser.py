"""The page in Chromium: it is drawn without an error or a request, and read by mouse, keyboard and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from explained import explained
from test_page import course
from zoo import ENTRIES

import chainrule as cr

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium draws the page: apt-get install chromium")
PHONE = {"width": 360, "height": 780}
DESK = {"width": 1440, "height": 900}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        launched = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("page") / "page.html"
    course().explain().to_html(path)
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Open]:
    """Opens the page; whatever it says on the console, and every request besides its own, is an error at the end."""
    said: list[str] = []
    pages: list[Any] = []

    def open_page(path: Path = file, viewport: dict[str, int] = DESK, **options: Any) -> Any:
        page = browser.new_page(viewport=viewport, **options)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


def background(page: Any, selector: str) -> tuple[float, ...]:
    """The colour behind an element, as red, green, blue."""
    colour = page.eval_on_selector(selector, "e => getComputedStyle(e).backgroundColor")
    return tuple(float(v) for v in colour.partition("(")[2].rstrip(")").split(",")[:3])


def test_it_is_drawn_at_once(opened: Open) -> None:
    page = opened()
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 1000
    drawn = page.eval_on_selector_all("math", "all => all.filter(m => m.getBoundingClientRect().width > 0).length")
    assert drawn >= len(course().explain()) - 6
    assert page.locator("h1, h2").all_inner_texts()[1:] == ["Inputs", "Forward pass", "Backward pass"]


def test_a_name_lights_up_everywhere_and_its_gradient_with_it(opened: Open) -> None:
    page = opened()
    page.hover("#forward-l1 code [data-name=w1]")
    lit = page.eval_on_selector_all(".lit", "all => all.map(e => e.closest('.step')?.id + ' ' + e.tagName)")
    assert {"forward-l1 SPAN", "forward-l1 msub", "backward-inp.g SPAN", "backward-inp.g msub"} <= set(lit)
    gradient = page.eval_on_selector_all(".lit-gradient", "all => all.map(e => e.dataset.name)")
    assert set(gradient) == {"w1.g"} and len(gradient) >= 3
    assert background(page, ".lit") != background(page, ".lit-gradient") != background(page, "body")
    page.mouse.move(5, 5)
    assert page.locator(".lit, .lit-gradient").count() == 0


def test_a_name_stands_level_with_its_numbers(opened: Open) -> None:
    page = opened()
    page.locator(".verdict > summary").click()
    gaps = page.eval_on_selector_all(
        ".verdict tbody tr",
        """all => all.map(row => [row.querySelector("code"), row.querySelector("td")].map(cell => {
             const range = document.createRange();
             range.selectNodeContents(cell);
             return range.getBoundingClientRect().bottom;
           })).map(([name, number]) => Math.abs(name - number))""",
    )
    assert gaps and max(gaps) < 2


def test_words_in_formulas_keep_their_spaces(opened: Open, tmp_path: Path) -> None:
    choice = cr.derive(lambda x: torch.where(x > 0, x, x.exp()).sum(), torch.randn(3))
    choice.explain().to_html(tmp_path / "cases.html")
    page = opened(tmp_path / "cases.html")
    widths = page.evaluate(
        """() => {
             const word = [...document.querySelectorAll("math mtext")].find(m => m.textContent === "where ");
             const width = () => word.getBoundingClientRect().width, spaced = width();
             word.textContent = "where";
             return [width(), spaced];
           }"""
    )
    assert widths[1] > widths[0] + 2


def test_what_is_cut_at_an_edge_has_a_shadow_there(opened: Open) -> None:
    page = opened()
    for selector in (".line", ".formula", ".scroll", ".meet"):
        layers = page.eval_on_selector(selector, "e => getComputedStyle(e).backgroundAttachment")
        assert layers.split(", ") == ["local", "local", "scroll", "scroll"]


def test_a_tap_pins_a_name_until_escape(opened: Open) -> None:
    page = opened(viewport=PHONE, has_touch=True)
    page.tap("#forward-l1 code [data-name=w1]")
    assert page.locator(".lit").count() > 3
    page.keyboard.press("Escape")
    assert page.locator(".lit").count() == 0


def test_the_keyboard_alone_unfolds_and_moves(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the forward pass"
    page.keyboard.press("Enter")
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.steps summary')"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#forward-l1 details").get_attribute("open") is not None
    assert page.locator("#forward-l1 .values").is_visible()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('.step').id") == "forward-l2"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.closest('.step').id") == "forward-l1"
    assert page.locator(".partner").evaluate_all("all => all.map(e => e.id).sort()") == [
        "backward-b1.g", "backward-inp.g", "backward-w1.g"
    ]  # fmt: skip
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('.step').id") in (
        "backward-b1.g",
        "backward-inp.g",
        "backward-w1.g",
    )
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_lines_of_the_other_pass_are_brought_into_view(opened: Open) -> None:
    page = opened(viewport={"width": 1440, "height": 500})
    before = page.locator("#backward-w1\\.g").bounding_box()["y"]
    page.click("#forward-l1 .meet")
    page.wait_for_timeout(800)
    tops = [page.locator(f"#backward-{n}\\.g").bounding_box()["y"] for n in ("b1", "inp", "w1")]
    assert before > 500 > min(tops)


def test_a_phone_scrolls_no_page_sideways(opened: Open, tmp_path: Path) -> None:
    longest = max(ENTRIES, key=lambda e: max(len(s.code) for s in explained(e)))
    explained(longest).to_html(tmp_path / "long.html")
    for path in ((), (tmp_path / "long.html",)):
        page = opened(*path, viewport=PHONE)
        page.click("#unfold")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_and_light(opened: Open) -> None:
    assert min(background(opened(color_scheme="light"), "body")) > 230
    page = opened(color_scheme="dark")
    assert max(background(page, "body")) < 40
    page.check("#theme-light", force=True)
    assert min(background(page, "body")) > 230


def test_with_scripts_off_it_unfolds_and_changes_colours(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert not page.locator("#unfold").is_visible()
    page.click("#backward-w1\\.g summary")
    assert page.locator("#backward-w1\\.g .values").is_visible()


def test_print_unfolds_everything(opened: Open) -> None:
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("#backward-w1\\.g .derivation").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
