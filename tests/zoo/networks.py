"""Networks and their layers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import normal, positive, truths, whole, zoo


def lin(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


def relu(x: Tensor) -> Tensor:
    return x.clamp_min(0.0)


def mse(out: Tensor, targ: Tensor) -> Tensor:
    diff = out[:, 0] - targ
    return (diff**2).mean()


def two_layers(n: int) -> tuple[Tensor, ...]:
    return normal(n, 6), normal(6, 4), normal(4), normal(4, 1), normal(1), normal(n)


@zoo(two_layers)
def course_network_mse(x_train: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, y_train: Tensor) -> Tensor:
    l1 = lin(x_train, w1, b1)
    l2 = relu(l1)
    out = lin(l2, w2, b2)
    return mse(out, y_train)


@zoo(lambda n: (normal(n, 6), normal(6, 4), normal(4), normal(4, 3), normal(3), whole(3, n)))
def course_network_cross_entropy(inp: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, yb: Tensor) -> Tensor:
    l1 = lin(inp, w1, b1)
    l2 = relu(l1)
    return F.cross_entropy(lin(l2, w2, b2), yb)


@zoo(lambda n: (normal(n, 3), normal(3), normal(), normal(n)))
def linear_regression(X: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    y_hat = X @ w + b
    return ((y_hat - y) ** 2 / 2).mean()


@zoo(lambda n: (normal(n, 4), normal(4, 3), normal(3), whole(3, n)))
def softmax_regression_with_gather(X: Tensor, W: Tensor, b: Tensor, y: Tensor) -> Tensor:
    o = X.matmul(W) + b
    o = o - o.max(dim=1, keepdim=True).values
    e = o.exp()
    probs = e / e.sum(1, keepdim=True)
    return -probs.gather(1, y[:, None]).log().mean()


@zoo(lambda n: (normal(n, 4), normal(4, 3), whole(3, n)))
def softmax_regression_with_indexing(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    logits = x @ w
    logits = logits - logits.amax(1, keepdim=True).detach()
    counts = logits.exp()
    logprobs = counts.log() - counts.sum(1, keepdim=True).log()
    return -logprobs[torch.arange(len(y)), y].mean()


@zoo(lambda n: (normal(n, 6), positive(6), normal(6), normal(n, 6)))
def layer_norm_by_hand(x: Tensor, gamma: Tensor, beta: Tensor, targ: Tensor) -> Tensor:
    m = x.mean(-1, keepdim=True)
    v = ((x - m) ** 2).mean(-1, keepdim=True)
    xhat = (x - m) / (v + 1e-5).sqrt()
    return ((gamma * xhat + beta - targ) ** 2).sum()


@zoo(lambda n: (normal(n, 6), positive(6), normal(6)))
def layer_norm_of_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, (6,), weight, bias).tanh()


@zoo(lambda n: (normal(n, 4), positive(4), normal(4), normal(n, 4)), batches=(3,))
def batch_norm_by_hand(hpreact: Tensor, bngain: Tensor, bnbias: Tensor, mix: Tensor) -> Tensor:
    bnmeani = hpreact.mean(0, keepdim=True)
    bndiff = hpreact - bnmeani
    bnvar = (bndiff**2).sum(0, keepdim=True) / (hpreact.shape[0] - 1)
    bnraw = bndiff * (bnvar + 1e-5) ** -0.5
    return (torch.tanh(bngain * bnraw + bnbias) * mix).sum()


@zoo(lambda n: (normal(n, 4), positive(4), normal(4)), batches=(3,))
def batch_norm_with_var(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    return g * (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-5) + b


@zoo(lambda n: (normal(n, 5, 8), positive(8)))
def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    norm = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    return norm * scale


@zoo(lambda n: (normal(n, 5, 4), normal(4, 4), normal(4, 4), normal(4, 4)))
def attention(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.softmax(-1) @ v


@zoo(lambda n: (normal(n, 5, 4), normal(4, 4), normal(4, 4), normal(4, 4), normal(n, 5, 4)))
def causal_attention(x: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor, target: Tensor) -> Tensor:
    _, T, C = x.shape
    q, k, v = x @ w_query, x @ w_key, x @ w_value
    wei = q @ k.mT * C**-0.5
    tril = torch.tril(torch.ones(T, T))
    wei = wei.masked_fill(tril == 0, float("-inf"))
    wei = F.softmax(wei, dim=-1)
    return F.mse_loss(wei @ v, target)


@zoo(lambda n: (normal(n, 4, 6), normal(6, 18), normal(6, 6)))
def multi_head_attention(x: Tensor, w_qkv: Tensor, w_out: Tensor) -> Tensor:
    B, T, C = x.shape
    q, k, v = (x @ w_qkv).split(C, dim=2)
    q = q.view(B, T, 2, C // 2).transpose(1, 2)
    k = k.view(B, T, 2, C // 2).transpose(1, 2)
    v = v.view(B, T, 2, C // 2).transpose(1, 2)
    att = (q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.size(-1)))).softmax(dim=-1)
    y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
    return y @ w_out


@zoo(lambda n: (normal(n, 5), [normal(5, 5) for _ in range(3)]))
def residual_connections(x: Tensor, weights: list[Tensor]) -> Tensor:
    for w in weights:
        x = x + torch.tanh(x @ w)
    return (x**2).mean()


@zoo(lambda n: (normal(n, 5), normal(5, 3)))
def tied_autoencoder(x: Tensor, w: Tensor) -> Tensor:
    code = torch.sigmoid(x @ w)
    recon = code @ w.t()
    return F.mse_loss(recon, x)


@zoo(lambda n: (whole(7, n, 3), normal(7, 2), normal(6, 7), normal(7), whole(7, n)))
def embedding_then_linear(ix: Tensor, C: Tensor, W: Tensor, b: Tensor, Y: Tensor) -> Tensor:
    emb = C[ix]
    h = emb.view(emb.shape[0], -1)
    return F.cross_entropy(h @ W + b, Y)


@zoo(lambda n: (whole(7, n, 3), normal(7, 4), normal(4, 4)))
def tied_embedding(tokens: Tensor, table: Tensor, w: Tensor) -> Tensor:
    hidden = F.embedding(tokens, table) @ w
    return (hidden @ table.T).logsumexp(-1).mean()


@zoo(lambda n: (normal(n, 4), {"w1": normal(8, 4), "b1": normal(8), "w2": normal(2, 8), "b2": normal(2)}, normal(n, 2)))
def mlp_with_f_linear(x: Tensor, params: dict[str, Tensor], y: Tensor) -> Tensor:
    h = F.gelu(F.linear(x, params["w1"], params["b1"]))
    return F.mse_loss(F.linear(h, params["w2"], params["b2"]), y)


@zoo(lambda n: (normal(n, 3, 4), normal(5, 4), normal(), normal(5), normal()))
def f_linear_to_one_number(x: Tensor, w: Tensor, b: Tensor, v: Tensor, c: Tensor) -> Tensor:
    return F.linear(F.linear(x, w, b).tanh(), v, c).square().mean()


@zoo(lambda n: (normal(n, 6), normal(6, 4), normal(n, 4)))
def dropout_in_training(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    h = F.dropout(x, p=0.4, training=True)
    return F.mse_loss(h @ w, y)


@zoo(lambda n: (normal(n, 6), normal(6, 8), normal(8, 4)))
def gated_mlp(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
    a, gate = (x @ w_in).chunk(2, dim=-1)
    return torch.cat((F.silu(gate) * a, a), -1) @ w_out


@zoo(lambda n: (normal(n, 3, 8), normal(4, 3, 3), normal(4)))
def convolution_as_windows(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    width = x.shape[-1] - 2
    windows = torch.stack([x[:, :, k : k + width] for k in range(3)], dim=-1)
    return torch.einsum("bctk,ock->bot", windows, kernel) + bias[:, None]


@zoo(lambda n: (normal(n, 4), normal(4, 4), truths(n, 4)))
def noisy_perceptron(x: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    noise = torch.randn_like(x)
    h = (x + 0.1 * noise) @ w
    return (torch.where(keep, h, torch.zeros_like(h)) ** 2).sum()
