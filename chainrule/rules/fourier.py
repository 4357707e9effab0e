"""Fourier transforms: linear, so each backward step is the conjugate-transposed transform, which is a transform again.

The matrix of the discrete Fourier transform is symmetric, so its conjugate transpose is the inverse transform but for
the factor 1/n, which belongs to the direction that `norm` names: hence `_swapped`.
"""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule

ONE = [
    "r(3, 5)",
    "z(3, 4)",
    "z(3, 5), 6",
    "r(4, 3), n=2, dim=0",
    "z(3, 4), None, 0, 'ortho'",
    "r(3, 4), norm='forward'",
]
TWO = ["r(3, 5)", "z(2, 3, 4)", "z(3, 5), (4, 3)", "r(4, 3, 2), s=(2, 4), dim=(0, 1)", "z(3, 4), norm='ortho'"]
MANY = [*TWO, "r(2, 3, 4), dim=(0, 2)", "z(5)", "r(2, 3, 4), (2, 5)", "r(3, 4), (-1, 3), (0, 1)"]
ONE_REAL, TWO_REAL, MANY_REAL = ([s.replace("z(", "r(") for s in samples] for samples in (ONE, TWO, MANY))


def _swapped(norm):
    """The norm under which the inverse transform is the conjugate transpose."""
    return {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}[norm]


def _axes(x, s, dim):
    """The transformed axes, and their lengths (None where those of `x` are kept)."""
    s, dim = [s] if isinstance(s, int) else s, [dim] if isinstance(dim, int) else dim
    if dim is None:
        dim = range(-x.ndim if s is None else -len(s), 0)
    lengths = [None if n == -1 else n for n in s] if s is not None else [None for _ in dim]
    return tuple(dim), lengths


def _lengths(x, axes, lengths):
    return tuple(x.shape[axis] if n is None else n for axis, n in zip(axes, lengths, strict=True))


def _fitted(g, x, axes, lengths):
    """`g`, cut where the transform filled `x` with zeros, and filled with zeros where it cut `x`."""
    if all(n is None for n in lengths):
        return g
    pads = [0] * (2 * x.ndim)
    for axis, n in zip(axes, lengths, strict=True):
        if n is not None:
            pads[2 * (-axis - 1 if axis < 0 else x.ndim - 1 - axis) + 1] = x.shape[axis] - n
    return F.pad(g, pads)


def _doubled(g, dim, n):
    """`g`, with the frequencies doubled that stand for their mirror images too: all but 0 and n / 2."""
    count = (n - 1) // 2
    return torch.slice_scatter(g, 2 * g.narrow(dim, 1, count), dim, 1, 1 + count)


@rule(torch.fft.fft, samples=ONE, complex=True)
def fft(out, x, n=None, dim=-1, norm=None):
    x.g = _fitted(torch.fft.ifft(out.g, dim=dim, norm=_swapped(norm)), x, [dim], [n])


@rule(torch.fft.ifft, samples=ONE, complex=True)
def ifft(out, x, n=None, dim=-1, norm=None):
    x.g = _fitted(torch.fft.fft(out.g, dim=dim, norm=_swapped(norm)), x, [dim], [n])


@rule(torch.fft.fftn, samples=MANY, complex=True)
def fftn(out, x, s=None, dim=None, norm=None):
    axes, lengths = _axes(x, s, dim)
    x.g = _fitted(torch.fft.ifftn(out.g, dim=axes, norm=_swapped(norm)), x, axes, lengths)


@rule(torch.fft.fft2, samples=TWO, complex=True)
def fft2(out, x, s=None, dim=(-2, -1), norm=None):
    fftn(out, x, s, dim, norm)


@rule(torch.fft.ifftn, samples=MANY, complex=True)
def ifftn(out, x, s=None, dim=None, norm=None):
    axes, lengths = _axes(x, s, dim)
    x.g = _fitted(torch.fft.fftn(out.g, dim=axes, norm=_swapped(norm)), x, axes, lengths)


@rule(torch.fft.ifft2, samples=TWO, complex=True)
def ifft2(out, x, s=None, dim=(-2, -1), norm=None):
    ifftn(out, x, s, dim, norm)


HALF = "half of the frequencies are kept; the others count as zeros"


@rule(torch.fft.rfft, samples=ONE_REAL, complex=True, note=HALF)
def rfft(out, x, n=None, dim=-1, norm=None):
    g = torch.fft.ifft(out.g, x.shape[dim] if n is None else n, dim, _swapped(norm))
    x.g = _fitted(g.real, x, [dim], [n])


@rule(torch.fft.ihfft, samples=ONE_REAL, complex=True, note=HALF)
def ihfft(out, x, n=None, dim=-1, norm=None):
    g = torch.fft.fft(out.g, x.shape[dim] if n is None else n, dim, _swapped(norm))
    x.g = _fitted(g.real, x, [dim], [n])


@rule(torch.fft.rfftn, samples=MANY_REAL, complex=True, note=HALF)
def rfftn(out, x, s=None, dim=None, norm=None):
    axes, lengths = _axes(x, s, dim)
    g = torch.fft.ifftn(out.g, _lengths(x, axes, lengths), axes, _swapped(norm))
    x.g = _fitted(g.real, x, axes, lengths)


@rule(torch.fft.rfft2, samples=TWO_REAL, complex=True, note=HALF)
def rfft2(out, x, s=None, dim=(-2, -1), norm=None):
    rfftn(out, x, s, dim, norm)


@rule(torch.fft.ihfftn, samples=MANY_REAL, complex=True, note=HALF)
def ihfftn(out, x, s=None, dim=None, norm=None):
    axes, lengths = _axes(x, s, dim)
    g = torch.fft.fftn(out.g, _lengths(x, axes, lengths), axes, _swapped(norm))
    x.g = _fitted(g.real, x, axes, lengths)


@rule(torch.fft.ihfft2, samples=TWO_REAL, complex=True, note=HALF)
def ihfft2(out, x, s=None, dim=(-2, -1), norm=None):
    ihfftn(out, x, s, dim, norm)


TWICE = "each frequency but 0 and n / 2 stands for its mirror image too, and counts twice"


@rule(torch.fft.irfft, samples=ONE, complex=True, note=TWICE)
def irfft(out, z, n=None, dim=-1, norm=None):
    g = _doubled(torch.fft.rfft(out.g, dim=dim, norm=_swapped(norm)), dim, out.shape[dim])
    z.g = _fitted(g, z, [dim], [None if n is None else g.shape[dim]])


@rule(torch.fft.hfft, samples=ONE, complex=True, note=TWICE)
def hfft(out, z, n=None, dim=-1, norm=None):
    g = _doubled(torch.fft.ihfft(out.g, dim=dim, norm=_swapped(norm)), dim, out.shape[dim])
    z.g = _fitted(g, z, [dim], [None if n is None else g.shape[dim]])


@rule(torch.fft.irfftn, samples=MANY, complex=True, note=TWICE)
def irfftn(out, z, s=None, dim=None, norm=None):
    axes, lengths = _axes(z, s, dim)
    g = _doubled(torch.fft.rfftn(out.g, dim=axes, norm=_swapped(norm)), axes[-1], out.shape[axes[-1]])
    z.g = _fitted(g, z, axes, [*lengths[:-1], None if lengths[-1] is None else g.shape[axes[-1]]])


@rule(torch.fft.irfft2, samples=TWO, complex=True, note=TWICE)
def irfft2(out, z, s=None, dim=(-2, -1), norm=None):
    irfftn(out, z, s, dim, norm)


@rule(torch.fft.hfftn, samples=MANY, complex=True, note=TWICE)
def hfftn(out, z, s=None, dim=None, norm=None):
    axes, lengths = _axes(z, s, dim)
    g = _doubled(torch.fft.ihfftn(out.g, dim=axes, norm=_swapped(norm)), axes[-1], out.shape[axes[-1]])
    z.g = _fitted(g, z, axes, [*lengths[:-1], None if lengths[-1] is None else g.shape[axes[-1]]])


@rule(torch.fft.hfft2, samples=TWO, complex=True, note=TWICE)
def hfft2(out, z, s=None, dim=(-2, -1), norm=None):
    hfftn(out, z, s, dim, norm)


@rule(torch.fft.fftshift, samples=["r(4, 5)", "z(5), 0", "r(3, 4, 5), dim=(0, 2)"], complex=True)
def fftshift(out, x, dim=None):
    x.g = torch.fft.ifftshift(out.g, dim)


@rule(torch.fft.ifftshift, samples=["r(4, 5)", "z(5), 0", "r(3, 4, 5), dim=(0, 2)"], complex=True)
def ifftshift(out, x, dim=None):
    x.g = torch.fft.fftshift(out.g, dim)


@opening(torch.stft)
def stft(
    input,
    n_fft,
    hop_length=None,
    win_length=None,
    window=None,
    center=True,
    pad_mode="reflect",
    normalized=False,
    onesided=None,
    return_complex=None,
    align_to_window=None,
):
    window = _window(input, window, win_length, n_fft)
    if align_to_window and win_length:
        input = F.pad(input, ((n_fft - win_length) // 2, n_fft - win_length - (n_fft - win_length) // 2))
    if center:
        wide = input if input.ndim > 1 else input.unsqueeze(0)  # F.pad reflects batches only
        input = F.pad(wide, (n_fft // 2, n_fft // 2), mode=pad_mode).reshape((*input.shape[:-1], -1))
    frames = input.unfold(-1, n_fft, hop_length or n_fft // 4)
    whole = onesided is False or frames.is_complex() or (window is not None and window.is_complex())
    transform = torch.fft.fft if whole else torch.fft.rfft
    spectrum = transform(frames if window is None else frames * window, norm="ortho" if normalized else None)
    return spectrum.mT if return_complex or return_complex is None else torch.view_as_real(spectrum.mT)


@opening(torch.istft)
def istft(
    input,
    n_fft,
    hop_length=None,
    win_length=None,
    window=None,
    center=True,
    normalized=False,
    onesided=None,
    length=None,
    return_complex=False,
):
    hop, norm = hop_length or n_fft // 4, "ortho" if normalized else None
    if return_complex:
        frames = torch.fft.ifft(input.mT, norm=norm)
    else:
        half = input if onesided or input.shape[-2] == n_fft // 2 + 1 else input.narrow(-2, 0, n_fft // 2 + 1)
        frames = torch.fft.irfft(half.mT, n_fft, norm=norm)
    window = _window(frames, window, win_length, n_fft)
    if window is None:
        window = torch.ones(n_fft, dtype=frames.dtype, device=frames.device)
    count = input.shape[-1]
    places = (torch.arange(count, device=input.device) * hop).unsqueeze(-1) + torch.arange(n_fft, device=input.device)
    summed = _overlapped(frames * window, places, n_fft + hop * (count - 1))
    weight = _overlapped((window**2).expand((count, n_fft)), places, n_fft + hop * (count - 1))
    start = n_fft // 2 if center else 0
    end = summed.shape[-1] - start if length is None else start + length
    y = summed[..., start:end] / weight[start:end]
    missing = 0 if length is None else length - y.shape[-1]
    return F.pad(y, (0, missing)) if missing > 0 else y


def _window(x, window, win_length, n_fft):
    """The window in the middle of `n_fft` places; None where it is one everywhere."""
    missing = n_fft - (win_length or n_fft)
    if missing and window is None:
        window = torch.ones(win_length, dtype=x.dtype, device=x.device)
    return F.pad(window, (missing // 2, missing - missing // 2)) if missing else window


def _overlapped(frames, places, size):
    """The frames added up, each at its place."""
    zeros = torch.zeros((*frames.shape[:-2], size), dtype=frames.dtype, device=frames.device)
    return zeros.index_add(-1, places.flatten(), frames.flatten(-2))
