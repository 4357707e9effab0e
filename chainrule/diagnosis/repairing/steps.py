"""One step that is missing between a gradient and the lines that read it: `dscores *= scale`, `dx = dx + dresidual`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.locating.unnamed import mended
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.paths import lost_from
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.derived import Derived
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import same

_TRIED = 200  # pairs of a gradient and a value whose gradient should stand there
_FEW = 3  # of which a repair is run


@dataclass
class Step:
    """What stands between a gradient and several wrong ones that read it."""

    cause: str
    edit: Edit
    text: str
    spot: Spot
    readers: set[str]  # the gradients that are right with it, by name


def missing_steps(located: Located, wrong: Wrong, others: Sequence[Wrong]) -> Iterator[Step]:
    """Lines that turn a gradient, right as it is, into that of a value before it, where all that is wrong and reads it
    would be right."""
    found = 0
    for above in wrong.above:
        readers = [w for w in (wrong, *others) if above in w.above]
        places = _places(located, above, readers)
        if len({(s.file, s.line) for s in places}) < 2:
            continue  # else the mistake may as well be in the one line
        for value in _values_before(located, above):
            if not all(_right_with(located, w, above, value) for w in readers):
                continue
            made = _line(located, above, value, places[0])
            if made is not None:
                yield Step(_cause(located, above, value), *made, places[0], {w.claim.name for w in readers})
                found += 1
            if found >= _FEW:
                return


def _places(located: Located, above: Claim, readers: Sequence[Wrong]) -> list[Spot]:
    """Where they read a gradient under its name."""
    copies = {above.node, *(u for u in above.node.users if u.meta.get("same_as") is above.node)}
    mine = {n for w in readers for n in w.mine}
    reading = [n for n in located.case.graph.nodes if n in mine and not copies.isdisjoint(n.all_input_nodes)]
    spots = [s for n in reading if (s := n.meta.get("spot")) is not None and s.span is not None]
    return [s for s in spots if _name(located, above, s)]


def _name(located: Located, above: Claim, spot: Spot) -> str:
    """The variable that holds a gradient at a place."""
    name = Reach(spot, located.case.recorder).names.get(above.node, "")
    return name if name.isidentifier() else ""


def _values_before(located: Located, above: Claim) -> list[fx.Node]:
    """Values of the same shape whose gradient is another, the latest first; of several with one gradient, one."""
    case = located.case
    shape, now = above.value.meta["val"].shape, case.here.truth(above.value)
    found: dict[fx.Node, fx.Node] = {}
    for value in reversed([n for n in case.graph.nodes if n in case.forward and n in case.base.gradients]):
        if value.meta["val"].shape == shape and not same(now, case.here.truth(value)):
            found.setdefault(case.base.gradients[value], value)
    return list(found.values())[:_TRIED]


def _right_with(located: Located, wrong: Wrong, above: Claim, value: fx.Node) -> bool:
    return mended(located.case, wrong.claim, [c for c in wrong.above if c is not above], above.node, value)


def _line(located: Located, above: Claim, value: fx.Node, place: Spot) -> tuple[Edit, str] | None:
    """The edit that puts the step before the first line that reads the gradient."""
    statement = source.statement_at(place.span) if place.span is not None else None
    name = _name(located, above, place)
    text = _sum(located, above, value, place) or Derived(located, [value]).expression(value, place, [above])
    if statement is None or text is None:
        return None
    return edits.inserted_before(source.span_of(statement, place.file), f"{name} = {text}"), f"{name} = {text}"


def _sum(located: Located, above: Claim, value: fx.Node, place: Spot) -> str | None:
    """The gradient, and another that has a name there, where that is all: what comes back past a branch."""
    here = located.case.here
    lost = here.truth(value) - here.truth(above.value)
    others = (c for c in located.known if c is not above and same(here.truth(c.value), lost))
    names = (name for c in others if (name := _name(located, c, place)))
    return next((f"{_name(located, above, place)} + {name}" for name in names), None)


def _cause(located: Located, above: Claim, value: fx.Node) -> str:
    """What the gradient lacks where it is read: a number, a term, or a factor."""
    now, then = (located.case.here.truth(v) for v in (above.value, value))
    ratio = float((then * now).sum() / (now * now).sum()) if bool(now.any()) else 0.0
    if same(now * ratio, then):
        return "sign" if abs(ratio + 1) < 1e-9 else "wrong-scale"
    gradient = located.case.base.gradients[value]
    return lost_from([gradient]) if gradient.meta["operation"] in ("add", "sub") else "missing-factor"
