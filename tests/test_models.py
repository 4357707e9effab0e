"""Models as other people write them: a package's own, and the ways of PyTorch around a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import chainrule as cr

Case = tuple[nn.Module, Callable[[], Tensor]]


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def assert_right(forward: Callable[..., Tensor], *args: Tensor, fallbacks: Any = ()) -> cr.Derivation:
    """Every gradient equals autograd's, and the emitted code runs."""
    args = tuple(a.requires_grad_() if a.is_floating_point() else a for a in args)
    d = cr.derive(forward, *args)
    assert d.fallbacks == list(fallbacks)
    pairs = [(t, g) for t, g in d.pairs() if t.requires_grad]
    output = forward(*args)
    assert_close(d.output, output)
    for (_, ours), theirs in zip(pairs, torch.autograd.grad(output, [t for t, _ in pairs]), strict=True):
        assert_close(ours, theirs)
    d.source("function")
    return d


W = rand(4, 4).requires_grad_()


# -- the ways of PyTorch -----------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    def block(h: Tensor) -> Tensor:
        return torch.tanh(h @ W)

    x = rand(3, 4).requires_grad_()
    d = cr.derive(lambda x: (checkpoint(block, x, use_reentrant=reentrant) ** 2).sum(), x)
    truth = torch.autograd.grad((block(x) ** 2).sum(), [x, W])
    assert_close(d.grads["x"], truth[0])
    assert_close(d.grads["W"], truth[1])


def test_forward_hooks() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    model[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    assert_right(lambda x: model(x).sum(), rand(3, 4))


def test_tied_weights_and_buffers() -> None:
    class Tied(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.out.weight = self.embed.weight
            self.register_buffer("scale", torch.full((4,), 2.0))

        def forward(self, tokens: Tensor) -> Tensor:
            return F.cross_entropy(self.out(self.embed(tokens) * self.scale), tokens)

    d = assert_right(Tied().double(), torch.tensor([0, 2, 3]))
    assert list(d.grads) == ["embed.weight"]


def test_parameters_bear_their_models_names() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True).double()
    d = cr.derive(lambda x: model(x).pow(2).sum(), rand(2, 3, 8), wrt=list(model.parameters()))
    assert set(d.grads) == {f"model.{name}" for name, _ in model.named_parameters()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_parts_run_as_plain_python() -> None:
    @torch.compile
    def part(h: Tensor) -> Tensor:
        return torch.tanh(h @ W)

    x = rand(3, 4).requires_grad_()
    d = cr.derive(lambda x: (part(x) ** 2).sum(), x)
    assert_close(d.grads["x"], torch.autograd.grad((torch.tanh(x @ W) ** 2).sum(), x)[0])
    assert "tanh" in d.source()


class Twins(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, y)
        return x * x * y, x + y

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return g * 2 * x * y + h, g * x * x + h


@pytest.mark.parametrize("requires", [True, False])
def test_a_function_of_several_outputs(requires: bool) -> None:
    x, y = rand(3).requires_grad_(requires), rand(4)[:3].clone().requires_grad_(requires)

    def forward(x: Tensor, y: Tensor) -> Tensor:
        a, b = Twins.apply(x, y)
        return (a * b).sum()

    d = cr.derive(forward, x, y)
    assert d.fallbacks == ["Twins"]
    assert "Twins.apply" in d.source("function")
    leaves = [v.detach().requires_grad_() for v in (x, y)]
    for ours, theirs in zip(d.grads.values(), torch.autograd.grad(forward(*leaves), leaves), strict=True):
        assert_close(ours, theirs)


def test_functional_call_and_parametrisations() -> None:
    linear = nn.Linear(4, 2).double()
    held = {name: p.detach().clone().requires_grad_() for name, p in linear.named_parameters()}
    assert_right(lambda x: torch.func.functional_call(linear, held, (x,)).pow(2).sum(), rand(3, 4))
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).double().eval()
    assert_right(lambda x: (normed(x) ** 2).sum(), rand(2, 4))


def test_autocast_is_written_out() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 2))
    x = torch.randn(3, 4)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.mse_loss(model(x).float(), torch.ones(3, 2))

    d = cr.derive(forward, x)
    assert d.fallbacks == []
    assert torch.equal(d.output, forward(x))
    assert "m0_weight.to(torch.bfloat16)" in d.source().replace("model_0", "m0")
    truth = dict(model.named_parameters())
    forward(x).backward()
    for name, p in truth.items():
        ours = d.grads[f"model.{name}"]
        assert ours is not None and p.grad is not None and ours.dtype == p.dtype
        torch.testing.assert_close(ours, p.grad, rtol=0.02, atol=0.02)


def test_numbers_of_numpy_and_bools() -> None:
    scale, row = np.float64(1.5), np.int64(1)
    assert_right(
        lambda x: (scale * x + x * np.float32(2) + x[row] * True + x * (x.shape[0] == 3)).pow(2).sum(), rand(3, 4)
    )


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda x: torch.sparse.mm(torch.eye(3).to_sparse(), x).sum(), "sparse_coo"),
        (lambda x: torch.nested.as_nested_tensor([x[0], x[1]]).to_padded_tensor(0.0).sum(), "nested"),
        (lambda x: (torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize() * x).sum(), "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning", "ignore:.*quantiz.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torchao.*:DeprecationWarning")
def test_tensors_that_are_not_dense_are_refused_by_name(forward: Callable[[Tensor], Tensor], kind: str) -> None:
    with pytest.raises(cr.ChainruleError, match=kind):
        cr.derive(forward, torch.randn(3, 4))


# -- a package's models ------------------------------------------------------------------------------


def package_models() -> dict[str, Callable[[], Case]]:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    tokens, labels, image = torch.randint(50, (2, 7)), torch.tensor([0, 1]), rand(2, 3, 16, 16)
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}

    def language(kind: str, **config: Any) -> Case:
        made = getattr(transformers, f"{kind}Config")(vocab_size=50, **config)
        head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
        model = getattr(transformers, f"{kind}{head}")(made).double()
        return model, lambda: model(input_ids=tokens, labels=tokens).loss

    def bert() -> Case:
        model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, **text)).double()
        return model, lambda: model(input_ids=tokens, labels=labels).loss

    def vit() -> Case:
        config = transformers.ViTConfig(image_size=16, patch_size=8, **text)
        model = transformers.ViTForImageClassification(config).double()
        return model, lambda: model(pixel_values=image, labels=labels).loss

    def resnet() -> Case:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        model = transformers.ResNetForImageClassification(config).double()
        return model, lambda: model(pixel_values=rand(4, 3, 32, 32), labels=torch.tensor([0, 1, 0, 1])).loss

    return {
        "GPT-2": lambda: language("GPT2", n_layer=2, n_embd=32, n_head=4, n_positions=20),
        "Llama": lambda: language("Llama", num_key_value_heads=2, **text),
        "BERT": bert,
        "ViT": vit,
        "ResNet": resnet,
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "BERT", "ViT", "ResNet"])
def test_a_packages_model(name: str, mode: str) -> None:
    torch.manual_seed(0)
    model, loss = package_models()[name]()
    model.train(mode == "train")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    d = cr.derive(loss)
    model.load_state_dict(state)  # running statistics
    torch.manual_seed(1)
    names, parameters = zip(*model.named_parameters(), strict=True)
    truth = dict(zip(names, torch.autograd.grad(loss(), parameters, allow_unused=True), strict=True))
    assert d.fallbacks == []
    ours = {name.partition(".")[2]: g for name, g in d.grads.items()}
    for name, right in truth.items():
        if right is not None:
            assert_close(ours[name], right, 1e-6 if "float()" in d.source("function") else 1e-10)
    assert {n for n, g in truth.items() if g is not None} <= set(ours)
