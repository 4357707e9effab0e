"""Layers that slide a window over their input: convolutions and poolings as networks use them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import Leaves, assert_as_autograd, assert_close, loss_of, normal
from torch import Tensor, nn

import chainrule as cr

MODULES = {
    "Conv1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 8)),
    "Conv2d": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    "Conv2d without bias": (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), bias=False), (2, 3, 5, 6)),
    "Conv2d in groups": (nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding="same"), (2, 4, 5, 6)),
    "Conv2d, unbatched": (nn.Conv2d(3, 4, 3), (3, 5, 6)),
    "Conv2d, even kernel, same": (nn.Conv2d(3, 4, (2, 4), padding="same"), (2, 3, 5, 6)),
    "Conv2d, even kernel, same, unbatched": (nn.Conv2d(3, 4, (2, 4), padding="same"), (3, 5, 6)),
    "Conv2d, valid": (nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 5, 6)),
    "Conv2d, reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 6)),
    "Conv2d, circular": (nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="circular"), (2, 3, 5, 6)),
    "Conv2d, replicate": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), (2, 3, 5, 6)),
    "Conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "ConvTranspose1d": (nn.ConvTranspose1d(3, 4, 3, stride=2, padding=1, output_padding=1), (2, 3, 5)),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 3, 4)),
    "ConvTranspose2d, long": (nn.ConvTranspose2d(3, 2, 2, dilation=(3, 1), output_padding=(2, 0)), (2, 3, 3, 4)),
    "ConvTranspose3d, unbatched": (nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 2)),
    "MaxPool1d": (nn.MaxPool1d(2), (2, 3, 7)),
    "MaxPool2d": (nn.MaxPool2d(3, stride=2, padding=1), (2, 3, 5, 6)),
    "MaxPool2d, ceil": (nn.MaxPool2d(2, dilation=2, ceil_mode=True), (2, 3, 5, 6)),
    "MaxPool2d with indices": (nn.MaxPool2d(2, return_indices=True), (2, 3, 4, 6)),
    "MaxPool3d": (nn.MaxPool3d(2), (2, 3, 4, 4, 2)),
    "AvgPool1d": (nn.AvgPool1d(2, padding=1), (2, 3, 7)),
    "AvgPool2d": (nn.AvgPool2d(2), (2, 3, 4, 6)),
    "AvgPool2d, ragged": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 4, 6)),
    "AvgPool3d": (nn.AvgPool3d(2), (2, 3, 4, 4, 2)),
    "AdaptiveAvgPool1d": (nn.AdaptiveAvgPool1d(3), (2, 3, 7)),
    "AdaptiveAvgPool2d of everything": (nn.AdaptiveAvgPool2d(1), (2, 3, 4, 5)),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d((3, None)), (2, 3, 4, 5)),
    "AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(3), (2, 3, 7)),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d((3, 2)), (2, 3, 4, 5)),
    "FractionalMaxPool2d": (nn.FractionalMaxPool2d(2, output_ratio=0.6), (2, 3, 6, 7)),
    "FractionalMaxPool2d, unbatched": (nn.FractionalMaxPool2d((2, 3), output_size=(4, 3)), (3, 6, 7)),
    "FractionalMaxPool3d": (nn.FractionalMaxPool3d(2, output_size=2, return_indices=True), (2, 3, 4, 5, 6)),
    "LPPool1d": (nn.LPPool1d(2, 2), (2, 3, 6)),
    "LPPool2d": (nn.LPPool2d(2, 2), (2, 3, 4, 6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", MODULES)
def test_a_module(name: str) -> None:
    module, shape = MODULES[name]
    module = module.double()

    def call(x: Tensor) -> Tensor:
        out = module(x)
        return loss_of(out[0] if isinstance(out, tuple) else out)

    assert_as_autograd(call, normal(*shape))


def test_equal_maxima() -> None:
    """The gradient goes where torch's index says, also where windows overlap."""
    x = torch.randint(3, (2, 3, 6, 6)).double()
    assert_as_autograd(lambda x: loss_of(F.max_pool2d(x, 3, 1)), x)
    assert_as_autograd(lambda x: loss_of(F.adaptive_max_pool2d(x, 4)), x)


def test_pooled_and_unpooled() -> None:
    def call(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return loss_of(F.max_unpool2d(pooled**2, indices, 2))

    assert_as_autograd(call, normal(2, 3, 4, 6))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w, b: torch.convolution(x, w, b, [2, 1], [1, 1], [1, 1], False, [0, 0], 1),
        lambda x, w, b: torch.convolution(x, w.transpose(0, 1), b, [2, 1], [1, 1], [1, 1], True, [1, 0], 1),
        lambda x, w, b: torch.ops.aten.convolution(x, w, b, [1, 1], [0, 0], [1, 2], False, [0, 0], 1),
        lambda x, w, b: torch.conv2d(x, w, b),
        lambda x, w, b: torch.ops.aten.conv2d.default(x, w, b, [2, 2]),
        lambda x, w, b: torch.conv_tbc(x[:, :, 0].mT.contiguous(), w[:, :, 0].permute(2, 1, 0).contiguous(), b, 1),
    ],
)
def test_spellings_of_convolution(call: Any) -> None:
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return loss_of(call(x, w, b))

    assert_as_autograd(forward, normal(2, 3, 5, 6), normal(4, 3, 3, 2), normal(4))


@pytest.mark.parametrize("convolution", [F.conv1d, F.conv_transpose1d])
def test_complex_convolution(convolution: Any) -> None:
    def call(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return loss_of(convolution(x, w, b, 2, 1).abs())

    x, w, b = (torch.randn(*shape, dtype=torch.complex128) for shape in ((2, 3, 7), (3, 3, 3), (3,)))
    d = cr.derive(call, x, w, b, wrt=None)
    assert convolution.__name__ not in d.fallbacks
    with Leaves(d) as leaves:
        truth = leaves.gradients(call(x, w, b))
    for name, gradient in zip(leaves.names, truth, strict=True):
        assert_close(d.grads[name], gradient)


def test_how_a_convolution_reads() -> None:
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    code = cr.derive(lambda x: (conv(x) ** 2).sum(), torch.randn(2, 3, 6, 6).requires_grad_()).source()
    assert "x.g = torch.nn.grad.conv2d_input(x.shape, conv_weight, conv2d.g, stride=2, padding=1)" in code
    assert "conv_weight.g = torch.nn.grad.conv2d_weight(x, conv_weight.shape, conv2d.g, stride=2, padding=1)" in code
    assert "conv_bias.g = conv2d.g.sum((0, 2, 3))" in code


def test_same_padding_holds_for_its_kernel() -> None:
    def call(x: Tensor, w: Tensor) -> Tensor:
        return loss_of(F.conv1d(x, w, padding="same"))

    code = cr.derive(call, normal(2, 3, 8), normal(4, 3, 3)).source()
    assert "assert w.shape[2] == 3" in code
