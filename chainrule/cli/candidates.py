"""What of a file can be checked, told from its source: functions that leave gradients, pairs, classes with a backward."""

from __future__ import annotations

import ast
from pathlib import Path

from chainrule.cli import Refused
from chainrule.diagnosis.reading.forms import pairs_of_names
from chainrule.diagnosis.reading.labels import Function, gradients_left_by

_LEFT_OUT = frozenset(("__pycache__", "site-packages", "node_modules"))


def expanded(name: str) -> list[str]:
    """The targets that a person means by a file or a folder: all in it that can be checked."""
    path = Path(name)
    if path.is_dir():
        files = files_in(path)
        if not files:
            raise Refused(f"no Python file in {name} has a hand-written backward pass to check")
        return [target for file in files for target in expanded(str(file))]
    if not path.is_file():
        return [name]
    try:
        found = candidates(path)
    except Refused:
        return [name]  # a target that is refused in its turn
    if not found:
        raise Refused(
            f"{name} has nothing to check: no function that leaves gradients (w.g = ..., dw = ...), no pair such as "
            "affine_forward and affine_backward, no class with backward; put the step into a function"
        )
    return [f"{name}:{n}" for n in found]


def functions_in(path: Path) -> list[str]:
    """The torch.autograd.Function classes of a file."""
    return _function_classes(_parsed(path))


def by_functions(path: Path) -> list[str]:
    """The functions of a file that call a torch.autograd.Function of it, if only through one another: with their inputs,
    those that it is called with are checked."""
    return _by_functions(_parsed(path))


def files_in(folder: Path) -> list[Path]:
    """The Python files below a folder in which something can be checked; no tests, nothing hidden, no environments."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        inside = file.relative_to(folder).parts
        environment = any((folder.joinpath(*inside[:k]) / "pyvenv.cfg").exists() for k in range(len(inside)))
        hidden = any(part.startswith(".") or part in _LEFT_OUT for part in inside)
        if hidden or environment or file.name.startswith("test_") or file.name == "conftest.py":
            continue
        try:
            if candidates(file):
                found.append(file)
        except Refused:
            found.append(file)  # which will say so
    return found


def candidates(path: Path) -> list[str]:
    """The names in a file that can be checked, in its order. Of a pair of functions it is the backward one.

    Raises Refused where the file is no Python.
    """
    tree = _parsed(path)
    callers = _by_functions(tree) if _has_inputs(tree) else []
    operators, registered = _operators(tree)
    functions = {n.name: n for n in tree.body if isinstance(n, Function)}
    pairs = pairs_of_names(functions)
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    bases = {ast.unparse(b) for n in classes.values() for b in n.bases}
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, Function) and node.name in operators:
            found.append(node.name)
        elif isinstance(node, Function) and not node.name.startswith("test") and node.name not in registered:
            leaves = node.name not in pairs.values() and gradients_left_by(node)
            if node.name in pairs or leaves or node.name in callers:
                found.append(node.name)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("Test"):
            methods = {n.name: n for n in node.body if isinstance(n, Function)}
            if "backward" in methods or any("backward" in _methods(b, classes) for b in node.bases):
                found += [node.name] if node.name not in bases else []  # a base of layers is none itself
            elif node.name not in bases:
                own = {n: m for n, m in methods.items() if n not in ("__init__", "__post_init__")}
                found += [f"{node.name}.{n}" for n, method in own.items() if gradients_left_by(method)]
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise Refused(f"{path}{f':{line}' if line else ''}: {getattr(error, 'msg', error)}") from error


def _has_inputs(tree: ast.Module) -> bool:
    named = [n.name for n in tree.body if isinstance(n, Function)]
    bound = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    return "inputs" in [*named, *(t.id for t in bound if isinstance(t, ast.Name))]


def _function_classes(tree: ast.Module) -> list[str]:
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    return [c.name for c in classes if any(ast.unparse(b).split(".")[-1] == "Function" for b in c.bases)]


def _operators(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The functions of a file that are made operators of torch.library and have a backward, and those that are registered
    for them."""
    made, registered = set(), set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "register_autograd"
        ):
            given = [*node.args, *(k.value for k in node.keywords)]
            made.add(ast.unparse(node.func.value))
            registered |= {a.id for a in given if isinstance(a, ast.Name)}
    return made & {n.name for n in tree.body if isinstance(n, Function)}, registered


def _by_functions(tree: ast.Module) -> list[str]:
    """With arguments: what takes none is a script."""
    applied = {f"{name}.apply" for name in _function_classes(tree)}
    applied |= {
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign) and ast.unparse(n.value) in applied
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    calls = {
        f: {ast.unparse(n.func) for n in ast.walk(f) if isinstance(n, ast.Call)} - {a.arg for a in f.args.args}
        for f in tree.body
        if isinstance(f, Function) and f.args.args and f.name != "inputs"
    }
    found: list[str] = []
    while more := [f.name for f, called in calls.items() if f.name not in found and called & {*applied, *found}]:
        found += more
    return found


def _methods(base: ast.expr, classes: dict[str, ast.ClassDef]) -> set[str]:
    """The methods that a class has from a base of the same file, and from the bases of that."""
    node = classes.get(ast.unparse(base))
    if node is None:
        return set()
    own = {n.name for n in node.body if isinstance(n, Function)}
    return own.union(*(_methods(b, {k: v for k, v in classes.items() if v is not node}) for b in node.bases))
