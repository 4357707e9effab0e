"""What one can ask of a derivation; each answer is computed when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from chainrule.checking.verdict import Verdict
    from chainrule.derivation import Derivation
    from chainrule.explain import Explanation
    from chainrule.jacobian import Jacobian
    from chainrule.nudge import Nudge
    from chainrule.pictures.svg import Picture
    from chainrule.traces.trace import Trace


class Questions:
    """The questions of a `Derivation`; imported only when asked."""

    def verify(self, directions: int = 3, seed: int = 0) -> Verdict:
        """Rule, autograd and float64 central differences side by side; truthy when they agree."""
        from chainrule.checking.verdict import verify

        return verify(cast("Derivation", self), directions, seed)

    def trace(self, update: float | None = None) -> Trace:
        """Every step, forward and backward: code, shape, values. With `update`, those of the run after one plain
        gradient step of that size on the inputs asked for.

        >>> import torch, chainrule as cr
        >>> w = torch.tensor([1.0, 3.0])
        >>> d = cr.derive(lambda w: (w * w).sum(), w)
        >>> print(d.trace()["w.g"])
        w.g = 2 * w  (2,)
          [2, 6]
          comes from: w (input)
          used by: nothing
        >>> d.trace().beside(d.trace(update=0.25))["loss"].after
        tensor(2.5000)
        """
        from chainrule.traces.trace import Trace

        return Trace(cast("Derivation", self), update)

    def explain(self) -> Explanation:
        """Every line of both passes with its mathematics, its shapes, its reason and its derivation.

        `explain()["w.g"]` is one line; `.to_html(path)`, `.to_markdown()` and `.to_latex()` write all of them.

        >>> import torch, chainrule as cr
        >>> d = cr.derive(lambda w: (w * w).sum(), torch.tensor([1.0, 3.0]))
        >>> d.explain()["w.g"]
        <Step w.g = 2 * w>
        """
        from chainrule.explain import Explanation

        return Explanation(cast("Derivation", self))

    def jacobian(self, of: str, wrt: str) -> Jacobian:
        """d(of)/d(wrt) for two named values, `of` after `wrt`: `.matrix` (numel of `of`, numel of `wrt`).

        Computed by the rules of the book from `of` back to `wrt`, one upstream for each row, and compared with
        autograd. Zeros where `of` does not depend on `wrt`. Raises ChainruleError for an unknown name, numbers that
        are not real and floating, values the wrong way round, and more than fifty million entries.

        >>> import torch, chainrule as cr
        >>> d = cr.derive(lambda w: (w * w).sum(), torch.tensor([1.0, 3.0]))
        >>> print(d.jacobian("loss", "w"))
        the Jacobian of loss () with respect to w (2,): 1 x 2
              w[0]  w[1]
        loss     2     6
        """
        from chainrule.jacobian import jacobian

        return jacobian(cast("Derivation", self), of, wrt)

    def nudge(self, name: str, at: int | Sequence[int] = (), by: float = 1e-3) -> Nudge:
        """Move one element of a named value by `by`, run the forward pass again from there, in float64, and compare
        the change of the output with what the gradient predicts. `at` is the element's index.

        Raises ChainruleError for an unknown name, an index that is none, and numbers that are not real and floating.

        >>> import torch, chainrule as cr
        >>> d = cr.derive(lambda w: (w * w).sum(), torch.tensor([1.0, 3.0]))
        >>> print(d.nudge("w", 1, by=0.01))
        w[1] moved by 0.01
          value  shape  moved   largest change  norm of the change
          w      (2,)   1 of 2  +0.01 at [1]    0.01
          loss   ()     1 of 1  +0.0601         0.0601
        loss changed by 0.0601; w.g[1] * 0.01 = 6 * 0.01 = 0.06 was predicted (ratio 1.00167)
        """
        from chainrule.nudge import nudge

        return nudge(cast("Derivation", self), name, at, by)

    def picture(self, name: str | None = None, at: int | Sequence[int] | None = None) -> Picture:
        """A picture that a notebook shows; `.svg` is its text and `.save(path)` writes it.

        Without a name: the graph of the forward and the backward pass, for which igraph lays the boxes out. With a
        name: the value beside its gradient, as heat maps. With an element `at` of a value (or of a gradient, "w1.g")
        that a product of matrices made: the row and the column that meet there, and their sum of products.

        Raises ChainruleError for an unknown name, an element that is none, a value that no product made, and where
        igraph is missing.

        >>> import torch, chainrule as cr
        >>> d = cr.derive(lambda x, w: (x @ w).sum(), torch.ones(2, 3), torch.ones(3, 2))
        >>> d.picture()
        <Picture: The computation of loss and its backward pass; .svg is its text, .save(path) writes it>
        >>> d.picture("w").svg.startswith("<svg")
        True
        """
        d = cast("Derivation", self)
        if name is None:
            from chainrule.pictures.graph import of_derivation

            return of_derivation(d)
        from chainrule.pictures import heat, product

        return heat.of_value(d, name) if at is None else product.of_element(d, name, at)
