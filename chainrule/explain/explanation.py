"""The explanation of a derivation: each line of both passes with its mathematics, its shapes and its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chainrule.errors import ChainruleError
from chainrule.explain.explainer import Explainer
from chainrule.explain.step import Step
from chainrule.files import write
from chainrule.show.mathematics import text
from chainrule.show.names import same_gradient

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


class Explanation:
    """The steps of a derivation in order: inputs, forward lines, backward lines; `explanation["w1.g"]` is one."""

    def __init__(self, d: Derivation) -> None:
        self.derivation = d
        self.steps: list[Step] = list(Explainer(d).steps())

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        """The line that gives a value to `name`, under another name where a gradient is that of two values;
        ChainruleError where none does."""
        for known in (name, same_gradient(self.derivation.layout, name)):
            for step in self.steps:
                if known in step.targets:
                    return step
        raise ChainruleError(f"no line gives {name!r}; there are {', '.join(t for s in self.steps for t in s.targets)}")

    def __str__(self) -> str:
        lines = []
        for step in self.steps:
            if step.formula is None:
                continue
            lines += [step.code, f"    {text(step.formula)}", f"    {step.shapes}"]
            lines += [f"    {step.reason}"] if step.reason else []
        return "\n".join(lines)

    def to_html(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """One page to share: it holds all that it needs, makes no request, and works with scripts off. With the extra
        `chainrule[pictures]` installed it shows the graph of both passes too.

        Returns the page, and writes it to `path` where one is given. Raises ChainruleError where that is not possible.
        """
        from chainrule.explain.page import page

        return _written(page(self, title), path, "a page of HTML", ".html", ".htm")

    def to_markdown(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """A document for Quarto, Jupyter Book and GitHub; written to `path` where one is given."""
        from chainrule.explain.markdown import markdown

        return _written(markdown(self, title), path, "Markdown", ".md", ".qmd")

    def to_latex(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> str:
        """A document that pdflatex compiles with plain TeX Live; written to `path` where one is given."""
        from chainrule.explain.document import document

        return _written(document(self, title), path, "LaTeX", ".tex")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from chainrule.explain.notebook import bundle

        return bundle(self)


def _written(text: str, path: str | os.PathLike[str] | None, what: str, *endings: str) -> str:
    if path is not None:
        write(text, path, what, *endings)
    return text
