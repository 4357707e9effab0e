"""Inverses and the solutions of linear systems: backward the transposed system is solved."""

import torch

from chainrule.rules.book import opening, rule
from chainrule.rules.linear_algebra import GILES

GOLUB = "Golub & Pereyra (1973), The differentiation of pseudo-inverses and nonlinear least squares problems"
REGULAR = "r(3, 3) + 3 * torch.eye(3, dtype=torch.float64)"


@rule(torch.linalg.inv, torch.inverse, samples=[REGULAR, "r(2, 3, 3)", "p(1, 1)"], source=GILES, holomorphic=True)
def inv(out, x):
    x.g = -out.mT @ out.g @ out.mT


@rule(torch.linalg.inv_ex, samples=[REGULAR], source=GILES, holomorphic=True)
def inv_ex(out, x, check_errors=False):
    inverse, _ = out
    inv(inverse, x)


@rule(torch.linalg.solve, samples=[f"{REGULAR}, r(3, 2)", "r(3, 3), r(3)", "r(2, 3, 3), r(3, 4)", "r(2, 3, 3), r(2, 3)", "r(3, 3), r(2, 3), left=False",
                                   "r(2, 3, 3), r(4, 3), left=False"],
      source=GILES, holomorphic=True)  # fmt: skip
def solve(out, a, b, left=True):
    b.g = torch.linalg.solve(a.mT, out.g) if left else torch.linalg.solve(a.mT, out.g, left=False)
    if _is_vector(b, a):
        a.g = -b.g.unsqueeze(-1) * out.unsqueeze(-2)
    else:
        a.g = -b.g @ out.mT if left else -out.mT @ b.g


def _is_vector(b, a):
    """Whether torch takes `b` for a vector, or a batch of vectors."""
    return b.ndim == 1 or (b.ndim == a.ndim - 1 and [int(s) for s in b.shape] == [int(s) for s in a.shape[:-1]])


@rule(
    torch.linalg.solve_ex,
    samples=[f"{REGULAR}, r(3, 2)", "r(3, 3), r(2, 3), left=False"],
    source=GILES,
    holomorphic=True,
)
def solve_ex(out, a, b, left=True, check_errors=False):
    result, _ = out
    solve(result, a, b, left)


@rule(torch.linalg.solve_triangular,
      samples=["r(3, 3), r(3, 2), upper=True", "r(3, 3), r(3, 2), upper=False, unitriangular=True", "r(2, 3, 3), r(4, 3), upper=False, left=False"],
      source=GILES, holomorphic=True, note="only the triangle that is read has a gradient")  # fmt: skip
def solve_triangular(out, a, b, *, upper, left=True, unitriangular=False):
    how = ({} if left else {"left": False}) | ({"unitriangular": True} if unitriangular else {})
    b.g = torch.linalg.solve_triangular(a.mT, out.g, upper=not upper, **how)
    g = -b.g @ out.mT if left else -out.mT @ b.g
    if unitriangular:
        a.g = g.triu(1) if upper else g.tril(-1)
    else:
        a.g = g.triu() if upper else g.tril()


@opening(torch.triangular_solve, torch.Tensor.triangular_solve)
def triangular_solve(b, A, upper=True, transpose=False, unitriangular=False):
    a = A.mT if transpose else A
    solution = torch.linalg.solve_triangular(a, b, upper=upper != transpose, unitriangular=unitriangular)
    batch = (*solution.shape[:-2], *A.shape[-2:])
    return torch.return_types.triangular_solve((solution, A.expand(batch).clone()))


@rule(torch.cholesky_solve, samples=["r(3, 2), l(3, 3)", "r(2, 3, 2), l(2, 3, 3)", "r(3, 2), l(3, 3).mT, upper=True", "r(3, 2), l(2, 3, 3)"],
      note="the factor is taken for triangular: nothing is cut off its gradient", source=GILES)  # fmt: skip
def cholesky_solve(out, b, L, upper=False):
    b.g = torch.cholesky_solve(out.g, L, upper)
    both = b.g @ out.mT
    both = both + both.mT
    L.g = -L @ both if upper else -both @ L


@rule(torch.cholesky_inverse, samples=["l(3, 3)", "l(2, 3, 3)", "l(3, 3).mT, upper=True"],
      note="the factor is taken for triangular: nothing is cut off its gradient", source=GILES)  # fmt: skip
def cholesky_inverse(out, L, upper=False):
    both = out @ (out.g + out.g.mT) @ out
    L.g = -L @ both if upper else -both @ L


@rule(torch.linalg.lu_solve,
      samples=[f"*torch.linalg.lu_factor({REGULAR}), r(3, 2)", f"*torch.linalg.lu_factor({REGULAR}), r(2, 3), left=False",
               "*torch.linalg.lu_factor(r(2, 3, 3)), r(2, 3, 4), adjoint=True", "*torch.linalg.lu_factor(r(2, 3, 3)), r(4, 3), left=False, adjoint=True"],
      note="the gradient of A = P L U first, from there those of the triangles L and U")  # fmt: skip
def lu_solve(out, LU, pivots, B, *, left=True, adjoint=False):
    P, L, U = torch.lu_unpack(LU, pivots)
    how = ({} if left else {"left": False}) | ({} if adjoint else {"adjoint": True})
    B.g = torch.linalg.lu_solve(LU, pivots, out.g, **how)
    first, second = (B.g, out.mT) if left else (out.mT, B.g)
    A_g = -(first @ second).mT if adjoint else -first @ second
    inner = P.mT @ A_g
    LU.g = (inner @ U.mT).tril(-1) + (L.mT @ inner).triu()


@opening(torch.lu_solve, torch.Tensor.lu_solve)
def lu_solve_reordered(input, LU_data, LU_pivots):
    return torch.linalg.lu_solve(LU_data, LU_pivots, input)


def _pseudo_inverted(g, out, x):
    return -out.mT @ g @ out.mT + (g.mT - x @ out @ g.mT) @ out @ out.mT + out.mT @ out @ (g.mT - g.mT @ out @ x)


@rule(torch.linalg.pinv, samples=["r(3, 4)", "r(4, 3)", "r(2, 3, 3)", "r(3, 4), rtol=1e-12", "s(3, 3), hermitian=True"],
      source=GOLUB, note="as long as the rank stays the same")  # fmt: skip
@rule(torch.pinverse, samples=["r(3, 4)"], source=GOLUB, note="as long as the rank stays the same")
def pinv(out, x, rcond=None, hermitian=False, *, atol=None, rtol=None):
    x.g = _pseudo_inverted(out.g, out, x)
    for tolerance in (rcond, atol, rtol):
        if isinstance(tolerance, torch.Tensor):
            tolerance.g = None


@rule(torch.linalg.lstsq, samples=["r(4, 3), r(4, 2)", "r(3, 4), r(3, 2)", "r(2, 4, 3), r(2, 4)", "r(3, 3), r(3, 2)"],
      source=GOLUB, note="the solution is pinv(a) @ b, the residuals are the squares of a @ x - b")  # fmt: skip
def lstsq(out, a, b, rcond=None, *, driver=None):
    solution, residuals, _, _ = out
    vector = _is_vector(b, a)
    x, g, target = (t.unsqueeze(-1) if vector else t for t in (solution, solution.g, b))
    inverse = torch.linalg.pinv(a)
    a.g = _pseudo_inverted(g @ target.mT, inverse, a)
    b_g = inverse.mT @ g
    if residuals.numel():
        towards = 2 * residuals.g.unsqueeze(-2) * (a @ x - target)
        a.g = a.g + towards @ x.mT
        b_g = b_g - towards
    b.g = b_g.squeeze(-1) if vector else b_g


@opening(torch.linalg.tensorinv)
def tensorinv(A, ind=2):
    rows, columns = A.shape[:ind], A.shape[ind:]
    return torch.linalg.inv(A.reshape(rows.numel(), columns.numel())).reshape(columns + rows)


@opening(torch.linalg.tensorsolve)
def tensorsolve(A, B, dims=None):
    if dims is not None:
        last = [axis % A.ndim for axis in dims]
        A = A.permute([axis for axis in range(A.ndim) if axis not in last] + last)
    unknown = A.shape[B.ndim :]
    return torch.linalg.solve(A.reshape(B.numel(), unknown.numel()), B.flatten()).reshape(unknown)
