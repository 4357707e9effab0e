"""One edit that makes all wrong gradients right: of a write in place, of two values exchanged, of what a call is given."""

from __future__ import annotations

import types
from collections.abc import Iterable
from itertools import islice

from chainrule.diagnosis.causes import sentence_of
from chainrule.diagnosis.locating.in_place import without_writing
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.locating.swapped import exchanges
from chainrule.diagnosis.repairing.arguments import other_arguments
from chainrule.diagnosis.repairing.elsewhere import Proofs
from chainrule.diagnosis.repairing.forgotten import mended
from chainrule.diagnosis.report import Edit, Finding

_WRITES = 4  # statements that write in place
_EXCHANGED = 12  # pairs of values that are exchanged
_ARGUMENTS = 24  # of calls, each of which is another one

_Tried = tuple[Edit, types.CodeType, str, str]  # the edit, where it is made, its cause, and what to say of it


class AtOnce:
    """Looks for one finding that takes the place of several."""

    def __init__(self, located: Located, proofs: Proofs) -> None:
        self.located, self.case, self.proofs = located, located.case, proofs

    def first(self, wrong: list[Wrong]) -> tuple[Finding, set[str]] | None:
        """The finding for all wrong gradients that are right without a write in place, or with two values exchanged; and
        what is right with it."""
        names = {w.claim.name for w in wrong}
        tried: list[_Tried] = []
        if names:
            tried += [(*made, "inplace-corruption", "") for made in islice(without_writing(self.case), _WRITES)]
        if len(names) > 1:
            swapped = islice(exchanges(self.case, wrong), _EXCHANGED)
            tried += [(edit, code, "wrong-tensor", said) for edit, code, said in swapped]
        return self._of_all(wrong, tried)

    def instead_of(self, found: list[Finding]) -> list[Finding]:
        """The findings; or the one of a call that is given another argument than it should be, where some have no repair,
        and all have this one."""
        if all(f.proved for f in found):
            return found
        wrong = self.located.wrong
        tried = ((*made, "") for made in islice(other_arguments(self.case, wrong), _ARGUMENTS))
        of_all = self._of_all(wrong, tried)
        return found if of_all is None or not {f.name for f in found} <= of_all[1] else [of_all[0]]

    def _of_all(self, wrong: list[Wrong], tried: Iterable[_Tried]) -> tuple[Finding, set[str]] | None:
        """The finding of the first edit with which all wrong gradients are right."""
        names = {w.claim.name for w in wrong}
        for edit, code, cause, said in tried:
            right = self.proofs.right(edit, code, whole=True)
            if names <= right:
                claim, *others = [w.claim for w in wrong]
                message = f"{claim.target} {tuple(claim.tensor.shape)} is wrong: {said or sentence_of(cause)}"
                if targets := dict.fromkeys(c.target for c in others if c.target != claim.target):
                    message += f"; so {'is' if len(targets) == 1 else 'are'} {', '.join(targets)}"
                finding = Finding(claim.name, edit.line, cause, message, "", file=edit.file)
                return mended(finding, edit), right
        return None
