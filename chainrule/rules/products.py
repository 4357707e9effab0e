"""Matrix products. The gradient of a product is the upstream gradient times the other operand, transposed."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule


def _t(x):
    return x.T if x.ndim == 2 else x.mT


@rule(
    torch.matmul,
    samples=["r(3, 4), r(4, 5)", "r(4), r(4)", "r(4), r(4, 5)", "r(3, 4), r(4)", "r(2, 3, 4), r(4, 5)", "r(2, 3, 4), r(4)",
             "r(4), r(2, 4, 5)", "r(2, 3, 4), r(2, 4, 5)", "r(3, 4), r(2, 4, 5)", "r(2, 1, 3, 4), r(5, 4, 2)", "r(1, 4), r(4, 1)",
             "r(0, 4), r(4, 5)"], holomorphic=True,
)  # fmt: skip
def matmul(out, a, b):
    if a.ndim == 1 and b.ndim == 1:
        a.g = out.g * b
        b.g = out.g * a
    elif a.ndim == 1:
        a.g = (b @ out.g.unsqueeze(-1)).squeeze(-1)
        b.g = a.unsqueeze(-1) * out.g.unsqueeze(-2)
    elif b.ndim == 1:
        a.g = out.g.unsqueeze(-1) * b
        b.g = a.T @ out.g if a.ndim == 2 else a.flatten(0, -2).T @ out.g.flatten()
    else:
        a.g = out.g @ _t(b)
        b.g = _t(a) @ out.g if a.ndim == 2 or b.ndim > 2 else a.flatten(0, -2).T @ out.g.flatten(0, -2)


@rule(torch.mm, samples=["r(3, 4), r(4, 5)"], holomorphic=True)
def mm(out, a, b):
    a.g = out.g @ b.T
    b.g = a.T @ out.g


@rule(torch.bmm, samples=["r(2, 3, 4), r(2, 4, 5)"], holomorphic=True)
def bmm(out, a, b):
    a.g = out.g @ b.mT
    b.g = a.mT @ out.g


@rule(torch.mv, samples=["r(3, 4), r(4)"], holomorphic=True)
def mv(out, a, b):
    a.g = out.g.unsqueeze(-1) * b
    b.g = a.T @ out.g


@rule(torch.dot, samples=["r(4), r(4)"], holomorphic=True)
def dot(out, a, b):
    a.g = out.g * b
    b.g = out.g * a


@rule(torch.outer, samples=["r(3), r(4)"], holomorphic=True)
def outer(out, a, b):
    a.g = out.g @ b
    b.g = out.g.T @ a


@rule(
    F.linear,
    samples=["r(3, 4), r(5, 4), r(5)", "r(3, 4), r(5, 4)", "r(4), r(5, 4), r(5)", "r(2, 3, 4), r(5, 4), r(5)",
             "r(3, 4), r(5, 4), r()", "r(4), r(4), r()", "r(3, 4), r(4)", "r(2, 3, 4), r(4), r()"],
    holomorphic=True,
)  # fmt: skip
def linear(out, x, weight, bias=None):
    if weight.ndim == 1:
        matmul(out, x, weight)
    else:
        x.g = out.g @ weight
        if x.ndim == 1:
            weight.g = torch.outer(out.g, x)
        elif x.ndim == 2:
            weight.g = out.g.T @ x
        else:
            weight.g = out.g.flatten(0, -2).T @ x.flatten(0, -2)
    if bias is not None:
        bias.g = out.g


@rule(torch.addmv, samples=["r(3), r(3, 4), r(4)", "r(3), r(3, 4), r(4), beta=0.5, alpha=2"], holomorphic=True)
@rule(torch.addmm, samples=["r(5), r(3, 4), r(4, 5)", "r(3, 5), r(3, 4), r(4, 5), beta=0.5, alpha=2"], holomorphic=True)
def addmm(out, c, a, b, *, beta=1, alpha=1):
    g = out.g if alpha == 1 else alpha * out.g
    c.g = out.g if beta == 1 else beta * out.g
    a.g = g @ b.T if b.ndim == 2 else g.unsqueeze(-1) * b
    b.g = a.T @ g


@rule(
    torch.baddbmm,
    samples=["r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)", "r(5), r(2, 3, 4), r(2, 4, 5), alpha=2"],
    holomorphic=True,
)
def baddbmm(out, c, a, b, *, beta=1, alpha=1):
    g = out.g if alpha == 1 else alpha * out.g
    c.g = out.g if beta == 1 else beta * out.g
    a.g = g @ b.mT
    b.g = a.mT @ g
