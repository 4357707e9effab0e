"""Layers whose backward pass is never called, or called out of turn: the lines that should call it."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.handed import Call
from chainrule.diagnosis.reading.spots import Span
from chainrule.diagnosis.repairing.elsewhere import Proofs
from chainrule.diagnosis.report import Edit, Finding
from chainrule.run import needed


@dataclass(frozen=True)
class _Placed:
    edit: Edit
    code: types.CodeType
    cause: str
    message: str
    name: str  # of the value whose gradient is wrong; "" where it may be any


class Misplaced:
    """The findings for calls of backward passes that are missing, or in another order than the layers."""

    def __init__(self, located: Located, proofs: Proofs) -> None:
        self.located, self.case, self.proofs = located, located.case, proofs
        self.calls = [c for c in self.case.hand.calls if c.forward is not None and c.owner is not None]
        done = {c.forward for c in self.calls}
        owners = {type(c.owner) for c in self.calls}
        used = set(needed([self.case.base.output]))
        self.left = [
            c
            for c in self.case.hand.calls
            if c not in done
            and c.owner is not None
            and c.forward is None
            and c.given
            and c.returned
            and c.returned[0] in used
            and (type(c.owner) in owners or self._method(c) is not None)
        ]

    def finding(self) -> tuple[Finding, set[str]] | None:
        """The first whose repair is proved, and the gradients that are right with it."""
        for placed in self._candidates():
            right = self.proofs.right(placed.edit, placed.code)
            if right and (placed.name in right or not placed.name):
                edit = placed.edit
                finding = Finding(
                    placed.name or min(right),
                    edit.line,
                    placed.cause,
                    placed.message,
                    "",
                    True,
                    edit.file,
                    "",
                    (),
                    edit,
                )
                changed = source.lines_of(edit.file)[edit.first - 1 : edit.last]
                finding.text = "\n".join(line.strip() for line in changed)
                finding.repair = "\n".join(line.strip() for line in edit.lines)
                return finding, right
        return None

    def _candidates(self) -> Iterator[_Placed]:
        for wrong in self.located.wrong:
            call = wrong.claim.node.meta.get("handed")
            if call is not None and call.returned[:1] == [wrong.claim.node]:
                yield from self._inside(call, wrong.claim.name)
            if call is None or call.given[:1] != [wrong.claim.node] or len(wrong.above) != 1:
                continue
            yield from self._between(call, wrong.above[0].value, wrong.claim.name)
            yield from self._exchanged(call, wrong.claim.name)
        yield from self._after()

    def _between(self, call: Call, known: fx.Node, name: str) -> Iterator[_Placed]:
        """Calls of the layers between that whose gradient is known and the one that is called."""
        chain: list[Call] = []
        value, goal = known, call.forward.returned[0] if call.forward is not None else None
        while value is not goal:
            layer = next((c for c in self.left if c.returned[0] is value), None)
            if layer is None or layer in chain:
                return
            chain.append(layer)
            value = layer.given[0]
        argument = call.given[0].meta.get("span")
        if not chain or argument is None or call.spot.span is None:
            return
        texts = [self._called(c) for c in chain]
        if None in texts:
            return
        given = source.text_at(argument)
        statement = source.statement_at(call.spot.span)
        if given.isidentifier() and statement is not None:
            place = source.span_of(statement, call.spot.file)
            first = source.lines_of(place.file)[place.line - 1]
            indent = first[: len(first) - len(first.lstrip())]
            lines = tuple(f"{indent}{given} = {text}({given})" for text in texts)
            edit = Edit(place.file, place.line, place.line - 1, lines)
        else:
            for text in texts:
                given = f"{text}({given})"
            edit = edits.replaced(argument, given)
        yield _Placed(edit, call.spot.code, self._cause(chain), self._message(chain), name)

    def _inside(self, call: Call, name: str) -> Iterator[_Placed]:
        """A call of a layer inside of this one: what it returns is given back, or added: `dout + inner.backward(dout)`."""
        outer, given, span = call.forward, call.given[:1], call.returned[0].meta.get("span")
        argument = given[0].meta.get("name") if given else None
        for layer in self.left:
            text = self._called(layer)
            if outer is None or span is None or not argument or text is None:
                continue
            if outer.began <= layer.began and layer.ended <= outer.ended:
                inner = f"{text}({argument})"
                for repair in (f"{source.text_at(span)} + {inner}", inner):
                    edit = edits.replaced(span, repair)
                    yield _Placed(
                        edit, call.returned[0].meta["spot"].code, self._cause([layer]), self._message([layer]), name
                    )

    def _after(self) -> Iterator[_Placed]:
        """A call of a layer after that of the layer which follows it in the forward pass."""
        for layer in self.left:
            last = next((c for c in reversed(self.calls) if c.forward.given[:1] == layer.returned[:1]), None)  # type: ignore[union-attr]
            text = self._called(layer)
            if last is None or text is None or last.spot.span is None:
                continue
            statement = source.statement_at(last.spot.span)
            target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
            whole = (
                isinstance(statement, ast.Assign) and source.span_of(statement.value, last.spot.file) == last.spot.span
            )
            if statement is not None and isinstance(target, ast.Name) and whole:
                line = f"{target.id} = {text}({target.id})"
                edit = edits.inserted_after(source.span_of(statement, last.spot.file), line)
            else:
                edit = edits.replaced(last.spot.span, f"{text}({source.text_at(last.spot.span)})")
            yield _Placed(edit, last.spot.code, self._cause([layer]), self._message([layer]), "")

    def _exchanged(self, call: Call, name: str) -> Iterator[_Placed]:
        """The statement that calls this layer, and the one that calls the layer after it, in the place of each other."""
        after = [c for c in self.calls if c.forward.given[:1] == call.forward.returned[:1]]  # type: ignore[union-attr]
        for other in after:
            spans = [span for c in (call, other) if (span := self._statement(c)) is not None]
            if len(spans) < 2 or call.spot.code is not other.spot.code:
                continue
            edit = edits.exchanged(*sorted(spans, key=lambda span: span.line))
            if edit is None:
                continue
            message = (
                f"the backward pass of {self._name(call)} is called before that of {self._name(other)}, which comes "
                "after it in the forward pass"
            )
            yield _Placed(edit, call.spot.code, "wrong-tensor", message, name)

    @staticmethod
    def _statement(call: Call) -> Span | None:
        statement = source.statement_at(call.spot.span) if call.spot.span is not None else None
        return source.span_of(statement, call.spot.file) if isinstance(statement, ast.Assign) else None

    def _cause(self, chain: list[Call]) -> str:
        """What is missing: the gradients of a layer's own parameters, or its factor alone."""
        claimed = {c.value for c in self.case.claims}
        inputs = [n for n in self.case.base.inputs if n in self.case.base.gradients and n not in claimed]
        lacking = any(self._reads(c, n) for c in chain for n in inputs if n not in c.given)
        return "missing-gradient" if lacking else "missing-factor"

    def _message(self, chain: list[Call]) -> str:
        names = " and ".join(self._name(c) for c in chain)
        return f"the backward pass of {names} is never called, and the loss is computed through {'it' if len(chain) == 1 else 'them'}"

    @staticmethod
    def _reads(call: Call, value: fx.Node) -> bool:
        """Whether a value is read inside of a call."""
        spots = [u.meta.get("spot") for u in value.users]
        return any(s is not None and call.began <= s.order <= call.ended for s in spots)

    def _method(self, call: Call) -> str | None:
        """The name of a layer's backward pass: as those of the others are called."""
        names = dict.fromkeys(c.code.co_name for c in self.calls)
        return next((n for n in names if callable(getattr(call.owner, n, None))), None)

    def _called(self, call: Call) -> str | None:
        """A layer's backward pass, as its forward pass is called: `self.norm.backward`."""
        text, method = self._object(call), self._method(call)
        return f"{text}.{method}" if text and method else None

    @staticmethod
    def _object(call: Call) -> str:
        """The source of the object whose method is called."""
        text = source.text_at(call.spot.span) if call.spot.span is not None else ""
        try:
            node = ast.parse(text, mode="eval").body
        except SyntaxError:
            return ""
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and function.attr == call.code.co_name:
            function = function.value
        return ast.unparse(function) if function is not None else ""

    def _name(self, call: Call) -> str:
        return self._object(call.forward or call) or type(call.owner).__name__
