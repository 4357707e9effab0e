"""What the figures were measured on, and with."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("chainrule", "torch", "numpy", "jax", "jaxlib", "autograd", "thinc", "blis")


def machine() -> dict[str, Any]:
    """The processor, how many threads were used, versions, and the day."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{library: version for library in LIBRARIES if (version := _version(library))},
        "date": datetime.date.today().isoformat(),
    }


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where the system tells it."""
    described = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", described.read_text()) if described.exists() else None
    return name[1].strip() if name else platform.processor() or platform.machine()
