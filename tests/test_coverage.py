"""The rule book against torch's own operator database: a part of it each day."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sweeps import DAY, EVERYTHING

import chainrule as cr
from chainrule.checking import covered
from chainrule.checking.coverage import REFUSED, RULES, STEP, Result, measure
from chainrule.checking.entries import KNOWN, chosen, entries, family, named

PART = f"{DAY}:{1 if EVERYTHING else 0.06}"
HANDS = 12  # as many tests as the part is dealt out to

EXPECTED = {
    "as_strided_scatter": STEP, "to_sparse": REFUSED, "sparse.mm.reduce": REFUSED, "sparse.sampled_addmm": REFUSED,
}  # fmt: skip


@pytest.mark.parametrize("hand", [pytest.param(i, id=f"part-{PART}-{i}") for i in range(HANDS)])
def test_the_database_is_covered_by_rules(hand: int) -> None:
    for entry in chosen(entries(), PART)[hand::HANDS]:
        result = measure(entry, emit=True)
        assert result.status == EXPECTED.get(entry, RULES), f"part {PART}, {entry}: {result.status}: {result.message}"


@pytest.mark.parametrize("entry", EXPECTED)
def test_what_rules_do_not_cover_says_why(entry: str) -> None:
    result = measure(entry)
    assert result.ok and result.status == EXPECTED[entry]
    assert result.reason == KNOWN[entry]


def test_a_wrong_rule_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * x.sin()

    monkeypatch.setitem(cr.rules.BOOK.rules, "sin", cr.rules.Rule("sin", None, wrong))  # type: ignore[attr-defined]
    result = measure("sin")
    assert not result.ok and "not autograd's" in result.reason and result.failed == [0]


def test_every_entry_has_a_family() -> None:
    results = [Result(name, RULES, family=family(name)) for name in entries()]
    assert sum(len(row.results) for row in covered.table(results)) == len(entries())


def test_the_page_about_it() -> None:
    results = [Result("sin", RULES, 2, family="elementary"), Result("to_sparse", REFUSED, 1, family="without a rule")]
    page = covered.as_markdown(results)
    assert "| elementary | " in page and "| 1 | `sin` |" in page
    assert "| `to_sparse` | refused | its result is a sparse tensor |" in page
    assert covered.as_json(results)["totals"] == {RULES: 1, REFUSED: 1}


def test_the_documents_say_what_was_measured() -> None:
    root = Path(__file__).parents[1]
    saved = json.loads((root / "bench" / "results" / "coverage.json").read_text())
    results = [Result(**{k: v for k, v in r.items() if k != "reason"}) for r in saved["results"]]
    assert [r.entry for r in results if r.status != RULES] == sorted(EXPECTED)
    readme = " ".join((root / "README.md").read_text().split())
    assert f"Of the {len(results)} differentiable entries" in readme
    assert (
        f"{saved['totals'][RULES]} are derived by rules alone, on all of their {saved['samples']:,} samples" in readme
    )
    page = (root / "docs" / "coverage.md").read_text()
    assert all(f"`{r.entry}`" in page for r in results)


@pytest.mark.parametrize("part", ["7", "x:1", ":"])
def test_a_part_that_is_not_understood(part: str) -> None:
    with pytest.raises(cr.ChainruleError, match="names no part of the entries; write SEED:SHARE"):
        chosen(["a"], part)


def test_names_of_entries() -> None:
    assert named(["sin"]) == ["sin"]
    assert "masked.sum" in named(["masked."])
    with pytest.raises(cr.ChainruleError, match="no differentiable entry 'sinus'"):
        named(["sinus"])


def test_without_expecttest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.testing._internal.common_methods_invocations", None)
    monkeypatch.setattr("chainrule.checking.entries.entries", entries.__wrapped__)
    with pytest.raises(cr.ChainruleError, match=r"needs .*; run pip install"):
        entries.__wrapped__()
