"""`check` on data that hide a mistake: ones, zeros, masks that hide nothing, Python numbers that drop a term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand
from torch import Tensor

import chainrule as cr

HIDDEN = {  # the wrong line, the right one, the arguments, what hides it
    "a scale of ones": (
        """
        def step(x, gamma, beta):
            xhat = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
            out = xhat * gamma + beta
            loss = out.exp().sum()
            out.g = out.exp()
            gamma.g = (out.g * xhat).sum(0)
            beta.g = out.g.sum(0)
            xhat.g = out.g
            return loss""",
        "xhat.g = out.g * gamma",
        {"x": rand(5, 4), "gamma": torch.ones(4), "beta": torch.zeros(4)},
        "gamma is 1 everywhere",
    ),
    "a bias of zeros": (
        """
        def step(x, w, b):
            z = x @ w + b
            loss = z.pow(3).sum()
            z.g = 3 * (x @ w).pow(2)
            w.g = x.T @ z.g
            b.g = z.g.sum(0)
            return loss""",
        "z.g = 3 * (x @ w + b).pow(2)",
        {"x": rand(5, 4), "w": rand(4, 3), "b": torch.zeros(3)},
        "b is 0 everywhere",
    ),
    "a temperature of 1": (
        """
        def step(x, w, temperature=1.0):
            z = x @ w
            loss = (z / temperature).exp().sum()
            z.g = (z / temperature).exp()
            w.g = x.T @ z.g
            return loss""",
        "z.g = (z / temperature).exp() / temperature",
        {"x": rand(5, 4), "w": rand(4, 3)},
        "temperature is 1",
    ),
    "no regularisation": (
        """
        def step(x, w, reg):
            z = x @ w
            loss = z.exp().sum() + reg * w.pow(2).sum()
            z.g = z.exp()
            w.g = x.T @ z.g
            return loss""",
        "w.g = x.T @ z.g + 2 * reg * w",
        {"x": rand(5, 4), "w": rand(4, 3), "reg": 0.0},
        "reg is 0",
    ),
}
DATA = {  # the same, where what hides it may be all that the code is meant for
    "a mask that hides nothing": (
        """
        def step(x, w, keep):
            z = x @ w
            loss = (z.exp() * keep).sum()
            z.g = z.exp()
            w.g = x.T @ z.g
            return loss""",
        "z.g = z.exp() * keep",
        {"x": rand(5, 4), "w": rand(4, 3), "keep": torch.ones(5, 3)},
        "keep is 1 everywhere",
    ),
    "a mask of truth values": (
        """
        def step(x, w, keep):
            z = x @ w
            loss = z.exp().masked_fill(~keep, 0.0).sum()
            z.g = z.exp()
            w.g = x.T @ z.g
            return loss""",
        "z.g = z.exp().masked_fill(~keep, 0.0)",
        {"x": rand(5, 4), "w": rand(4, 3), "keep": torch.ones(5, 3, dtype=torch.bool)},
        "keep is True everywhere",
    ),
    "labels of one class": (
        """
        def step(x, w, t):
            z = x @ w
            loss = F.cross_entropy(z, t, reduction="sum")
            z.g = z.softmax(1) - F.one_hot(t[:1], 3)
            w.g = x.T @ z.g
            return loss""",
        "z.g = z.softmax(1) - F.one_hot(t, 3)",
        {"x": rand(5, 4), "w": rand(4, 3), "t": torch.full((5,), 2)},
        "t is 2 everywhere",
    ),
    "targets of zero": (
        """
        def step(x, w, y):
            z = x @ w
            loss = (z - y).pow(2).sum()
            z.g = 2 * z
            w.g = x.T @ z.g
            return loss""",
        "z.g = 2 * (z - y)",
        {"x": rand(5, 4), "w": rand(4, 3), "y": torch.zeros(5, 3)},
        "y is 0 everywhere",
    ),
    "real labels": (
        """
        def step(x, w, y):
            p = torch.sigmoid(x @ w)
            loss = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
            dz = (p - 1) / len(x)
            w.g = x.T @ dz
            return loss""",
        "dz = (p - y) / len(x)",
        {"x": rand(6, 4), "w": rand(4), "y": torch.ones(6)},
        "y is 1 everywhere",
    ),
}
ALL = HIDDEN | DATA
every_one = pytest.mark.parametrize("name", ALL)


def same_start(line: str, other: str) -> bool:
    return line.strip().partition(" = ")[0] == other.partition(" = ")[0]


def repaired(text: str, line: str) -> str:
    indent = " " * 12
    return "\n".join(indent + line if same_start(given, line) else given for given in text.splitlines())


def changed(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in kwargs.items()}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_data_hide_is_found(name: str) -> None:
    text, line, kwargs, said = HIDDEN[name]
    report = cr.check(program(text), **changed(kwargs))
    assert len(report.findings) == 1, str(report)
    (finding,) = report.findings
    assert finding.proved and same_start(finding.text, line)
    assert finding.message.endswith(f"hidden by the given data, in which {said}")
    assert any(row.status == "wrong" for row in report.rows) and said in report.notes[0]


@pytest.mark.parametrize("name", DATA)
def test_what_other_data_would_show_is_noted(name: str) -> None:
    text, line, kwargs, said = DATA[name]
    report = cr.check(program(text), **changed(kwargs))
    assert report.ok and not report.findings and all(row.status in ("right", "close") for row in report.rows)
    head = f"all is right where {said}; with other values of {said.split()[0]}, {line.partition(' = ')[0]} (line "
    (note,) = (note for note in report.notes if said in note)
    assert note.startswith(head) and " would be wrong: " in note


@every_one
def test_right_code_may_be_checked_with_such_data(name: str) -> None:
    text, line, kwargs, said = ALL[name]
    report = cr.check(program(repaired(text, line)), **changed(kwargs))
    assert report.ok and not any(said in note for note in report.notes)


@every_one
def test_the_data_are_afterwards_as_they_were(name: str) -> None:
    text, _, kwargs, _ = ALL[name]
    given = changed(kwargs)
    cr.check(program(text), **given)
    for key, value in kwargs.items():
        assert torch.equal(given[key], value) if isinstance(value, Tensor) else given[key] == value


class Scale:
    """A layer whose fresh scale is one."""

    def __init__(self, ones: Callable[..., Any]) -> None:
        self.scale = ones(4)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x * self.scale

    def backward(self, dout: Any) -> Any:
        self.dscale = (dout * self.x).sum(0)
        return dout


@pytest.mark.parametrize("ones", [torch.ones, np.ones])
def test_a_fresh_layer(ones: Callable[..., Any]) -> None:
    layer = Scale(ones)
    x = rand(5, 4) if ones is torch.ones else rand(5, 4).numpy()
    report = cr.check(layer, x)
    assert [f.cause for f in report.findings] == ["missing-factor"]
    assert "scale is 1 everywhere" in report.findings[0].message
    assert bool((layer.scale == 1).all())


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        return x * factor

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return g, None


def test_a_number_given_to_a_function() -> None:
    report = cr.check(lambda x: Times.apply(x, 1.0).sum(), rand(5, 4))
    assert [f.name for f in report.findings] == ["Times.x"] and "factor is 1" in report.findings[0].message
    assert cr.check(lambda x: Times.apply(x, 2.0).sum(), rand(5, 4)).findings


RELIED_ON = {  # what right code may know of its data
    "labels 0 and 1": (
        """
        def step(x, w, y):
            z = x @ w
            loss = -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).sum()
            z.g = torch.where(y == 1, -torch.sigmoid(-z), torch.sigmoid(z))
            w.g = x.T @ z.g
            return loss""",
        {"x": rand(5, 4), "w": rand(4), "y": torch.ones(5)},
    ),
    "labels 1 and -1": (
        """
        def step(x, w, y):
            z = x @ w
            loss = (1 - y * z).pow(2).sum()
            z.g = 2 * (z - y)
            w.g = x.T @ z.g
            return loss""",
        {"x": rand(5, 4), "w": rand(4), "y": torch.ones(5)},
    ),
    "one label": (
        """
        def step(x, w, y):
            z = (x @ w).sum()
            loss = -F.logsigmoid(z) if y == 1.0 else -F.logsigmoid(-z)
            z.g = torch.sigmoid(z) - y
            w.g = z.g * x.sum(0)
            return loss""",
        {"x": rand(5, 4), "w": rand(4), "y": 1.0},
    ),
    "a mask that is its own square": (
        """
        def step(x, w, keep):
            z = (x @ w) * keep
            loss = z.pow(2).sum()
            z.g = 2 * z
            w.g = x.T @ z.g
            return loss""",
        {"x": rand(5, 4), "w": rand(4, 3), "keep": torch.ones(5, 3)},
    ),
    "weights that are constants": (
        """
        def step(x, w):
            z = x @ w
            loss = (z.exp() * ONES).sum()
            z.g = z.exp()
            w.g = x.T @ z.g
            return loss""",
        {"x": rand(5, 4), "w": rand(4, 3)},
    ),
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_what_code_may_rely_on_is_no_mistake(name: str) -> None:
    text, kwargs = RELIED_ON[name]
    report = cr.check(program(text, ONES=torch.ones(3)), **changed(kwargs))
    assert report.ok and report.rows, str(report)


OPTIONS = {  # numbers of which the loss does not know, or with which it jumps
    "weight decay beside the loss": """
        def step(x, w, weight_decay=0.0):
            out = x @ w
            loss = out.pow(2).sum()
            w.g = x.T @ (2 * out) + weight_decay * w
            return loss""",
    "a scale of the gradients": """
        def step(x, w, grad_scale=1.0):
            out = x @ w
            loss = out.pow(2).sum()
            w.g = grad_scale * (x.T @ (2 * out))
            return loss""",
    "a largest norm": """
        def step(x, w, max_norm=1.0):
            out = x @ w
            loss = 0.9 * out.sum() / (x.sum(0).norm() * w.shape[1] ** 0.5)
            out.g = torch.full_like(out, 0.9) / (x.sum(0).norm() * w.shape[1] ** 0.5)
            w.g = x.T @ out.g
            if w.g.norm() > max_norm:
                w.g = w.g * (max_norm / w.g.norm())
            return loss""",
    "noise on the gradients": """
        def step(x, w, noise=0.0):
            out = x @ w
            loss = out.pow(2).sum()
            w.g = x.T @ (2 * out) + noise * torch.randn(w.shape)
            return loss""",
    "a switch": """
        def step(x, w, train=1.0):
            keep = (x > 0).float()
            out = (x * keep if train == 1.0 else x) @ w
            loss = out.pow(2).sum()
            w.g = (x * keep).T @ (2 * out)
            return loss""",
    "a decay of another parameter": """
        def step(x, w, b, decay=0.0):
            out = x @ w + b
            loss = out.pow(2).sum() + decay * b.pow(2).sum()
            w.g = x.T @ (2 * out) + decay * w
            b.g = (2 * out).sum(0) + 2 * decay * b
            return loss""",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_the_backward_pass_hides_nothing(name: str) -> None:
    biases = {"b": rand(3)} if "b," in OPTIONS[name] else {}
    report = cr.check(program(OPTIONS[name]), rand(5, 4), rand(4, 3), **biases)
    assert report.ok and not report.notes, str(report)
