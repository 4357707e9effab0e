"""Right hand-written gradients in another form than the derived one: the note says which identity it is."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from chainrule.diagnosis.check import check
from chainrule.diagnosis.identities.identities import IDENTITIES, identities
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.truth.case import Case

torch.manual_seed(0)
X, W, B, T = torch.randn(5, 3), torch.randn(3, 4), torch.randn(4), torch.tensor([0, 3, 1, 1, 2])


def slugs(code: Any, *args: Any) -> set[str]:
    report = check(code, *args)
    assert report.ok, report
    of = {sentence: slug for slug, sentence in IDENTITIES.items()}
    return {of[sentence] for note in report.notes for sentence in of if note.endswith(f": {sentence}")}


def layer(w_g: Any) -> Any:
    def step(x: Any, w: Any) -> Any:
        out = x @ w
        loss = out.pow(2).sum()
        out.g = 2 * out
        w.g = w_g(x, out.g)
        return loss

    return step


@pytest.mark.parametrize(
    ("w_g", "slug"),
    [
        (lambda x, g: torch.einsum("bi,bj->ij", x, g), "einsum-product"),
        (lambda x, g: (x[:, :, None] * g[:, None, :]).sum(0), "broadcast-sum"),
        (lambda x, g: (g.T @ x).T, "transposed-product"),
        (lambda x, g: sum(torch.outer(a, b) for a, b in zip(x, g, strict=True)), "outer-products"),
        (lambda x, g: torch.stack([column @ g for column in x.T]), "row-by-row"),
    ],
)
def test_products(w_g: Any, slug: str) -> None:
    assert slugs(layer(w_g), X, W) == {slug}
    assert slugs(layer(w_g), torch.randn(2, 1), torch.randn(1, 3)) <= {slug, "broadcast-sum", "einsum-product"}


def activation(function: Any, z_g: Any) -> Any:
    def step(x: Any, w: Any) -> Any:
        z = x @ w
        y = function(z)
        loss = (y * y).sum()
        y.g = 2 * y
        z.g = z_g(y.g, z, y)
        return loss

    return step


@pytest.mark.parametrize(
    ("function", "z_g", "expected"),
    [
        (torch.relu, lambda g, z, y: g.masked_fill(z <= 0, 0), {"mask-of-output"}),
        (torch.relu, lambda g, z, y: g * (y > 0), set()),
        (torch.relu, lambda g, z, y: torch.where(z > 0, g, 0.0), {"mask-of-output", "mask-form"}),
        (torch.tanh, lambda g, z, y: g * (1 - y) * (1 + y), {"difference-of-squares"}),
        (torch.tanh, lambda g, z, y: g - g * y * y, {"multiplied-out"}),
        (torch.tanh, lambda g, z, y: g / z.cosh() ** 2, {"tanh-input"}),
        (lambda z: 1 / (1 + torch.exp(-z)), lambda g, z, y: g * y * (1 - y), {"sigmoid-output"}),
        (torch.tanh, lambda g, z, y: g * (1 - y**2), set()),
        (torch.sigmoid, lambda g, z, y: g * y * (1 - y), set()),
        (torch.relu, lambda g, z, y: g.masked_fill(y <= 0, 0), set()),
    ],
)
def test_elements(function: Any, z_g: Any, expected: set[str]) -> None:
    assert slugs(activation(function, z_g), X, W) == expected


def test_cross_entropy_in_one_step() -> None:
    def by_parts(x: Any, w: Any) -> Any:
        z = x @ w
        loss = -z.log_softmax(1)[range(5), T].mean()
        z.g = z.softmax(1)
        z.g[range(5), T] -= 1
        z.g = z.g / 5
        return loss

    def whole(x: Any, w: Any) -> Any:
        z = x @ w
        loss = torch.nn.functional.cross_entropy(z, T)
        z.g = (z.softmax(1) - torch.nn.functional.one_hot(T, 4)) / 5
        return loss

    assert slugs(by_parts, X, W) == {"one-step-softmax"}
    assert slugs(whole, X, W) == set()


def norm(x: Any, w: Any, compact: bool) -> Any:
    mean = x.mean(1, keepdim=True)
    diff = x - mean
    std = (diff.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    hat = diff / std
    loss = (hat * w).tanh().sum()
    hat.g = (1 - (hat * w).tanh() ** 2) * w
    if compact:
        x.g = (hat.g - hat.g.mean(1, keepdim=True) - hat * (hat.g * hat).mean(1, keepdim=True)) / std
    else:
        diff.g = hat.g / std - (hat.g * diff).sum(1, keepdim=True) / std**3 * diff / x.shape[1]
        x.g = diff.g - diff.g.mean(1, keepdim=True)
    return loss


def test_norms() -> None:
    w = torch.randn(4)
    assert "norm-in-one-step" in slugs(lambda x: norm(x, w, True), torch.randn(6, 4))
    assert not {"norm-in-one-step", "centred-sum"} & slugs(lambda x: norm(x, w, False), torch.randn(6, 4))


def test_a_path_that_gives_zero() -> None:
    def step(x: Any, w: Any) -> Any:
        mean = x.mean(1, keepdim=True)
        diff = x - mean
        std = (diff.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
        hat = diff / std
        loss = (hat * w).tanh().sum()
        hat.g = (1 - (hat * w).tanh() ** 2) * w
        mean.g = -(hat.g / std).sum(1, keepdim=True)
        return loss

    assert slugs(lambda x, w: step(x, w), torch.randn(6, 4), torch.randn(4)) == {"centred-sum"}


def test_the_note_has_the_place() -> None:
    notes = check(layer(lambda x, g: (g.T @ x).T), X, W).notes
    assert re.match(r"w\.g \(test_identities\.py:\d+\): the transpose of a product", notes[0])


def test_time() -> None:
    code = activation(torch.relu, lambda g, z, y: g * (z > 0))
    located = Located(Case(run_handwritten(Asked(code, (X, W), {}))))
    identities(located)
    started = time.perf_counter()
    identities(located)
    assert time.perf_counter() - started < 0.1  # it takes about 2 ms


def test_the_page_has_every_identity() -> None:
    page = (Path(__file__).parents[1] / "docs" / "identities.md").read_text(encoding="utf-8")
    assert re.findall(r"^- `([a-z-]+)`: (.+)$", page, re.MULTILINE) == list(IDENTITIES.items())
