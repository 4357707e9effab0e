"""Losses with a margin, and the distances and similarities of vectors that some of them compare."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule
from chainrule.rules.losses import REDUCTIONS, averaged, by_number, reduced, reduction_of

SIGNS = "torch.tensor([[1., -1., 1., 1.], [-1., 1., -1., -1.], [1., 1., -1., 1.]]).double()"


@rule(F.hinge_embedding_loss, samples=[f"r(3, 4), {SIGNS}", f"2 * r(3, 4), {SIGNS}, 0.5, reduction='none'"],
      note="at the margin the slope is that of the side that counts")  # fmt: skip
def hinge_embedding_loss(out, x, target, margin=1.0, size_average=None, reduce=None, reduction="mean"):
    target.g = None  # it only chooses
    apart = torch.where(target != 1, x <= margin, False)
    near = target != -1
    x.g = averaged(out.g, apart, reduction_of(size_average, reduce, reduction)) * (near.type_as(x) - apart.type_as(x))


@rule(F.margin_ranking_loss, samples=["r(5), r(5), torch.tensor([1., -1., -1., 1., 1.]).double()", f"r(3, 4), r(3, 4), {SIGNS}, 0.5, reduction='sum'",
                                      f"r(3, 1), r(3, 4), {SIGNS}, 0.5, reduction='none'"],
      note="at the margin the slope is that of the side that counts")  # fmt: skip
def margin_ranking_loss(out, x1, x2, target, margin=0, size_average=None, reduce=None, reduction="mean"):
    inside = margin - target * (x1 - x2) >= 0
    g = averaged(out.g, inside, reduction_of(size_average, reduce, reduction)) * inside
    x1.g = -g * target
    x2.g = g * target
    target.g = g * (x2 - x1)


@rule(
    F.soft_margin_loss,
    samples=[f"r(3, 4), {SIGNS}", f"r(3, 4), {SIGNS}, reduction='sum'", f"r(3, 4), {SIGNS}, reduction='none'"],
)
def soft_margin_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    target.g = None
    x.g = averaged(-out.g, x, reduction_of(size_average, reduce, reduction)) * target * (-target * x).sigmoid()


def _by_row(g, x, reduction):
    """The upstream gradient of each row of classes, on the class axis."""
    if reduction == "none":
        return g.unsqueeze(-1)
    return g / x.shape[0] if reduction == "mean" and x.ndim == 2 else g


@rule(F.multi_margin_loss, samples=["r(3, 4), i(4, 3)", "r(3, 4), i(4, 3), 2, 0.5, reduction='sum'", "r(3, 4), i(4, 3), weight=p(4), reduction='none'", "r(4), i(4)"],
      note="at the margin the gradient is 0")  # fmt: skip
def multi_margin_loss(out, x, target, p=1, margin=1.0, weight=None, size_average=None, reduce=None, reduction="mean"):
    row = x if x.ndim else x.reshape(1)
    at = target.reshape(-1, 1) if x.ndim == 2 else target.reshape(1)
    over = (margin - row.gather(-1, at) + row).scatter(-1, at, 0).clamp_min(0)
    slope = (over > 0).type_as(x) if p == 1 else 2 * over
    if weight is not None:
        weight.g = None  # autograd defines no gradient for it
        slope = slope * weight[at]
    g = _by_row(out.g, x, reduction_of(size_average, reduce, reduction)) / row.shape[-1]
    x.g = g * slope.scatter(-1, at, -slope.sum(-1, keepdim=True))


@rule(F.multilabel_margin_loss, samples=["r(2, 4), torch.tensor([[3, 0, -1, 1], [2, -1, -1, 0]])", "r(4), torch.tensor([1, 3, -1, 0]), reduction='sum'",
                                         "r(2, 4), torch.tensor([[0, 1, 2, -1], [1, -1, 0, 0]]), reduction='none'"],
      note="the labels of a row end at the first -1; at the margin the gradient is 0")  # fmt: skip
def multilabel_margin_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    row, labels = (x, target) if x.ndim else (x.reshape(1), target.reshape(1))
    listed = (labels >= 0).cumprod(-1).bool()
    at = torch.where(listed, labels, 0)
    label = torch.zeros_like(row).scatter_add(-1, at, listed.type_as(x)) > 0
    over = 1 - row.gather(-1, at).unsqueeze(-1) + row.unsqueeze(-2) > 0
    pairs = (over & listed.unsqueeze(-1) & ~label.unsqueeze(-2)).type_as(x)
    g = _by_row(out.g, x, reduction_of(size_average, reduce, reduction)) / row.shape[-1]
    x.g = g * pairs.sum(-2).scatter_add(-1, at, -pairs.sum(-1))


@opening(torch.pairwise_distance)
def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    return torch.linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim)


@opening(torch.triplet_margin_loss)
def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction=1):
    to_positive = pairwise_distance(anchor, positive, p, eps)
    to_negative = pairwise_distance(anchor, negative, p, eps)
    if swap:
        to_negative = torch.minimum(to_negative, pairwise_distance(positive, negative, p, eps))
    return reduced((margin + to_positive - to_negative).clamp_min(0), REDUCTIONS[reduction])


@rule(F.cosine_similarity, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(3, 4), 0", "r(3, 4), r(4), -1", "r(2, 3, 4), r(3, 1), dim=2"],
      note="a length below eps is taken as eps, with the gradient that the length has; at 0 that is 0")  # fmt: skip
def cosine_similarity(out, x1, x2, dim=1, eps=1e-8):
    if x1.shape != x2.shape:
        shape = (x1 * x2).shape
        a, b = x1.expand(shape), x2.expand(shape)
    else:
        a, b = x1, x2
    length1 = torch.linalg.vector_norm(a, dim=dim, keepdim=True)
    length2 = torch.linalg.vector_norm(b, dim=dim, keepdim=True)
    divisor1, divisor2 = length1.clamp_min(eps), length2.clamp_min(eps)
    unit1, unit2 = (a / length1).masked_fill(length1 == 0, 0), (b / length2).masked_fill(length2 == 0, 0)
    g, cosine = out.g.unsqueeze(dim), out.unsqueeze(dim)
    x1.g = g / divisor1 * (b / divisor2 - cosine * unit1)
    x2.g = g / divisor2 * (a / divisor1 - cosine * unit2)


@opening(torch.cosine_embedding_loss)
def cosine_embedding_loss(input1, input2, target, margin=0.0, reduction=1):
    lengths = ((input1**2).sum(-1) + 1e-12) * ((input2**2).sum(-1) + 1e-12)
    cosine = (input1 * input2).sum(-1) / lengths.sqrt()
    alike = torch.where(target == 1, 1 - cosine, 0)
    unlike = torch.where(target == -1, (cosine - margin).clamp_min(0), 0)
    return reduced(alike + unlike, REDUCTIONS[reduction])


_nn, _aten = torch._C._nn, torch.ops.aten
by_number(F.hinge_embedding_loss, "input target margin reduction", torch.hinge_embedding_loss)
by_number(F.margin_ranking_loss, "input1 input2 target margin reduction", torch.margin_ranking_loss)
by_number(F.soft_margin_loss, "input target reduction", _nn.soft_margin_loss, _aten.soft_margin_loss)
by_number(F.multi_margin_loss, "input target p margin weight reduction", _nn.multi_margin_loss, _aten.multi_margin_loss)
by_number(F.multilabel_margin_loss, "input target reduction", _nn.multilabel_margin_loss, _aten.multilabel_margin_loss)
