"""`check` on operators that are registered with torch.library: their own lines, and what opcheck says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand
from torch import Tensor

import chainrule as cr
from chainrule.cli.candidates import candidates

SWISH = """\
@torch.library.custom_op("{name}::swish", mutates_args=())
def swish(x: torch.Tensor, w: torch.Tensor, beta: float = 1.5) -> torch.Tensor:
    return x * torch.sigmoid(beta * x) * w

@swish.register_fake
def _(x, w, beta=1.5):
    return torch.empty_like(x)

def setup_context(ctx, inputs, output):
    x, w, beta = inputs
    ctx.save_for_backward(x, w)
    ctx.beta = beta

def backward(ctx, g):
    x, w = ctx.saved_tensors
    s = torch.sigmoid(ctx.beta * x)
    dw = (g * x * s).sum(0)
    dx = g * w * (s + ctx.beta * x * s * (1 - s))
    return dx, dw, None

swish.register_autograd(backward, setup_context=setup_context)
by_packet = torch.ops.{name}.swish
by_overload = torch.ops.{name}.swish.default

def step(x, w):
    return (swish(x, w, 0.7) ** 2).sum()
"""


def module_of(old: str = "", new: str = "", source: str = SWISH) -> SimpleNamespace:
    """What the source defines, with one edit, its operators in a namespace of their own."""
    text = source.format(name=f"chainrule_{abs(hash((old, source)))}").replace(old or "~", new or "~")
    namespace = program(text).__globals__
    return SimpleNamespace(**{n: v for n, v in namespace.items() if n.isidentifier()}, text=text)


def line_with(module: SimpleNamespace, part: str) -> int:
    return next(k for k, line in enumerate(module.text.splitlines(), 1) if part in line)


def inputs() -> tuple[Tensor, Tensor]:
    return rand(5, 3), rand(3)


@pytest.mark.parametrize("way", ["swish", "by_packet", "by_overload", "step"])
def test_right(way: str) -> None:
    report = cr.check(getattr(module_of(), way), *inputs())
    assert report.ok and not report.notes, report
    assert {row.name for row in report.rows} == {"swish.x", "swish.w"}


@pytest.mark.parametrize("way", ["swish", "by_packet", "by_overload", "step"])
@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("(g * x * s).sum(0)", "(g * x * s).mean(0)", "wrong-scale"),
        ("g * w * (s", "g * (s", "missing-factor"),
        ("dx = g", "dx = -g", "sign"),
    ],
)
def test_wrong(way: str, old: str, new: str, cause: str) -> None:
    module = module_of(old, new)
    report = cr.check(getattr(module, way), *inputs())
    [finding] = report.findings
    assert (finding.cause, finding.line, finding.proved) == (cause, line_with(module, new), True), report


def test_a_wrong_number_kept_by_setup_context() -> None:
    module = module_of("ctx.beta = beta", "ctx.beta = 1.0")
    [finding] = cr.check(module.swish, *inputs()).findings
    assert finding.line == line_with(module, "ctx.beta = 1.0") and finding.proved, finding


def test_the_backward_may_be_registered_for_a_kernel_elsewhere() -> None:
    module = module_of(source=ELSEWHERE)
    x, _ = inputs()
    assert cr.check(module.cube, x, k=2.0).ok
    [finding] = cr.check(module.wrong, x, k=2.0).findings
    assert (finding.cause, finding.proved, finding.line) == ("wrong-scale", True, line_with(module, "2 * x * x")), (
        finding
    )


ELSEWHERE = """\
for operator in ("{name}::cube", "{name}::wrong"):
    torch.library.define(operator, "(Tensor x, *, float k=1.0) -> Tensor")

    @torch.library.impl(operator, "CPU")
    def kernel(x, k=1.0):
        return x * x * x * k

    @torch.library.register_fake(operator)
    def fake(x, k=1.0):
        return torch.empty_like(x)

def setup_context(ctx, inputs, keyword_only_inputs, output):
    ctx.save_for_backward(*inputs)
    ctx.k = keyword_only_inputs["k"]

def backward(ctx, g):
    x, = ctx.saved_tensors
    return ctx.k * g * 3 * x * x

def wrong_backward(ctx, g):
    x, = ctx.saved_tensors
    return ctx.k * g * 2 * x * x

torch.library.register_autograd("{name}::cube", backward, setup_context=setup_context)
torch.library.register_autograd("{name}::wrong", wrong_backward, setup_context=setup_context)
cube, wrong = torch.ops.{name}.cube, torch.ops.{name}.wrong

def step(x):
    return cube(x).sum()
"""


def sine_in_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sin(x.numpy()))


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def cosine(ctx: Any, g: Tensor) -> Tensor:
    return g * ctx.saved_tensors[0].cos()


def minus_cosine(ctx: Any, g: Tensor) -> Tensor:
    return -g * ctx.saved_tensors[0].cos()


def cosine_in_numpy(ctx: Any, g: Tensor) -> Tensor:
    return g * torch.from_numpy(np.cos(ctx.saved_tensors[0].numpy()))


def in_place(ctx: Any, g: Tensor) -> Tensor:
    g.mul_(ctx.saved_tensors[0].cos())
    return g


def viewed(ctx: Any, g: Tensor) -> Tensor:
    x = ctx.saved_tensors[0]
    return (g.view(-1) * x.cos().reshape(-1)).view(x.shape)


def sine(name: str, backward: Any, kernel: Any = sine_in_numpy, fake: Any = torch.empty_like) -> Any:
    made = torch.library.custom_op(f"chainrule_sines::{name}", kernel, mutates_args=())
    if backward is not None:
        made.register_autograd(backward, setup_context=keep)
    if fake is not None:
        made.register_fake(fake)
    return made


def test_a_kernel_that_cannot_be_recorded_is_compared_with_the_reference() -> None:
    x = rand(4, 3)
    assert cr.check(sine("right", cosine), x, reference=torch.sin).ok
    [finding] = cr.check(sine("negated", minus_cosine), x, reference=torch.sin).findings
    assert (finding.cause, finding.proved, finding.text) == ("sign", True, "return -g * ctx.saved_tensors[0].cos()")
    with pytest.raises(
        cr.ChainruleError, match=r"of lonely .* check lonely alone and give its forward pass in torch with reference="
    ):
        cr.check(sine("lonely", cosine), x)


def test_a_reference_of_a_function_that_calls_operators_is_of_that_function() -> None:
    module, (x, w) = module_of(), inputs()
    swish = lambda x, w: x * torch.sigmoid(0.7 * x) * w  # noqa: E731
    assert cr.check(module.step, x, w, reference=lambda x, w: (swish(x, w) ** 2).sum()).ok
    with pytest.raises(cr.ChainruleError, match="gives another output than its reference"):
        cr.check(module.step, x, w, reference=swish)


def test_an_operator_without_a_backward_is_refused() -> None:
    with pytest.raises(cr.ChainruleError, match="register_autograd"):
        cr.check(sine("none", None), rand(3))


def sine_in_torch(x: Tensor) -> Tensor:
    return x.sin()


def sine_that_writes(x: Tensor) -> Tensor:
    x += 0.0
    x.neg_()
    return -x.sin()


@pytest.mark.parametrize(
    ("name", "backward", "kernel", "fake", "said"),
    [
        ("unfaked", cosine, sine_in_torch, None, "test_faketensor"),
        ("misfaked", cosine, sine_in_torch, lambda x: x.new_empty(x.shape[:1]), "test_faketensor"),
        ("writing", cosine, sine_that_writes, torch.empty_like, "test_schema"),
        ("uncompiled", cosine_in_numpy, sine_in_torch, torch.empty_like, "test_aot_dispatch_dynamic"),
    ],
)
def test_what_opcheck_says_is_a_finding(name: str, backward: Any, kernel: Any, fake: Any, said: str) -> None:
    report = cr.check(sine(name, backward, kernel, fake), rand(4, 3).float())
    [finding] = report.findings
    assert finding.cause == "contract" and f"chainrule_sines::{name} fails {said}" in finding.message, report
    assert (finding.file, finding.line) == (__file__, kernel.__code__.co_firstlineno), report
    assert all(row.status == "right" for row in report.rows), report


@pytest.mark.parametrize(
    ("backward", "repair"),
    [
        (in_place, "g = g.mul(ctx.saved_tensors[0].cos())"),
        (viewed, "return (g.reshape(-1) * x.cos().reshape(-1)).reshape(x.shape)"),
    ],
)
def test_promises_are_mended_on_their_lines(backward: Any, repair: str) -> None:
    [finding] = cr.check(sine(backward.__name__, backward, sine_in_torch), rand(4, 3)).findings
    assert (finding.proved, finding.repair) == (True, repair), finding


def test_a_file_says_its_operators(tmp_path: Path) -> None:
    file = tmp_path / "operators.py"
    file.write_text(SWISH.partition("by_packet")[0])
    assert candidates(file) == ["swish"]


def test_an_audit_plants_mistakes_in_the_registered_backward() -> None:
    module = module_of()
    x, w = (t.double().requires_grad_() for t in inputs())
    audit = cr.audit(lambda: torch.autograd.gradcheck(module.swish, (x, w)), module.swish, x, w)
    assert audit.share > 0.5 and sum(m.cause == "sign" for m in audit.caught)
