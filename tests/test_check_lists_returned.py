"""`check`: a network of any depth, whose backward pass is a loop that counts from the last layer and returns lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from of_source import of_source
from sweeps import of_today

import chainrule as cr

NETWORK = """\
import numpy as np


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z):
    return sigmoid(z) * (1 - sigmoid(z))


class Network:
    def __init__(self, sizes, numbers):
        self.num_layers = len(sizes)
        self.biases = [numbers.standard_normal((n, 1)) for n in sizes[1:]]
        self.weights = [numbers.standard_normal((n, m)) for m, n in zip(sizes[:-1], sizes[1:])]

    def feedforward(self, a):
        for b, w in zip(self.biases, self.weights):
            a = sigmoid(np.dot(w, a) + b)
        return a

    def cost(self, x, y):
        return 0.5 * np.sum((self.feedforward(x) - y) ** 2)

    def backprop(self, x, y):
        nabla_b = [np.zeros(b.shape) for b in self.biases]
        nabla_w = [np.zeros(w.shape) for w in self.weights]
        activation, activations, zs = x, [x], []
        for b, w in zip(self.biases, self.weights):
            z = np.dot(w, activation) + b
            zs.append(z)
            activation = sigmoid(z)
            activations.append(activation)
        delta = (activations[-1] - y) * sigmoid_prime(zs[-1])
        nabla_b[-1] = delta
        nabla_w[-1] = np.dot(delta, activations[-2].T)
        for l in range(2, self.num_layers):
            sp = sigmoid_prime(zs[-l])
            delta = np.dot(self.weights[-l + 1].T, delta) * sp
            nabla_b[-l] = delta
            nabla_w[-l] = np.dot(delta, activations[-l - 1].T)
        return nabla_b, nabla_w
"""
SIZES = [(4, 5, 3), (4, 5, 6, 3), (4, 4, 4, 4, 4)]
PRIME = "return sigmoid(z) * (1 - sigmoid(z))"
WRONG = [
    ("np.dot(delta, activations[-l - 1].T)", "np.dot(delta, activations[-l].T)", "wrong-tensor"),
    ("np.dot(delta, activations[-l - 1].T)", "2 * np.dot(delta, activations[-l - 1].T)", "wrong-scale"),
    ("np.dot(self.weights[-l + 1].T, delta) * sp", "np.dot(self.weights[-l + 1].T, delta)", "missing-factor"),
    ("nabla_b[-l] = delta", "nabla_b[-l] = sp", "upstream-dropped"),
    ("np.dot(delta, activations[-2].T)", "np.dot(delta, sigmoid_prime(zs[-2]).T)", "wrong-tensor"),
    ("(activations[-1] - y) * sigmoid_prime(zs[-1])", "(activations[-1] - y) * sigmoid(zs[-1])", "missing-factor"),
    (PRIME, "return sigmoid(z) * (1 + sigmoid(z))", "wrong-term-scale"),  # in a function that two lines call
    (PRIME, "return sigmoid(z)", "missing-factor"),
    (PRIME, "return z * (1 - z)", "wrong-factor"),
    (PRIME, "return 1 - sigmoid(z) ** 2", "wrong-factor"),
    (PRIME, "return -sigmoid(z) * (1 - sigmoid(z))", "sign"),
    (PRIME, "return 2 * sigmoid(z) * (1 - sigmoid(z))", "wrong-scale"),
]


def network(sizes: tuple[int, ...], source: str = NETWORK) -> Any:
    return of_source(source)["Network"](sizes, np.random.default_rng(0))


def batch(sizes: tuple[int, ...]) -> tuple[Any, Any]:
    numbers = np.random.default_rng(1)
    return numbers.standard_normal((sizes[0], 1)), numbers.standard_normal((sizes[-1], 1))


def line_of(text: str, source: str) -> int:
    return 1 + next(i for i, line in enumerate(source.splitlines()) if text in line)


@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_are_told_by_the_lists_that_they_stand_in(sizes: tuple[int, ...]) -> None:
    net = network(sizes)
    report = cr.check(net.backprop, *batch(sizes), forward=net.cost)
    assert report.ok
    lines = {row.name: row.line for row in report.rows}
    assert list(lines)[:2] == [f"biases.{len(sizes) - 2}", f"weights.{len(sizes) - 2}"]
    assert lines["biases.0"] == line_of("nabla_b[-l] = delta", NETWORK)
    assert lines[f"biases.{len(sizes) - 2}"] == line_of("nabla_b[-1] = delta", NETWORK)


@pytest.mark.parametrize(("sizes", "right", "wrong", "cause"), of_today([(s, *w) for s in SIZES for w in WRONG], 4))
def test_one_line_of_all_turns_is_one_finding(sizes: tuple[int, ...], right: str, wrong: str, cause: str) -> None:
    source = NETWORK.replace(right, wrong)
    net = network(sizes, source)
    (finding,) = cr.check(net.backprop, *batch(sizes), forward=net.cost).findings
    assert finding.line == line_of(wrong, source)
    assert finding.cause == cause
    assert finding.proved
    assert finding.edit is not None
    mended = "\n".join(finding.edit.applied(source.splitlines()))
    for other in SIZES:  # right for networks of any depth
        net = network(other, mended)
        assert cr.check(net.backprop, *batch(other), forward=net.cost).ok


BESIDE = """\
import numpy as np


def step(x, y, weights, {given}):
    h = x @ weights[0]
    d = (h @ weights[1] - y) / len(x)
    loss = 0.5 * np.sum(d * d) * len(x)
    g0, g1 = x.T @ (d @ weights[1].T), h.T @ d
    grads = {{"weights": [g0, g1]}}
    {line}
    return loss, grads, {name}
"""


@pytest.mark.parametrize(
    ("given", "line", "name"),
    [
        ("lr", "new = [w - lr * g for w, g in zip(weights, [g0, g1])]", "new"),
        ("velocity", "velocity = [0.9 * v + g for v, g in zip(velocity, [g0, g1])]", "velocity"),
    ],
)
def test_a_list_that_is_none_of_gradients_is_not_taken_for_one(given: str, line: str, name: str) -> None:
    source = BESIDE.format(given=given, line=line, name=name)
    r = np.random.default_rng(0)
    weights = [r.standard_normal((4, 3)), r.standard_normal((3, 2))]
    beside = 0.1 if given == "lr" else [r.standard_normal(w.shape) for w in weights]
    try:
        report = cr.check(
            of_source(source)["step"], r.standard_normal((5, 4)), r.standard_normal((5, 2)), weights, beside
        )
    except cr.ChainruleError:
        return  # it asks for names
    assert not report.findings, str(report)


def test_a_list_that_may_be_of_either_group_is_told_by_its_numbers_or_asked_for() -> None:
    source = BESIDE.format(
        given="scales", line="loss += sum(np.sum(s * s) for s in scales); grads = [g0, g1]", name="1"
    )
    r = np.random.default_rng(0)
    weights = [r.standard_normal((4, 3)), r.standard_normal((3, 2))]
    given = r.standard_normal((5, 4)), r.standard_normal((5, 2)), weights, [2 * w for w in weights]
    assert {row.name for row in cr.check(of_source(source)["step"], *given).rows} == {"weights.0", "weights.1"}
    wrong = source.replace("grads = [g0, g1]", "grads = [-g0, -g1]")
    with pytest.raises(cr.ChainruleError, match="may be the gradients of several lists"):
        cr.check(of_source(wrong)["step"], *given)
