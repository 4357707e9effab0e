"""The second shelf of the rule book: its steps are torch's own kernels, and give autograd's gradients."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import Leaves, assert_close
from sweeps import of_today
from torch import Tensor, nn
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx.experimental.proxy_tensor import make_fx

import chainrule as cr
from chainrule.bench.works import WORKS, Work
from chainrule.checking.rules import VARIANTS, Given, forward_of, over_tensors, tensors_in
from chainrule.deriving import derivation_with
from chainrule.rules import BOOK, KERNELS, Rule
from chainrule.rules.samples import arguments
from chainrule.run import needed, run

OF_SHELF = [pytest.param(r, s, id=f"{r.name}: {s}") for r in KERNELS.rules.values() for s in r.samples]
TAKEN_OVER = [
    pytest.param(r, s, id=f"{r.name}: {s}")
    for r in BOOK.rules.values()
    if r.backward.__module__.startswith("chainrule.rules.")
    and (r.name in KERNELS.rules or r.function in KERNELS.openings)
    for s in r.samples
]


def operations(d: cr.Derivation) -> Counter[str]:
    return Counter(n.meta["operation"] for n in d.graph.nodes)


def first_of(rule: Rule) -> Callable[..., Tensor]:
    """The rule's function; of several results the first, which the others serve."""

    def value(*args: Any, **kwargs: Any) -> Tensor:
        out = rule.function(*args, **kwargs)
        return out if isinstance(out, Tensor) else out[0]

    return value


def assert_as_autograd(forward: Callable[..., Tensor], given: Given, tolerance: float = 1e-10) -> cr.Derivation:
    """The call derived with kernels gives autograd's gradients."""
    args, kwargs = given
    with torch.no_grad():
        upstream = forward(*args, **kwargs)
        upstream = torch.randn(upstream.shape, dtype=upstream.dtype, generator=torch.Generator().manual_seed(7))
    d = derivation_with(KERNELS, forward, *args, upstream=upstream, **kwargs)
    assert d.fallbacks == []
    with Leaves(d, only_given=True) as leaves:
        expected = forward(*args, **kwargs)
        truth = dict(zip(leaves.names, leaves.gradients(expected, upstream), strict=True))
    assert_close(d.output, expected, tolerance, "the output")
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient, tolerance, f"the gradient of {name}")
    return d


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("rule", "sample"), OF_SHELF)
def test_kernel_is_right(rule: Rule, sample: str, dtype: torch.dtype) -> None:
    assert_as_autograd(first_of(rule), arguments(sample, dtype), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(("rule", "sample"), TAKEN_OVER)
def test_what_the_shelf_takes_over_is_right(rule: Rule, sample: str) -> None:
    assert_as_autograd(first_of(rule), arguments(sample))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rule", "sample"), of_today(TAKEN_OVER, 3))
def test_kernels_are_right_in_awkward_shapes(rule: Rule, sample: str, variant: str) -> None:
    given = VARIANTS[variant](arguments(sample))
    forward, _ = forward_of(rule, given, followed=True)
    if forward is None:  # torch refuses the call
        return
    try:
        assert_as_autograd(forward, given)
    except cr.ChainruleError as error:
        if not isinstance(error.__cause__, ZeroDivisionError):  # a share of nothing, left to the ordinary rule
            raise


# -- lowered to aten -------------------------------------------------------------------------------


def lowered(function: Callable[..., Any], *args: Tensor) -> Counter[str]:
    """The calls of aten that `function` is made of, equal ones counted once."""
    with torch.no_grad():
        module = make_fx(lambda *given: function(*given), tracing_mode="fake")(*args)
    module.graph.eliminate_dead_code()
    graph = fx_graph_cse(module.graph)
    return Counter(n.target.overloadpacket.__name__ for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload))


def lowered_derivation(d: cr.Derivation) -> Counter[str]:
    program = d.program
    gradients = [program.gradients[n] for n in program.wanted if n in program.gradients]
    given = [*program.inputs, *([program.upstream] if program.upstream else [])]

    def step(*values: Tensor) -> Any:
        found = run(needed([program.output, *gradients]), dict(zip(given, values, strict=True)))
        return [found[n] for n in (program.output, *gradients)]

    return lowered(step, *(n.meta["val"].detach() for n in given))


# What moves numbers, or costs as little, may stand there twice; a forward kernel may not.
CHEAP = {
    *("abs", "add", "bitwise_not", "constant_pad_nd", "div", "empty", "eq", "expand", "gather", "masked_fill"),
    *("masked_fill_", "mean", "mul", "neg", "repeat", "squeeze", "sub", "sum", "unsqueeze", "view"),
}


@pytest.mark.parametrize(("rule", "sample"), TAKEN_OVER)
def test_no_forward_kernel_is_run_twice(rule: Rule, sample: str) -> None:
    args, kwargs = arguments(sample, torch.float32)
    d = assert_as_autograd(first_of(rule), (args, kwargs), 1e-5)
    tensors = tensors_in((args, kwargs))

    def call(*tensors: Tensor) -> Tensor:
        left = iter(tensors)
        positional, named = over_tensors((args, kwargs), lambda _: next(left))
        return first_of(rule)(*positional, **named)

    forward, whole = lowered(call, *tensors), lowered_derivation(d)
    forward = Counter({name: count for name, count in forward.items() if name not in CHEAP})
    assert Counter({name: whole[name] for name in forward}) == forward


# -- attention -------------------------------------------------------------------------------------

FLASH = "_scaled_dot_product_flash_attention_for_cpu"
Q, K = "r(2, 4, 5, 8)", "r(2, 4, 7, 8)"


@pytest.mark.parametrize(
    ("sample", "fused"),
    [
        (f"{K}, {K}, {K}, is_causal=True", True),
        (f"{Q}, {K}, {K}, scale=0.4", True),
        (f"{Q}, {K}, {K}, m(5, 7) | (torch.arange(7) == 0)", True),
        (f"{Q}, {K}, {K}, r(5, 7)", True),
        (f"{Q}, {K}, {K}, r(2, 1, 5, 7), scale=0.4", True),
        (f"{Q}, {K}, {K}, r(2, 4, 5, 7).requires_grad_()", False),
        (f"{Q}, r(2, 2, 7, 8), r(2, 2, 7, 8), enable_gqa=True", True),
        ("r(4, 5, 8), r(4, 7, 8), r(4, 7, 8)", False),
        ("r(2, 4, 5, 8), r(2, 4, 7, 8), r(2, 4, 7, 3)", False),
    ],
)
def test_attention(sample: str, fused: bool) -> None:
    d = assert_as_autograd(F.scaled_dot_product_attention, arguments(sample))
    assert (FLASH in operations(d)) is fused


def test_attention_that_looks_nowhere() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.bool).tril(-1)  # the first query may look at no key
    assert_as_autograd(F.scaled_dot_product_attention, ((q, k, v, mask), {}))


# -- whole programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [pytest.param(w, id=w.name) for w in WORKS])
def test_the_works_are_as_autograd(work: Work) -> None:
    torch.manual_seed(0)
    setup = work.make()
    batch = tuple(b[:500] for b in setup.batch)
    named = {id(p): name for name, p in setup.params.items()}
    d = derivation_with(KERNELS, setup.forward, *batch, wrt=list(setup.params.values()))
    assert d.fallbacks == []
    loss = setup.forward(*batch)
    truth = dict(zip(setup.params, torch.autograd.grad(loss, list(setup.params.values())), strict=True))
    assert_close(d.output, loss, 1e-6)
    ours = {named[id(tensor)]: gradient for tensor, gradient in d.pairs()}
    for name, gradient in truth.items():
        assert_close(ours[name], gradient, 1e-5, name)


def test_a_gpt_is_shorter() -> None:
    setup = next(w for w in WORKS if w.name == "gpt").make()
    programs = [derivation_with(b, setup.forward, *setup.batch, wrt=[*setup.params.values()]) for b in (BOOK, KERNELS)]
    ordinary, kernels = (len(d.graph.nodes) for d in programs)
    assert kernels < 0.75 * ordinary
    assert operations(programs[1])[f"{FLASH}_backward"] == 2


def test_a_frozen_input_costs_no_gradient() -> None:
    x, model = torch.randn(2, 3, 6, 6), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    model[2].weight.requires_grad_(False)
    d = derivation_with(KERNELS, lambda x: model(x).square().sum(), x)
    masks = [n.args[-1] for n in d.graph.nodes if n.meta["operation"] == "convolution_backward"]
    assert masks == [[True, False, True], [False, True, True]]
    loss = model(x).square().sum()
    for tensor, gradient in d.pairs():
        assert_close(gradient, torch.autograd.grad(loss, tensor, retain_graph=True)[0], 1e-5)


def test_running_statistics_are_moved_once_and_told() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(6, 3)
    like_torch = copy.deepcopy(model)
    like_torch(x).square().sum().backward()
    d = derivation_with(KERNELS, lambda x: model(x).square().sum(), x)
    for ours, theirs in zip(model.buffers(), like_torch.buffers(), strict=True):
        assert_close(ours, theirs, 1e-7)
    left = {n.meta["name"].rpartition(".")[2]: (n, value) for n, value in d.program.left.items()}
    assert set(left) == {"running_mean", "running_var", "num_batches_tracked"}
    values = run(needed([v for _, v in left.values()]), {n: n.meta["val"] for n in d.program.inputs})
    for name, buffer in model[1].named_buffers():
        before, after = left[name]
        assert before.meta["given"] is buffer
        assert_close(values[after], buffer, 1e-7)
        assert not torch.equal(before.meta["val"], buffer)
    assert operations(d)["_native_batch_norm_legit_functional"] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_are_never_looked_at(smoothing: float) -> None:
    """The program holds for any classes: of what is ignored, too, nothing is asserted or decided."""
    logits, classes = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, -100, 1, 1])
    d = derivation_with(KERNELS, F.cross_entropy, logits, classes, label_smoothing=smoothing)
    assert d.program.guards == []
    for others in (classes.flip(0), torch.tensor([2, 2, 0, 1, 3]), torch.tensor([-100, -100, 2, -100, -100])):
        leaf = logits.clone().requires_grad_()
        (truth,) = torch.autograd.grad(F.cross_entropy(leaf, others, label_smoothing=smoothing), leaf)
        gradient = d.program.gradients[d.program.wanted[0]]
        given = dict(zip(d.program.inputs, (logits, others), strict=True))
        assert_close(run(needed([gradient]), given)[gradient], truth)


def test_a_person_s_rule_comes_before_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.rules.BOOK.rules", dict(BOOK.rules))

    @cr.rule(torch.relu, F.layer_norm)
    def straight_through(out: Any, x: Any, *others: Any) -> None:
        x.g = out.g

    x = torch.randn(3, 4)
    d = derivation_with(KERNELS, lambda x: F.layer_norm(x, (4,)).relu().sum(), x)
    assert_close(d.grads["x"], torch.ones(3, 4))


def test_the_ordinary_book_has_no_kernel() -> None:
    d = cr.derive(lambda x: x.relu().sum(), torch.randn(3))
    assert "threshold_backward" not in operations(d)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_complex_numbers_are_left_to_the_ordinary_rules(dtype: torch.dtype) -> None:
    z = torch.randn(3, dtype=dtype)
    d = derivation_with(KERNELS, lambda x: (z * x).sigmoid().abs().sum(), torch.randn(3))
    assert d.fallbacks == []
    assert "sigmoid_backward" not in operations(d)
