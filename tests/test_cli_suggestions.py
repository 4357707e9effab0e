"""The `--input` options that an error suggests: a form, without a run of the code."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from chainrule.cli import main


def test_the_form_is_shown_and_nothing_is_run(tmp_path: Path) -> None:
    file, trace = tmp_path / "net.py", tmp_path / "ran"
    code = f"def step(x, y):\n    open({str(trace)!r}, 'w').close()\n    loss = x[y].sum()\n    x[y].g = loss\n"
    file.write_text("import torch\n\n\n" + code)
    result = CliRunner().invoke(main, ["check", f"{file}:step"])
    form = "--input x=randn:SHAPE --input y=randint:CLASSES:SHAPE, where a SHAPE is written as 64,784"
    assert result.exit_code == 2 and form in result.stderr
    assert not trace.exists()
