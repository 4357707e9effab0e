"""Cholesky, QR, LU, eigen- and singular value decompositions, and products of reflections."""

import torch

from chainrule.rules.book import opening, reached, rule

MURRAY = "Murray (2016), Differentiation of the Cholesky decomposition"
QR = "Walter & Lehmann (2010), Algorithmic differentiation of linear algebra functions"
EIGEN = "Giles (2008), An extended collection of matrix derivative results; Boeddeker et al. (2017)"
SVD = "Townsend (2016), Differentiating the singular value decomposition"
SPD = ["s(3, 3)", "s(2, 3, 3)"]


def _h(x):
    """The conjugate transpose, spelled as the transpose that it is for real numbers."""
    return x.mH if x.dtype.is_complex else x.mT


@rule(torch.linalg.cholesky, samples=[*SPD, "s(3, 3), upper=True"], source=MURRAY, complex=True,
      note="the matrix is taken for symmetric, and so is its gradient")  # fmt: skip
def cholesky(out, x, upper=False):
    L, g = (_h(out), _h(out.g)) if upper else (out, out.g)
    lower = (_h(L) @ g).tril()
    symmetric = (lower + _h(lower.tril(-1))) / 2
    half = torch.linalg.solve_triangular(_h(L), symmetric, upper=True)
    x.g = torch.linalg.solve_triangular(L, half, upper=False, left=False)


@opening(torch.cholesky, torch.Tensor.cholesky)
def old_cholesky(input, upper=False):
    return torch.linalg.cholesky(input, upper=upper)


@rule(torch.linalg.cholesky_ex, samples=SPD, source=MURRAY, complex=True,
      note="the matrix is taken for symmetric, and so is its gradient")  # fmt: skip
def cholesky_ex(out, x, upper=False, check_errors=False):
    L, _ = out
    cholesky(L, x, upper)


@rule(
    torch.linalg.qr,
    samples=["r(3, 3)", "r(4, 3)", "r(3, 4)", "r(2, 4, 3)", "r(2, 3, 4), 'complete'"],
    source=QR,
    complex=True,
)
def qr(out, x, mode="reduced"):
    Q, R = out
    Q_g, R_g = _given(Q), _given(R)
    k = Q.shape[-1]
    if R.shape[-1] <= R.shape[-2]:
        x.g = _square_qr(Q, R, Q_g, R_g)
    elif R_g is None:
        x.g = torch.cat([_square_qr(Q, R[..., :k], Q_g, None), torch.zeros_like(x[..., k:])], -1)
    else:  # x = [Q R1, Q R2], and Q comes from the first
        g1, g2 = R_g[..., :k], R_g[..., k:]
        Q_g = Q @ R[..., k:] @ _h(g2) if Q_g is None else Q_g + Q @ R[..., k:] @ _h(g2)
        x.g = torch.cat([_square_qr(Q, R[..., :k], Q_g, g1), Q @ g2], -1)


def _square_qr(Q, R, Q_g, R_g):
    if R_g is None:
        towards = -_h(Q) @ Q_g
    else:
        towards = R_g @ _h(R) if Q_g is None else R_g @ _h(R) - _h(Q) @ Q_g
    symmetric = towards.triu() + _h(towards.triu(1))
    if Q.dtype.is_complex:  # the diagonal of R is real
        symmetric = (symmetric + symmetric.mH) / 2
    total = Q @ symmetric if Q_g is None else Q @ symmetric + Q_g
    return torch.linalg.solve_triangular(_h(R), total, upper=False, left=False)


def _given(part):
    """The gradient of one of several results; None where the program does not go on from it."""
    return part.g if reached(part) else None


@opening(torch.qr, torch.Tensor.qr)
def old_qr(input, some=True):
    return torch.return_types.qr(torch.linalg.qr(input, "reduced" if some else "complete"))


@rule(torch.linalg.lu, samples=["r(3, 3)", "r(4, 3)", "r(3, 5)", "r(2, 3, 3)"], source=QR, holomorphic=True,
      note="the permutation is constant")  # fmt: skip
def lu(out, x, *, pivot=True):
    P, L, U = out
    g = _lu_step(L, U, L.g, U.g)
    x.g = P @ g if pivot else g


def _lu_step(L, U, L_g, U_g):
    """The gradient of L @ U: a square block, and beside or below it the rest, which is solved for as it stands."""
    rows, columns = L.shape[-2], U.shape[-1]
    if rows < columns:
        U1, U2, g1, g2 = U[..., :rows], U[..., rows:], U_g[..., :rows], U_g[..., rows:]
        beside = torch.linalg.solve_triangular(L.mT, g2, upper=True, unitriangular=True)
        return torch.cat([_square_lu(L, U1, L.mT @ L_g - g2 @ U2.mT, g1 @ U1.mT), beside], -1)
    if rows > columns:
        L1, L2, g1, g2 = L[..., :columns, :], L[..., columns:, :], L_g[..., :columns, :], L_g[..., columns:, :]
        below = torch.linalg.solve_triangular(U.mT, g2, upper=False, left=False)
        return torch.cat([_square_lu(L1, U, L1.mT @ g1, U_g @ U.mT - L2.mT @ g2), below], -2)
    return _square_lu(L, U, L.mT @ L_g, U_g @ U.mT)


def _square_lu(L, U, towards_L, towards_U):
    inner = towards_L.tril(-1) + towards_U.triu()
    left = torch.linalg.solve_triangular(L.mT, inner, upper=True, unitriangular=True)
    return torch.linalg.solve_triangular(U.mT, left, upper=False, left=False)


@rule(torch.linalg.lu_factor, samples=["r(3, 3)", "r(4, 3)", "r(3, 5)", "r(2, 3, 3)"], source=QR, holomorphic=True,
      note="L and U share one matrix; the permutation is constant")  # fmt: skip
def lu_factor(out, x, *, pivot=True):
    LU, pivots = out[:2]
    P, L, U = torch.lu_unpack(LU, pivots)
    k = L.shape[-1]
    x.g = P @ _lu_step(L, U, LU.g[..., :k], LU.g[..., : U.shape[-2], :])


@rule(torch.linalg.lu_factor_ex, samples=["r(3, 3)", "r(4, 3)"], source=QR, holomorphic=True,
      note="L and U share one matrix; the permutation is constant")  # fmt: skip
def lu_factor_ex(out, x, *, pivot=True, check_errors=False):
    lu_factor(out, x, pivot=pivot)


@opening(torch._lu_with_info)
def old_lu(input, pivot=True, check_errors=True):
    return torch.linalg.lu_factor_ex(input, pivot=pivot, check_errors=check_errors)


@rule(torch.lu_unpack, samples=["*torch.linalg.lu_factor(r(3, 3))", "*torch.linalg.lu_factor(r(4, 3))", "*torch.linalg.lu_factor(r(3, 5))",
                                "*torch.linalg.lu_factor(r(2, 3, 3)), unpack_pivots=False"],
      holomorphic=True)  # fmt: skip
def lu_unpack(out, LU, pivots, unpack_data=True, unpack_pivots=True):
    _, L, U = out
    rows, columns, k = LU.shape[-2], LU.shape[-1], min(LU.shape[-2:])
    below, above = L.g.tril(-1), U.g.triu()
    if columns > k:
        below = torch.cat([below, torch.zeros_like(LU[..., k:])], -1)
    if rows > k:
        above = torch.cat([above, torch.zeros_like(LU[..., k:, :])], -2)
    LU.g = below + above


def _differences(L):
    """L[j] - L[i] off the diagonal, and one on it."""
    return torch.diagonal_scatter(L.unsqueeze(-2) - L.unsqueeze(-1), torch.ones_like(L), dim1=-2, dim2=-1)


def _skew(m):
    return m - _h(m)


@rule(torch.linalg.eigh, samples=SPD, source=EIGEN, complex=True,
      note="the matrix is taken for symmetric; equal eigenvalues have no eigenvectors of their own")  # fmt: skip
def eigh(out, x, UPLO="L"):
    L, V = out
    if not reached(V):
        x.g = _eigenvalues(V, L.g)
        return
    inner = _skew(_h(V) @ V.g) / (2 * _differences(L))
    x.g = V @ (inner + torch.diag_embed(L.g) if reached(L) else inner) @ _h(V)


def _eigenvalues(V, g):
    return V * g.unsqueeze(-2) @ _h(V)


@rule(torch.linalg.eigvalsh, samples=SPD, source=EIGEN, complex=True, note="the matrix is taken for symmetric")
def eigvalsh(out, x, UPLO="L"):
    _, V = torch.linalg.eigh(x, UPLO)
    x.g = _eigenvalues(V, out.g)


@rule(torch.linalg.eig, samples=["r(3, 3)", "r(2, 3, 3)"], source=EIGEN, complex=True,
      note="each eigenvector has length one; its phase is arbitrary, and what depends on it has no gradient")  # fmt: skip
def eig(out, x):
    L, V = out
    if not reached(V):
        x.g = torch.linalg.solve(V.mH, L.g.unsqueeze(-1) * V.mH)
        return
    towards = V.mH @ V.g
    lengths = towards.diagonal(dim1=-2, dim2=-1).real  # a longer eigenvector is scaled back
    inner = (towards - V.mH @ (V * lengths.unsqueeze(-2))) / _differences(L).conj()
    x.g = torch.linalg.solve(V.mH, (inner + torch.diag_embed(L.g) if reached(L) else inner) @ V.mH)


@rule(torch.linalg.eigvals, samples=["r(3, 3)", "r(2, 3, 3)"], source=EIGEN, complex=True)
def eigvals(out, x):
    _, V = torch.linalg.eig(x)
    x.g = torch.linalg.solve(V.mH, out.g.unsqueeze(-1) * V.mH)


@rule(torch.linalg.svd, samples=["r(3, 3), False", "r(4, 3), False", "r(2, 3, 5), full_matrices=False"], source=SVD, complex=True,
      note="equal singular values have no singular vectors of their own; vectors that full_matrices adds have no gradient")  # fmt: skip
def svd(out, x, full_matrices=True, *, driver=None):
    U, S, Vh = out
    U_g, S_g, Vh_g = _given(U), _given(S), _given(Vh)
    k, tall, wide = S.shape[-1], x.shape[-2] > S.shape[-1], x.shape[-1] > S.shape[-1]
    if full_matrices and tall:
        U, U_g = U[..., :k], None if U_g is None else U_g[..., :k]
    if full_matrices and wide:
        Vh, Vh_g = Vh[..., :k, :], None if Vh_g is None else Vh_g[..., :k, :]
    if U_g is None and Vh_g is None:
        x.g = _singular_values(U, Vh, S_g)
        return
    turns = []
    if U_g is not None:
        turn = _skew(_h(U) @ U_g)
        turns.append(turn * S.unsqueeze(-2))
    if Vh_g is not None:
        turns.append(S.unsqueeze(-1) * _skew(Vh @ _h(Vh_g)))
    inner = sum(turns[1:], turns[0]) / _differences(S * S)
    if S_g is not None:
        inner = inner + torch.diag_embed(S_g)
    if len(turns) == 2 and U.dtype.is_complex:  # a common phase of two singular vectors is free
        inner = inner + torch.diag_embed(turn.diagonal(dim1=-2, dim2=-1) / (2 * S))
    x_g = U @ inner @ Vh
    if U_g is not None and tall:
        outside = U_g / S.unsqueeze(-2)
        x_g = x_g + (outside - U @ _h(U) @ outside) @ Vh
    if Vh_g is not None and wide:
        outside = Vh_g / S.unsqueeze(-1)
        x_g = x_g + U @ (outside - outside @ _h(Vh) @ Vh)
    x.g = x_g


def _singular_values(U, Vh, g):
    return (U * g.unsqueeze(-2)) @ Vh


@rule(torch.linalg.svdvals, samples=["r(3, 3)", "r(4, 3)", "r(2, 3, 5)"], source=SVD, complex=True)
def svdvals(out, x, *, driver=None):
    U, _, Vh = torch.linalg.svd(x, full_matrices=False)
    x.g = _singular_values(U, Vh, out.g)


@opening(torch.svd, torch.Tensor.svd)
def old_svd(input, some=True, compute_uv=True):
    if compute_uv:
        U, S, Vh = torch.linalg.svd(input, full_matrices=not some)
        return torch.return_types.svd((U, S, _h(Vh)))
    m, n = input.shape[-2:]
    zeros = [input.new_zeros((*input.shape[:-2], size, size)) for size in (m, n)]
    return torch.return_types.svd((zeros[0], torch.linalg.svdvals(input), zeros[1]))


def _reflections(A, tau):
    """V and T, so that the product of the reflections 1 - tau v v' is 1 - V T V'."""
    V = A[..., : tau.shape[-1]].tril(-1) + torch.eye(A.shape[-2], tau.shape[-1], dtype=A.dtype, device=A.device)
    mixed = tau.unsqueeze(-1) * (_h(V) @ V).triu(1)
    scales = torch.eye(tau.shape[-1], dtype=A.dtype, device=A.device) * tau.unsqueeze(-2)
    return V, torch.linalg.solve_triangular(mixed, scales, upper=True, unitriangular=True)


@opening(torch.linalg.householder_product, torch.orgqr, torch.Tensor.orgqr)
def householder_product(A, tau):
    """Joffrain et al. (2006), Accumulating Householder transformations, revisited."""
    V, T = _reflections(A, tau)
    eye = torch.eye(A.shape[-2], A.shape[-1], dtype=A.dtype, device=A.device)
    return eye - V @ T @ _h(V[..., : A.shape[-1], :])


@opening(torch.ormqr, torch.Tensor.ormqr)
def ormqr(input, tau, other, left=True, transpose=False):
    V, T = _reflections(input, tau)
    T = _h(T) if transpose else T
    return other - V @ (T @ (_h(V) @ other)) if left else other - (other @ V) @ T @ _h(V)
