"""A derivation as a file that runs by itself: `python FILE` calls the derived code on random inputs."""

from __future__ import annotations

import torch

import chainrule as cr

_MAIN = """

if __name__ == "__main__":
    torch.manual_seed(0)
    output, gradients = forward_and_backward(
{arguments}
    )
    print("output", output.item() if output.numel() == 1 else tuple(output.shape))
    for name, gradient in gradients.items():
        print(f"{{name}}.g", None if gradient is None else tuple(gradient.shape))
"""


def runnable(d: cr.Derivation, comments: str | None = None) -> str:
    """The style "function" with the comments that `source` knows, called below on random inputs of the recorded shapes."""
    given = {name: d[name].value for name in d.inputs}
    if d.program.upstream is not None:
        given["dL/d(output)"] = d.program.upstream.meta["val"]
    arguments = [f"        {like(value)},  # {name}" for name, value in given.items()]
    return d.source("function", comments).rstrip("\n") + "\n" + _MAIN.format(arguments="\n".join(arguments))


def like(value: torch.Tensor) -> str:
    """Code for a random tensor of this shape, dtype and range.

    >>> like(torch.zeros(2, 3)), like(torch.tensor([4, 9, 0]))
    ('torch.rand(2, 3)', 'torch.randint(0, 10, (3,))')
    """
    shape = tuple(value.shape)
    dtype = "" if value.dtype in (torch.float32, torch.int64) else f", dtype={value.dtype}"
    if value.dtype == torch.bool:
        return f"torch.rand({shape}) > 0.5"
    if not value.dtype.is_floating_point and not value.dtype.is_complex:
        low, high = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
        return f"torch.randint({low}, {high + 1}, {shape}{dtype})"
    sizes = ", ".join(map(str, shape)) or "()"
    positive = not value.dtype.is_complex and not bool((value < 0).any())
    return f"torch.{'rand' if positive else 'randn'}({sizes}{dtype})"
