"""A GPT-2 as people write it, and the backward pass of all of it: the twelve layers print as one function.

    python examples/gpt2.py
    chainrule derive examples/gpt2.py:forward

The model is that of Radford et al. (2019), Language Models are Unsupervised Multitask Learners, with random
weights: small here; `GPT(**GPT2)` has the 124 million parameters of the published one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr

GPT2 = {"vocabulary": 50257, "positions": 1024, "width": 768, "heads": 12, "layers": 12}


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.attn(self.ln_1(x)).chunk(3, -1))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(heads.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.fc(self.ln_2(x)), approximate="tanh")
        return x + self.out(hidden)


class GPT(nn.Module):
    def __init__(
        self, vocabulary: int = 60, positions: int = 16, width: int = 24, heads: int = 3, layers: int = 12
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean loss of predicting each token from those before it; tokens (batch, length)."""
        x = self.wte(tokens[:, :-1]) + self.wpe.weight[: tokens.shape[1] - 1]
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.weight.T  # the embedding's weights serve as the output layer's
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


torch.manual_seed(0)
forward = GPT()


def inputs() -> tuple[Tensor]:
    return (torch.randint(60, (2, 9)),)


def main() -> None:
    (tokens,) = inputs()
    d = cr.derive(forward, tokens)
    print(d.source("function"))

    forward(tokens).backward()
    furthest = max(float((d.grads[name] - p.grad).abs().max()) for name, p in forward.named_parameters())
    count = sum(p.numel() for p in forward.parameters())
    print(f"# {len(d.grads)} gradients of {count} parameters; furthest from autograd's: {furthest:.1e}")


if __name__ == "__main__":
    main()
