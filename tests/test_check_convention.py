"""`check`: gradients on the way that lack a batch size, for which those of the parameters make up, in functions that hand
them to one another."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from of_source import of_source

import chainrule as cr

NETWORK = """\
import numpy as np


def linear_forward(A, W, b):
    return np.dot(W, A) + b, (A, W, b)


def activation_forward(A_prev, W, b, activation):
    Z, linear_cache = linear_forward(A_prev, W, b)
    A = 1 / (1 + np.exp(-Z)) if activation == "sigmoid" else np.maximum(0, Z)
    return A, (linear_cache, Z)


def model_forward(X, parameters):
    A, caches, L = X, [], len(parameters) // 2
    for l in range(1, L):
        A, cache = activation_forward(A, parameters["W" + str(l)], parameters["b" + str(l)], "relu")
        caches.append(cache)
    AL, cache = activation_forward(A, parameters["W" + str(L)], parameters["b" + str(L)], "sigmoid")
    caches.append(cache)
    return AL, caches


def compute_cost(AL, Y):
    m = Y.shape[1]
    return -1 / m * np.sum(Y * np.log(AL) + (1 - Y) * np.log(1 - AL))


def linear_backward(dZ, cache):
    A_prev, W, b = cache
    m = A_prev.shape[1]
    dW = 1 / m * np.dot(dZ, A_prev.T)
    db = 1 / m * np.sum(dZ, axis=1, keepdims=True)
    dA_prev = np.dot(W.T, dZ)
    return dA_prev, dW, db


def relu_backward(dA, Z):
    dZ = np.array(dA, copy=True)
    dZ[Z <= 0] = 0
    return dZ


def sigmoid_backward(dA, Z):
    s = 1 / (1 + np.exp(-Z))
    dZ = dA * s * (1 - s)
    return dZ


def activation_backward(dA, cache, activation):
    linear_cache, Z = cache
    dZ = sigmoid_backward(dA, Z) if activation == "sigmoid" else relu_backward(dA, Z)
    dA_prev, dW, db = linear_backward(dZ, linear_cache)
    return dA_prev, dW, db


def model_backward(AL, Y, caches):
    grads, L = {}, len(caches)
    dAL = -(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))
    dA, grads["dW" + str(L)], grads["db" + str(L)] = activation_backward(dAL, caches[L - 1], "sigmoid")
    grads["dA" + str(L - 1)] = dA
    for l in reversed(range(L - 1)):
        dA, dW, db = activation_backward(grads["dA" + str(l + 1)], caches[l], "relu")
        grads["dA" + str(l)] = dA
        grads["dW" + str(l + 1)] = dW
        grads["db" + str(l + 1)] = db
    return grads


def step(X, Y, parameters):
    AL, caches = model_forward(X, parameters)
    cost = compute_cost(AL, Y)
    grads = model_backward(AL, Y, caches)
    return cost, grads


def forward(X, Y, parameters):
    AL, caches = model_forward(X, parameters)
    cost = compute_cost(AL, Y)
    return cost, AL, caches
"""
WRONG = [
    ("dZ = dA * s * (1 - s)", "dZ = dA * s", None),
    ("dW = 1 / m * np.dot(dZ, A_prev.T)", "dW = np.dot(dZ, A_prev.T)", "wrong-scale"),
    ("dZ[Z <= 0] = 0", "dZ[Z < 0.5] = 0", "wrong-mask"),
    ("db = 1 / m * np.sum(dZ, axis=1, keepdims=True)", "db = 1 / m * np.sum(dZ, axis=0, keepdims=True)", "wrong-axis"),
    ("dA_prev = np.dot(W.T, dZ)", "dA_prev = 2 * np.dot(W.T, dZ)", "wrong-scale"),
    ("dAL = -(np.divide(Y, AL) - np", "dAL = -(np.divide(Y, AL) + np", None),
]


def given(m: int, sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    r = np.random.default_rng(m)
    parameters = {}
    for l, (before, after) in enumerate(itertools.pairwise(sizes), 1):
        parameters |= {f"W{l}": r.standard_normal((after, before)), f"b{l}": 0.1 * r.standard_normal((after, 1))}
    return r.standard_normal((sizes[0], m)), (r.random((1, m)) > 0.5).astype(float), parameters


def test_what_is_returned_of_values_on_the_way_is_said() -> None:
    code, (X, Y, parameters) = of_source(NETWORK), given(7, (4, 5, 3, 1))
    for report in (
        cr.check(code["step"], X, Y, parameters),
        cr.check(code["model_backward"], X, Y, parameters, forward=code["forward"]),
        cr.check(code["model_backward"], X, parameters, Y),  # the loss of the file, put behind model_forward
    ):
        assert report.ok and len(report.rows) == 6
        assert any("dA2, dA1, dA0" in note for note in report.notes)


HANDED_ON = "    dA_prev, dW, db = linear_backward(dZ, linear_cache)\n    return dA_prev, dW, db\n"


@pytest.mark.parametrize(
    "network", [NETWORK, NETWORK.replace(HANDED_ON, "    return linear_backward(dZ, linear_cache)\n")]
)
@pytest.mark.parametrize(("right", "wrong", "cause"), WRONG)
def test_one_mistake_is_one_finding_on_its_line(network: str, right: str, wrong: str, cause: str | None) -> None:
    source = network.replace(right, wrong)
    (finding,) = cr.check(of_source(source)["step"], *given(7, (4, 5, 3, 1))).findings
    assert finding.line == 1 + next(i for i, line in enumerate(source.splitlines()) if wrong in line)
    assert cause in (finding.cause, None)
    assert finding.proved and finding.edit is not None
    mended = of_source("\n".join(finding.edit.applied(source.splitlines())))
    assert cr.check(mended["step"], *given(5, (3, 4, 2, 1))).ok


def test_a_parameter_that_nothing_names_is_said() -> None:
    X, _, parameters = given(7, (4, 5, 1))
    code = of_source(
        NETWORK.replace("grads, L = {}, len(caches)", "grads, L, Y = {}, len(caches), Y.reshape(AL.shape)")
    )
    with pytest.raises(cr.ChainruleError, match="given as Y, of which nothing else is known"):
        cr.check(code["model_backward"], X, parameters, forward=code["model_forward"])
