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


def axes_of(step: LocalStep) -> tuple[int, ...]:
    """The axes that a reduction goes over, from 0 on; all of them where the call names none."""
    dims, given = len(step.shape), step.given.get("dim")
    if given is None or given == () or isinstance(given, bool):
        return tuple(range(dims))
    axes = given if isinstance(given, tuple | list) else (given,)
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
        ("All the slopes of this operation together are its Jacobian ", equation(j, partial(step.out, step.of)),
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
    return Paragraph((f"As for the step through {step.operation} above,",), written.title, written.display)


def broadcasting(step: LocalStep) -> list[Paragraph]:
    """Which axes were stretched forward and are therefore summed backward."""
    axes = stretched(step.shape, step.out_shape)
    if not step.elementwise or not axes:
        return []
    times = " × ".join(f"{step.out_shape[axis]:,}" for axis in axes)
    along = f"ax{'is' if len(axes) == 1 else 'es'} {listed([str(a) for a in axes])}"
    letters, own = LETTERS[: len(step.out_shape)], place(step.shape, step.out_shape)
    missing = len(step.out_shape) - len(step.shape)
    if all(step.out_shape[axis] == 1 for axis in axes):
        return []  # an axis of size one was put in; the sum over it only brings the shape back
    batch = axes == [0] and missing > 0
    said = " Where axis 0 is the batch, every example uses the same numbers, and this is the sum over the batch."
    factor, sums = slope(step.shares[0], step.upstream), None
    if len(step.shares) == 1 and factor in (number(1), MINUS_ONE):
        share = summed("".join(letters[a] for a in axes), element(step.upstream, letters))
        sums = equation(element(step.result, own), share if factor == number(1) else Term("neg", (share,)))
    return [
        Paragraph(
            (step.of, f" has the shape {step.shape} and was stretched to {step.out_shape}: each of its elements is "
             f"used {times} times, along {along}. A number that is used several times gets the sum of what each use "
             f"passes back: what was stretched forward is summed backward, over the same axes.{said if batch else ''}"),
            "Why the sum over the rows" if batch else "Why the sum", sums,
        )
    ]  # fmt: skip


def added(readers: list[LocalStep]) -> Paragraph:
    """Why the gradients that come back through several readers of one value are added."""
    value, whole = readers[0].of, readers[0].result.parts[0]
    pieces: list[str | Term] = [value, " is read in several places: by "]
    named = readers if len(readers) <= MOST else readers[: MOST - 1]
    for i, step in enumerate(named):
        pieces += [(", " if i < len(readers) - 1 else " and ") if i else "", step.out]
    pieces.append(f" and {len(readers) - len(named)} others" if len(named) < len(readers) else "")
    pieces += [
        ". Written as ", readers[0].result, ", the share that comes back through ", readers[0].out, " is what the gradient would be "
        "if only that place were moved. A small change reaches the loss on each of the paths, and small changes add up, so the "
        "shares are added:",
    ]  # fmt: skip
    total = readers[0].result
    for step in readers[1:]:
        total = add(total, step.result)
    shown = equation(whole, total) if len(readers) <= MOST else None
    return Paragraph(tuple(pieces), "Why gradients are added", shown)
