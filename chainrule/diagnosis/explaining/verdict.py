"""What is said of one wrong line: its cause, what else it may be, and the changes that mend it."""

from __future__ import annotations

from dataclasses import dataclass, field

from chainrule.diagnosis.explaining.mutation import WRAPPED, Mutation

# What a scale may look like, where the numbers are the right ones times a constant.
ALSO_SCALES = frozenset(
    ("wrong-factor", "wrong-term-scale", "double-applied", "wrong-tensor", "missing-factor", "wrong-exponent")
)


# Something stands where another thing should; what is missing, or there too often, says more of a right line.
_CHANGES = frozenset(("wrong-factor", "wrong-tensor", "wrong-exponent", "wrong-mask", "wrong-axis"))
_RATHER = frozenset(
    (
        ("wrong-term-scale", "wrong-scale"),
        ("wrong-term-scale", "sign"),
        ("wrong-scale", "missing-factor"),
        ("missing-factor", "wrong-exponent"),
        ("wrong-factor", "missing-factor"),
        ("missing-broadcast-sum", "missing-factor"),
        ("double-applied", "lost-path"),
        ("double-applied", "missing-term"),
    )
)


@dataclass
class Diagnosis:
    """What is wrong with one line, and the changes to it that give the right numbers."""

    cause: str
    repairs: list[Mutation] = field(default_factory=list)  # of the person's own code, nearest first
    also: tuple[str, ...] = ()
    ratio: float | None = None  # the person's numbers divided by the right ones, where that is one number
    said: str = ""  # what the ratio equals
    told_by: str = "fact"  # the cause: a fact, the nearest "repair", how the right line was "made" wrong, or "numbers"

    def with_repair(self, cause: str | None, weight: float) -> tuple[str, tuple[str, ...]]:
        """The cause, and others that fit as well, where a change that `cause` tells of has been proved.

        It says more than other changes and than the numbers; what was done to the right line says more than a change
        that is far from the person's."""
        if (self.cause, cause) in _RATHER:  # what was found in the line says more than what the right one lacks
            return str(cause), tuple(c for c in self.also if c != cause)
        scales = cause in ("wrong-scale", "wrong-term-scale") and self.cause in ALSO_SCALES
        far = weight >= WRAPPED + 1 or (weight >= WRAPPED and cause not in _CHANGES)
        made = self.told_by == "made" and far and not scales and self.cause not in _CHANGES
        if cause in (None, self.cause) or (self.cause != "unknown" and (self.told_by == "fact" or made)):
            return self.cause, self.also
        assert cause is not None
        others = dict.fromkeys(c for c in (self.cause, *self.also) if c not in (cause, "unknown"))
        return cause, tuple(others)[:2]
