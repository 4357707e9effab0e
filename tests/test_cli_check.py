"""`chainrule check`: findings as text, annotations and JSON; repairs as a diff, written and checked again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import chainrule as cr
from chainrule.cli import findings, main
from chainrule.cli.repairs import changes
from chainrule.diagnosis.report import Edit, Finding, Report, Row

ROOT = Path(cr.__file__).parents[1]
STEP = """\
import torch

def inputs():
    return torch.randn(5, 4), torch.randn(4, 3), torch.randn(3)

def step(x, w, b):
    out = x @ w + b
    loss = out.pow(2).sum()
    out.g = 2 * out
    w.g = x.T @ out.g
    b.g = out.g.sum(0)
"""
WRONG = STEP.replace("w.g = x.T @ out.g", "w.g = -x.T @ out.g")
WRONG_TWICE = WRONG.replace("b.g = out.g.sum(0)", "b.g = out.g.mean(0)")
LINE = 10


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finding of `check` has its line's repair as a proved edit."""
    real = cr.check

    def with_edits(code: Any, *args: Any, **kwargs: Any) -> Report:
        report = real(code, *args, **kwargs)
        for f in report.findings:
            f.text = Path(f.file).read_text().splitlines()[f.line - 1].strip()
            f.proved, f.cause, f.also = True, "sign", ()
            f.edit = Edit(f.file, f.line, f.line, (f"    {f.repair}",))
        return report

    monkeypatch.setattr(cr, "check", with_edits)


def written(folder: Path, text: str, name: str = "net.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def run(*arguments: str, code: int = 0, said: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["check", *arguments], input=said)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_text(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG)
    text = run(f"{file}:step", code=1).stdout
    assert text.splitlines()[0].split()[:2] == ["gradient", "status"]
    assert "2 of 3 gradients are right\n" in text
    assert f"\n{file}:{LINE}: sign w.g (4, 3) is wrong" in text
    assert "\n  - w.g = -x.T @ out.g\n  + w.g = x.T @ out.g   # proved\n" in text
    assert "::error" not in text


def test_a_path_below_the_current_folder_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "own", WRONG)
    written(tmp_path, "from own.net import *\n", "all.py")
    monkeypatch.chdir(tmp_path)
    assert f"\nown/net.py:{LINE}: " in run("own/net.py:step", code=1).stdout
    assert f"\nown/net.py:{LINE}: " in run("all.py:step", code=1).stdout


def test_json(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG)
    answer = json.loads(run(f"{file}:step", "--json", code=1).stdout)
    assert (answer["ok"], answer["target"], answer["notes"]) == (False, f"{file}:step", [])
    assert [row["status"] for row in answer["rows"]] == ["right", "wrong", "right"]
    (finding,) = answer["findings"]
    edit = {"file": str(file), "first": LINE, "last": LINE, "lines": ["    w.g = x.T @ out.g"]}
    assert finding.pop("message").startswith("w.g (4, 3) is wrong")
    assert finding == {
        "name": "w",
        "line": LINE,
        "cause": "sign",
        "repair": "w.g = x.T @ out.g",
        "proved": True,
        "file": str(file),
        "text": "w.g = -x.T @ out.g",
        "also": [],
        "edit": edit,
    }


def test_what_the_code_prints_is_no_part_of_the_json(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG.replace("    loss =", "    print('here')\n    loss ="))
    result = run(f"{file}:step", "--json", "--fix", "--yes")
    assert json.loads(result.stdout)["fix"]["after"]["ok"] and "here" in result.stderr


def test_workflow_annotations(tmp_path: Path, repaired: None, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "own", WRONG)
    start = f"::error file={file},line={LINE},title=sign::w.g (4, 3) is wrong"
    asked = run(f"{file}:step", "--format", "github", code=1).stdout
    (line,) = [line for line in asked.splitlines() if line.startswith("::")]
    assert line.startswith(start)
    assert line.endswith("%0A- w.g = -x.T @ out.g%0A+ w.g = x.T @ out.g   # proved")
    assert f"{file}:{LINE}: sign" in asked  # the log has the text as well
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert start in run(f"{file}:step", code=1).stdout
    assert start not in run(f"{file}:step", "--format", "text", code=1).stdout
    assert json.loads(run(f"{file}:step", "--json", code=1).stdout)["ok"] is False
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert f"::error file=own/net.py,line={LINE}," in run(f"{file}:step", code=1).stdout


def test_annotations_are_escaped() -> None:
    finding = Finding("w", None, "a,b", "50%\r\nnext", "")
    assert findings.annotation(finding, "a:b,c.py") == "::error file=a%3Ab%2Cc.py,title=a%2Cb::50%25%0D%0Anext"


# -- several targets ---------------------------------------------------------------------------------


def test_several_targets(tmp_path: Path) -> None:
    right, wrong = written(tmp_path / "a", STEP), written(tmp_path / "b", WRONG)
    assert run(f"{right}:step", f"{right}:step").stdout.count("3 of 3 gradients are right") == 2
    text = run(f"{wrong}:step", f"{right}:step", code=1).stdout
    assert text.index(f"{wrong}:step\n") < text.index(f"{wrong}:{LINE}: ") < text.index(f"{right}:step\n")
    answer = json.loads(run(f"{wrong}:step", f"{right}:step", "--json", code=1).stdout)
    assert not answer["ok"] and [r["ok"] for r in answer["reports"]] == [False, True]


def test_a_target_that_cannot_be_checked_does_not_stop_the_others(tmp_path: Path) -> None:
    file = written(tmp_path, WRONG + "\ndef stops(x, w, b):\n    raise ValueError('no\\nluck')\n")
    result = run(f"{file}:stops", f"{file}:nothing", f"{file}:step", code=2)
    assert result.stderr.splitlines() == [
        f"error: {file}:14: ValueError: no",
        f"error: {file} has no nothing; it has inputs, step, stops",
    ]
    assert f"{file}:{LINE}: " in result.stdout
    answer = json.loads(run(f"{file}:stops", f"{file}:step", "--json", code=2).stdout)
    assert answer["reports"][0] == {
        "target": f"{file}:stops",
        "ok": False,
        "error": f"{file}:14: ValueError: no",
    }


def test_each_folder_has_its_own_modules(tmp_path: Path) -> None:
    """Two people hand in files of the same names; neither is checked with the other's."""
    importing = STEP.replace("import torch\n", "import torch\nfrom layer import gradient\n")
    importing = importing.replace("x.T @ out.g", "gradient(x, out.g)")
    files = [written(tmp_path / who, importing) for who in ("ada", "bob")]
    written(tmp_path / "ada", "def gradient(x, g):\n    return x.T @ g\n", "layer.py")
    written(tmp_path / "bob", "def gradient(x, g):\n    return 3 * x.T @ g\n", "layer.py")
    ada, bob = (f"{file}:step" for file in files)
    answer = json.loads(run(ada, bob, ada, bob, "--json", code=1).stdout)
    assert [r["ok"] for r in answer["reports"]] == [True, False, True, False]


def test_equal_functions_of_two_files_are_told_apart(tmp_path: Path) -> None:
    files = [written(tmp_path / who, WRONG) for who in ("ada", "bob")]
    answer = json.loads(run(*(f"{file}:step" for file in files), "--json", code=1).stdout)
    assert [r["findings"][0]["file"] for r in answer["reports"]] == [str(file) for file in files]


# -- repairs -----------------------------------------------------------------------------------------


def test_fix_asks(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG)
    for said in ("n\n", "\n", None):
        text = run(f"{file}:step", "--fix", code=1, said=said).stdout
        assert "\n-    w.g = -x.T @ out.g\n+    w.g = x.T @ out.g\n" in text
        assert "write? [y/N]" in text and "nothing was written" in text
        assert file.read_text() == WRONG


def test_fix_writes_and_checks_again(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG_TWICE)
    text = run(f"{file}:step", "--fix", said="y\n").stdout
    assert f"wrote {file}\n" in text
    first, second = text.split("wrote ")
    assert "1 of 3 gradients are right" in first and "3 of 3 gradients are right" in second
    assert file.read_text() == STEP


def test_fix_without_asking_as_json(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG)
    answer = json.loads(run(f"{file}:step", "--fix", "--yes", "--json").stdout)
    assert not answer["ok"]
    assert answer["fix"]["written"] == [str(file)] and answer["fix"]["skipped"] == []
    assert answer["fix"]["after"]["ok"] and "+    w.g = x.T @ out.g" in answer["fix"]["diff"]
    assert file.read_text() == STEP


def test_a_repair_of_the_same_length_is_not_hidden_by_the_bytecode_cache(
    tmp_path: Path, repaired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = written(tmp_path, STEP.replace("= 2 * out", "= 3 * out"))
    assert "3 of 3" in run(f"{file}:step", "--fix", "--yes").stdout.split("wrote ")[1]
    assert file.read_text() == STEP


def test_fix_with_inputs_and_several_targets(tmp_path: Path, repaired: None) -> None:
    file = written(tmp_path, WRONG + "\ndef other(x, w, b):\n    step(x, w, b)\n    loss = (x @ w + b).pow(2).sum()\n")
    shapes = [part for text in ("x=rand:2,4", "w=rand:4,1", "b=rand:1") for part in ("--input", text)]
    text = run(f"{file}:step", f"{file}:step", *shapes, "--fix", "--yes").stdout
    assert text.count("+    w.g = x.T @ out.g") == 1
    assert file.read_text().startswith(STEP)


def test_nothing_to_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = written(tmp_path, STEP, "right.py"), written(tmp_path, WRONG)
    assert "3 of 3 gradients are right" in run(f"{right}:step", "--fix").stdout
    finding = Finding("w", LINE, "unknown", "w.g is wrong", "", file=str(wrong))
    report = Report([Row("w", "wrong", 1.0, 1.0, (4, 3), (4, 3), LINE, str(wrong))], [finding])
    monkeypatch.setattr(cr, "check", lambda *_, **__: report)
    result = run(f"{wrong}:step", "--fix", code=1)
    assert result.stderr == "error: nothing to write: no finding has a proved repair in a file\n"
    assert "write?" not in result.stdout and wrong.read_text() == WRONG


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path, WRONG)
    (change,) = changes([Report([], [fix(file, LINE, LINE, "    w.g = x.T @ out.g")])])
    file.write_text(WRONG + "# more\n")
    with pytest.raises(findings.Refused, match="was changed meanwhile"):
        change.write()
    assert file.read_text() == WRONG + "# more\n"


def fix(file: Path, first: int, last: int, *lines: str, proved: bool = True, name: str = "w") -> Finding:
    edit = Edit(str(file), first, last, lines)
    return Finding(name, first, "sign", f"{name}.g is wrong", "", proved, str(file), edit=edit)


LINES = "one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize(
    "edits, after",
    [
        ([(1, 1, "1"), (4, 4, "4")], "1\ntwo\nthree\n4\n"),
        ([(4, 4, "4"), (1, 1, "1", "1")], "1\n1\ntwo\nthree\n4\n"),
        ([(2, 3, "2"), (3, 4, "x")], "one\n2\nfour\n"),
        ([(3, 4, "x"), (2, 3, "2")], "one\ntwo\nx\n"),
        ([(2, 1, "a"), (2, 1, "b")], "one\na\nb\ntwo\nthree\nfour\n"),
        ([(2, 2, "2"), (2, 1, "a"), (3, 2, "b")], "one\na\n2\nb\nthree\nfour\n"),
        ([(2, 4, "2"), (3, 2, "x")], "one\n2\n"),
        ([(5, 4, "end"), (1, 0, "top"), (2, 2)], "top\none\nthree\nfour\nend\n"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("finished", [True, False])
def test_edits_of_one_file(tmp_path: Path, edits: list[Any], after: str, ending: str, finished: bool) -> None:
    file = tmp_path / "f.py"
    cut = None if finished else -1
    file.write_bytes(LINES[:cut].replace("\n", ending).encode())
    (change,) = changes([Report([], [fix(file, *edit) for edit in edits])])
    assert change.after == after[:cut].replace("\n", ending).encode()
    assert len(change.findings) + len(change.skipped) == len(edits)


def test_overlapping_repairs_are_skipped_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, WRONG)
    row = Row("w", "wrong", 1.0, 1.0, (4, 3), (4, 3), LINE, str(file))
    kept = fix(file, LINE, LINE, "    w.g = x.T @ out.g")
    other = fix(file, LINE, LINE + 1, "    pass", name="b")
    unproved = fix(file, LINE - 1, LINE - 1, "    pass", name="out", proved=False)
    monkeypatch.setattr(cr, "check", lambda *_, **__: Report([row], [kept, other, unproved]))
    text = run(f"{file}:step", "--fix", "--yes").stdout
    assert f"skipped: {file}:{LINE}: sign b.g is wrong (its lines overlap with the repair of w.g" in text
    assert "unproved" not in text and file.read_text() == STEP


def test_the_encoding_and_the_rest_of_a_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "f.py"
    text = "# coding: latin-1\n# é \x0c form feed\r\nx = 1"
    file.write_bytes(text.encode("latin-1"))
    (change,) = changes([Report([], [fix(file, 3, 3, "x = 2")])])
    assert change.after == text.replace("x = 1", "x = 2").encode("latin-1")
    assert change.diff().endswith("-x = 1\n+x = 2")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--yes"], "--yes goes with --fix"),
        (["--fix", "--json"], "add --yes"),
        (["--input", "v=rand:1"], "step has no argument v"),
    ],
)
def test_misuse_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    result = run(f"{written(tmp_path, WRONG)}:step", *options, code=2)
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_help_does_not_wait_for_torch() -> None:
    asked = "import sys; from chainrule.cli import main; main(['check', '--help'], standalone_mode=False); "
    asked += "sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0 and "--fix" in done.stdout, done.stderr
