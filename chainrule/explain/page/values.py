"""A value beside its gradient: a few numbers about each, and the entries at its corners."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import torch

from chainrule.explain.page.line import shapes
from chainrule.explain.values import facts, first_of
from chainrule.pictures.heat import of_tensors
from chainrule.traces.summary import cells

SMALL = 200  # elements of a value that is drawn
CORNER = 6  # rows and columns that are shown of a large value


def beside(values: Mapping[str, torch.Tensor]) -> str:
    """Named values side by side."""
    return f'<div class="values">{"".join(figure(name, value) for name, value in values.items())}</div>'


def heat(values: Mapping[str, torch.Tensor]) -> str:
    """Small values of several entries as heat maps, "" of others."""
    if not all(1 < value.numel() <= SMALL for value in values.values()):
        return ""
    return f'<div class="scroll">{of_tensors(values, " beside ".join(values)).svg}</div>'


def figure(name: str, value: torch.Tensor) -> str:
    """The name, the shape and a few numbers about a value, above the entries at its corners."""
    part, dtype = first_of(value), str(value.dtype).removeprefix("torch.")
    shown = f'<code data-name="{escape(name)}">{escape(name)}</code> {shapes(str(tuple(value.shape)))}'
    said = f"{dtype}: {facts(value)}" + (f". Shown: <code>{escape(name)}{part}</code>" if part else "")
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells(value, CORNER) if row)
    table = f'<div class="scroll"><table class="numbers">{rows}</table></div>' if rows else ""
    return f"<figure><figcaption>{shown}<br><small>{said}</small></figcaption>{table}</figure>"
