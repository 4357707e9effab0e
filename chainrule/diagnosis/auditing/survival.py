"""Why planted mistakes survive a test: gross changes of one gradient, and which of them the test notices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chainrule.diagnosis.auditing.audit_report import Mutant
from chainrule.diagnosis.auditing.mutants import Planted, Planter
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.report import Edit

FAR = 1e6  # beyond every tolerance, and no multiple of it makes a zero larger
SCALES = (1.001, 1.01, 1.1, 2, 10, 100, 1e3, 1e4, 1e5)

NOT_RUN = "the test never runs the line of {}: it does not call this backward pass, or not for all inputs"
NOT_COMPARED = "{} {is} not compared: the test passes with a million added"
ONE_SIDED = "{} {is} compared without an absolute value: the test passes with a million %s"
ZERO = (
    "{} {is} zero in the test, or nearly: the test passes with a million times as much; an upstream gradient of ones gives "
    "that through a norm or a softmax, so give a random one"
)
DIRECTION = "only the direction of {} is compared: the test passes with a million times as much"
MEAN = "only a mean or a sum of {} is compared, in which errors cancel: compare every element, in tensors of one shape"
TOLERANCE = "an error of %s in {} passes, one of %s does not: make the tolerance smaller"
LOOSE = (
    "{} may be %g times as large: the tolerance is as large as the gradient itself; make it smaller, or relative to the "
    "gradient"
)
SHAPE = "{} may have another shape, to which the comparison broadcasts: compare the shapes, too"
OF_CAUSE = {
    "upstream-dropped": "the upstream gradient may be left out: it is all ones in the test; give a random one",
    "wrong-mask": "no input of the test lies where a wrong mask makes a difference: give values on both sides of it",
    "overwritten-not-accumulated": "the test has nothing for a gradient to be added to: let two paths lead to the value",
    "transposed": "a transpose does not show on the values of the test: give rectangular matrices of random numbers",
    "wrong-axis": "an axis does not show on the values of the test: give random numbers of sizes that all differ",
    "missing-gradient": "a gradient may be left out: the test skips those that are None, or reads older ones",
}


@dataclass(frozen=True)
class Reason:
    """Why mistakes in one gradient survive that change it by `least` to `most` of its size."""

    text: str
    least: float = 0.0
    most: float = math.inf

    def explains(self, mutant: Mutant) -> bool:
        return self.least <= mutant.change <= self.most


class Survival:
    """What can be found out about each gradient of which a mistake survived."""

    def __init__(self, planter: Planter, passes: Callable[[Planted], bool], survived: list[Mutant]) -> None:
        self.planter, self.passes, self.survived = planter, passes, survived
        claims = {c.target: c for c in planter.leaves}
        concerned = dict.fromkeys(m.gradient for m in survived)
        self.reasons = {target: list(self._reasons(claims[target])) for target in concerned}

    def hints(self) -> list[str]:
        """The reasons that explain a survivor, each once with all the gradients that it is true of."""
        alike: dict[str, list[str]] = {}
        for target, reasons in self.reasons.items():
            for reason in reasons:
                if any(m.gradient == target and self._reason(m) == reason.text for m in self.survived):
                    alike.setdefault(reason.text, []).append(target)
        found = [_said(text, targets) for text, targets in alike.items()]
        return list(dict.fromkeys([*found, *(h for m in self.survived if "{}" not in (h := self._reason(m)) and h)]))

    def of(self, mutant: Mutant) -> str:
        """The reason why one mistake survived; empty where none was found."""
        return _said(self._reason(mutant), [mutant.gradient])

    def _reason(self, mutant: Mutant) -> str:
        found = (r.text for r in self.reasons[mutant.gradient] if r.explains(mutant))
        return next(found, OF_CAUSE.get(mutant.cause, ""))

    # -- one gradient ------------------------------------------------------------------------------

    def _reasons(self, claim: Claim) -> Iterator[Reason]:
        more, less = self._passes(claim, "add", FAR), self._passes(claim, "add", -FAR)
        if more and less:
            yield Reason(NOT_COMPARED if self._is_run(claim) else NOT_RUN)
        elif more or less:
            yield Reason(ONE_SIDED % ("added" if more else "subtracted"))
        elif self._passes(claim, "mul", FAR):
            yield Reason(ZERO if self._passes(claim, "mul", -1) else DIRECTION)
        else:
            yield from self._of_sizes(claim)
        yield Reason(SHAPE, least=math.inf)

    def _of_sizes(self, claim: Claim) -> Iterator[Reason]:
        passed = 1.0
        noticed = FAR
        for scale in SCALES:
            if not self._passes(claim, "mul", scale):
                noticed = scale
                break
            passed = scale
        if self._varies(claim) and self._any(self.planter.mean_kept(claim, 10 * noticed)):
            yield Reason(MEAN)
        elif passed > 1:
            text = LOOSE % passed if passed >= 2 else TOLERANCE % (_percent(passed), _percent(noticed))
            yield Reason(text, most=noticed - 1)

    def _varies(self, claim: Claim) -> bool:
        """Whether a gradient is not the same number everywhere: then it can be changed and keep its mean."""
        value = self.planter.values[claim.node]
        return bool(((value - value.mean()).abs() > 1e-6 * value.abs().max()).any())

    def _passes(self, claim: Claim, operation: str, number: float) -> bool:
        return self._any(self.planter.changed(claim, "unknown", operation, number))

    def _any(self, planted: Iterator[Planted]) -> bool:
        return any(self.passes(one) for one in planted)

    def _is_run(self, claim: Claim) -> bool:
        """Whether the test runs the line of a gradient: it notices an exception there."""
        assert claim.spot is not None
        statement = source.statement_at(claim.spot.span) if claim.spot.span is not None else None
        if statement is None:
            return True
        text = source.lines_of(claim.spot.file)[statement.lineno - 1]
        indent = text[: len(text) - len(text.lstrip())]
        edit = Edit(claim.spot.file, statement.lineno, statement.lineno - 1, (f"{indent}raise AssertionError",))
        return not self.passes(Planted("unknown", edit, claim.spot, ""))


def _percent(factor: float) -> str:
    return f"{round(100 * (factor - 1), 1):.6g} %"


def _said(text: str, targets: list[str]) -> str:
    return text.replace("{}", _listed(targets)).replace("{is}", "is" if len(targets) == 1 else "are")


def _listed(names: list[str]) -> str:
    """
    >>> _listed(["w.g"]), _listed(["w.g", "b.g", "x.g"])
    ('w.g', 'w.g, b.g and x.g')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
