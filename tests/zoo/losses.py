"""Losses, by hand and by torch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import normal, positive, truths, unit, whole, zoo


@zoo(lambda n: (2 * normal(n), 2 * normal(n)))
def huber_by_hand(prediction: Tensor, target: Tensor) -> Tensor:
    r = (prediction - target).abs()
    return torch.where(r < 1.0, 0.5 * r**2, r - 0.5).mean()


@zoo(lambda n: (normal(n), truths(n)))
def focal_loss(logits: Tensor, label: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    pt = torch.where(label, p, 1 - p)
    return (-((1 - pt) ** 2) * pt.log()).mean()


@zoo(lambda n: (normal(n, 4), whole(4, n)))
def multiclass_focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    logp = F.log_softmax(logits, dim=1)
    logpt = logp.gather(1, labels.unsqueeze(1)).squeeze(1)
    return -((1 - logpt.exp()) ** 2 * logpt).mean()


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def contrastive(a: Tensor, b: Tensor) -> Tensor:
    a = a / a.norm(dim=1, keepdim=True)
    b = b / b.norm(dim=1, keepdim=True)
    sim = a @ b.T / 0.1
    labels = torch.arange(a.shape[0])
    return (F.cross_entropy(sim, labels) + F.cross_entropy(sim.T, labels)) / 2


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def cosine_similarity(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def cosine_similarity_of_torch(u: Tensor, v: Tensor) -> Tensor:
    return F.cosine_similarity(u, v, dim=1).mean()


@zoo(lambda n: (normal(n), normal(n), normal(n)))
def gaussian_nll(mu: Tensor, log_var: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (log_var + (y - mu) ** 2 / log_var.exp() + math.log(2 * math.pi)).mean()


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def kl_between_categoricals(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    logp, logq = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return (logp.exp() * (logp - logq)).sum(-1).mean()


@zoo(lambda n: (normal(n, 2), normal(n, 2)))
def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


@zoo(lambda n: (unit(n, 4), normal(4, 4), normal(2, 4)))
def elbo(x: Tensor, w_enc: Tensor, w_dec: Tensor) -> Tensor:
    mu, logvar = (x @ w_enc).chunk(2, dim=1)
    eps = torch.randn_like(mu)
    z = mu + (0.5 * logvar).exp() * eps
    recon = F.binary_cross_entropy(torch.sigmoid(z @ w_dec), x, reduction="sum")
    kld = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    return recon + kld


@zoo(lambda n: (normal(n), unit(n)))
def stable_binary_cross_entropy(x: Tensor, z: Tensor) -> Tensor:
    return (x.clamp(min=0) - x * z + torch.log1p((-x.abs()).exp())).mean()


@zoo(lambda n: (normal(n, 3), unit(n, 3)))
def binary_cross_entropy_of_torch(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.sigmoid()
    return F.binary_cross_entropy(p, y) + F.binary_cross_entropy_with_logits(logits, y)


@zoo(lambda n: (normal(n), normal(n)))
def hinge(scores: Tensor, margin: Tensor) -> Tensor:
    return torch.maximum(1 - scores, torch.zeros_like(scores)).mean() + F.relu(margin - scores).sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3), normal(n, 3)))
def triplet(anchor: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
    near = ((anchor - pos) ** 2).sum(1)
    far = ((anchor - neg) ** 2).sum(1)
    return (near - far + 1.0).clamp(min=0).mean()


@zoo(lambda n: (normal(n, 4), whole(4, n)))
def label_smoothing_by_hand(logits: Tensor, y: Tensor) -> Tensor:
    logp = logits - logits.logsumexp(1, keepdim=True)
    hot = F.one_hot(y, logits.shape[1])
    soft = 0.9 * hot + 0.1 / logits.shape[1]
    return -(soft * logp).sum() / logits.shape[0]


@zoo(lambda n: (normal(n, 4), whole(4, n), positive(4)))
def weighted_nll(logits: Tensor, y: Tensor, class_weight: Tensor) -> Tensor:
    w = class_weight[y]
    return (w * F.cross_entropy(logits, y, reduction="none")).sum() / w.sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3)))
def soft_targets(student: Tensor, teacher: Tensor) -> Tensor:
    t = F.softmax(teacher / 2, dim=1)
    return -(t * F.log_softmax(student / 2, dim=1)).sum(dim=1).mean() * 4


@zoo(lambda n: (normal(n, 2), normal(n, 2), [normal(2, 3), normal(3)]))
def ridge(x: Tensor, y: Tensor, weights: list[Tensor]) -> Tensor:
    w, v = weights
    fit = (x @ w) @ v - y.sum(1)
    penalty = sum((p**2).sum() for p in weights)
    return fit.pow(2).mean() + 0.01 * penalty


@zoo(lambda n: (normal(n, 3), normal(3)))
def lasso(x: Tensor, w: Tensor) -> Tensor:
    return F.l1_loss(x @ w, torch.zeros(x.shape[0], dtype=x.dtype)) + 0.1 * w.abs().sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3)), smooth=False)
def policy_gradient(logits: Tensor, reward: Tensor) -> Tensor:
    logp = torch.log_softmax(logits, 1)
    with torch.no_grad():
        advantage = reward - reward.mean(0)
    return -(logp * advantage).sum() + (logp.exp() * logp).sum()
