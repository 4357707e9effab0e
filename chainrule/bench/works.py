"""The training steps that are measured, each written twice: in PyTorch, and against the NumPy interface that
JAX and HIPS autograd share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """One work, ready to run: a forward pass that reads `params`, and a batch for it."""

    forward: Callable[..., torch.Tensor]
    params: dict[str, torch.Tensor]
    batch: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Work:
    """A training step to measure. `with_arrays(np, params, *batch)` is its loss in NumPy's words.

    `layers` are the widths of a multilayer perceptron, for libraries of layers: cross-entropy where the targets
    are integers, else the mean of squares. `lacks` says which peers cannot take the step, and why.
    """

    name: str
    title: str
    make: Callable[[], Setup]
    with_arrays: Callable[..., Any]
    lr: float = 0.01
    matrix_bound: bool = False
    layers: tuple[int, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)


def _weights(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Parameters by name: matrices scaled by their inputs, biases of zeros."""
    made = {name: torch.randn(n) / n[0] ** 0.5 if len(n) > 1 else torch.zeros(n) for name, n in shapes}
    return {name: value.requires_grad_() for name, value in made.items()}


# -- linear regression -------------------------------------------------------------------------------


def _regression() -> Setup:
    p = _weights(("w", (4, 2)), ("b", (2,)))
    w, b = p["w"], p["b"]

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x @ w + b - y) ** 2).mean()

    x = torch.randn(100, 4)
    return Setup(forward, p, (x, x @ torch.randn(4, 2) + 1.0))


def _regression_with_arrays(np: Any, p: Arrays, x: Any, y: Any) -> Any:
    return ((x @ p["w"] + p["b"] - y) ** 2).mean()


# -- multilayer perceptrons --------------------------------------------------------------------------


def _classifier(batch: int, widths: tuple[int, ...]) -> Callable[[], Setup]:
    def make() -> Setup:
        shapes = list(pairwise(widths))
        matrices = [(f"w{i}", shape) for i, shape in enumerate(shapes)]
        p = _weights(*matrices, *((f"b{i}", shape[1:]) for i, shape in enumerate(shapes)))
        ws, bs = [p[f"w{i}"] for i in range(len(shapes))], [p[f"b{i}"] for i in range(len(shapes))]

        def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            for w, b in zip(ws[:-1], bs[:-1]):
                x = torch.relu(x @ w + b)
            return F.cross_entropy(x @ ws[-1] + bs[-1], y)

        return Setup(forward, p, (torch.randn(batch, widths[0]), torch.randint(0, widths[-1], (batch,))))

    return make


def _classifier_with_arrays(np: Any, p: Arrays, x: Any, y: Any) -> Any:
    last = len(p) // 2 - 1
    for i in range(last):
        x = np.maximum(x @ p[f"w{i}"] + p[f"b{i}"], 0.0)
    return _cross_entropy(np, x @ p[f"w{last}"] + p[f"b{last}"], y)


def _cross_entropy(np: Any, logits: Any, y: Any) -> Any:
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=-1))
    return np.mean(log_sum - shifted[np.arange(len(y)), y])


def course(rows: int = 50_000) -> Setup:
    """The two layers of the course notebooks: a batch of images, and one number to find for each."""
    p = _weights(("w1", (784, 50)), ("b1", (50,)), ("w2", (50, 1)), ("b2", (1,)))
    w1, b1, w2, b2 = p.values()

    def forward(inp: torch.Tensor, targ: torch.Tensor) -> torch.Tensor:
        l1 = inp @ w1 + b1
        l2 = l1.clamp_min(0.0)
        out = l2 @ w2 + b2
        diff = out[:, 0] - targ
        return diff.pow(2).mean()

    return Setup(forward, p, (torch.randn(rows, 784), torch.randn(rows)))


def _course_with_arrays(np: Any, p: Arrays, x: Any, y: Any) -> Any:
    out = np.maximum(x @ p["w1"] + p["b1"], 0.0) @ p["w2"] + p["b2"]
    return ((out[:, 0] - y) ** 2).mean()


# -- a convolutional network -------------------------------------------------------------------------


class Convolutional(nn.Module):
    """Two convolutions with pooling, for the 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        return F.cross_entropy(self.head(x.flatten(1)), y)


def _of_module(model: nn.Module, *batch: torch.Tensor) -> Setup:
    return Setup(model, dict(model.named_parameters()), batch)


def _convolutional() -> Setup:
    return _of_module(Convolutional(), torch.rand(128, 1, 8, 8), torch.randint(0, 10, (128,)))


def _convolutional_with_arrays(np: Any, p: Arrays, x: Any, y: Any) -> Any:
    from jax import lax

    for layer in ("conv1", "conv2"):
        x = lax.conv_general_dilated(x, p[f"{layer}.weight"], (1, 1), "SAME") + p[f"{layer}.bias"][:, None, None]
        x = np.maximum(x, 0.0)
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max(axis=(3, 5))
    return _cross_entropy(np, x.reshape(len(x), -1) @ p["head.weight"].T + p["head.bias"], y)


# -- a GPT -------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A block of a GPT: attention to what came before, then a perceptron, each on a path beside the input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).chunk(3, dim=-1)
        q, k, v = (t.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        attention = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attention.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.out(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class BlockAlone(nn.Module):
    """One block and a squared loss."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.block = Block(width, heads)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(self.block(x), y)


class GPT(nn.Module):
    """Token and position embeddings, blocks, and the cross-entropy of the next token."""

    def __init__(self, vocabulary: int, tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)  # as GPT-2: of size 1, they would hardly move in a step

    def forward(self, idx: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.wte(idx) + self.wpe.weight[: idx.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def _block() -> Setup:
    return _of_module(BlockAlone(256, 4), torch.randn(8, 128, 256), torch.randn(8, 128, 256))


def _gpt(vocabulary: int, tokens: int, width: int, layers: int) -> Callable[[], Setup]:
    def make() -> Setup:
        model = GPT(vocabulary, tokens, width, 4, layers)
        return _of_module(model, *(torch.randint(0, vocabulary, (8, tokens)) for _ in range(2)))

    return make


def _block_of_arrays(np: Any, p: Arrays, prefix: str, x: Any, heads: int = 4) -> Any:
    def linear(name: str, x: Any) -> Any:
        return x @ p[f"{prefix}{name}.weight"].T + p[f"{prefix}{name}.bias"]

    batch, tokens, width = x.shape
    q, k, v = np.split(linear("qkv", _layer_norm(np, p, f"{prefix}ln1", x)), 3, axis=-1)
    q, k, v = (np.swapaxes(t.reshape(batch, tokens, heads, width // heads), 1, 2) for t in (q, k, v))
    scores = q @ np.swapaxes(k, 2, 3) / (width // heads) ** 0.5
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    x = x + linear("proj", np.swapaxes(weights @ v, 1, 2).reshape(batch, tokens, width))
    h = linear("fc", _layer_norm(np, p, f"{prefix}ln2", x))
    return x + linear("out", 0.5 * h * (1 + np.tanh((2 / np.pi) ** 0.5 * (h + 0.044715 * h**3))))


def _layer_norm(np: Any, p: Arrays, name: str, x: Any) -> Any:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def _block_with_arrays(np: Any, p: Arrays, x: Any, y: Any) -> Any:
    return ((_block_of_arrays(np, p, "block.", x) - y) ** 2).mean()


def _gpt_with_arrays(np: Any, p: Arrays, idx: Any, targets: Any) -> Any:
    x = p["wte.weight"][idx] + p["wpe.weight"][: idx.shape[1]]
    for i in range(sum(name.endswith("qkv.weight") for name in p)):
        x = _block_of_arrays(np, p, f"blocks.{i}.", x)
    logits = _layer_norm(np, p, "ln", x) @ p["head.weight"].T
    return _cross_entropy(np, logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def _perceptron(name: str, title: str, batch: int, *widths: int, matrix_bound: bool = False) -> Work:
    return Work(name, title, _classifier(batch, widths), _classifier_with_arrays, 0.1, matrix_bound, widths)


WORKS = [
    Work("regression", "linear regression, 100x4 to 2", _regression, _regression_with_arrays, 0.1, layers=(4, 2)),
    _perceptron("mlp", "MLP, 64x784-50-10", 64, 784, 50, 10),
    _perceptron("wide-mlp", "MLP, 512x784-512-10", 512, 784, 512, 10, matrix_bound=True),
    _perceptron("deep-mlp", "deep narrow MLP, 64x48, eight layers", 64, *[48] * 9),
    Work(
        "course",
        "course network, full batch, 50,000x784-50-1",
        course,
        _course_with_arrays,
        0.1,
        matrix_bound=True,
        layers=(784, 50, 1),
    ),
    Work(
        "convolution",
        "convolutional network, 128 digits of 8x8",
        _convolutional,
        _convolutional_with_arrays,
        0.1,
        lacks={"HIPS autograd": "autograd.numpy has no convolution"},
    ),
    Work("gpt-block", "GPT block, 8x128x256, 4 heads", _block, _block_with_arrays, 1.0, matrix_bound=True),
    Work(
        "gpt",
        "GPT, two layers, 8x128x256, 1,000 tokens",
        _gpt(1000, 128, 256, 2),
        _gpt_with_arrays,
        1.0,
        matrix_bound=True,
    ),
]

DEPTHS = (1, 2, 4, 8, 16)


def deeper(depth: int) -> list[Work]:
    """The works that grow with their depth: a GPT of width 64 and the narrow MLP, with `depth` layers each.

    >>> [work.name for work in deeper(2)]
    ['gpt-64', 'mlp-48']
    """
    layers = f"{depth} layer{'s' if depth > 1 else ''}"
    gpt = Work("gpt-64", f"GPT, {layers}, 8x64x64, 100 tokens", _gpt(100, 64, 64, depth), _gpt_with_arrays, 1.0)
    return [gpt, _perceptron("mlp-48", f"narrow MLP, {layers}, 64x48", 64, *[48] * (depth + 1))]
