"""Bad inputs: one sentence with the operation, the shapes and the place; and nothing is left behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import chainrule as cr


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


W = rand(4, 3)
W_LEARNED = rand(4, 3).requires_grad_()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No `.g`, no hook, no function mode, no changed requires_grad, no lent `len` or `range`."""
    yield
    assert torch.overrides._get_current_function_mode_stack() == []
    assert "len" not in globals() and "range" not in globals()
    assert torch.is_grad_enabled()
    for tensor, learned in ((W, False), (W_LEARNED, True)):
        assert not hasattr(tensor, "g") and tensor.grad is None
        assert tensor.requires_grad is learned and not tensor._backward_hooks


def refused(run: Callable[[], Any], *parts: str) -> str:
    """The message of the ChainruleError that `run` raises: one sentence that holds all of `parts`."""
    with pytest.raises(cr.ChainruleError) as caught:
        run()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text
    return text


def here(function: Any, offset: int) -> str:
    return f"test_errors.py:{function.__code__.co_firstlineno + offset}"


# -- what is asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_gradient_of_what_has_none(dtype: torch.dtype) -> None:
    def forward(x: Tensor, k: Tensor) -> Tensor:
        return (x * k).abs().sum()

    name = str(dtype).removeprefix("torch.")
    k = torch.ones(3).to(dtype)
    x = rand(3)
    refused(lambda: cr.derive(forward, x, k, wrt="k"), "k (3,)", name, ".float()")
    refused(lambda: cr.derive(forward, x, k, wrt=[k]), "k (3,)", name)
    assert list(cr.derive(forward, x, k, wrt="x").grads) == ["x"]
    assert not hasattr(x, "g") and not hasattr(k, "g")


def test_an_output_that_does_not_depend_on_wrt() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        y = (w * 2).detach()
        return (x * y).sum()

    place = here(forward, 2)
    refused(lambda: cr.derive(forward, rand(3), rand(3), wrt="w"), "()", "does not depend on w (3,)", "detach", place)
    refused(lambda: cr.derive(forward, rand(3), rand(3), wrt=["x", "w"]), "does not depend on w (3,)", place)


@pytest.mark.parametrize("made", [None, 3.0, "text", [1], {"loss": 1}, (torch.ones(1), torch.ones(1))])
def test_an_output_that_is_no_tensor(made: Any) -> None:
    def forward(x: Tensor) -> Any:
        (x * W[0]).sum()
        return made

    kind = "None" if made is None else type(made).__name__
    refused(lambda: cr.derive(forward, rand(3)), "forward returned", kind, "not a tensor")


def test_an_output_that_nothing_made() -> None:
    apart = torch.ones(())
    refused(lambda: cr.derive(lambda x: [x * 2, apart][1], rand(3)), "returned a tensor", "()", "no recorded operation")
    refused(lambda: cr.derive(lambda x: (x * W[0]).argmax(), rand(3)), "int64", "no gradient", "test_errors.py:")


def test_not_a_scalar() -> None:
    def forward(x: Tensor) -> Tensor:
        out = x @ W
        return out

    refused(
        lambda: cr.derive(forward, rand(5, 4)),
        "shape (5, 3)",
        "not a scalar",
        "sum, mean",
        "upstream=",
        here(forward, 1),
    )


@pytest.mark.parametrize("shape", [(3, 5), (5,), (), (5, 3, 1)])
def test_an_upstream_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    def forward(x: Tensor) -> Tensor:
        return x @ W

    run = lambda: cr.derive(forward, rand(5, 4), upstream=torch.ones(shape))  # noqa: E731
    refused(run, f"upstream has shape {shape}", "the output (5, 3)", here(forward, 1))


def test_an_unknown_name() -> None:
    def forward(x: Tensor) -> Tensor:
        return (x @ W).sum()

    refused(lambda: cr.derive(forward, rand(5, 4), wrt="v"), "'v'", "it read x, W")
    refused(lambda: cr.derive(forward, rand(5, 4), wrt=torch.ones(7)), "(7,)", "it read x, W")
    d = cr.derive(forward, rand(5, 4))
    refused(lambda: d["nothing"], "'nothing'", "x", "W")
    refused(lambda: d.source("fortran"), "'fortran'", '"dotg"', '"autograd"')


# -- numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "kind"), [(0.0, "infinity"), (-1.0, "NaN")])
def test_not_finite(value: float, kind: str) -> None:
    def forward(x: Tensor) -> Tensor:
        shifted = x + 0
        logs = shifted.log()
        return logs.sum()

    with pytest.warns(RuntimeWarning, match=f"{kind} first appears in log .*test_errors.py:{here(forward, 2)[-3:]}"):
        d = cr.derive(forward, torch.tensor([1.0, value]))
    torch.testing.assert_close(d.grads["x"], 1 / torch.tensor([1.0, value]))
    assert any(kind in note for note in d.notes) and kind in str(d)


def test_an_input_that_is_not_finite() -> None:
    with pytest.warns(RuntimeWarning, match="NaN first appears in the input x"):
        cr.derive(lambda x: (2 * x).sum(), torch.tensor([1.0, float("nan")]))
    with pytest.warns(RuntimeWarning, match=r"infinity|NaN"):
        cr.derive(lambda x: x.sqrt().sum(), torch.tensor([0.0, 1.0]))  # finite forward, infinite slope
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cr.derive(lambda x: torch.where(x > 0, x, -torch.inf).softmax(0).square().sum(), torch.tensor([1.0, -1.0, 2.0]))


# -- exceptions of theirs ----------------------------------------------------------------------------


def test_an_exception_inside_the_forward_pass_is_theirs() -> None:
    def forward(x: Tensor) -> Tensor:
        h = torch.tanh(x @ W)
        return h @ W

    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        cr.derive(forward, rand(5, 4))
    (note,) = caught.value.__notes__
    assert "recorded 2 operations" in note and "tanh" in note and here(forward, 1) in note

    class Own(Exception):
        pass

    def raising(x: Tensor) -> Tensor:
        raise Own("no")

    with pytest.raises(Own, match="no"):
        cr.derive(raising, rand(3))
    refused(lambda: cr.derive(forward), "was called with 0 arguments", "'x'")
    refused(lambda: cr.derive(3), "not a function")
    with pytest.raises(KeyboardInterrupt):
        cr.derive(lambda x: [x * 2, (_ for _ in ()).throw(KeyboardInterrupt())], rand(3))


# -- unusual, and right ------------------------------------------------------------------------------


def test_a_name_used_for_several_values() -> None:
    layers = [rand(3, 3, seed=i) for i in range(3)]

    def forward(x: Tensor) -> Tensor:
        for w in layers:
            x = torch.tanh(x @ w)
        return x.sum()

    x = rand(2, 3)
    d = cr.derive(forward, x)
    value = x
    for name, w in zip(["x_1", "x_2", "x_3"], layers, strict=True):
        value = torch.tanh(value @ w)
        torch.testing.assert_close(d[name].value, value)
    assert torch.equal(d["x"].value, x) and d["x"].g.shape == (2, 3)
    torch.testing.assert_close(d["x_3"].g, torch.ones(2, 3))


def test_no_grad_around_and_inside() -> None:
    def forward(x: Tensor) -> Tensor:
        return (x @ W_LEARNED).square().sum()

    x = rand(5, 4)
    with torch.no_grad():
        d = cr.derive(forward, x)
    torch.testing.assert_close(d.grads["W_LEARNED"], 2 * x.T @ (x @ W_LEARNED.detach()))

    def cut(x: Tensor) -> Tensor:
        with torch.no_grad():
            return (x @ W).sum()

    refused(lambda: cr.derive(cut, x, wrt="x"), "does not depend on x (5, 4)", "no_grad", here(cut, 2))


def test_an_input_returned_unchanged() -> None:
    d = cr.derive(lambda x: x, torch.tensor(2.0))
    assert d.grads == {"x": torch.tensor(1.0)}
    d = cr.derive(lambda x: x, rand(3), upstream=torch.arange(3.0))
    torch.testing.assert_close(d.grads["x"], torch.arange(3.0))


def test_a_layer_made_inside_the_forward_pass() -> None:
    d = cr.derive(lambda x: torch.nn.Linear(4, 3)(x).sum(), rand(5, 4), wrt="x")
    assert d.grads["x"].shape == (5, 4)


# -- check -------------------------------------------------------------------------------------------


def test_check_finds_no_loss() -> None:
    def step(x: Tensor) -> None:
        x.g = 2 * x

    refused(lambda: cr.check(step, rand(3)), "no loss was found in step", "`loss`", "loss=")
    refused(lambda: cr.check(step, rand(3), loss="total"), "no loss was found in step", "`total`")


def test_check_of_a_loss_that_is_not_a_scalar() -> None:
    def step(x: Tensor) -> Tensor:
        loss = x * 2
        x.g = torch.full_like(x, 2.0)
        return loss

    refused(lambda: cr.check(step, rand(3)), "step", "(3,)", "not a scalar")


def test_check_finds_no_gradient() -> None:
    def step(x: Tensor) -> Tensor:
        return (x @ W).sum()

    refused(lambda: cr.check(step, rand(5, 4)), "step left no .g on any tensor", "w.g = ...")
    refused(lambda: cr.check(torch.nn.Linear(4, 1), rand(1, 4)), "Linear left no .g")


def test_a_derivation_with_nothing_to_derive() -> None:
    w = rand(4, 3)
    refused(lambda: cr.derive(lambda x: (x @ w).detach().sum(), rand(5, 4)), "depends on no input", "detach")
    refused(lambda: cr.derive(lambda x: (x @ w).argmax(1).double().sum(), rand(5, 4)), "depends on no input")


def test_pooling_that_torch_chooses_between_two_functions() -> None:
    """boolean_dispatch hides the Python functions that it chooses between."""
    x = rand(2, 1, 4, 4)
    d = cr.derive(lambda x: torch.nn.functional.max_pool2d(x, 2).sum(), x)
    assert d.fallbacks == []
    assert float(d.grads["x"].sum()) == 8


def test_a_gradient_that_cancels_is_verified() -> None:
    """A bias before a batch norm: rounding is all that is left."""
    x, w, b = rand(8, 4), rand(4, 3), rand(3)

    def forward() -> Tensor:
        h = x @ w + b
        return ((h - h.mean(0)) / h.std(0)).pow(3).mean()

    assert cr.derive(forward, wrt=["b", "w"]).verify()


# -- what is asked of a derivation -------------------------------------------------------------------


def test_a_gradient_that_nobody_asked_for() -> None:
    grads = cr.derive(lambda x: (x @ W).sum(), rand(2, 4)).grads
    said = refused(lambda: grads["W9"], "no gradient of 'W9' was asked for; there are x, W", "d['W9'].g")
    with pytest.raises(KeyError) as caught:
        grads["W9"]
    assert str(caught.value) == said
    assert grads.get("W9") is None and "W9" not in grads and isinstance(grads, dict)


def test_an_output_that_is_an_input() -> None:
    for function in (lambda x: x, lambda x, y: x):
        args = (torch.tensor(2.0), torch.tensor(3.0))[: function.__code__.co_argcount]
        d = cr.derive(function, *args)
        assert d.grads["x"] == 1 and d.verify() and len(d.trace()) and "x.g" in d.explain().to_html()


@pytest.mark.parametrize("method", ["to_html", "to_markdown", "to_latex"])
def test_a_document_that_cannot_be_written(method: str, tmp_path: Path) -> None:
    explanation = cr.derive(lambda x: x.sin().sum(), rand(3)).explain()
    ending = {"to_html": ".html", "to_markdown": ".md", "to_latex": ".tex"}[method]
    write = getattr(explanation, method)
    refused(lambda: write(tmp_path / "nowhere" / f"a{ending}"), "cannot write", "give another path")
    refused(lambda: write(tmp_path / "a.txt"), f"a.txt would hold {'a page of HTML' if ending == '.html' else ''}")
    assert list(tmp_path.iterdir()) == []
    assert (tmp_path / f"a{ending}").write_text("") == 0 and write(tmp_path / f"a{ending}")
    assert (tmp_path / f"a{ending}").read_text(encoding="utf-8") == write()
