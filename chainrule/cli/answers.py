"""What the commands print: coloured on a terminal, plain in a pipe, JSON for programs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.syntax import Syntax

import chainrule as cr
from chainrule.cli import Refused
from chainrule.cli.standalone import runnable

WHOLE = 64  # tensors up to this size are given whole in JSON


def console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def print_code(text: str) -> None:
    """Python text as it is, in colour on a terminal; lines are never cut."""
    highlighted = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(text)
    highlighted.rstrip()
    console().print(highlighted)


def write(d: cr.Derivation, style: str, file: Path, comments: str | None) -> None:
    text = runnable(d, comments) if style == "function" else d.source(style, comments)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"cannot write {file}: {error.strerror}") from error


def print_json(answer: dict[str, Any]) -> None:
    text = json.dumps(_plain(answer), indent=2, ensure_ascii=False)
    rows = re.sub(r"\[\n([^\[\]{}\"]*)\n *\]", lambda m: f"[{' '.join(m[1].split())}]", text)  # numbers in one line
    click.echo(rows)


def of_derivation(d: cr.Derivation, target: str, style: str, comments: str | None) -> dict[str, Any]:
    return {
        "target": target,
        "style": style,
        "source": d.source(style, comments),
        "inputs": {name: _tensor(d[name].value) for name in d.inputs},
        "output": _tensor(d.output),
        "gradients": {name: None if g is None else _tensor(g) for name, g in d.grads.items()},
        "fallbacks": d.fallbacks,
        "notes": d.notes,
    }


def of_trace(trace: Any, target: str) -> dict[str, Any]:
    return {"target": target, "steps": [of_step(s) for s in trace.steps]}


def of_step(step: Any) -> dict[str, Any]:
    return {
        "phase": step.phase,
        "name": step.name,
        "code": step.code,
        "line": step.line,
        "comes_from": [s.name for s in step.comes_from],
        "used_by": [s.name for s in step.used_by],
        **_tensor(step.value),
    }


def of_pairs(beside: Any, target: str) -> dict[str, Any]:
    pairs = [
        {"name": p.step.name, "before": _tensor(p.before), "after": _tensor(p.after), "change": p.change}
        for p in beside.pairs
    ]
    return {"target": target, "pairs": pairs}


def _tensor(value: torch.Tensor) -> dict[str, Any]:
    described = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    return {**described, "value": value.tolist()} if value.numel() <= WHOLE else described


def _plain(value: Any) -> Any:
    """`value` with what JSON has no word for (NaN, infinity, complex numbers) as text."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value
