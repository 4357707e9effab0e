"""Linear regression by hand: four small functions, and every gradient left as `.g` on its tensor.

python examples/linear_regression.py [folder for the plot]
chainrule derive examples/linear_regression.py:forward
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

import chainrule as cr

matplotlib.use("Agg")

W_TRUE = torch.tensor([[1.0, 1.5, 2.0, 2.5], [1.0, 1.5, 3.0, -0.5]]).T  # a column for each output
B_TRUE = torch.tensor([0.0, -1.0])


def data(samples: int = 100, seed: int = 42) -> tuple[Tensor, Tensor]:
    """Features of standard deviation 4, so that rates of 0.1 and 0.01 get somewhere in 21 steps."""
    x = 4 * torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed))
    return x, x @ W_TRUE + B_TRUE


# -- forward -----------------------------------------------------------------------------------------


def lin(inp: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return inp @ w + b


def mse(out: Tensor, targ: Tensor) -> Tensor:
    return (out - targ).pow(2).mean()


def forward(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return mse(lin(x, w, b), y)


# -- backward ----------------------------------------------------------------------------------------


def mse_grad(out: Tensor, targ: Tensor) -> None:
    out.g = 2 * (out - targ) / out.numel()


def lin_grad(inp: Tensor, out: Tensor, w: Tensor, b: Tensor) -> None:
    inp.g = out.g @ w.T
    w.g = inp.T @ out.g
    b.g = out.g.sum(0)


def forward_and_backward(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
    out = lin(x, w, b)
    loss = mse(out, y)
    mse_grad(out, y)
    lin_grad(x, out, w, b)
    return loss


# -- learning ----------------------------------------------------------------------------------------


def parameters(seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(4, 2, generator=torch.Generator().manual_seed(seed)), torch.zeros(2)


def learn(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> list[float]:
    """One bold step, then twenty careful ones; the loss before each."""
    losses = []
    for rate in [0.1] + 20 * [0.01]:
        losses.append(forward_and_backward(x, y, w, b).item())
        w -= rate * w.g
        b -= rate * b.g
    return losses


def plot(x: Tensor, y: Tensor, folder: Path) -> Path:
    """The third feature against the second output, as a PNG."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.scatter(x[:, 2].numpy(), y[:, 1].numpy(), s=12)
    axes.set(xlabel="feature 2", ylabel="output 1")
    path = folder / "linear_regression.png"
    figure.savefig(path)
    pyplot.close(figure)
    return path


def autograd_differences(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> dict[str, float]:
    """The largest difference between the `.g` of x, w and b and what autograd says."""
    forward_and_backward(x, y, w, b)
    copies = [t.detach().clone().requires_grad_() for t in (x, w, b)]
    forward(copies[0], y, *copies[1:]).backward()
    pairs = zip("xwb", (x, w, b), copies, strict=True)
    return {name: float((ours.g - copy.grad).abs().max()) for name, ours, copy in pairs}


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *data(), *parameters()


def main(folder: Path) -> None:
    x, y, w, b = inputs()
    print("scatter plot:", plot(x, y, folder))
    losses = learn(x, y, w, b)
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.4f}\nw =\n{w}\ntrue w =\n{W_TRUE}")
    print("largest weight error:", round(float((w - W_TRUE).abs().max()), 4))

    print("\nour gradients minus autograd's:", autograd_differences(*inputs()))
    print("\nand the same question put to chainrule:")
    print(cr.check(forward_and_backward, *inputs()))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
