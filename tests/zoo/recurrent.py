"""Loops over time, cells, and values that many later steps read."""

import torch
from torch import Tensor, nn

from zoo.registry import normal, positive, zoo


@zoo(lambda n: (normal(n, 3, 2), normal(n, 4), normal(n, 4), normal(2, 16), normal(4, 16), normal(16)))
def lstm_cell_unrolled(x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> Tensor:
    for t in range(3):
        gates = x[:, t] @ w_x + h @ w_h + b
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return (h**2).sum()


@zoo(lambda n: (normal(n, 3, 2), normal(4, 2), normal(4, 4), normal(4, 2), normal(4, 4), normal(4, 2), normal(4, 4)))
def gru_cell_unrolled(
    inputs: Tensor, W_z: Tensor, U_z: Tensor, W_r: Tensor, U_r: Tensor, W_h: Tensor, U_h: Tensor
) -> Tensor:
    state = torch.zeros(inputs.shape[0], 4, dtype=inputs.dtype)
    for step in inputs.unbind(1):
        z = (step @ W_z.T + state @ U_z.T).sigmoid()
        r = (step @ W_r.T + state @ U_r.T).sigmoid()
        candidate = (step @ W_h.T + (r * state) @ U_h.T).tanh()
        state = (1 - z) * state + z * candidate
    return state


@zoo(lambda n: (normal(3, n, 2), normal(2, 3), normal(3, 3), normal(3)))
def rnn_that_keeps_its_states(xs: Tensor, wx: Tensor, wh: Tensor, b: Tensor) -> Tensor:
    h = torch.zeros_like(xs[0] @ wx)
    hs = []
    for x in xs:
        h = torch.tanh(x @ wx + h @ wh + b)
        hs.append(h)
    return torch.stack(hs).mean(0).pow(2).sum()


LAYERS = [nn.Linear(4, 4).double() for _ in range(3)]


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def loop_over_layers(x: Tensor, target: Tensor) -> Tensor:
    for layer in LAYERS:
        x = layer(x)
        x = torch.relu(x)
    return (x - target).pow(2).mean()


@zoo(lambda n: (normal(n, 4), normal(4)))
def one_value_read_many_times(x: Tensor, w: Tensor) -> Tensor:
    h = x * w
    return (h.sin() + h.cos() * h + h.exp() / (1 + h**2) + h * h * h).sum()


@zoo(lambda n: (normal(n, 4), normal(4, 4)))
def same_weight_three_times(x: Tensor, w: Tensor) -> Tensor:
    return ((x @ w).tanh() @ w).tanh() @ w


@zoo(lambda n: (normal(n), normal(5)))
def horner(x: Tensor, coefficients: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for c in coefficients:
        total = total * x + c
    return total.sum()


@zoo(lambda n: (normal(n), normal(4)))
def polynomial(x: Tensor, a: Tensor) -> Tensor:
    return (a[0] + a[1] * x + a[2] * x**2 + a[3] * x**3).mean()


@zoo(lambda n: (positive(n),))
def newton_square_root(x: Tensor) -> Tensor:
    guess = x
    for _ in range(4):
        guess = (guess + x / guess) / 2
    return guess.sum()


@zoo(lambda n: (positive(n, 2), positive(n, 2), positive(2)))
def division_chain(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a / b / c / (a + b) / 2


@zoo(lambda n: (normal(n, 3), normal(n, 3), normal(3)))
def gradient_descent_inside(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    for _ in range(2):
        slope = 2 * x.T @ (x @ w - y.sum(1)) / x.shape[0]
        w = w - 0.1 * slope
    return ((x @ w) ** 2).sum()


@zoo(lambda n: (normal(n, 3),))
def exponential_average(x: Tensor) -> Tensor:
    avg = x[:, 0]
    for k in range(1, x.shape[1]):
        avg = 0.9 * avg + 0.1 * x[:, k]
    return avg


@zoo(lambda n: (normal(n, 2), normal(2)))
def branch_on_a_setting(x: Tensor, w: Tensor) -> Tensor:
    squash = x.ndim == 2
    h = x * w
    h = h.tanh() if squash else h
    return h.sum()
