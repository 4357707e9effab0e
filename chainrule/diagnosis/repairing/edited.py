"""Running a person's functions with an edit made."""

from __future__ import annotations

import gc
import linecache
import types
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from chainrule.diagnosis.reading.source import lines_of
from chainrule.diagnosis.report import Edit


@contextmanager
def edited(edit: Edit, code: types.CodeType) -> Iterator[None]:
    """While open, the functions that run `code` run it with the edit made.

    Raises LookupError where the functions, or the edited code in the file, cannot be found.
    """
    outer = _outermost(code)
    functions = _running(outer)
    if not functions:
        raise LookupError("no function runs this code")
    new = _compiled(edit, outer)
    if new.co_freevars != outer.co_freevars:
        raise LookupError("the edit needs other variables of the enclosing function")
    try:
        for function in functions:
            function.__code__ = new
        yield
    finally:
        for function in functions:
            function.__code__ = outer


_FOUND: weakref.WeakKeyDictionary[types.CodeType, weakref.WeakSet[types.FunctionType]] = weakref.WeakKeyDictionary()


def _running(code: types.CodeType) -> list[types.FunctionType]:
    """The functions that run `code`. All objects are looked through for them: once, but for nested functions, which
    may be made anew at any time."""
    known = [f for f in _FOUND.get(code, ()) if f.__code__ is code]
    if known:
        return known
    found = [f for f in gc.get_referrers(code) if isinstance(f, types.FunctionType) and f.__code__ is code]
    if "<locals>" not in code.co_qualname:
        _FOUND[code] = weakref.WeakSet(found)
    return found


def _outermost(code: types.CodeType) -> types.CodeType:
    """The function in which a nested one is written; code of a module's or a class's own function as it is."""
    if "<locals>" not in code.co_qualname:
        return code
    for holder in gc.get_referrers(code):
        if isinstance(holder, types.FunctionType) and holder.__code__ is code:
            return code  # alive itself
    for held in gc.get_objects():
        if isinstance(held, types.FunctionType) and _contains(held.__code__, code):
            return held.__code__
    return code


def _contains(outer: types.CodeType, code: types.CodeType) -> bool:
    return any(c is code or (isinstance(c, types.CodeType) and _contains(c, code)) for c in outer.co_consts)


def _compiled(edit: Edit, outer: types.CodeType) -> types.CodeType:
    source = edit.applied(lines_of(edit.file))
    try:
        module = compile("\n".join(source) + "\n", edit.file, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise LookupError("the edit is no Python") from error
    found = [
        c for c in _codes(module) if c.co_qualname == outer.co_qualname and c.co_firstlineno == outer.co_firstlineno
    ]
    if not found:
        found = [c for c in _codes(module) if c.co_name == outer.co_name and c.co_firstlineno == outer.co_firstlineno]
    if len(found) != 1:
        raise LookupError("the edited function was not found in the file")
    return found[0]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for held in code.co_consts:
        if isinstance(held, types.CodeType):
            yield held
            yield from _codes(held)


@contextmanager
def rewritten(edits: Sequence[tuple[Edit, types.CodeType]]) -> Iterator[None]:
    """While open, the functions run with all the edits made, and their files read so: what is found meanwhile stands in
    the same places, since of each edit the lines are as many as they were.

    Raises LookupError as `edited` does.
    """
    whole = {_outermost(code): edit.file for edit, code in edits}
    lines = {file: lines_of(file) for file in whole.values()}
    for edit, _ in edits:
        lines[edit.file] = edit.applied(lines[edit.file])
    before = {file: linecache.cache.get(file) for file in lines}
    with ExitStack() as stack:
        try:
            for file, held in lines.items():
                text = [f"{line}\n" for line in held]
                linecache.cache[file] = (sum(map(len, text)), None, text, file)
            for code, file in whole.items():
                stack.enter_context(edited(Edit(file, 1, 0, ()), code))
            yield
        finally:
            for file, entry in before.items():
                linecache.cache.pop(file, None)
                if entry is not None:
                    linecache.cache[file] = entry
