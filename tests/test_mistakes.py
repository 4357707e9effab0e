"""The corpus of planted mistakes: right programs and their unusual forms raise no alarm, mistakes are caught."""

from __future__ import annotations

import random
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import DAY, of_today

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from diagnose import Outcome, diagnosed, table_row
from planted import Change, Planted, Program, programs, subject

from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.report import Finding

SAMPLE, HANDS = 42, 6
PROGRAMS = programs()
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)


def of_kind(program: Program, *kinds: str) -> list[Planted]:
    return [planted for planted in program.cases() if planted.kind in kinds]


@every_program
def test_what_is_right_raises_no_alarm(program: Program, tmp_path: Path) -> None:
    outcomes = [diagnosed(planted, tmp_path) for planted in of_kind(program, "right", "variant")]
    alarms = [f"{o.planted} -> {o.said()}" for o in outcomes if o.alarm]
    assert not alarms, "\n".join(alarms)


@pytest.mark.parametrize("hand", [pytest.param(i, id=f"seed-{DAY}-{i}") for i in range(HANDS)])
def test_a_sample_of_the_mistakes_is_caught(hand: int, tmp_path: Path) -> None:
    mistakes = [m for program in PROGRAMS for m in of_kind(program, "mistake")]
    for planted in random.Random(DAY).sample(mistakes, SAMPLE)[hand::HANDS]:
        outcome = diagnosed(planted, tmp_path)
        assert outcome.caught, f"seed {DAY}: {planted} -> {outcome.said()}"


WHOLE = ["two_layers", "linear_regression", "attention", "layer_norm_parts", "library_averaged", "library_blocks"]


@pytest.mark.parametrize("name", of_today(WHOLE, 3))
def test_line_cause_and_repair_are_found(name: str, tmp_path: Path) -> None:
    (program,) = (p for p in PROGRAMS if p.name == name)
    outcomes = [diagnosed(planted, tmp_path) for planted in of_kind(program, "mistake")]
    for what in ("caught", "line", "cause", "proved", "counted"):
        missed = [f"{o.planted} -> {o.said()}" for o in outcomes if not getattr(o, what)]
        assert len(missed) <= len(outcomes) / 10, f"{what}:\n" + "\n".join(missed)


# -- the corpus itself -------------------------------------------------------------------------------


@every_program
def test_each_mistake_changes_a_gradient_and_no_variant_does(program: Program, tmp_path: Path) -> None:
    if re.search(r"\.g (\+|-)?= ", "\n".join(program.lines)) is None or program.name.startswith(
        ("numpy", "function", "layer_s")
    ):
        pytest.skip("it leaves no gradient on a tensor")
    right = gradients(program.with_changes("right"), tmp_path)
    if not right:
        pytest.skip("it leaves no gradient on a tensor")
    for planted in of_kind(program, "mistake", "variant"):
        found = gradients(planted, tmp_path)
        changed = [name for name in right if not same(found.get(name), right[name])]
        assert bool(changed) == (planted.kind == "mistake"), f"{planted}: {changed}"


def gradients(planted: Planted, folder: Path) -> dict[str, torch.Tensor]:
    """Every `.g` that a run leaves on tensors of the arguments, of the frames, and of the code's own attributes."""
    module = planted.load(folder)
    code, args, _ = subject(module)
    frames: list[dict[str, Any]] = []

    def profile(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_filename == module.__file__:
            frames.append(dict(frame.f_locals))

    sys.setprofile(profile)
    try:
        code(*args)
        if not isinstance(code, types.FunctionType):
            code.backward()
    finally:
        sys.setprofile(None)
    found: dict[str, torch.Tensor] = {}
    collect([code, args, *frames[::-1]], "", found, set())
    return found


def collect(thing: Any, path: str, found: dict[str, torch.Tensor], seen: set[int]) -> None:
    if id(thing) in seen or isinstance(thing, types.ModuleType | types.FunctionType | type):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        if isinstance(getattr(thing, "g", None), torch.Tensor):
            found[path] = thing.g
        return
    parts = enumerate(thing) if isinstance(thing, list | tuple) else dict(getattr(thing, "__dict__", {})).items()
    for key, part in thing.items() if isinstance(thing, dict) else parts:
        collect(part, f"{path}.{key}", found, seen)


def same(got: torch.Tensor | None, right: torch.Tensor) -> bool:
    return got is not None and got.shape == right.shape and torch.allclose(got, right, rtol=1e-4, atol=1e-5)


def test_the_causes_are_those_of_the_list() -> None:
    mistakes = [change for program in PROGRAMS for change in program.changes if change.kind == "mistake"]
    planted = {cause for change in mistakes for cause in change.causes}
    assert planted <= set(CAUSES)
    assert {change.causes[0] for change in mistakes} >= set(CAUSES) - {"contract", "unknown"}


@every_program
def test_pairs_are_of_different_statements_and_the_same_for_a_seed(program: Program) -> None:
    pairs = program.pairs(5)
    assert pairs == program.pairs(5) and len(pairs) <= 5
    for pair in pairs:
        first, second = pair.places
        assert first.change.at != second.change.at
        assert not set(first.change.names) & set(second.change.names)


# -- the loader --------------------------------------------------------------------------------------

PROGRAM = '''\
"""A program."""

CHECK = "step"


def inputs():
    return (2.0,)


def step(x):
    dw = 3 * x
    # ~ sign|wrong-scale: dw = -3 * x
    # ~ stale-parameter: x = x - 1 ;; dw = 3 * x
    # = dw = x + x + x
    x.g = dw
    #~ missing-gradient:
    # ~ lost-path (x, y):
    mask, w = dw > 0, dw
    # ~ wrong-mask: mask, w = dw < 0, dw
    return dw
'''


def program(folder: Path, text: str = PROGRAM) -> Program:
    (folder / "small.py").write_text(text)
    return Program(folder / "small.py")


def test_the_comments_are_read(tmp_path: Path) -> None:
    sign, stale, variant, left_out, named, mask = program(tmp_path).changes
    assert sign == Change(11, "dw = 3 * x", ("    dw = -3 * x",), "mistake", ("sign", "wrong-scale"), ("w",))
    assert stale.lines == ("    x = x - 1", "    dw = 3 * x") and stale.text == "x = x - 1 ;; dw = 3 * x"
    assert (variant.kind, variant.causes, variant.lines) == ("variant", (), ("    dw = x + x + x",))
    assert (left_out.at, left_out.lines, left_out.names, left_out.text) == (15, (), ("x",), "(left out)")
    assert (named.causes, named.names) == (("lost-path",), ("x", "y"))
    assert mask.names == ()


def test_the_planted_source_holds_no_comments_and_the_lines_are_its_own(tmp_path: Path) -> None:
    small = program(tmp_path)
    right, _, stale, _, left_out, _, mask = small.cases()
    assert "~" not in right.source and (right.line, right.expected_name, right.causes) == (None, None, ())
    assert (stale.line, stale.places[0].last, stale.expected_name) == (11, 12, "w")
    assert stale.source.splitlines()[10:13] == ["    x = x - 1", "    dw = 3 * x", "    x.g = dw"]
    assert (left_out.line, left_out.expected_name) == (None, "x") and "x.g" not in left_out.source
    assert mask.line == 13 and mask.source.splitlines()[12] == "    mask, w = dw < 0, dw"
    both = small.with_changes("mistake", [stale.places[0].change, mask.places[0].change])
    assert [place.first for place in both.places] == [11, 14]


def test_it_is_imported_from_a_file_of_its_own(tmp_path: Path) -> None:
    right, sign, *_ = program(tmp_path, PROGRAM.replace("x.g = dw\n", "y = dw\n")).cases()
    for planted, result in ((right, 6.0), (sign, -6.0), (right, 6.0)):
        code, args, kwargs = subject(planted.load(tmp_path))
        assert (code(*args), kwargs) == (result, {})
    assert len(list(tmp_path.glob("small_*.py"))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n    1\n)\n# ~ sign: x = 2\n", "small.py:4: the line above is no statement of one line"),
        ("x = 1\n# ~ a sentence\n", "small.py:2: a mistake reads"),
    ],
)
def test_comments_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = program(tmp_path, text).changes


# -- the count ---------------------------------------------------------------------------------------


def test_a_finding_is_held_to_the_place_the_name_and_the_cause(tmp_path: Path) -> None:
    small = program(tmp_path)
    _, sign, _, _, left_out, _, _ = small.cases()
    here = Finding("w", 11, "wrong-scale", "", "", True)
    said = Outcome(sign, 1.0, False, [here])
    assert said.line and said.cause and said.proved and said.counted and not said.first_cause and not said.misses()
    said = Outcome(sign, 1.0, False, [Finding("w", 12, "sign", "", ""), here])
    assert said.misses() == ["one finding each"]
    said = Outcome(sign, 1.0, False, [Finding("w", 12, "sign", "", "")])
    assert said.misses() == ["line", "proved"] and said.cause
    assert Outcome(sign, 1.0, True).misses() == ["not caught"] == Outcome(sign, 1.0, True, crash="KeyError").misses()
    assert not Outcome(left_out, 1.0, False, [Finding("x", None, "missing-gradient", "", "", True)]).misses()
    assert "line" in Outcome(left_out, 1.0, False, [Finding("y", None, "missing-gradient", "", "")]).misses()
    right = Outcome(small.with_changes("right"), 1.0, True, crash="KeyError")
    assert right.alarm and right.misses() == ["false alarm"]
    assert table_row("small", [said, right]).split() == ["small", "2", "1", *"11011", "0", "1", "1", "1"]
