"""LaTeX: what explanations print is compiled by pdflatex, without an error and within the margins."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from explained import explained
from sweeps import of_today
from zoo import ENTRIES

import chainrule as cr
from chainrule.checking.examples import of_rule
from chainrule.explain import Step
from chainrule.explain.document import PREAMBLE, document, passage
from chainrule.rules import BOOK

PDFLATEX = shutil.which("pdflatex")
compiled_here = pytest.mark.skipif(
    PDFLATEX is None, reason="pdflatex compiles: apt-get install texlive-latex-recommended"
)


def compiled(text: str, folder: Path) -> str:
    """The log of pdflatex."""
    (folder / "out.tex").write_text(text, encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "out.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    errors = [line for line in run.stdout.splitlines() if re.match(r"(\./)?out\.tex:\d+|! ", line)]
    assert run.returncode == 0, "\n".join(errors or run.stdout.splitlines()[-20:])
    return (folder / "out.log").read_text(encoding="latin-1")


def passages(steps: Iterable[Step]) -> str:
    return "\n".join([PREAMBLE, r"\begin{document}", *passage(steps), r"\end{document}", ""])


def overfull(log: str) -> list[str]:
    """What stands more than a millimetre over the margin."""
    return [said for said, points in re.findall(r"(Overfull \\hbox \(([\d.]+)pt.*)", log) if float(points) > 3]


@compiled_here
def test_explanations_are_compiled(tmp_path: Path) -> None:
    steps = [step for entry in of_today(ENTRIES, 16) for step in explained(entry)]
    assert overfull(compiled(passages(steps), tmp_path)) == []


@compiled_here
def test_every_rule_of_the_book_is_compiled(tmp_path: Path) -> None:
    samples = [sample for rule in dict.fromkeys(BOOK.rules.values()) if (sample := of_rule(rule)) is not None]
    assert len(samples) > 300
    steps = [step for sample in samples for step in sample.derive().explain()]
    assert overfull(compiled(passages(steps), tmp_path)) == []


@compiled_here
def test_a_whole_document_with_every_sign_in_its_names(tmp_path: Path) -> None:
    w = {'a_b%c$d#e&f{g}h~i^j\\k<l>"m`n': torch.randn(3, 3), "é ü": torch.randn(3, 3), "日本": torch.randn(3, 3)}
    explanation = cr.derive(lambda x: sum((x @ v).sum() for v in w.values()), torch.randn(4, 3)).explain()
    log = compiled(explanation.to_latex(title="100% & a_b"), tmp_path)
    assert overfull(log) == [] and (tmp_path / "out.pdf").stat().st_size > 10_000


@compiled_here
def test_a_wide_formula_stays_within_the_margins(tmp_path: Path) -> None:
    weights = {f"weight_of_the_layer_with_number_{i}": torch.randn(3) for i in range(12)}
    explanation = cr.derive(lambda x: (sum(w * x for w in weights.values()) ** 2).sum(), torch.randn(3)).explain()
    assert overfull(compiled(document(explanation), tmp_path)) == []


def test_it_is_written_to_a_file(tmp_path: Path) -> None:
    explanation = explained(ENTRIES[0])
    text = explanation.to_latex(tmp_path / "out.tex", title="A title")
    assert (tmp_path / "out.tex").read_text(encoding="utf-8") == text
    assert "A title" in text and text.endswith("\\end{document}\n")
