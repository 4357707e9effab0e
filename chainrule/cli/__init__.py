"""The command line. Nothing here imports torch until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chainrule.cli.refused import MISUSE as MISUSE
from chainrule.cli.refused import Refused as Refused
from chainrule.cli.refused import refusals as refusals

WRONG = 1  # exit code; 0 is right, MISUSE is 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="chainrule", message="chainrule %(version)s")
def main() -> None:
    """Write backpropagation out: the backward pass of ordinary PyTorch code, as readable, verified code.

    FILE.py:NAME is a function (or a model) in a Python file. Its example inputs come from a function
    inputs() in that file, which returns a tuple or a dict of arguments, or from --input.

    Exit code: 0 right, 1 wrong, 2 misuse.
    """


def given(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command on a FILE.py:NAME shares."""

    @click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=KIND:SHAPE",
        help="An example input, such as x=randn:64,784 or y=randint:10:64 (kinds: randn, rand, zeros, ones, randint); "
        "repeat it for each argument.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with refusals():
            command(*args, **kwargs)

    return wrapped


def on_target(command: Callable[..., None]) -> Callable[..., None]:
    """The argument FILE.py:NAME and the options that go with it."""
    return click.argument("target", metavar="FILE.py:NAME")(given(command))


@main.command()
@on_target
@click.option(
    "--style",
    type=click.Choice(["dotg", "function", "autograd", "layers", "numpy", "jax"]),
    help="Code to copy: l1.g = ... lines, a function, a torch.autograd.Function, a class for each layer, or the "
    "function in NumPy or JAX. Without it: shapes beside the lines.",
)
@click.option(
    "--comments",
    type=click.Choice(["shapes", "math", "why"]),
    help="Write the shapes, the mathematics or the reason of each line beside it.",
)
@click.option("--wrt", metavar="A,B", help="Only the gradients of these inputs.")
@click.option("--upstream", is_flag=True, help="The output is no scalar: dL/d(output) is an input of the derived code.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help='Write the code to FILE; style "function", the default here, makes a file that runs by itself.',
)
def derive(
    target: str,
    inputs: tuple[str, ...],
    as_json: bool,
    style: str | None,
    comments: str | None,
    wrt: str | None,
    upstream: bool,
    output: Path | None,
) -> None:
    """Print the backward pass of a forward pass."""
    from chainrule.cli import answers, targets

    found = targets.load(target, inputs)
    d = found.derive(wrt.split(",") if wrt else None, upstream)
    if output is not None:
        answers.write(d, style or "function", output, comments)
    if as_json:
        answers.print_json(answers.of_derivation(d, target, style or "dotg", comments))
    elif output is not None:
        click.echo(f"wrote {output}")
    else:
        answers.print_code(d.source(style or "dotg", comments) if style or comments else str(d))


@main.command()
@click.argument("targets", metavar="FILE.py[:NAME]...", nargs=-1, required=True)
@given
@click.option(
    "--wrt",
    multiple=True,
    metavar="NAME",
    help="What the returned gradients are of, where their names do not say it: --wrt w --wrt b, in their order.",
)
@click.option("--loss", metavar="NAME", help="The local variable that holds the loss, where it is not called loss.")
@click.option("--fix", is_flag=True, help="Show the proved repairs as a diff, ask, write them, and check again.")
@click.option("--yes", is_flag=True, help="With --fix: write without asking.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "github"]),
    help="github adds a workflow annotation for each mistake; it is the default where GITHUB_ACTIONS is true.",
)
def check(
    targets: tuple[str, ...],
    inputs: tuple[str, ...],
    wrt: tuple[str, ...],
    loss: str | None,
    as_json: bool,
    fix: bool,
    yes: bool,
    style: str | None,
) -> None:
    """Compare hand-written gradients with the truth, and find the line that is wrong.

    Each mistake is one line, FILE:LINE: CAUSE MESSAGE, with the line as it is (-) and as it should be (+). "proved"
    says that the repaired code was run. NAME may be a function, one of a pair such as affine_backward, a layer or a
    class. Without it, all of a file (or a folder) that can be checked is. Several are checked one after another.
    """
    if yes and not fix:
        raise Refused("--yes goes with --fix, which writes the repairs")
    if as_json and fix and not yes:
        raise Refused("--json cannot ask before it writes; add --yes, or leave out --fix")
    from chainrule.cli import findings
    from chainrule.cli.checked import Said

    code = findings.run(
        targets, Said(inputs, [name for text in wrt for name in text.split(",")], loss), as_json, fix, yes, style
    )
    if code:
        raise SystemExit(code)


@main.command()
@click.argument("test", metavar="TESTFILE.py:test_name")
@on_target
def audit(test: str, target: str, inputs: tuple[str, ...], as_json: bool) -> None:
    """Check a gradient test: plant mistakes in the backward pass NAME, and see which of them the test notices.

    Exit code: 0 where it notices all, 1 where some survive, each shown as FILE:LINE: CAUSE with the changed line, 2 for
    misuse. Without inputs() in FILE.py, and without --input, the inputs of the test's own call are used.
    """
    from chainrule.cli import audits

    if not audits.run(test, target, inputs, as_json):
        raise SystemExit(WRONG)


@main.command()
@on_target
@click.option("--step", is_flag=True, help="One step at a time: any key goes on, b goes back, q ends.")
@click.option("--value", metavar="NAME", help="One value alone (l1, or its gradient l1.g): its origin and its users.")
@click.option(
    "--update", type=float, metavar="LR", help="Take one plain gradient step; show the runs before and after."
)
@click.option("--wrt", metavar="A,B", help="Only the gradients of these inputs; --update moves them.")
@click.option("--upstream", is_flag=True, help="The output is no scalar: a random dL/d(output) is given.")
def trace(
    target: str,
    inputs: tuple[str, ...],
    as_json: bool,
    step: bool,
    value: str | None,
    update: float | None,
    wrt: str | None,
    upstream: bool,
) -> None:
    """Print every step with its shape and value."""
    if step + (value is not None) + (update is not None) > 1:
        raise Refused("--step, --value and --update are three ways to look at a trace; choose one")
    from chainrule.cli import steps, targets

    d = targets.load(target, inputs).derive(wrt.split(",") if wrt else None, upstream)
    if step:
        steps.one_by_one(d, as_json)
    else:
        steps.print_trace(d, target, value, update, as_json)


@main.command()
@on_target
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--wrt", metavar="A,B", help="Only the gradients of these inputs.")
@click.option(
    "--upstream", is_flag=True, help="The output is no scalar: dL/d(output) is an input of the backward pass."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page to share (.html), Markdown (.md) or a LaTeX document (.tex).",
)
def explain(
    target: str,
    name: str | None,
    inputs: tuple[str, ...],
    as_json: bool,
    wrt: str | None,
    upstream: bool,
    output: Path | None,
) -> None:
    """Print the mathematics of every line of both passes, with its shapes and its reason.

    NAME, such as w1.g, prints one line with its whole derivation.
    """
    if name is not None and output is not None:
        raise Refused(f"-o writes every line; leave out {name}, or leave out -o")
    from chainrule.cli import explanations

    explanations.run(target, name, inputs, as_json, wrt.split(",") if wrt else None, upstream, output)


@main.command()
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option(
    "--coverage", is_flag=True, help="Measure the book on torch's own operator database, or on its entries NAME."
)
@click.option("--part", metavar="SEED:SHARE", help="With --coverage: a share of the entries, such as 7:0.1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rules(names: tuple[str, ...], coverage: bool, part: str | None, as_json: bool) -> None:
    """List the rule book, show one rule in use, or measure what the book covers."""
    with refusals():
        if coverage:
            from chainrule.cli import coverage as measured

            right = measured.run(names, part, as_json)
        elif part is not None or len(names) > 1:
            raise Refused("several names, and --part, go with --coverage; a card is shown for one name")
        else:
            from chainrule.cli import book

            right = book.print_card(names[0], as_json) if names else book.print_list(as_json)
    if not right:
        raise SystemExit(WRONG)


@main.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="chainrule-demo",
    show_default=True,
    help="The folder for the loss curve and the derived code.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True, help="Passes over the digits.")
def demo(out: Path, epochs: int) -> None:
    """Derive, verify and train a classifier of digits."""
    try:
        from chainrule.cli import tour
    except ModuleNotFoundError as error:
        raise Refused(f'the demo needs {error.name}; run pip install "chainrule[demo]"') from error
    with refusals():
        if not tour.run(out, epochs):
            raise SystemExit(WRONG)


@main.command()
@click.option("--only", multiple=True, metavar="WORK", help="One training step, such as mlp; repeat it for several.")
@click.option("--contenders", metavar="A,B", help="Only these: names or families, such as eager,jax,chainrule.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each is timed; the median counts.  [default: 11]")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for every library.  [default: all cores]")
@click.option("--scaling", is_flag=True, help="A GPT and a deep network of 1 to 16 layers instead.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write steps.json, steps.txt and a chart, steps.svg and steps.png, to DIR.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(**options: Any) -> None:
    """Time the compiled step beside eager PyTorch, torch.compile, JAX, HIPS autograd and thinc.

    Each contender starts from equal parameters, and is compared with autograd in float64 before it is timed; one that
    is not installed, or not able, is named with the reason. Exit code: 0, or 1 where a contender computes a wrong step.
    """
    from chainrule.cli import benchmarks

    with refusals():
        if not benchmarks.run(**options):
            raise SystemExit(WRONG)
