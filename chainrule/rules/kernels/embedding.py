"""Rows looked up in a table."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import kernel


@kernel(F.embedding, samples=["i(5, 3), r(5, 4)", "i(5, 6), r(5, 4), padding_idx=2", "i(3, 7), r(3, 4), scale_grad_by_freq=True"])  # fmt: skip
def embedding(
    out, indices, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    left_out = -1 if padding_idx is None else padding_idx if padding_idx >= 0 else padding_idx + weight.shape[0]
    weight.g = torch.ops.aten.embedding_dense_backward.default(
        out.g, indices, weight.shape[0], left_out, scale_grad_by_freq
    )
