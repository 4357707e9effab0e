"""What can be said of any step: how large its Jacobian is, why nobody builds it, what broadcasting did, and why
gradients of several readers are added."""

from __future__ import annotations

import math

import torch

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons.slopes import LETTERS, MINUS_ONE, place, slope
from chainrule.explain.shapes import stretched
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import Term
from chainrule.show.mathematics.term import (
    add,
    element,
    equation,
    matmul,
    name,
    number,
    partial,
    summed,
    transposed,
)

MOST = 4  # readers of a value that are named one by one


def listed(words: list[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def memory(entries: int, dtype: torch.dtype) -> str:
    """How much memory so many numbers take.

    >>> memory(2_000_000, torch.float32), memory(3, torch.float64)
    ('8 MB', '24 bytes')
    """
    size, units = float(entries * dtype.itemsize), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def axes_of(step: LocalStep, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The axes that a reduction goes over, from 0 on; all of them where the call names none."""
    node, dims = step.node, len(step.shape)
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", default)
    axes = range(dims) if given is None or given == () else given if isinstance(given, tuple | list) else (given,)
    return tuple(int(a) % max(dims, 1) for a in axes if isinstance(a, int))


def counted(count: int, thing: str) -> str:
    """
    >>> counted(1, "row"), counted(2500, "row")
    ('1 row', '2,500 rows')
    """
    return f"{count:,} {thing}{'s' if count != 1 else ''}"


def jacobian(step: LocalStep, entries: str = "") -> Paragraph:
    """The size of the Jacobian, and that only its product with the gradient that arrives is needed; `entries` says
    what is special about them."""
    rows, columns = math.prod(step.out_shape), math.prod(step.shape)
    value = step.node.meta["val"]
    size = memory(rows * columns, value.dtype if isinstance(value, torch.Tensor) else value[0].dtype)
    j = name("J")
    return Paragraph(
        ("All the slopes together are the Jacobian ", equation(j, partial(step.out, step.of)),
         f", with {counted(rows, 'row')} and {counted(columns, 'column')}, one for each element of ", step.out, " and of ",
         step.of, f": {size}. {entries + ' ' if entries else ''}It is never built, for the chain rule needs only its product "
         "with the gradient that arrives:"),
        "Jacobian",
        equation(step.result, matmul(transposed(j), step.upstream)),
    )  # fmt: skip


def passed_back(step: LocalStep) -> Paragraph:
    """The rule's own formula."""
    total = step.shares[0]
    for share in step.shares[1:]:
        total = add(total, share)
    return Paragraph(("Written out, the step is",), "Step", equation(step.result, total))


def again(step: LocalStep) -> Paragraph:
    """A step of a kind that has been explained."""
    written = passed_back(step)
    return Paragraph(("In the same way,",), written.title, written.display)


def broadcasting(step: LocalStep) -> list[Paragraph]:
    """Which axes were stretched forward and are therefore summed backward."""
    axes = stretched(step.shape, step.out_shape)
    if not step.elementwise or not axes:
        return []
    times = " × ".join(f"{step.out_shape[axis]:,}" for axis in axes)
    along = f"ax{'is' if len(axes) == 1 else 'es'} {listed([str(a) for a in axes])}"
    letters, own = LETTERS[: len(step.out_shape)], place(step.shape, step.out_shape)
    missing = len(step.out_shape) - len(step.shape)
    batch = " Axis 0 is the batch here: every example uses the same numbers." if axes[0] == 0 and missing else ""
    factor, sums = slope(step.shares[0], step.upstream), None
    if len(step.shares) == 1 and factor in (number(1), MINUS_ONE):
        share = summed("".join(letters[a] for a in axes), element(step.upstream, letters))
        sums = equation(element(step.result, own), share if factor == number(1) else Term("neg", (share,)))
    return [
        Paragraph(
            (step.of, f" has the shape {step.shape} and was stretched to {step.out_shape}: each of its elements is "
             f"used {times} times, along {along}. A number that is used several times gets the sum of what each use "
             f"passes back: what was stretched forward is summed backward, over the same axes.{batch}"),
            "Why the sum over the batch" if batch else "Why the sum", sums,
        )
    ]  # fmt: skip


def added(value: Term, result: Term, readers: list[tuple[Term, Term]]) -> Paragraph:
    """Why the gradients of several readers are added: `readers` are their results with the gradients of these."""
    pieces: list[str | Term] = [value, " is read in several places: by "]
    named = readers if len(readers) <= MOST else readers[: MOST - 1]
    for i, (reader, _) in enumerate(named):
        pieces += [(", " if i < len(readers) - 1 else " and ") if i else "", reader]
    pieces.append(f" and {len(readers) - len(named)} others" if len(named) < len(readers) else "")
    pieces.append(
        ". A small change of it reaches the loss on each of these paths, and small changes add up, so the gradients "
        "that come back along the paths are added"
    )
    shares = [matmul(transposed(partial(r, value)), g) for r, g in readers]
    total = shares[0]
    for share in shares[1:]:
        total = add(total, share)
    shown = equation(result, total) if len(readers) <= MOST else None
    return Paragraph(tuple(pieces), "Why gradients are added", shown)
