"""The rule book on the terminal: the list, and a card for one rule with a checked example."""

from __future__ import annotations

import difflib
import inspect
import linecache
import textwrap
from typing import Any

import click
import torch

import chainrule as cr
from chainrule.cli import Refused
from chainrule.cli.answers import print_code, print_json
from chainrule.rules import BOOK, FAMILIES, Rule
from chainrule.rules.samples import arguments, kept


def families() -> dict[str, tuple[str, list[str]]]:
    """The families in the order of the book: name, its one line, its operations."""
    found: dict[str, tuple[str, list[str]]] = {}
    for module in FAMILIES:
        own = [r.name for r in BOOK.rules.values() if r.backward.__module__ == module.__name__]
        own += [
            operation_of(f)
            for f, replacement in BOOK.openings.items()
            if getattr(replacement, "__module__", "") == module.__name__
        ]
        about = (module.__doc__ or "").strip().split("\n")[0]
        found[module.__name__.rpartition(".")[2]] = about, list(dict.fromkeys(own))
    return found


def operation_of(function: Any) -> str:
    return str(getattr(function, "__name__", function))


def print_list(as_json: bool) -> None:
    book = families()
    if as_json:
        print_json({name: {"about": about, "rules": own} for name, (about, own) in book.items()})
        return
    for name, (about, own) in book.items():
        click.secho(name, bold=True, nl=False)
        click.echo(f": {about}")
        click.echo(textwrap.fill(", ".join(own), 100, initial_indent="    ", subsequent_indent="    "))
    flat = ", ".join(BOOK.constants)
    click.secho("no gradient", bold=True, nl=False)
    click.echo(": Operations whose result counts as constant.")
    click.echo(textwrap.fill(flat, 100, initial_indent="    ", subsequent_indent="    "))
    click.echo(f"\n{len(BOOK.rules)} rules; `chainrule rules matmul` shows one")


def print_card(name: str, as_json: bool) -> bool:
    """The card of one rule; whether its example is right."""
    rule = BOOK.rules.get(name)
    if rule is None:
        return _print_other(name, as_json)
    d = example(rule) if rule.samples else None
    verdict = d.verify() if d else None
    source = textwrap.dedent(inspect.getsource(rule.backward)).rstrip()
    if as_json:
        card: dict[str, Any] = {"name": name, "family": rule.backward.__module__.rpartition(".")[2], "source": source}
        card |= {"note": rule.note, "samples": list(rule.samples)}
        card |= {"example": d.source() if d else None, "ok": bool(verdict) if d else None}
        print_json(card)
        return bool(verdict) if d else True
    print_code(source)
    if rule.note:
        click.echo(f"\nnote: {rule.note}")
    click.echo(
        "\nsamples, with r normal, p positive, u between 0 and 1, i(n, ...) whole numbers below n, m a mask,"
        " s symmetric, l triangular:"
    )
    for sample in rule.samples:
        click.echo(f"    {name}({sample})")
    if d is None:
        return True
    click.echo("\nthe first sample, derived and checked:")
    print_code(str(d))
    click.echo(f"\n{verdict}")
    return bool(verdict)


def _print_other(name: str, as_json: bool) -> bool:
    """Operations without a rule of their own: constants, and functions that are opened into their parts."""
    opened = next((r for f, r in BOOK.openings.items() if operation_of(f) == name), None)
    if opened is not None:
        source = textwrap.dedent(inspect.getsource(opened)).rstrip()
        if as_json:
            print_json({"name": name, "recorded as": source})
        else:
            click.echo(f"{name} is recorded as these parts:")
            print_code(source)
        return True
    if name in BOOK.constants:
        why = BOOK.constants[name]
        if as_json:
            print_json({"name": name, "constant": why})
        else:
            click.echo(f"{name} {why}: it passes no gradient")
        return True
    near = difflib.get_close_matches(name, [k for k in (*BOOK.rules, *BOOK.constants) if isinstance(k, str)], 3)
    hint = f"did you mean {' or '.join(near)}" if near else "see `chainrule rules` for the list"
    raise Refused(f"there is no rule for {name}; {hint}")


def example(rule: Rule) -> cr.Derivation:
    """The rule's first sample, derived, with the rule's own words for the arguments."""
    args, kwargs = arguments(rule.samples[0])
    words = list(rule.signature.parameters.values())[1:]
    given: dict[str, Any] = {}
    for position, value in enumerate(args):
        parameter = words[min(position, len(words) - 1)]
        varying = parameter.kind is parameter.VAR_POSITIONAL
        given[f"{parameter.name}{position}" if varying else parameter.name] = value
    tensors = {k: v for k, v in kwargs.items() if isinstance(v, torch.Tensor)}
    call = ", ".join([*given, *(f"{k}={k if k in tensors else repr(v)}" for k, v in kwargs.items())])
    given |= tensors
    attribute = inspect.isgetsetdescriptor(rule.function)
    result = f"{next(iter(given))}.{rule.name}" if attribute else f"operation({call})"
    output = _run(rule, result, given)
    picked = "" if isinstance(output, torch.Tensor) else _picked(output)
    forms = {name: kept(value) for name, value in given.items() if isinstance(value, torch.Tensor)}
    lines = [f"    {name} = {form.format(name)}\n" for name, form in forms.items() if form]
    lines += [f"    out = {result}{picked}\n    return out\n"]
    forward = _compiled(f"def forward({', '.join(given)}):\n{''.join(lines)}", rule)
    upstream = torch.randn_like(forward(**given)) if forward(**given).ndim else None
    return cr.derive(forward, upstream=upstream, **given)


def _run(rule: Rule, result: str, given: dict[str, Any]) -> Any:
    return eval(result, {"operation": rule.function, "torch": torch, **given})  # from the book's own samples


def _picked(outputs: Any) -> str:
    """The first result that has a gradient; of complex ones the size."""
    index = next(i for i, out in enumerate(outputs) if out.dtype.is_floating_point or out.dtype.is_complex)
    return f"[{index}].abs()" if outputs[index].dtype.is_complex else f"[{index}]"


def _compiled(source: str, rule: Rule) -> Any:
    """`source` as a function with lines, as if it stood in a file of a person's own."""
    space: dict[str, Any] = {"operation": rule.function, "torch": torch}
    file = f"<sample of {rule.name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), space)
    return space["forward"]
