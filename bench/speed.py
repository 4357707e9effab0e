"""How long it takes to derive, to record and to ask for help.

    python bench/speed.py            prints a table
    python bench/speed.py --save     also writes bench/results/speed.json, with the machine's description

Three figures, each the median of several runs: `derive` of the two-layer network of the course notebooks
(forward, derived backward, simplification and the comparison with autograd); what recording adds to one
operation, by timing a chain of small operations with and without the recorder, in turn; and
`chainrule --help` as a whole process.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import chainrule as cr
from chainrule.bench.works import course
from chainrule.deriving import new_recorder


def milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def machine() -> str:
    """What the figures were measured on."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"


def derive_time(runs: int = 21) -> tuple[float, float]:
    """The first and the median time to derive the course network, in ms."""
    network = course(rows=64)

    def once() -> object:
        return cr.derive(network.forward, *network.batch, wrt=["w1", "b1", "w2", "b2"])

    first = milliseconds(once)
    return first, statistics.median(milliseconds(once) for _ in range(runs))


def recording_overhead(operations: int = 300, runs: int = 15) -> float:
    """What recording adds to one operation, in microseconds."""
    x, w = torch.randn(4, 4), torch.randn(4, 4)

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(operations // 3):
            h = x @ w
            h = h + x
            x = h.tanh()
        return x

    def recorded() -> torch.Tensor:
        recorder = new_recorder()
        recorder.forward = chain
        recorder.watch.start(sys._getframe(), inclusive=False)
        with recorder.recording("forward"):
            return chain(x)

    plain, under = [], []
    for _ in range(runs):
        plain.append(milliseconds(lambda: chain(x)))
        under.append(milliseconds(recorded))
    return (statistics.median(under) - statistics.median(plain)) * 1e3 / operations


def help_time(runs: int = 7) -> float:
    """`chainrule --help` as a whole process, in ms."""
    command = [str(Path(sys.executable).parent / "chainrule"), "--help"]
    return statistics.median(
        milliseconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(runs)
    )


def main() -> None:
    torch.set_num_threads(2)
    first, derive = derive_time()
    figures = {
        "derive the course network, first time (ms)": first,
        "derive the course network (ms)": derive,
        "recording adds to an operation (us)": recording_overhead(),
        "chainrule --help (ms)": help_time(),
    }
    limits = {
        "derive the course network (ms)": 60,
        "recording adds to an operation (us)": 30,
        "chainrule --help (ms)": 300,
    }
    print(machine())
    for name, value in figures.items():
        limit = f"   target {limits[name]}" if name in limits else ""
        print(f"{name:<45} {value:9.1f}{limit}")
    if "--save" in sys.argv:
        path = Path(__file__).parent / "results" / "speed.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), "targets": limits, "measured": figures}, indent=2) + "\n")
        print(f"written to {path.relative_to(Path(__file__).parent.parent)}")


if __name__ == "__main__":
    main()
