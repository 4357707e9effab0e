"""`check`: several outputs that another function computed: each is weighted by the upstream gradient that is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_forms import module, n

import chainrule as cr
from chainrule.errors import ChainruleError

FILE = """\
from collections import namedtuple

import numpy as np

State = namedtuple("State", "h c")
Both = namedtuple("Both", "h c cache")


def cell(x, h, c, W):
    a = np.tanh(x @ W + h)
    nc = c * a
    nh = np.tanh(nc)
    return RETURNED


def step_forward(x, h, c, W):
    return cell(x, h, c, W)


def step_backward(TAKEN):
    UNPACKED
    both = DC + DH * (1 - nh**2)
    da = both * c * (1 - a**2)
    return da @ W.T, da, both * a, x.T @ da
"""
KEPT = "x, h, c, W, a, nh"
UNPACK = f"{KEPT} = cache"
AGAIN = "a = np.tanh(x @ W + h); nh = np.tanh(c * a)"
CASES: dict[str, tuple[str, str, str, str, str]] = {  # name: what is returned, the parameters, what unpacks, dh, dc
    "plain": (f"nh, nc, ({KEPT})", "dnext_h, dnext_c, cache", UNPACK, "dnext_h", "dnext_c"),
    "another order": (f"nh, nc, ({KEPT})", "dnext_c, dnext_h, cache", UNPACK, "dnext_h", "dnext_c"),
    "no names": (f"nh, nc, ({KEPT})", "first, second, cache", UNPACK, "first", "second"),
    "a cache of another name": (f"nh, nc, ({KEPT})", "dh, dc, kept", f"{KEPT} = kept", "dh", "dc"),
    "a default": (f"nh, nc, ({KEPT})", "dnext_h, cache, dnext_c=0.0", UNPACK, "dnext_h", "dnext_c"),
    "defaults": (f"nh, nc, ({KEPT})", "dh, dc=None, cache=None", UNPACK, "dh", "(0 if dc is None else dc)"),
    "a default, no cache": ("nh, nc", "dnext_h, x, h, c, W, dnext_c=0", AGAIN, "dnext_h", "dnext_c"),
    "a cache of None": ("nh, nc, None", "dnext_h, dnext_c, cache, x, h, c, W", AGAIN, "dnext_h", "dnext_c"),
    "a tensor as a cache": ("nh, nc, a", "dh, dc, a, x, h, c, W", "nh = np.tanh(c * a)", "dh", "dc"),
    "a named tuple": (f"Both(nh, nc, ({KEPT}))", "dh, dc, cache", UNPACK, "dh", "dc"),
    "a list": (f"[nh, nc, ({KEPT})]", "dh, dc, cache", UNPACK, "dh", "dc"),
    "one, by index": (f"nh, nc, ({KEPT})", "dnext, cache", UNPACK, "dnext[0]", "dnext[1]"),
    "one, unpacked": (f"nh, nc, ({KEPT})", "dnext, cache", f"dh, dc = dnext; {UNPACK}", "dh", "dc"),
    "a state": (f"(nh, nc), ({KEPT})", "dstate, cache", f"dh, dc = dstate; {UNPACK}", "dh", "dc"),
    "a named state": (f"State(nh, nc), ({KEPT})", "dstate, cache", UNPACK, "dstate.h", "dstate.c"),
    "a dictionary": (f'{{"h": nh, "c": nc}}, ({KEPT})', "ds, cache", UNPACK, 'ds["h"]', 'ds["c"]'),
}
INPUTS = [n(2, 2, seed=seed) for seed in range(4)]


def text_of(name: str) -> str:
    text = FILE
    for word, said in zip(("RETURNED", "TAKEN", "UNPACKED", "DH", "DC"), CASES[name], strict=True):
        text = text.replace(word, said)
    return text


def checked(folder: Path, text: str, library: str) -> Any:
    inputs: list[Any] = INPUTS
    if library == "torch":
        text, inputs = text.replace("import numpy as np", "import torch as np"), [torch.tensor(i) for i in INPUTS]
    return cr.check(module(folder, text).step_backward, *inputs)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_right(tmp_path: Path, name: str, library: str) -> None:
    report = checked(tmp_path, text_of(name), library)
    assert report.ok and len(report.rows) == 4, str(report)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_term_of_the_second_output(tmp_path: Path, name: str, library: str) -> None:
    report = checked(tmp_path, text_of(name).replace("both = ", "both = 2 * "), library)
    assert not report.ok, str(report)


def test_a_cache_between_outputs_is_refused(tmp_path: Path) -> None:
    text = FILE.replace("RETURNED", f"nh, ({KEPT}), nc").replace("TAKEN", "dh, dc, cache").replace("UNPACKED", UNPACK)
    with pytest.raises(ChainruleError, match="dh, dc may be the gradients; return it behind them"):
        checked(tmp_path, text.replace("DH", "dh").replace("DC", "dc"), "numpy")


LEFT_OUT = """\
def cell(x, w):
    y = x * w
    s = y.sum(0)
    return y + 1, s + 1, (x, w)


def scale_forward(x, w):
    return cell(x, w)


def scale_backward(dout, cache, dstate=None):
    x, w = cache
    if dstate is not None:
        dout = dout + 2 * dstate
    return dout * w, (dout * x).sum(0)
"""


def test_what_is_left_at_its_default_is_said(tmp_path: Path) -> None:
    report = cr.check(module(tmp_path, LEFT_OUT).scale_backward, n(3, 4), n(4))
    assert any("nothing is said of dstate" in note for note in report.notes), str(report)


DROPOUT = """\
import numpy as np


def drop_forward(x, w):
    mask = (x > 0) * 2.0
    return x * mask * w, mask, (x, w, mask)


def drop_backward(dout, cache, drop_rate=0.0):
    x, w, mask = cache
    return dout * mask * w, (dout * x * mask).sum(0)
"""


def test_an_option_is_no_upstream_gradient(tmp_path: Path) -> None:
    assert cr.check(module(tmp_path, DROPOUT).drop_backward, n(3, 4), np.abs(n(4))).ok
