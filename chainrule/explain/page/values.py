"""A value beside its gradient: a few numbers about each, and the entries at its corners."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import torch

from chainrule.explain.values import entries, first_of, summary


def beside(values: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Named values side by side."""
    return f'<div class="values">{"".join(figure(name, value) for name, value in values)}</div>'


def figure(name: str, value: torch.Tensor) -> str:
    """The name, the shape and a few numbers about a value, above the entries at its corners."""
    about, part = summary(value), first_of(value)
    shown = f'<code data-name="{escape(name)}">{escape(name)}</code> <span class="shapes">{about.shape}</span>'
    said = f"{about.dtype}: {about}" if str(about) else about.dtype
    said += f". Shown: <code>{escape(name)}{part}</code>" if part else ""
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in entries(value))
    table = f'<div class="scroll"><table class="numbers">{rows}</table></div>' if rows else ""
    return f"<figure><figcaption>{shown}<br><small>{said}</small></figcaption>{table}</figure>"
