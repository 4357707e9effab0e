"""How deriving grows: with the number of layers, and up to a GPT-2 of 124 million parameters.

    python bench/scale.py            prints a table
    python bench/scale.py --save     also writes bench/results/scale.json, with the machine's description

Small layers show what deriving itself takes, beside autograd's own forward and backward pass; the 124 million
parameters show time and memory, each measured in a process of its own. Memory is what a process holds at
its peak beyond the parameters.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import resource
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed import machine

import chainrule as cr

HERE = Path(__file__).parent
LAYERS = (1, 2, 4, 8, 16)
TOKENS = (2, 65)


def gpt(**how: int) -> Any:
    space = runpy.run_path(str(HERE.parent / "examples" / "gpt2.py"), run_name="gpt2")
    return space["GPT"](**{**how, **(space["GPT2"] if not how else {})})


def seconds(function: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def by_autograd(model: Any, tokens: torch.Tensor) -> None:
    torch.autograd.grad(model(tokens), list(model.parameters()))


def growth(runs: int = 5) -> list[dict[str, float]]:
    """Time to derive, and of the emitted code, by the number of layers; in milliseconds, medians."""
    rows = []
    for layers in LAYERS:
        model = gpt(layers=layers)
        tokens = torch.randint(60, (2, 9))
        once = functools.partial(cr.derive, model, tokens)
        theirs = functools.partial(by_autograd, model, tokens)
        theirs()
        d = once()
        derived, autograd = [], []
        for _ in range(runs):  # in turn
            derived.append(seconds(once))
            autograd.append(seconds(theirs))
        source = seconds(functools.partial(d.source, "function"))
        operations = sum(n.op.startswith("call") for n in d.graph.nodes)
        rows.append({"layers": layers, "operations": operations, "derive": statistics.median(derived) * 1e3,
                     "autograd": statistics.median(autograd) * 1e3, "source": source * 1e3,
                     "lines": len(d.source("function").splitlines())})  # fmt: skip
    return rows


def one_large(what: str) -> dict[str, float]:
    """Forward and backward of the 124 million parameters, by autograd or derived; seconds and MB."""
    torch.manual_seed(0)
    model = gpt()
    tokens = torch.randint(50257, TOKENS)
    before = resident()
    taken = seconds(lambda: by_autograd(model, tokens) if what == "autograd" else cr.derive(model, tokens))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"seconds": taken, "megabytes": peak - before, "parameters": sum(p.numel() for p in model.parameters())}


def resident() -> float:
    """What the process holds now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def large(runs: int = 3) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {"autograd": [], "derive": []}
    for _ in range(runs):
        for what, results in found.items():
            command = [sys.executable, __file__, "--one", what]
            results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {what: {key: statistics.median(r[key] for r in rs) for key in rs[0]} for what, rs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_large(options.one)))
        return
    print(machine())
    print(
        f"{'layers':>6} {'operations':>10} {'derive ms':>10} {'ms an operation':>16} {'autograd ms':>12} {'lines':>6} {'source ms':>10}"
    )
    rows = growth()
    for row in rows:
        print(f"{row['layers']:6} {row['operations']:10} {row['derive']:10.1f} {row['derive'] / row['operations']:16.3f}"
              f" {row['autograd']:12.1f} {row['lines']:6} {row['source']:10.1f}")  # fmt: skip
    gpt2 = large()
    ours, theirs = gpt2["derive"], gpt2["autograd"]
    print(f"GPT-2, {ours['parameters'] / 1e6:.0f} million parameters, {TOKENS[0]} x {TOKENS[1] - 1} tokens: autograd {theirs['seconds']:.1f} s,"
          f" {theirs['megabytes']:.0f} MB; derived and compared with autograd {ours['seconds']:.1f} s (target 20 beyond),"
          f" {ours['megabytes']:.0f} MB, {ours['megabytes'] / theirs['megabytes']:.2f} times as much (target 3)")  # fmt: skip
    if options.save:
        result = {"machine": machine(), "growth": rows, "gpt2": gpt2}
        (HERE / "results" / "scale.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
