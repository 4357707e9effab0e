"""An explanation as one self-contained HTML file: no request, no library, readable with scripts off."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from chainrule.explain.head import Head, head
from chainrule.explain.names import person_names
from chainrule.explain.page.line import table
from chainrule.explain.page.step import Steps

if TYPE_CHECKING:
    from chainrule.derivation import Derivation
    from chainrule.explain.explanation import Explanation

LARGE = 3_000_000  # characters
TALL = 760  # pixels; a graph that is taller is folded
_THEMES = ("auto", "light", "dark")


def page(explanation: Explanation, title: str | None = None) -> str:
    """The whole page; where it would be large, lines that are equal but for their names are derived once."""
    about, graph = head(explanation, title), _graph(explanation.derivation)
    text = _page(about, graph, Steps.of(explanation), explanation.derivation.names)
    if len(text) > LARGE:
        text = _page(about, graph, Steps.of(explanation, brief=True), explanation.derivation.names)
    return text


def _page(about: Head, graph: str, steps: Steps, names: list[str]) -> str:
    style, script = _file("style.css"), _file("script.js")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">
<meta name="generator" content="chainrule">
<title>{escape(about.title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#forward">Skip to the forward pass</a>
<a class="skip" href="#backward">Skip to the backward pass</a>
<header>
<h1>{escape(about.title)}</h1>
{_controls()}
</header>
<main>
<div class="pane">
{_about(about)}
{graph}
<section aria-labelledby="inputs"><h2 id="inputs">Inputs</h2>
{steps.inputs(person_names(names))}</section>
{_pass(steps, "forward", "Forward pass", "Reads from the inputs down to the output.")}
</div>
<div class="pane">
{_pass(steps, "backward", "Backward pass", "Reads from the gradient of the output down to those of the inputs.")}
<footer>Written by chainrule.</footer>
</div>
</main>
<script>
{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return files("chainrule.explain.page").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing may be fetched; of scripts, this one may run."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _controls() -> str:
    themes = "".join(
        f'<label><input type="radio" name="theme" value="{theme}" id="theme-{theme}"{" checked" if theme == "auto" else ""}>'
        f"<span>{theme}</span></label>"
        for theme in _THEMES
    )
    return (
        '<div class="controls"><button type="button" id="unfold" hidden>Unfold all</button>'
        f'<fieldset><legend class="hidden">Colours</legend>{themes}</fieldset></div>'
    )


def _about(about: Head) -> str:
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in about.facts)
    parts = [f'<section class="about" aria-label="About"><dl class="facts">{facts}</dl>']
    if about.verdict is None:
        parts.append(f"<p>{escape(about.checked)}</p>")
    elif about.verdict.rows:
        rows = [
            (f'<code data-name="{escape(r.name)}">{escape(r.name)}</code>', *(f"{v:.9g}" for v in (r.rule, r.autograd, r.differences)))
            for r in about.verdict.rows
        ]  # fmt: skip
        parts.append(
            f'<details class="verdict{"" if about.verdict else " wrong"}"><summary>{escape(about.checked)}</summary>'
            "<p>The derivative of the output along a random direction of each input, in float64.</p>"
            f"{table(['Input', 'Rule', 'Autograd', 'Differences'], rows, 'numbers')}</details>"
        )
    notes = [*about.notes, *(about.verdict.kinks if about.verdict is not None else [])]
    parts += [f'<p class="note">Note: {escape(note)}.</p>' for note in notes]
    return "".join([*parts, "</section>"])


def _graph(d: Derivation) -> str:
    """The picture of both passes, where the library that lays it out is installed."""
    if find_spec("igraph") is None:
        return ""
    picture = d.picture()
    return (
        f'<details class="picture"{" open" * (picture.height <= TALL)}><summary>The graph of both passes</summary>'
        f'<div class="scroll">{picture.svg}</div></details>'
    )


def _pass(steps: Steps, phase: str, title: str, said: str) -> str:
    items = "\n".join(steps.item(step, i) for i, step in enumerate(steps.phase(phase), 1))
    return (
        f'<section aria-labelledby="{phase}"><h2 id="{phase}" tabindex="-1">{title}</h2>\n<p class="said">{said}</p>\n'
        f'<ol class="steps">\n{items}\n</ol></section>'
    )
