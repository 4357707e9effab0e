"""The system's C compiler: what machine it writes for, and libraries kept by the hash of what they are made of."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from chainrule.compiling.c.products import Machine
from chainrule.errors import ChainruleError

# Sums are reordered where a pragma says so and nowhere else: NaN and infinity go through as in torch. What one turn of a
# loop computes is not kept for the next (tree-pre): such a loop does not become one of vectors.
FLAGS = ["-O3", "-fno-tree-pre", "-march=native", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math",
         "-fno-strict-aliasing", "-fPIC", "-shared", "-w"]  # fmt: skip


class NoCompiler(ChainruleError):
    """There is no C compiler, or it refuses the step."""


@functools.cache
def compiler() -> tuple[str, ...]:
    """The words of `$CC`, or `cc`."""
    words = shlex.split(os.environ.get("CC") or "cc")
    if not words or shutil.which(words[0]) is None:
        raise NoCompiler(
            f"engine c: no C compiler {' '.join(words)!r} is found; install gcc, name one in CC, or choose another engine"
        )
    return tuple(words)


def _ask(*options: str) -> str:
    return subprocess.run([*compiler(), *options], input="", capture_output=True, text=True).stdout


@functools.cache
def machine() -> Machine:
    macros = _ask("-march=native", "-dM", "-E", "-")
    if "__AVX512F__" in macros:
        return Machine(64, 32)
    if "__AVX__" in macros:
        return Machine(32, 16)
    return Machine(16, 32 if "__aarch64__" in macros else 16)


@functools.cache
def _version() -> str:
    """The compiler, and the processor that it takes for native."""
    return _ask("--version") + _ask("-march=native", "-dM", "-E", "-")


def _flags(threads: int) -> list[str]:
    wide = ["-mprefer-vector-width=512"] if machine().vector == 64 else []
    return [*FLAGS, *wide, *(["-fopenmp"] if threads > 1 else [])]


def _cache() -> Path:
    """The person's own directory for compiled steps."""
    root = os.environ.get("XDG_CACHE_HOME")
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(root) if root else Path.home() / ".cache"
    path = home / "chainrule" / "c"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    path = Path(tempfile.gettempdir()) / f"chainrule-c-{user}"
    path.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and path.stat().st_uid != user:
        raise NoCompiler(f"engine c: {path} is another person's; set XDG_CACHE_HOME")
    return path


def library(source: str, threads: int) -> ctypes.PyDLL:
    """The source compiled and loaded. The name is the hash of the text, the flags and the compiler; a file appears
    under it only once it is whole."""
    flags = _flags(threads)
    key = hashlib.sha256("\0".join([source, *compiler(), *flags, _version()]).encode()).hexdigest()[:32]
    path = _cache() / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            text, built = Path(folder) / "step.c", Path(folder) / "step.so"
            text.write_text(source)
            done = subprocess.run(
                [*compiler(), *flags, str(text), "-o", str(built), "-lm"], capture_output=True, text=True
            )
            if done.returncode:
                said = done.stderr.strip()[:500] or f"it ended with status {done.returncode} and said nothing"
                raise NoCompiler(f"engine c: {compiler()[0]} refuses the step: {said}; choose another engine")
            os.replace(built, path)
    return ctypes.PyDLL(str(path))
