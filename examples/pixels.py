"""Gradients of the pixels alone, as in style transfer: the network is fixed, the image is learned.

Ask for the image and no line of the backward pass computes a weight's gradient; ask for the weights
and no line computes the image's. Nothing is computed and thrown away: the lines are not there.

    python examples/pixels.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr

torch.manual_seed(0)
w1 = 0.5 * torch.randn(8, 3)  # a small random network: two layers that mix the channels of every pixel
w2 = 0.5 * torch.randn(6, 8)


def features(image: Tensor) -> tuple[Tensor, Tensor]:
    """Images are (channels, pixels)."""
    low = torch.relu(w1 @ image)
    high = torch.relu(w2 @ low)
    return low, high


def gram(maps: Tensor) -> Tensor:
    """How much the channels light up together, wherever they do: the style."""
    return maps @ maps.T / maps.shape[1]


def forward(image: Tensor, content: Tensor, style: Tensor) -> Tensor:
    low, high = features(image)
    content_loss = (high - content).pow(2).mean()
    style_loss = (gram(low) - style).pow(2).sum()
    return content_loss + 2 * style_loss


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    photo, painting = torch.rand(3, 16 * 16), torch.rand(3, 16 * 16) ** 3
    return torch.rand(3, 16 * 16), features(photo)[1], gram(features(painting)[0])


def paint(steps: int = 20, rate: float = 5.0) -> list[float]:
    """Descend on the pixels with the stand-alone function that was derived once."""
    image, content, style = inputs()
    d = cr.derive(forward, image, content, style, wrt="image")
    losses = []
    for _ in range(steps):
        given = {"image": image, "content": content, "style": style, "w1": w1, "w2": w2}
        loss, grads = d.function(*(given[name] for name in d.inputs))
        losses.append(loss.item())
        image = image - rate * grads["image"]
    return losses


def main() -> None:
    pixels = cr.derive(forward, *inputs(), wrt="image")
    print("wrt the image:", pixels, sep="\n")
    weights = cr.derive(forward, *inputs(), wrt=["w1", "w2"])
    print("\nwrt the weights:", weights, sep="\n")
    for name, d in (("image", pixels), ("weights", weights)):
        source = d.source()
        lines = {g: f"\n{g}.g = " in source for g in ("image", "w1", "w2")}
        print(f"\nasked for the {name}; is there a line that sets it?", lines)
    losses = paint()
    print(f"\n20 steps on the pixels: loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
