"""Whether the slope of a forward pass may jump somewhere: at 0 of relu, where two elements are the largest."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from chainrule.diagnosis.truth.sketch import is_tensor
from chainrule.program import differentiable

_NAMES = """
    add sub rsub mul div neg reciprocal square pow exp expm1 log log1p sqrt rsqrt sin cos tanh sigmoid silu gelu erf
    softmax log_softmax log_sigmoid logsumexp cross_entropy binary_cross_entropy_with_logits mse_loss sum mean var cumsum
    matmul mm bmm mv dot outer linear addmm baddbmm einsum layer_norm rms_norm group_norm conv1d conv2d embedding
    view reshape flatten unflatten transpose permute movedim swapaxes t T mT unsqueeze squeeze expand expand_as repeat
    stack cat concat split chunk unbind select narrow slice getitem part gather index_select masked_fill tril triu flip
    contiguous clone alias to float double type_as shape shape_entry size numel dim zeros_like ones_like
"""
_SMOOTH = frozenset(_NAMES.split())


def may_jump(forward: Iterable[fx.Node]) -> bool:
    """Whether any operation of a forward pass on what has a gradient is one whose slope may jump, or is not known not to."""
    read: set[fx.Node] = set()
    for node in forward:
        if node.op == "placeholder":
            read |= {node} if differentiable(node) else set()
        elif not read.isdisjoint(node.all_input_nodes):
            if node.meta.get("operation") not in _SMOOTH:
                return True
            read |= {node} if is_tensor(node) else set()  # sizes are no function of the numbers
    return False
