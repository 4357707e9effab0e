"""Running sums, products and extremes, differences, and integrals by trapezoids."""

import torch

from chainrule.recording.indices import FULL
from chainrule.rules.book import assume_size, opening, rule


@rule(torch.cumsum, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(5), -1"], complex=True)
def cumsum(out, x, dim, dtype=None):
    x.g = out.g.flip(dim).cumsum(dim).flip(dim)


@rule(torch.cumprod, samples=["p(3, 4), 1", "p(5), 0", "r(4) * m(4), 0", "r(), 0"],
      note="the products of the other elements are formed, n * n of them, so that zeros are no trouble", holomorphic=True)  # fmt: skip
def cumprod(out, x, dim, dtype=None):
    if not x.ndim:
        x.g = out.g
        return
    values, g = x.movedim(dim, -1).unsqueeze(-1), out.g.movedim(dim, -1).unsqueeze(-2)
    n = x.shape[dim]
    itself = torch.eye(n, dtype=torch.bool, device=x.device)
    others = values.transpose(-1, -2).expand((*values.shape[:-1], n)).masked_fill(itself, 1).cumprod(-1)
    x.g = (g * others.triu()).sum(-1).movedim(-1, dim)


@rule(torch.cummax, torch.cummin, samples=["r(3, 4), 1", "i(3, 4, 5).double(), 0", "r(), 0"],
      note="the gradient goes to the index that is given: of equal extremes, the last")  # fmt: skip
def cummax(out, x, dim):
    values, indices = out
    x.g = torch.zeros_like(x).scatter_add(dim, indices, values.g)


@rule(torch.logcumsumexp, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(5), -1", "r(), 0"],
      note="the sum over later outputs is taken in logarithms, apart for either sign, so that it cannot overflow")  # fmt: skip
def logcumsumexp(out, x, dim):
    up, down = out.g.clamp_min(0).log(), (-out.g).clamp_min(0).log()
    x.g = (x + _from_the_end(up - out, dim)).exp() - (x + _from_the_end(down - out, dim)).exp()


def _from_the_end(x, dim):
    return x.flip(dim).logcumsumexp(dim).flip(dim)


@rule(torch.diff, samples=["r(3, 4)", "r(3, 4), 1, 0", "r(3, 5), n=2", "r(3, 4), dim=0, prepend=r(2, 4), append=r(1, 4)", "r(3, 4), 5", "r(3, 4), 0", "r(3, 4), 0, prepend=r(3, 1)"],
      note="the backward step of a difference is minus the difference, with zeros before and after", complex=True)  # fmt: skip
def diff(out, x, n=1, dim=-1, prepend=None, append=None):
    empty = not int(out.shape[dim])
    if empty:  # more differences than elements
        assume_size(out, dim, 0)
    if empty or n == 0:
        x.g = torch.zeros_like(x) if empty else out.g
        for end in (prepend, append):
            if end is not None:
                end.g = torch.zeros_like(end)
        return
    g = out.g
    zero = torch.zeros_like(out.g.narrow(dim, 0, 1))
    for _ in range(n):
        g = -torch.diff(g, dim=dim, prepend=zero, append=zero)
    before = 0
    if prepend is not None:
        before = prepend.shape[dim]
        prepend.g = g.narrow(dim, 0, before)
    if append is not None:
        append.g = g.narrow(dim, before + x.shape[dim], append.shape[dim])
    x.g = g if prepend is None and append is None else g.narrow(dim, before, x.shape[dim])


@opening(torch.trapezoid, torch.trapz)
def trapezoid(y, x=None, *, dx=1, dim=-1):
    return _doubled_areas(y, x, dx, dim).sum(dim) / 2


@opening(torch.cumulative_trapezoid)
def cumulative_trapezoid(y, x=None, *, dx=1, dim=-1):
    return _doubled_areas(y, x, dx, dim).cumsum(dim) / 2


def _doubled_areas(y, x, dx, dim):
    dim = dim % y.ndim
    heights = _part(y, dim, 1, None) + _part(y, dim, None, -1)
    if x is None:
        return heights if dx == 1 else heights * dx
    if x.ndim == 1:
        x = x.reshape(_along(dim, y.ndim))
    elif x.ndim < y.ndim:
        x = x.reshape((1,) * (y.ndim - x.ndim) + x.shape)
    return (_part(x, dim, 1, None) - _part(x, dim, None, -1)) * heights


def _part(x, dim, start, stop):
    return x[(*(FULL,) * dim, slice(start, stop))]


def _along(dim, ndim):
    """The shape of a vector that lies along `dim`."""
    return tuple(-1 if axis == dim else 1 for axis in range(ndim))


@opening(torch.gradient)
def gradient(input, *, spacing=None, dim=None, edge_order=1):
    spacing = 1 if spacing is None else spacing
    dims = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    spacings = spacing if isinstance(spacing, tuple | list) else (spacing,) * len(dims)
    return tuple(_slope(input, h, d % input.ndim, edge_order) for h, d in zip(spacings, dims, strict=True))


def _slope(f, spacing, dim, edge_order):
    """Second-order finite differences inside, and of `edge_order` at both ends (Fornberg, 1988)."""
    a, b, c = _part(f, dim, None, -2), _part(f, dim, 1, -1), _part(f, dim, 2, None)
    if isinstance(spacing, torch.Tensor) and spacing.ndim:  # where the points are
        steps = spacing[1:] - spacing[:-1]
        left, right = (s.reshape(_along(dim, f.ndim)) for s in (steps[:-1], steps[1:]))
        first, last = steps[0], steps[-1]
        second, before_last = (steps[1], steps[-2]) if edge_order == 2 else (None, None)
        inside = _weighted((a, b, c), _weights(left, right, 1))
    else:
        first = second = last = before_last = spacing
        inside = (c - a) / (2 * spacing)
    if edge_order == 1:
        start = _over(_part(f, dim, 1, 2) - _part(f, dim, 0, 1), first)
        end = _over(_part(f, dim, -1, None) - _part(f, dim, -2, -1), last)
    else:
        head = [_part(f, dim, k, k + 1) for k in range(3)]
        tail = [_part(f, dim, k, k + 1 or None) for k in (-3, -2, -1)]
        start = _weighted(head, _weights(first, second, 0))
        end = _weighted(tail, _weights(before_last, last, 2))
    return torch.cat([start, inside, end], dim)


def _over(x, step):
    return x if isinstance(step, int) and step == 1 else x / step


def _weighted(values, weights):
    return values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2]


def _weights(h, k, at):
    """What three points, `h` and `k` apart, contribute to the slope at the first, the middle or the last."""
    whole = h + k
    if at == 0:
        return -(h + whole) / (h * whole), whole / (h * k), -h / (k * whole)
    if at == 1:
        return -k / (h * whole), (k - h) / (h * k), h / (k * whole)
    return k / (h * whole), -whole / (h * k), (k + whole) / (k * whole)
