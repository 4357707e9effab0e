"""What emitted autograd Functions keep for their backward pass: little, and all that it reads."""

from __future__ import annotations

import ast
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import Leaves, assert_close, namespace_of
from programs import FAMILIES, random_program
from sweeps import of_today
from test_zoo import OTHER_BATCHES, case, every_entry, smooth_entries
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.bench.works import WORKS, Work
from chainrule.checking.examples import Sample
from chainrule.diagnosis.functions.contracts import broken_promises
from chainrule.rules import BOOK
from chainrule.run import needed, run
from chainrule.saving.cut import Network

some_entries = pytest.mark.parametrize("entry", of_today(ENTRIES, 3), ids=lambda e: e.name)


def kept(compute: Callable[[], Tensor], given: Iterable[Any]) -> list[Tensor]:
    """The tensors that a computation keeps for its backward pass, other than those in the memory of `given`."""
    found: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
        compute()
    theirs = {t.untyped_storage().data_ptr() for t in given if isinstance(t, Tensor)}
    return [t for t in found if t.untyped_storage().data_ptr() not in theirs]


def size(tensors: Iterable[Tensor]) -> int:
    """The bytes of all the memory that is held."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())


def applied(d: cr.Derivation) -> tuple[Any, list[Any]]:
    """The emitted Function, and fresh arguments for it."""
    given = [d[name].value.detach().clone() for name in d.inputs]
    for name, tensor in zip(d.inputs, given, strict=True):
        tensor.requires_grad_(d.grads.get(name) is not None)
    return namespace_of(d.source("autograd"))["Derived"], given


def kept_by_emitted(d: cr.Derivation) -> list[Tensor]:
    Derived, given = applied(d)
    return kept(lambda: Derived.apply(*given), given)


# -- how much ----------------------------------------------------------------------------------------


@every_entry
def test_never_more_than_autograd_keeps(entry: Entry) -> None:
    c = case(entry)
    with Leaves(c.d):
        theirs = kept(lambda: entry(*c.args), [c.d[name].value for name in c.d.inputs])
    assert size(kept_by_emitted(c.d)) <= size(theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_never_more_for_random_programs(family: str) -> None:
    for seed in range(12):
        numbers = random.Random(f"{family} {seed}")
        program = random_program(numbers.randrange, family)
        function, args = program.function(), [t.requires_grad_(t.is_floating_point()) for t in program.arguments]
        d = cr.derive(function, *args)
        assert size(kept_by_emitted(d)) <= size(kept(lambda function=function, args=args: function(*args), args)), (
            program.text
        )


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.name)
def test_never_more_for_training_steps(work: Work) -> None:
    """Attention is opened into its parts, so it keeps its weights: it is compared with autograd's that does so too.
    The fused kernels keep a number for each query, and compute the weights twice."""
    setup = work.make()
    batch = [t[:500] for t in setup.batch]
    d = cr.derive(setup.forward, *batch)
    with sdpa_kernel(SDPBackend.MATH):
        theirs = kept(lambda: setup.forward(*batch), [*batch, *setup.params.values()])
    assert size(kept_by_emitted(d)) <= size(theirs)


KEEP_A_RESULT = {
    "erfinv": "keeps its output where autograd keeps its input",
    "special_erfinv": "keeps its output where autograd keeps its input",
    "sinc": "keeps its output besides",
    "special_sinc": "keeps its output besides",
    "linalg_vander": "keeps its output, the powers, where autograd computes them twice",
    "_pad_packed_sequence": "keeps the lengths that it returns, one number for each example",
}


@pytest.mark.parametrize("name", of_today([name for name in BOOK.rules if isinstance(name, str)], 3))
def test_never_more_for_the_operations_of_the_book(name: str) -> None:
    for text in BOOK.rules[name].samples:
        d = Sample(BOOK.rules[name].function, text, []).derive()
        given = dict(zip(d.program.inputs, (n.meta["val"].detach().clone() for n in d.program.inputs), strict=True))
        for wanted in d.program.gradients.keys() & given.keys():
            given[wanted].requires_grad_()
        theirs = kept(lambda d=d, given=given: run(needed([d.program.output]), given)[d.program.output], given.values())
        assert size(kept_by_emitted(d)) <= size(theirs) or name in KEEP_A_RESULT, text


# -- nothing else, and all of it ---------------------------------------------------------------------


@every_entry
def test_what_is_kept_is_read_and_what_is_read_is_kept(entry: Entry) -> None:
    forward, backward = methods(case(entry).d.source("autograd"))
    calls = [n for n in ast.walk(forward) if isinstance(n, ast.Call) and ast.unparse(n.func) == "ctx.save_for_backward"]
    saved = [ast.unparse(a) for call in calls for a in call.args]
    numbers = {n.attr for n in ast.walk(forward) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    read = {n.id for n in ast.walk(backward) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    of_ctx = {n.attr for n in ast.walk(backward) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "ctx"}
    assert len(saved) == len(set(saved))
    assert set(saved) <= read
    assert numbers == of_ctx - {"saved_tensors", "needs_input_grad"}


def methods(source: str) -> tuple[ast.FunctionDef, ast.FunctionDef]:
    forward, backward = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))
    return forward, backward


@every_entry
def test_tensors_are_no_attributes_of_ctx(entry: Entry) -> None:
    Derived, given = applied(case(entry).d)
    output = Derived.apply(*given)
    if output.requires_grad:
        assert not any(isinstance(v, Tensor) for v in vars(output.grad_fn).values())


# -- right gradients ---------------------------------------------------------------------------------

OF_NOTHING = {
    "contrastive": "one class for each example: of no classes torch has no one_hot",
    "product_of_everything": "a product of nothing has no first factor",
}


@some_entries
def test_what_a_function_promises(entry: Entry) -> None:
    """Each input alone, any strides, twice, empty: and nothing that is kept is changed."""
    d = case(entry).d
    found = broken_promises(namespace_of(d.source("autograd"))["Derived"], [d[name].value.clone() for name in d.inputs])
    if entry.name in OF_NOTHING:
        assert all("empty batch" in finding.message for finding in found)
    else:
        assert found == []


@smooth_entries
def test_gradcheck(entry: Entry) -> None:
    Derived, given = applied(case(entry).d)
    if Derived.apply(*given).requires_grad:
        assert torch.autograd.gradcheck(Derived.apply, given, fast_mode=True)


@pytest.mark.parametrize(("entry", "batch"), of_today(OTHER_BATCHES, 3))
def test_at_another_batch_size(entry: Entry, batch: int) -> None:
    other = case(entry, batch)
    Derived, _ = applied(case(entry).d)
    _, given = applied(other.d)
    try:
        output = Derived.apply(*given)
        if output.requires_grad:
            output.backward(other.upstream)
    except AssertionError:
        assert entry.pattern
        return
    assert_close(output, other.d.output)
    for name, tensor in zip(other.d.inputs, given, strict=True):
        assert_close(tensor.grad, other.truth.get(name))


@pytest.mark.parametrize("comments", ["shapes", "math", "why"])
@some_entries
def test_with_comments(entry: Entry, comments: str) -> None:
    source = case(entry).d.source("autograd", comments=comments)  # has run it
    assert ast.unparse(ast.parse(source)) == ast.unparse(ast.parse(case(entry).d.source("autograd")))


# -- which value -------------------------------------------------------------------------------------

X, W, V = (torch.randn(*shape, dtype=torch.float64) for shape in ((6, 5), (5, 4), (4, 4)))


def through_relu(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return ((x @ w).relu() @ v).sum()


def relu_alone(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w).relu().sum()


def clamped(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return ((x @ w).clamp_min(0) @ v).sum()


def by_columns(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    h = x @ w
    return (h[:, 0] * h[:, 1]).sum() + (h.T @ h @ v).sum()


def standardised(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    return ((h - h.mean(0)) / h.exp().sum(0)).square().sum()


def dropped(x: Tensor, w: Tensor) -> Tensor:
    return (F.dropout(x, 0.5) @ w).square().sum()


def shape_alone(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w).mean(0).sum()


def outputs(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax((x @ w).tanh().exp().sigmoid(), 1).square().sum()


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (through_relu, (X, W, V), [((6, 4), torch.float64)]),  # the output of relu, which the product reads too
        (relu_alone, (X, W), [((6, 4), torch.bool)]),
        (clamped, (X, W, V), [((6, 4), torch.float64), ((6, 4), torch.bool)]),  # or its input alone
        (by_columns, (X, W, V), [((6, 4), torch.float64), ((4, 4), torch.float64)]),  # columns are views
        (dropped, (X, W), [((6, 4), torch.float64)]),  # the mask is an input, and what it leaves is made again
        (shape_alone, (X, W), []),
        (outputs, (X, W), [((6, 4), torch.float64)] * 4),
    ],
)
def test_the_smaller_of_equivalent_values(function: Any, args: Any, expected: list[Any]) -> None:
    found = [(tuple(t.shape), t.dtype) for t in kept_by_emitted(cr.derive(function, *args))]
    assert size_of(found) <= size_of(expected)


def size_of(tensors: list[tuple[tuple[int, ...], torch.dtype]]) -> int:
    return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in tensors)


def test_a_statistic_rather_than_what_was_normalised() -> None:
    """h, exp(h), and their sums: the quotient is made again from h."""
    assert size(kept_by_emitted(cr.derive(standardised, X, W))) <= 2 * 6 * 4 * 8 + 2 * 4 * 8


def test_an_input_that_is_not_read_is_not_kept() -> None:
    source = cr.derive(through_relu, X, W, V, wrt=["v"]).source("autograd")
    assert "ctx.save_for_backward(relu)" in source
    assert not kept(lambda: namespace_of(source)["Derived"].apply(X, W, V.clone()), [])


class Products(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "mm" in str(func)
        return func(*args, **(kwargs or {}))


def test_a_product_that_nobody_needs_is_left_out() -> None:
    Derived, given = applied(cr.derive(through_relu, X, W, V))
    counts = []
    for wanted in itertools.product([False, True], repeat=3):
        given = [t.detach().requires_grad_(needed) for t, needed in zip(given, wanted, strict=True)]
        output = Derived.apply(*given)
        if any(wanted):
            with Products() as products:
                output.backward()
            counts.append(products.count - sum(wanted))
            assert [t.grad is not None for t in given] == list(wanted)
    assert set(counts) == {1}  # the one that goes on to the layer below


# -- the cut -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_no_cut_is_cheaper(seed: int) -> None:
    numbers = random.Random(seed)
    edges = [(a, b, numbers.randrange(1, 9)) for a in range(6) for b in range(6) if a != b and numbers.random() < 0.5]
    network = Network()
    for edge in edges:
        network.add(*edge)

    def price(above: set[Any]) -> int:
        return sum(capacity for a, b, capacity in edges if a in above and b not in above)

    found = network.above(0, 5)
    inner = [{0, *some} for n in range(5) for some in itertools.combinations(range(1, 5), n)]
    assert 5 not in found
    assert price(found) == min(map(price, inner))
