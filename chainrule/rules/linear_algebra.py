"""Determinants, powers, exponentials and products of matrices, traces."""

import torch

from chainrule.rules.book import constant, rule
from chainrule.rules.diagonals import diagonal

GILES = "Giles (2008), An extended collection of matrix derivative results"
BLOCKS = (
    "Mathias (1996), A chain rule for matrix functions: f of [[A, E], [0, A]] has the derivative of f in its corner"
)


@rule(torch.linalg.det, torch.det, samples=["r(3, 3)", "r(2, 3, 3)", "r(1, 1)", "torch.diag(p(3)) * torch.tensor([1.0, 1.0, 1e-9])"],
      note="out.g times the matrix of cofactors, from the singular values that remain: right where no inverse exists",
      source=GILES)  # fmt: skip
def det(out, x):
    U, S, Vh = torch.linalg.svd(x)
    others = torch.diagonal_scatter(S.unsqueeze(-2).expand_as(x), torch.ones_like(S), dim1=-2, dim2=-1).prod(-1)
    sign = torch.linalg.det(U @ Vh)
    x.g = (U * ((out.g * sign).unsqueeze(-1) * others).unsqueeze(-2)) @ Vh


@rule(torch.logdet, samples=["torch.eye(3, dtype=torch.float64) + 0.3 * r(3, 3)", "torch.eye(3, dtype=torch.float64) + 0.2 * r(2, 3, 3)"],
      source=GILES, holomorphic=True)  # fmt: skip
def logdet(out, x):
    x.g = out.g.unsqueeze(-1).unsqueeze(-1) * torch.linalg.inv(x).mT


@rule(torch.linalg.slogdet, torch.slogdet, samples=["r(3, 3)", "r(2, 3, 3)"], source=GILES, note="the sign is constant")
def slogdet(out, x):
    _, logabsdet = out
    logdet(logabsdet, x)


def _corner(f, x, g):
    """The upper right block of f([[x.mT, g], [0, x.mT]])."""
    n = x.shape[-1]
    upper, lower = torch.cat([x.mT, g], -1), torch.cat([torch.zeros_like(x), x.mT], -1)
    return f(torch.cat([upper, lower], -2))[..., :n, n:]


@rule(
    torch.linalg.matrix_exp,
    torch.matrix_exp,
    samples=["r(3, 3)", "r(2, 3, 3)", "r(1, 1)"],
    source=BLOCKS,
    holomorphic=True,
)
def matrix_exp(out, x):
    x.g = _corner(torch.linalg.matrix_exp, x, out.g)


@rule(torch.linalg.matrix_power, torch.matrix_power, samples=["r(3, 3), 2", "r(3, 3), 5", "r(2, 3, 3), -2", "r(3, 3), 1", "r(3, 3), 0"],
      source=BLOCKS, holomorphic=True)  # fmt: skip
def matrix_power(out, x, n):
    if n == 2:
        x.g = out.g @ x.mT + x.mT @ out.g
    else:
        x.g = _corner(lambda blocks: torch.linalg.matrix_power(blocks, n), x, out.g)


@rule(torch.linalg.multi_dot,
      samples=["[r(3, 4), r(4, 5)]", "[r(3, 4), r(4, 5), r(5, 2)]", "[r(4), r(4, 5), r(5, 2)]", "[r(3, 4), r(4, 5), r(5, 2), r(2)]", "[r(4), r(4, 5), r(5)]",
               "[r(4), r(4)]"],
      note="what stands before, transposed, times out.g, times what stands after, transposed", holomorphic=True)  # fmt: skip
def multi_dot(out, tensors):
    first, last = tensors[0], tensors[-1]
    g = out.g.unsqueeze(0) if first.ndim == 1 else out.g
    g = g.unsqueeze(-1) if last.ndim == 1 else g
    matrices = [
        first.unsqueeze(0) if first.ndim == 1 else first,
        *tensors[1:-1],
        last.unsqueeze(-1) if last.ndim == 1 else last,
    ]
    for i, x in enumerate(tensors):
        before, after = matrices[:i], matrices[i + 1 :]
        x.g = torch.linalg.multi_dot([*(m.T for m in before[::-1]), g, *(m.T for m in after[::-1])]).reshape(x.shape)


@rule(torch.trace, samples=["r(3, 3)", "r(3, 4)"], holomorphic=True)
def trace(out, x):
    x.g = out.g * torch.eye(x.shape[0], x.shape[1], dtype=x.dtype, device=x.device)


@rule(
    torch.linalg.diagonal, samples=["r(3, 4)", "r(2, 3, 4), offset=1", "r(2, 3, 4), dim1=0, dim2=1"], holomorphic=True
)
def linalg_diagonal(out, x, *, offset=0, dim1=-2, dim2=-1):
    diagonal(out, x, offset, dim1, dim2)


@rule(torch.linalg.vander, samples=["r(4)", "r(2, 3), N=5"], note="x ** k has the slope k * x ** (k - 1), the column before",
      holomorphic=True)  # fmt: skip
def vander(out, x, *, N=None):
    last = x.shape[-1] if N is None else N
    x.g = (out.g[..., 1:] * torch.arange(1, last, device=x.device) * out[..., :-1]).sum(-1)


constant(torch.linalg.matrix_rank, why="gives counts")
