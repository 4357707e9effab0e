"""Linear algebra and Fourier transforms, in the words of NumPy."""

from __future__ import annotations

from typing import Any

from chainrule.show.numpy_words import OPERATIONS, Library, Spelling, axes, spelled
from chainrule.show.terms import known, rank


def _linalg(name: str) -> Spelling:
    return lambda np, x: getattr(np.linalg, name)(x)


_MATRIX = {
    "linalg_inv": "inv", "inverse": "inv", "linalg_det": "det", "det": "det", "linalg_slogdet": "slogdet",
    "slogdet": "slogdet", "linalg_cholesky": "cholesky", "linalg_eigh": "eigh", "linalg_eigvalsh": "eigvalsh",
    "linalg_eig": "eig", "linalg_eigvals": "eigvals", "linalg_pinv": "pinv", "pinverse": "pinv",
    "linalg_multi_dot": "multi_dot",
}  # fmt: skip
OPERATIONS |= {name: _linalg(theirs) for name, theirs in _MATRIX.items()}
OPERATIONS |= {
    "logdet": lambda np, x: np.linalg.slogdet(x)[1],
    "linalg_svdvals": lambda np, x: np.linalg.svd(x, compute_uv=False),
    "linalg_qr": lambda np, x, mode="reduced": np.linalg.qr(x, **({"mode": mode} if mode != "reduced" else {})),
    "linalg_matrix_power": lambda np, x, n: np.linalg.matrix_power(x, n),
    "matrix_power": lambda np, x, n: np.linalg.matrix_power(x, n),
    "H": lambda np, x: x.conj().T,
    "mH": lambda np, x: x.conj().swapaxes(-1, -2),
    "adjoint": lambda np, x: x.conj().swapaxes(-1, -2),
    "conj_physical": lambda np, x: x.conj(),
    "polar": lambda np, r, angle: r * np.exp(1j * angle),
    "view_as_real": lambda np, x: np.stack([x.real, x.imag], axis=-1),
    "view_as_complex": lambda np, x: x[..., 0] + 1j * x[..., 1],
    "complex": lambda np, re, im: re + 1j * im,
    "inner": lambda np, x, y: np.inner(x, y),
    "vdot": lambda np, x, y: np.vdot(x, y),
    "linalg_vecdot": lambda np, x, y, dim=-1: (x.conj() * y).sum(axis=dim),
    "addr": lambda np, x, a, b, beta=1, alpha=1: x + np.outer(a, b) if beta == alpha == 1 else NotImplemented,
    "bilinear": lambda np, x, y, w, b=None: _added(np.einsum("...i,oij,...j->...o", x, w, y), b),
    "linalg_cross": lambda np, x, y, dim=-1: np.cross(x, y, axis=dim),
    "linalg_diagonal": lambda np, x, offset=0, dim1=-2, dim2=-1: x.diagonal(offset, dim1, dim2),
}  # fmt: skip


def _added(x: Any, bias: Any) -> Any:
    return x if bias is None else x + bias


@spelled("tensordot")
def tensordot(np: Library, x: Any, y: Any, dims: Any = 2) -> Any:
    if isinstance(dims, tuple | list):
        shapes = known(x).shape, known(y).shape
        if any(shapes[0][i] != shapes[1][j] for i, j in zip(*dims, strict=True)):  # torch stretches sizes of one
            return NotImplemented
    return np.tensordot(x, y, axes=dims)


@spelled("linalg_solve")
def solve(np: Library, a: Any, b: Any, left: bool = True) -> Any:
    """Of one vector or of matrices; several vectors in one array are matrices to NumPy."""
    return np.linalg.solve(a, b) if left and rank(b) in (1, rank(a)) else NotImplemented


@spelled("linalg_solve_triangular")
def solve_triangular(np: Library, a: Any, b: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    if unitriangular:
        return NotImplemented
    triangle = np.triu(a) if upper else np.tril(a)
    return np.linalg.solve(triangle, b) if left else flipped(np.linalg.solve(flipped(triangle), flipped(b)))


def flipped(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _transform(name: str, many: bool) -> Spelling:
    def spelling(np: Library, x: Any, n: Any = None, dim: Any = None, norm: Any = None) -> Any:
        how = {"s" if many else "n": n, "axes" if many else "axis": axes(dim) if not many else dim, "norm": norm}
        usual = None if many else -1
        said = {k: v for k, v in how.items() if v is not None and (k != "axis" or v != usual)}
        return getattr(np.fft, name)(x, **said) if not many or n is None or dim is not None else NotImplemented

    return spelling


def _shifted(name: str) -> Spelling:
    return lambda np, x, dim=None: getattr(np.fft, name)(x, **({"axes": axes(dim)} if dim is not None else {}))


for _name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    OPERATIONS[f"fft_{_name}"] = _transform(_name, many=False)
for _name in ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"):
    OPERATIONS[f"fft_{_name}"] = _transform(_name, many=True)
for _name in ("fftshift", "ifftshift"):
    OPERATIONS[f"fft_{_name}"] = _shifted(_name)
