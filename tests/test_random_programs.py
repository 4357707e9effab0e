"""Random programs: derived equals autograd, and the emitted code, run alone, equals that."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from agreement import Leaves, assert_close, namespace_of, run_emitted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import FAMILIES, Program, random_program
from sweeps import DAY, EVERYTHING

import chainrule as cr

EXAMPLES = 100 if EVERYTHING else 30  # of each family
TODAY = 60  # more, of a seed that is new every day


def assert_program_is_right(p: Program) -> None:
    function = p.function()
    try:
        check(function, p.arguments)
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in p.arguments)
        error.add_note(f"{p.text}of inputs {shapes}")
        raise


def check(function: Any, arguments: list[torch.Tensor]) -> None:
    d = cr.derive(function, *arguments)
    assert d.fallbacks == []
    with Leaves(d) as leaves:
        output = function(*arguments)
        truth = dict(zip(leaves.names, leaves.gradients(output), strict=True))
    assert_close(d.output, output, 1e-12)
    for name, gradient in truth.items():
        assert_near(d.grads[name], gradient)
    inputs = {name: d[name].value.clone() for name in d.inputs}
    emitted_output, emitted = run_emitted(d, *inputs.values())
    assert_close(emitted_output, output, 1e-12)
    assert list(emitted) == list(truth)
    for name, gradient in truth.items():
        assert_near(emitted[name], gradient)
    space = namespace_of(d.source("dotg"), **inputs)
    for name, gradient in truth.items():
        assert_near(getattr(space[name], "g", None), gradient)
    leaf = {name: value.clone().requires_grad_(name in truth) for name, value in inputs.items()}
    namespace_of(d.source("autograd"))["Derived"].apply(*leaf.values()).backward()
    for name, gradient in truth.items():
        assert_near(leaf[name].grad, gradient)


def assert_near(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> None:
    """To 1e-8 of the largest element; where the terms of a gradient cancel, what rounding leaves is let pass."""
    if ours is not None and theirs is not None and float((ours - theirs).abs().max()) < 1e-12:
        assert ours.shape == theirs.shape
        return
    assert_close(ours, theirs, 1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_programs(family: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def run(data: st.DataObject) -> None:
        assert_program_is_right(random_program(lambda n: data.draw(st.integers(0, n - 1)), family))

    run()


def test_random_programs_of_today() -> None:
    source = random.Random(DAY)
    families = list(FAMILIES)
    for number in range(TODAY):
        try:
            assert_program_is_right(random_program(source.randrange, families[number % len(families)], longest=12))
        except Exception as error:
            error.add_note(f"program {number} of seed {DAY}")
            raise


def test_programs_differ_and_are_long_enough() -> None:
    source = random.Random(1)
    made = [random_program(source.randrange, "everything") for _ in range(50)]
    assert len({p.text for p in made}) > 45
    assert sum(len(p.lines) for p in made) > 200
