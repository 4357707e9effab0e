"""docs/compile.md and the README run, and print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(text: str) -> tuple[str, str]:
    """The code of a page, its pieces in order, and all that they are said to print."""
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    said = re.findall(r"prints\n\n```\n(.*?)```", text, re.DOTALL)
    return "\n".join(code), "".join(said)


def printed(code: str, folder: Path) -> str:
    file = folder / "page.py"
    file.write_text(code)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_prints_what_it_says(tmp_path: Path) -> None:
    code, said = blocks((ROOT / "docs" / "compile.md").read_text())
    found = printed(code, tmp_path)
    assert found == said, f"docs/compile.md is to show\n{found}"


def test_the_readme_takes_a_step(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    first = readme.split("```python\n")[1].split("```")[0]
    section = readme.split("## A training step")[1].split("\n## ")[0]
    code, said = blocks(section)
    assert printed(f"{first}\n{code}", tmp_path).endswith(said)
    assert said
