"""The names under which assignments keep gradients, told from the source of a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from chainrule.diagnosis.reading.claim import names_meant

Function = ast.FunctionDef | ast.AsyncFunctionDef


def gradients_left_by(function: Function) -> list[str]:
    """The targets in a function's assignments that say that they are gradients: `w.g`, `dw` where there is a `w`,
    `grads["w"]`.

    >>> gradients_left_by(ast.parse("def f(x, w):\\n    out = x @ w\\n    dw = x.T\\n    w.g = dw\\n    data = 1").body[0])
    ['dw', 'w.g']
    """
    names = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} | {a.arg for a in function.args.args}
    names |= {str(k) for n in ast.walk(function) for k in _keys(n)}
    names |= {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
    found: dict[str, None] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            emptied = isinstance(node.value, ast.Constant) and not node.value.value
            for target in _targets(node) if not emptied else ():
                if isinstance(target, ast.Attribute) and target.attr in ("g", "grad"):
                    found[ast.unparse(target)] = None
                given = isinstance(target, ast.Subscript) and ast.unparse(target.value) in {
                    a.arg for a in function.args.args
                }
                if (
                    isinstance(target, ast.Subscript)
                    and any(_keys(target))
                    and _is_of_gradients(target.value)
                    and not given
                ):
                    found[ast.unparse(target)] = None
                    continue
                label = _label(target)
                if label is not None and any(m in names for m in names_meant(label)):
                    found[label] = None
    return list(found)


def _is_of_gradients(dictionary: ast.expr) -> bool:
    return ast.unparse(dictionary).split(".")[-1].casefold() in ("grad", "grads", "gradient", "gradients")


def labels_set_by(function: Function) -> set[str]:
    """The names of the variables in which a function keeps something. `dreg = reg * w` is what reg adds to another
    gradient, and no gradient of reg.

    >>> code = "def f(x, w, reg):\\n    dx = w.T\\n    dreg = reg * w\\n    return {'dx': dx, 'dw': x.T + dreg}"
    >>> sorted(labels_set_by(ast.parse(code).body[0]))
    ['dx']
    """
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            read = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)} if node.value is not None else set()
            names = [target.id for target in _targets(node) if isinstance(target, ast.Name)]
            found |= {name for name in names if not read & set(names_meant(name))}
    return found


def labels_handed_by(function: Function) -> set[str]:
    """The names under which a function returns something, or keeps it where others find it: attributes, keys.

    >>> code = "def f(self, x, w):\\n    self.dx, h = w.T, x\\n    dw = x.T\\n    return {'db': h}, dw"
    >>> sorted(labels_handed_by(ast.parse(code).body[0]))
    ['db', 'dw', 'dx']
    """
    found = keys_set_by(function) | {t.attr for t in _targets_in(function) if isinstance(t, ast.Attribute)}
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            parts = node.value.elts if isinstance(node.value, ast.Tuple | ast.List) else [node.value]
            found |= {n.id for n in parts if isinstance(n, ast.Name)}
    return found


def keys_set_by(function: Function) -> set[str]:
    """The keys of the dictionaries that a function makes or fills.

    >>> sorted(keys_set_by(ast.parse("def f(dw, grads):\\n    grads['w'] = dw\\n    return {'b': dw}").body[0]))
    ['b', 'w']
    """
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            found |= {k.value for k in node.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
            found |= {k.arg for k in node.keywords if k.arg is not None}
    return found | {key for target in _targets_in(function) for key in _keys(target)}


def steps_in_a_loop(label: str, function: Function) -> bool:
    """Whether a loop of the function binds this name anew, as a loop of training steps does.

    >>> loop = "def f(w, x):\\n    for _ in range(3):\\n        w = w - 0.1 * x\\n        b = x"
    >>> [steps_in_a_loop(name, ast.parse(loop).body[0]) for name in ("w", "x")]
    [True, False]
    """
    loops = [n for n in ast.walk(function) if isinstance(n, ast.For | ast.While)]
    within = [n for loop in loops for n in ast.walk(loop) if isinstance(n, ast.For | ast.While) and n is not loop]
    by_key = [t for loop in within for t in _targets_in(loop) if isinstance(t, ast.Subscript) and not any(_keys(t))]
    given = {a.arg for a in function.args.args}
    bound = [
        t for loop in loops for t in _targets_in(loop) if not isinstance(t, ast.Subscript) or _is_name(t.value, given)
    ]
    return bool(by_key) or any(_label(target) == label for target in bound)


def _is_name(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def lines_that_set(label: str, function: Function) -> list[int]:
    """The lines of a function that set a variable, an attribute or a key of this name."""
    return sorted(target.lineno for target in _targets_in(function) if _label(target) == label)


def _targets_in(node: ast.AST) -> Iterator[ast.expr]:
    """What the assignments in a statement set."""
    for statement in ast.walk(node):
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            yield from _targets(statement)


def _targets(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> Iterator[ast.expr]:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def _label(target: ast.expr) -> str | None:
    """The name under which an assignment keeps its value: a variable, a key, an attribute."""
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute):
        return target.attr
    return next(iter(_keys(target)), None)


def _keys(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        yield node.slice.value
