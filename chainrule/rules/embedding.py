"""Rows looked up in a table, one by one or in bags: the gradient of a row is the sum over the places that read it."""

import torch
import torch.nn.functional as F

from chainrule.recording.unseen import rewritten
from chainrule.rules.book import opening, rule

_MODES = ("sum", "mean", "max")  # by the numbers that torch's C++ gives them


@rule(F.embedding, samples=["i(5, 3), r(5, 4)", "i(5, 2, 3), r(5, 4)", "i(5, 6), r(5, 4), padding_idx=2", "i(3, 7), r(3, 4), scale_grad_by_freq=True"],
      note="a row that is looked up twice gets both gradients; the row of padding_idx gets none")  # fmt: skip
def embedding(
    out, indices, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    g = out.g
    if padding_idx is not None:
        padding = padding_idx if padding_idx >= 0 else padding_idx + weight.shape[0]
        g = g * (indices != padding).unsqueeze(-1)
    if scale_grad_by_freq:
        g = g / torch.bincount(indices.flatten(), minlength=weight.shape[0])[indices].unsqueeze(-1)
    weight.g = torch.index_put(torch.zeros_like(weight), (indices,), g, accumulate=True)


@rule(F.embedding_bag, samples=["i(5, 3, 2), r(5, 4)", "i(5, 3, 2), r(5, 4), mode='sum', per_sample_weights=r(3, 2)", "i(5, 3, 2), r(5, 4), mode='max', padding_idx=1",
                                "i(5, 6), r(5, 4), torch.tensor([0, 2, 2]), mode='sum', padding_idx=-1, per_sample_weights=r(6)",
                                "i(5, 6), r(5, 4), torch.tensor([0, 2, 2]), padding_idx=3",
                                "i(5, 6), r(5, 4), torch.tensor([0, 3, 3, 6]), mode='max', include_last_offset=True"],
      note="the largest of a bag is the first of equal ones")  # fmt: skip
def embedding_bag(
    out,
    indices,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    mode="mean",
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    if scale_grad_by_freq:
        return NotImplemented  # torch divides by the counts of other rows
    rows = indices.reshape(-1).contiguous()
    if offsets is None:
        offsets = torch.arange(0, rows.shape[0], indices.shape[1], device=rows.device)
    offsets = offsets.contiguous()
    padding = padding_idx if padding_idx is None or padding_idx >= 0 else padding_idx + weight.shape[0]
    if mode == "max":
        options = (False, 2, False, None, include_last_offset, -1 if padding is None else padding)
        _, _, filled, largest = torch.ops.aten._embedding_bag(weight.contiguous(), rows, offsets, *options)
        g = torch.where(filled.unsqueeze(-1) > 0, out.g, 0)
        weight.g = torch.zeros_like(weight).scatter_add(0, largest.clamp_min(0), g)
        return None
    bag = torch.searchsorted(offsets, torch.arange(rows.shape[0], device=rows.device), right=True) - 1
    g = out.g[bag]
    kept = None if padding is None else (rows != padding).unsqueeze(-1)
    if mode == "mean":
        counted = None if kept is None else kept.squeeze(-1).type_as(g)
        g = g / torch.bincount(bag, counted, minlength=out.shape[0])[bag].unsqueeze(-1)
    if kept is not None:
        g = torch.where(kept, g, 0)
    if per_sample_weights is not None:
        per_sample_weights.g = (g * weight[rows]).sum(-1).reshape(per_sample_weights.shape)
        g = g * per_sample_weights.reshape(-1, 1)
    weight.g = torch.zeros_like(weight).index_add(0, rows, g)
    return None


def _shortened(weight, rows, max_norm, norm_type):
    """The table with no row longer than `max_norm`. As in torch, the looked-up rows of the person's table are
    shortened in place, and the gradient passes as if nothing had happened to them."""
    with torch._C.DisableTorchFunction():
        torch.embedding_renorm_(weight.detach(), rows.detach().contiguous(), max_norm, norm_type)
    rewritten(weight, unharmed=("add",))
    with torch.no_grad():
        change = torch.renorm(weight, norm_type, 0, max_norm) - weight
    return weight + change


@opening(F.embedding)
def embedding_with_max_norm(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    if max_norm is None:
        return NotImplemented
    weight = _shortened(weight, input, max_norm, norm_type)
    return F.embedding(input, weight, padding_idx, scale_grad_by_freq=scale_grad_by_freq)


@opening(torch.embedding)
def torch_embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    padding_idx = None if padding_idx < 0 else padding_idx
    return F.embedding(indices, weight, padding_idx, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


@opening(F.embedding_bag)
def embedding_bag_with_max_norm(input, weight, offsets=None, max_norm=None, norm_type=2.0, *rest, **named):
    if max_norm is None:
        return NotImplemented
    return F.embedding_bag(input, _shortened(weight, input, max_norm, norm_type), offsets, None, 2.0, *rest, **named)


@opening(torch.embedding_bag)
def torch_embedding_bag(
    weight,
    indices,
    offsets,
    scale_grad_by_freq=False,
    mode=0,
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    options = (scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
    with torch._C.DisableTorchFunction(), torch.no_grad():
        _, *described = torch.embedding_bag(weight, indices, offsets, *options)
    out = F.embedding_bag(indices, weight, offsets, None, 2.0, scale_grad_by_freq, _MODES[mode], *options[2:])
    return out, *described
