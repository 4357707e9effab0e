"""Mathematics as numbers: what a term says, computed from the values that its names stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.show.mathematics import Term


class NotComputed(Exception):
    """A sign that is not computed here, or a name that is not known."""


@dataclass
class Indexed:
    """A tensor, and a letter for each of its axes; None where it stands for all of its elements at once."""

    value: Tensor
    letters: str | None = None


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "σ": torch.sigmoid,
    "exp": torch.exp, "log": torch.log, "tanh": torch.tanh, "sin": torch.sin, "tan": torch.tan, "sinh": torch.sinh, "cosh": torch.cosh, "ln": torch.log, "digamma": torch.digamma, "ψ": torch.digamma, "sqrt": torch.sqrt, "cos": torch.cos, "sign": torch.sign,
    "clamp_min": torch.clamp_min, "relu": torch.relu, "erf": torch.erf, "log1p": torch.log1p,
    "clamp": torch.clamp,
}  # fmt: skip
_COMPARED = {">": torch.gt, "≥": torch.ge, "<": torch.lt, "≤": torch.le, "=": torch.eq, "≠": torch.ne}
_ALONG = {"softmax": torch.softmax, "log_softmax": torch.log_softmax, "cumsum": torch.cumsum}
_OVER = {"Σ": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin}


def holds(equation: Term, names: Mapping[str, Tensor]) -> bool:
    """Whether both sides of an equation have the same numbers; NotComputed where it holds what is not known here.

    Mathematics does not say whether a sum keeps its axis; it must come out in one of the two ways.
    """
    reasons: list[Exception] = []
    for keepdim in (True, False):
        try:
            if _same(*_sides(equation, names, keepdim)):
                return True
        except (RuntimeError, IndexError, AssertionError) as error:  # shapes or indices that do not fit
            reasons.append(error)
    if len(reasons) == 2 and any(isinstance(error, AssertionError) for error in reasons):
        raise reasons[0]
    if len(reasons) == 2:
        raise NotComputed(str(reasons))
    return False


def value_of(term: Term, names: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Indexed | None:
    """What `term` stands for; None where it holds what is not known here. `sizes` are those of the indices, for
    [i = j], and of N, the number of terms that are averaged."""
    try:
        return _Evaluation(names, False, sizes).of(term)
    except NotComputed:
        return None


def spread(value: Indexed, letters: str, like: Tensor) -> Tensor:
    """A value in the axes that are called `letters`, of the sizes of `like`."""
    if not value.letters:
        return value.value.expand(like.shape)
    order = sorted(value.letters, key=letters.index)
    moved = torch.einsum(f"{value.letters}->{''.join(order)}", value.value)
    return moved.reshape([n if c in order else 1 for c, n in zip(letters, like.shape, strict=True)]).expand(like.shape)


def _same(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape and left.numel() == right.numel():
        right = right.reshape(left.shape)
    left, right = torch.broadcast_tensors(left, right)
    kind = torch.complex128 if left.is_complex() or right.is_complex() else torch.float64
    single = torch.float32 in (left.dtype, right.dtype)
    near = 1e-5 if single else 1e-9
    return torch.allclose(left.to(kind), right.to(kind), rtol=near, atol=near, equal_nan=True)


def _sides(equation: Term, names: Mapping[str, Tensor], keepdim: bool) -> tuple[Tensor, Tensor]:
    """Both sides, with their axes in the same order."""
    left, right = (_Evaluation(names, keepdim).of(part) for part in equation.parts)
    if left.letters is not None and right.letters is not None and left.letters != right.letters:
        left, right = _aligned(left, right)
    return left.value, right.value


class _Evaluation:
    def __init__(self, names: Mapping[str, Tensor], keepdim: bool, sizes: Mapping[str, int] | None = None) -> None:
        self.names, self.keepdim, self.sizes = names, keepdim, sizes or {}

    def of(self, term: Term) -> Indexed:
        if term.sign in ("name", "gradient"):
            known = self.names.get(term.variable or term.text)
            if known is None:
                raise NotComputed(term.text)
            return _element(Indexed(known), "".join(term.axes)) if term.axes else Indexed(known)
        method = getattr(self, f"{term.sign}_" if term.sign in ("and", "or") else term.sign, None)
        if method is None:
            raise NotComputed(term.sign)
        return method(term)

    def number(self, term: Term) -> Indexed:
        text = term.text.replace("−", "-")
        known = {"π": math.pi, "∞": math.inf}.get(text)
        try:
            return Indexed(torch.tensor(known if known is not None else float(text), dtype=torch.float64))
        except ValueError:
            raise NotComputed(text) from None

    def element(self, term: Term) -> Indexed:
        return _element(self.of(term.parts[0]), term.text)

    def series(self, term: Term) -> Indexed:
        body = self.of(term.parts[0])
        if body.letters is None or not set(term.text) <= set(body.letters):
            raise NotComputed(term.text)
        kept = "".join(c for c in body.letters if c not in term.text)
        return Indexed(torch.einsum(f"{body.letters}->{kept}", body.value), kept)

    def parens(self, term: Term) -> Indexed:
        return self.of(term.parts[0])

    indicator = parens

    def _together(self, terms: Sequence[Term], function: Callable[..., Tensor]) -> Indexed:
        """An elementwise function of values that have the same axes, or are numbers."""
        found = [self.of(term) for term in terms]
        if all(f.letters is None for f in found):
            return Indexed(function(*(f.value for f in found)))
        found = _aligned(*found)
        return Indexed(function(*(f.value for f in found)), found[0].letters)

    def _two(self, term: Term, function: Callable[[Tensor, Tensor], Tensor]) -> Indexed:
        return self._together(term.parts, function)

    def add(self, term: Term) -> Indexed:
        return self._two(term, torch.add)

    def sub(self, term: Term) -> Indexed:
        return self._two(term, torch.sub)

    def hadamard(self, term: Term) -> Indexed:
        return self._two(term, torch.mul)

    scale = dot = hadamard

    def div(self, term: Term) -> Indexed:
        return self._two(term, torch.true_divide)

    def power(self, term: Term) -> Indexed:
        return self._two(term, torch.pow)

    def or_(self, term: Term) -> Indexed:
        return self._two(term, torch.logical_or)

    def and_(self, term: Term) -> Indexed:
        return self._two(term, torch.logical_and)

    def letter(self, term: Term) -> Indexed:
        if term.text != "N" or "N" not in self.sizes:
            raise NotComputed(term.text)
        return Indexed(torch.tensor(float(self.sizes["N"]), dtype=torch.float64))

    def compare(self, term: Term) -> Indexed:
        indices = "".join(part.text for part in term.parts if part.sign == "letter")
        if len(indices) == 2 and term.text == "=" and set(indices) <= set(self.sizes):
            return Indexed(torch.eye(*(self.sizes[c] for c in indices), dtype=torch.float64), indices)
        return self._two(term, _COMPARED[term.text])

    def matmul(self, term: Term) -> Indexed:
        left, right = self._whole(term.parts[0]), self._whole(term.parts[1])
        return Indexed(left @ right)

    def neg(self, term: Term) -> Indexed:
        return self._together(term.parts, torch.neg)

    def inverse(self, term: Term) -> Indexed:
        return Indexed(torch.linalg.inv(self._whole(term.parts[0])))

    def floor(self, term: Term) -> Indexed:
        return Indexed(self._whole(term.parts[0]).floor())

    def abs(self, term: Term) -> Indexed:
        return self._together(term.parts, torch.abs)

    def sqrt(self, term: Term) -> Indexed:
        return self._together(term.parts, torch.sqrt)

    def transpose(self, term: Term) -> Indexed:
        inner = self._whole(term.parts[0])
        return Indexed(inner if inner.ndim < 2 else inner.mT)

    def cases(self, term: Term) -> Indexed:
        return self._together(term.parts, lambda v, c, o: torch.where(c.bool(), v.double(), o.double()))

    def size(self, term: Term) -> Indexed:
        return Indexed(torch.tensor(float(self._whole(term.parts[0]).shape[int(term.axes[0])]), dtype=torch.float64))

    def index(self, term: Term) -> Indexed:
        base, *indices = term.parts
        return Indexed(self._whole(base)[tuple(self._index(i) for i in indices)])

    def _index(self, term: Term) -> object:
        if term.sign == "word" and term.text in ("None", "..."):
            return None if term.text == "None" else ...
        if term.sign == "slice":
            return slice(*(None if p.text == "" else int(self.of(p).value) for p in term.parts))
        if term.sign == "number":
            return int(term.text.replace("−", "-"))
        found = self._whole(term)
        return found if found.ndim else int(found)

    def big(self, term: Term) -> Indexed:
        return self.over(term)

    def over(self, term: Term) -> Indexed:
        if term.text not in {*_OVER, *_ALONG, "σ"} or len(term.parts) > 1:
            raise NotComputed(term.text)
        if term.text == "σ":
            return self._together(term.parts, torch.sigmoid)
        body = self._whole(term.parts[0])
        axes = tuple(int(a) for a in term.axes)
        if term.text in _ALONG:
            return Indexed(_ALONG[term.text](body, axes[0]))
        return Indexed(_OVER[term.text](body, axes, keepdim=self.keepdim) if axes else _OVER[term.text](body))

    def call(self, term: Term) -> Indexed:
        if term.text == "size":
            return Indexed(torch.tensor(float(self._whole(term.parts[0]).numel()), dtype=torch.float64))
        if term.text not in _FUNCTIONS or any(p.sign == "keyword" for p in term.parts):
            raise NotComputed(term.text)
        return self._together(term.parts, _FUNCTIONS[term.text])

    def _whole(self, term: Term) -> Tensor:
        found = self.of(term)
        if found.letters is not None:
            raise NotComputed("an element")
        return found.value


def _element(of: Indexed, letters: str) -> Indexed:
    if len(letters) != of.value.ndim:
        raise AssertionError(f"{letters} does not index a tensor of shape {tuple(of.value.shape)}")
    for axis in reversed([i for i, c in enumerate(letters) if c == "0"]):
        of = Indexed(of.value.select(axis, 0))
    return Indexed(of.value, letters.replace("0", ""))


def _aligned(*values: Indexed) -> list[Indexed]:
    """All with the same axes, in the same order."""
    sizes: dict[str, int] = {}
    for value in values:
        if value.letters is None and value.value.ndim:
            raise NotComputed("an element beside a whole")
        for letter, size in zip(value.letters or "", value.value.shape, strict=True):
            assert sizes.setdefault(letter, size) == size, f"the index {letter} has two sizes"
    order = "".join(sorted(sizes))
    like = torch.empty([sizes[c] for c in order], dtype=torch.float64)
    return [Indexed(spread(Indexed(v.value, v.letters or ""), order, like), order) for v in values]
