"""The verb that checks a check: plants mistakes in a backward pass, and sees which of them a test notices."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chainrule.diagnosis.auditing.audit_report import Audit, Mutant
from chainrule.diagnosis.auditing.mutants import Planted, Planter, changes
from chainrule.diagnosis.auditing.subjects import Subject, called, subjects, with_call
from chainrule.diagnosis.auditing.survival import Survival
from chainrule.diagnosis.auditing.trial_runs import calls_of, passes
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.forms import form_of
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.repairing.edited import edited
from chainrule.diagnosis.truth.case import Case
from chainrule.errors import ChainruleError


def audit(
    test: Callable[[], Any],
    code: Any,
    *args: Any,
    loss: Any = None,
    wrt: Any = None,
    forward: Any = None,
    **kwargs: Any,
) -> Audit:
    """Plant mistakes in the backward pass of `code`, one at a time, and run `test` on each.

    `test` is a function of no arguments that raises, or returns False, when it sees a wrong gradient. `code` is what
    `check` takes, or a torch.autograd.Function class, or a class with `backward`; `args` are its example inputs.
    Without them, those of the test's own call of `code` are used. The mistakes are edits of single lines (a factor
    of 2, -1, 1.01 or 1.001, a missing sum, another axis, an inverted mask, a gradient left out, ...), each run first
    to see that it does change a gradient. Tensors, random numbers and the code are afterwards as before.

    Raises ChainruleError where the test fails on the code as it is, where the inputs are not known, or where no line
    of a hand-written gradient can be changed.

    >>> import torch
    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     loss = (x * w).sum()
    ...     w.g = 1 * x
    >>> def test_step():
    ...     step(torch.tensor([1., 2.]))
    ...     assert (w.g - torch.tensor([1., 2.])).abs().max() < 0.05
    >>> found = audit(test_step, step)
    >>> {m.after for m in found.survived} == {"w.g = 1.01 * 1 * x", "w.g = 1.001 * 1 * x"}
    True
    >>> found.hints
    ['an error of 1 % in w.g passes, one of 10 % does not: make the tolerance smaller']
    """
    _refuse_arguments(test)
    form = form_of(code)
    if forward is None and form.forward is not None and (form.certain or form.code is not code):
        code, forward = form.code, form.forward
    asked = Asked(code, args, kwargs, loss, wrt, forward)
    state = State([test, code, forward, args, kwargs])
    try:
        return _Audited(test, asked, state).audit()
    finally:
        state.without_gradients([])
        state.restore()


class _Audited:
    """One audit under way."""

    def __init__(self, test: Callable[[], Any], asked: Asked, state: State) -> None:
        self.test, self.asked, self.state = test, asked, state
        self.name = getattr(test, "__name__", type(test).__name__)
        self.found = Audit(self.name, asked.name)

    def audit(self) -> Audit:
        self._first_run()
        for subject in self._subjects():
            self._plant(subject)
        if not self.found.caught and not self.found.survived:
            raise ChainruleError(
                f"no mistake could be planted in {self.asked.name}: none of its lines, changed, runs and gives another "
                "gradient; give inputs on which its gradients are not zero"
            )
        return self.found

    def _first_run(self) -> None:
        """The test on the code as it is; the inputs of the code, where they were not given."""
        entry = called(self.asked)
        with calls_of(entry) as calls:
            right, said = passes(self.test, self.state)
        if not right:
            raise ChainruleError(
                f"{self.name} fails on {self.asked.name} as it is ({said}); mistakes are planted only where it passes"
            )
        if entry is None:
            return
        if not calls:
            raise ChainruleError(
                f"{self.name} never calls {self.asked.name}, so its inputs are not known; give them after the code: "
                "audit(test, code, x, w)"
            )
        self.asked = with_call(self.asked, calls[0])
        self.state.add([self.asked.code, self.asked.args, self.asked.kwargs])

    def _subjects(self) -> list[Subject]:
        self.state.restore()
        return subjects(self.asked)

    def _plant(self, subject: Subject) -> None:
        self.state.restore()
        hand = subject.again()
        self.state.add([n.meta.get("given", n.meta["val"]) for n in hand.recorder.inputs])
        case = Case(hand)
        wrong = [row.name for row in Located(case).rows.values() if row.status not in ("right", "close")]
        if wrong:
            self.found.notes.append(
                f"{self.name} passes, and yet {', '.join(wrong)} of {subject.name} is wrong as it is; see check"
            )
        planter = Planter(case)
        self._forget_older_gradients(planter, subject)
        caught: list[Mutant] = []
        survived: list[Mutant] = []
        for planted in planter.all():
            outcome = self._outcome(planted, planter, subject)
            if outcome is not None:
                mutant, passed = outcome
                (survived if passed else caught).append(mutant)
        if survived:
            survival = Survival(planter, self._passes_with, survived)
            self.found.hints += [h for h in survival.hints() if h not in self.found.hints]
            survived = [replace(m, hint=survival.of(m)) for m in survived]
        self.found.caught += caught
        self.found.survived += survived

    def _forget_older_gradients(self, planter: Planter, subject: Subject) -> None:
        """Where the code and the test can do without gradients from earlier runs, they get none."""
        values = [c.value.meta.get("given", c.value.meta["val"]) for c in planter.leaves]
        self.state.without_gradients(values)
        try:
            self.state.restore()
            subject.again()
            if passes(self.test, self.state)[0]:
                return
        except Exception:  # the code reads what is there: w.g += ...
            pass
        self.state.without_gradients([])

    def _outcome(self, planted: Planted, planter: Planter, subject: Subject) -> tuple[Mutant, bool] | None:
        """The mistake, and whether the test passes with it; None where it does not run, or changes nothing."""
        try:
            with edited(planted.edit, planted.spot.code):
                changed = self._changed(planted, planter, subject)
                if not changed:
                    return None
                passed, _ = passes(self.test, self.state)
        except LookupError:  # no function runs this code, or it needs other variables
            return None
        return _mutant(planted, planter, changed), passed

    def _changed(self, planted: Planted, planter: Planter, subject: Subject) -> dict[str, float]:
        """The gradients that the edited code leaves, run once more, and by how much they are others."""
        self.state.restore()
        try:
            hand = subject.again()
            if not _same_output(hand, planter.case.hand):
                return {}
            if planted.missing:
                return {planted.missing: 1.0}
            case = Case(hand)
            values = {c.name: case.here.values.get(c.node) for c in case.claims}
            return changes(planter, values, sums=bool(hand.asked.function))
        except Exception:  # whatever the edited code raises: every test notices that
            return {}

    def _passes_with(self, planted: Planted) -> bool:
        try:
            with edited(planted.edit, planted.spot.code):
                return passes(self.test, self.state)[0]
        except LookupError:
            return False


def _same_output(now: Handwritten, then: Handwritten) -> bool:
    """Whether the forward pass is the same: a line may belong to both passes."""
    a, b = now.output.detach(), then.output.detach()
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _mutant(planted: Planted, planter: Planter, changed: dict[str, float]) -> Mutant:
    targets = {c.name: c.target for c in planter.leaves}
    most = max(changed, key=lambda name: changed[name])
    edit, lines = planted.edit, source.lines_of(planted.edit.file)
    before = " ".join(line.strip() for line in lines[edit.first - 1 : edit.last])
    names = tuple(targets[name] for name in changed)
    return Mutant(
        planted.cause, edit.file, edit.line, before, planted.after, targets[most], changed[most], names
    )  # fmt: skip


def _refuse_arguments(test: Any) -> None:
    name = getattr(test, "__name__", type(test).__name__)
    if not callable(test):
        raise ChainruleError(
            f"audit runs the test, which {type(test).__name__} is not; give a function of no arguments"
        )
    try:
        parameters = inspect.signature(test).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise ChainruleError(
            f"{name} takes {', '.join(needed)}, and audit runs a test of no arguments; give lambda: {name}(...)"
        )
