"""Sums of products over shared axes. Each argument's gradient is the contraction of the upstream with the others."""

import string

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule
from chainrule.rules.broadcast import broadcast


@rule(
    torch.einsum,
    samples=["'ij,jk->ik', r(3, 4), r(4, 5)", "'bij,bkj->bik', r(2, 3, 4), r(2, 5, 4)", "'ij->j', r(3, 4)", "'ij,jk', r(3, 4), r(4, 5)",
             "'i,j->ij', r(3), r(4)", "'bhid,bhjd->bhij', r(2, 2, 3, 4), r(2, 2, 5, 4)", "'ij,ij->', r(3, 4), r(3, 4)",
             "'a,ab,b->', r(3), r(3, 4), r(4)", "'ij,jk->ik', r(3, 4), r(1, 5)", "'...i,ij->...j', r(2, 3, 4), r(4, 5)", "'ii->i', r(3, 3)",
             "'ii', r(3, 3)", "'iij,jkk->ki', r(3, 3, 4), r(4, 2, 2)", "'i...,...j->i...j', r(4, 2, 3), r(3, 5)", "'...ij->...', r(2, 3, 4)",
             "r(3, 4), [0, 1], r(4, 5), [1, 2], [0, 2]", "r(2, 3, 4), [..., 1], r(4, 5), [1, 2]", "'a, b -> b', [r(3), r(4)]"],
    note="the letters of an argument are what its gradient keeps; a repeated letter keeps the diagonal alone",
    holomorphic=True,
)  # fmt: skip
def einsum(out, equation, *operands):
    equation, operands = _as_text(equation, operands)
    terms, right, dots = _explicit(equation, operands)
    for k, x in enumerate(operands):
        others = [right, *(t for i, t in enumerate(terms) if i != k)]
        once = "".join(dict.fromkeys(terms[k]))
        kept = "".join(c for c in once if c in "".join(others))
        g = _contracted([*others, kept], dots, out.g, *(t for i, t in enumerate(operands) if i != k))
        for axis, letter in enumerate(once):
            if letter not in kept:
                g = g.unsqueeze(axis)
        whole = x if once == terms[k] else torch.einsum(f"{terms[k]}->{once}", x)
        g = _stretched(g, whole)
        x.g = g if whole is x else _on_the_diagonal(g, once, terms[k], x)


def _as_text(equation, operands):
    """The equation and the tensors, also where torch was given numbers: einsum(x, [0, 1], y, [1, 2], [0, 2])."""
    if isinstance(equation, str):
        grouped = len(operands) == 1 and isinstance(operands[0], list | tuple)
        return equation, tuple(operands[0]) if grouped else operands
    given = (equation, *operands)
    tensors = given[: len(given) // 2 * 2 : 2]
    named = ["".join("..." if i is ... else string.ascii_letters[26 + i if i < 26 else i - 26] for i in numbers)
             for numbers in (*given[1::2], *given[len(tensors) * 2 :])]  # fmt: skip
    return ",".join(named[: len(tensors)]) + "".join(f"->{t}" for t in named[len(tensors) :]), tensors


def _explicit(equation, operands):
    """The terms, the right-hand side, and the letters that were put in the place of the longest ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        right = "..." * ("..." in left) + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    hidden = [x.ndim - len(t) + 3 if "..." in t else 0 for t, x in zip(terms, operands, strict=True)]
    free = [c for c in string.ascii_letters if c not in equation]
    dots = "".join(free[: max(hidden)])
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, hidden, strict=True)]
    return terms, right.replace("...", dots), dots


def _contracted(terms, dots, *tensors):
    """torch.einsum with the ellipsis written again, where the terms have it whole or not at all."""
    if dots and all(dots in t or not set(dots) & set(t) for t in terms):
        terms = [t.replace(dots, "...") for t in terms]
    if len(tensors) == 1 and terms[0] == terms[1]:
        return tensors[0]
    return torch.einsum(",".join(terms[:-1]) + "->" + terms[-1], *tensors)


def _on_the_diagonal(g, once, term, x):
    """`g`, with one axis for each letter, as a tensor with the axes of `term` that is zero off the diagonals."""
    free = iter(c for c in string.ascii_letters if c not in term)
    seen, axes, diagonals = set(), "", []
    for letter in term:
        axes += next(free) if letter in seen else letter
        if letter in seen:
            diagonals.append(letter + axes[-1])
        seen.add(letter)
    eyes = [torch.eye(x.shape[term.index(pair[0])], dtype=g.dtype, device=g.device) for pair in diagonals]
    return torch.einsum(",".join([once, *diagonals]) + "->" + axes, g, *eyes)


@rule(torch.tensordot,
      samples=["r(2, 3, 4), r(3, 4, 5)", "r(3, 4), r(4, 5), 1", "r(3), r(4), 0", "r(2, 3, 4), r(4, 2, 5), ([2, 0], [0, 1])",
               "r(2, 3, 4), r(5, 4, 3), dims=([-1, 1], [1, 2])", "r(3, 4), r(5, 1), ([1], [1])", "r(4), r(4), ([0], [0])"],
      holomorphic=True)  # fmt: skip
def tensordot(out, a, b, dims=2):
    summed_a, summed_b = _axes(dims, a.ndim, b.ndim)
    free_a = [axis for axis in range(a.ndim) if axis not in summed_a]
    free_b = [axis for axis in range(b.ndim) if axis not in summed_b]
    last = list(range(len(free_a), len(free_a) + len(free_b)))
    g_a = torch.tensordot(out.g, b, (last, free_b))  # then the summed axes, in the order of b
    g_b = torch.tensordot(a, out.g, (free_a, list(range(len(free_a)))))  # the summed axes of a come first
    from_b = dict(zip(summed_a, [len(free_a) + sorted(summed_b).index(d) for d in summed_b], strict=True))
    from_a = dict(zip(summed_b, [sorted(summed_a).index(d) for d in summed_a], strict=True))
    order_a = [from_b[d] if d in from_b else free_a.index(d) for d in range(a.ndim)]
    order_b = [from_a[d] if d in from_a else len(from_a) + free_b.index(d) for d in range(b.ndim)]
    a.g = _stretched(_permuted(g_a, order_a), a)
    b.g = _stretched(_permuted(g_b, order_b), b)


def _axes(dims, ndim_a, ndim_b):
    if isinstance(dims, torch.Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        return list(range(ndim_a - dims, ndim_a)), list(range(dims))
    first, second = ([d] if isinstance(d, int) else d for d in dims)
    return [d % ndim_a for d in first], [d % ndim_b for d in second]


def _permuted(g, order):
    if order == sorted(order):
        return g
    return g.T if order == [1, 0] else g.permute(tuple(order))


def _stretched(g, x):
    """`g` for all of `x`, also along axes that met an axis of size one."""
    shape = broadcast(tuple(g.shape), tuple(x.shape))
    return g if shape == tuple(int(s) for s in g.shape) else g.expand(shape)


@rule(torch.inner, samples=["r(4), r(4)", "r(3, 4), r(4)", "r(4), r(3, 4)", "r(2, 3, 4), r(5, 4)", "r(), r(3)", "r(3, 4), r()"],
      holomorphic=True)  # fmt: skip
def inner(out, a, b):
    if a.ndim == 0 or b.ndim == 0:
        a.g, b.g = out.g * b, out.g * a
    else:
        a.g = torch.tensordot(out.g, b, b.ndim - 1)
        lead = list(range(a.ndim - 1))
        b.g = torch.tensordot(out.g, a, (lead, lead))


@rule(torch.kron, samples=["r(2, 3), r(4, 5)", "r(2), r(3)", "r(3), r(2, 4)", "r(2, 1, 3), r(4, 2)", "r(), r(2, 3)"],
      holomorphic=True, source="Van Loan (2000), The ubiquitous Kronecker product")  # fmt: skip
def kron(out, a, b):
    n = max(a.ndim, b.ndim)
    sizes_a, sizes_b = ([1] * (n - x.ndim) + list(x.shape) for x in (a, b))
    blocks = out.g.reshape([size for pair in zip(sizes_a, sizes_b, strict=True) for size in pair])
    across, within = tuple(range(0, 2 * n, 2)), tuple(range(1, 2 * n, 2))
    a.g = (blocks * b.reshape([size for s in sizes_b for size in (1, s)])).sum(within).reshape(a.shape)
    b.g = (blocks * a.reshape([size for s in sizes_a for size in (s, 1)])).sum(across).reshape(b.shape)


@rule(torch.linalg.vecdot, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)", "r(3, 4), r(3, 4), dim=0"])
def vecdot(out, x, y, dim=-1):
    g = out.g.unsqueeze(dim)
    x.g = _stretched(g * y, x)
    y.g = _stretched(g * x, y)


@rule(torch.addr, samples=["r(3, 4), r(3), r(4)", "r(4), r(3), r(4), beta=0.5, alpha=2"], holomorphic=True)
def addr(out, x, vec1, vec2, *, beta=1, alpha=1):
    g = out.g if alpha == 1 else alpha * out.g
    x.g = out.g if beta == 1 else beta * out.g
    vec1.g = g @ vec2
    vec2.g = g.T @ vec1


@rule(torch.addbmm, samples=["r(3, 5), r(2, 3, 4), r(2, 4, 5)", "r(5), r(2, 3, 4), r(2, 4, 5), beta=0.5, alpha=2"],
      holomorphic=True)  # fmt: skip
def addbmm(out, x, batch1, batch2, *, beta=1, alpha=1):
    g = out.g if alpha == 1 else alpha * out.g
    x.g = out.g if beta == 1 else beta * out.g
    batch1.g = g @ batch2.mT
    batch2.g = batch1.mT @ g


@rule(
    F.bilinear,
    samples=["r(3, 4), r(3, 5), r(2, 4, 5), r(2)", "r(4), r(5), r(2, 4, 5)", "r(2, 3, 4), r(2, 3, 5), r(2, 4, 5)"],
)
def bilinear(out, x1, x2, weight, bias=None):
    x1.g = torch.einsum("...k,kij,...j->...i", out.g, weight, x2)
    x2.g = torch.einsum("...k,kij,...i->...j", out.g, weight, x1)
    weight.g = torch.einsum("...k,...i,...j->kij", out.g, x1, x2)
    if bias is not None:
        bias.g = out.g


@rule(
    torch.linalg.cross,
    samples=["r(2, 3), r(2, 3)", "r(3, 4), r(3, 4), dim=0", "r(2, 3), r(1, 3), dim=-1"],
    holomorphic=True,
)
def linalg_cross(out, a, b, dim=-1):
    a.g = torch.linalg.cross(b, out.g, dim=dim)
    b.g = torch.linalg.cross(out.g, a, dim=dim)


@rule(torch.cross, samples=["r(2, 3), r(2, 3), 1", "r(3, 4), r(3, 4), dim=0"],
      note="without `dim`, along the first axis of size three", holomorphic=True)  # fmt: skip
def cross(out, a, b, dim=None):
    if dim is None:
        dim = 0
        while out.shape[dim] != 3:
            dim += 1
    linalg_cross(out, a, b, dim)
