"""What can be said of any step: how large its Jacobian is, why nobody builds it, what broadcasting did, and why
gradients of several readers are added."""

from __future__ import annotations

import math

import torch

from chainrule.explain.local import LocalStep
from chainrule.explain.shapes import stretched
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import Term
from chainrule.show.mathematics.term import (
    add,
    element,
    equation,
    letter,
    matmul,
    name,
    partial,
    scale,
    summed,
    transposed,
)  # fmt: skip

ROWS = "ijklpqrs"  # the letters of indices, those of sums last


def listed(words: list[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def memory(entries: int, dtype: torch.dtype) -> str:
    """How much memory so many numbers take.

    >>> memory(2_000_000, torch.float32)
    '8 MB'
    """
    size = float(entries * dtype.itemsize)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def jacobian(step: LocalStep, entries: str = "") -> Paragraph:
    """The size of the Jacobian, and that the product with the upstream gradient is all that is needed; `entries`
    says what is special about them."""
    rows, columns = math.prod(step.out_shape), math.prod(step.shape)
    size = memory(rows * columns, step.node.meta["val"].dtype if isinstance(step.node.meta["val"], torch.Tensor)
                  else torch.float32)  # fmt: skip
    j = name("J")
    return Paragraph(
        ("The Jacobian ", equation(j, partial(step.out, step.of)), f" has a row for each of the {rows:,} elements of ",
         step.out, f" and a column for each of the {columns:,} of ", step.of,
         f": {rows:,} × {columns:,} numbers, {size}. ", f"{entries} " if entries else "",
         "Nobody builds it: the chain rule needs only its product with the gradient that arrives,"),
        "Jacobian",
        equation(step.result, matmul(transposed(j), step.upstream)),
    )  # fmt: skip


def passed_back(step: LocalStep) -> Paragraph:
    """The rule's own formula."""
    total = step.shares[0]
    for share in step.shares[1:]:
        total = add(total, share)
    return Paragraph(("The rule passes back",), "Step", equation(step.result, total))


def broadcasting(step: LocalStep) -> list[Paragraph]:
    """Which axes were stretched forward and are therefore summed backward."""
    axes = stretched(step.shape, step.out_shape)
    if not axes:
        return []
    sizes = [step.out_shape[axis] for axis in axes]
    along = f"ax{'is' if len(axes) == 1 else 'es'} {listed([str(a) for a in axes])}"
    times = " × ".join(f"{n:,}" for n in sizes)
    letters = ROWS[: len(step.out_shape)]
    missing = len(step.out_shape) - len(step.shape)
    own = "".join(letters[i] for i in range(missing, len(letters)) if i not in axes)
    over = "".join(letters[a] for a in axes)
    inside = element(step.upstream, letters) if step.upstream.sign == "gradient" else step.upstream
    return [
        Paragraph(
            (step.of, f" has the shape {step.shape} and was stretched to {step.out_shape}: each of its elements is used "
             f"{times} times along {along}. A number that is used several times gets the sum of what each use "
             "passes back, so what was stretched forward is summed backward over the same axes"
             + (" (axis 0 is the batch: every example uses the same numbers)" if axes == [0] and len(step.shape) < 2 else ""),),
            "Broadcasting",
            equation(element(step.result, own), summed(over, inside))
            if step.operation in ("add", "sub") and inside.sign == "partial" and step.result.sign == "gradient" else None,
        )
    ]  # fmt: skip


def added(value: Term, readers: list[Term]) -> Paragraph:
    """Why the gradients of several readers are added."""
    pieces: list[str | Term] = [value, " is read in several places: by "]
    for i, reader in enumerate(readers):
        pieces += [(", " if i < len(readers) - 1 else " and ") if i else "", reader]
    pieces.append(
        ". A small change of it reaches the loss on each of these paths, and small changes add up, so the gradients "
        "that come back along the paths are added"
    )
    shares = [matmul(transposed(partial(r, value)), Term("towards", (r.tight(10),))) for r in readers]
    total = shares[0]
    for share in shares[1:]:
        total = add(total, share)
    return Paragraph(tuple(pieces), "Paths meet", equation(Term("towards", (value,)), total))


__all__ = ["added", "broadcasting", "jacobian", "letter", "passed_back", "scale"]
