"""The line at the end of a run that says what was skipped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.parts.process import BYTECODE
from tests.integration.parts.programs import describe_skips, package_of

ROOT = Path(__file__).parents[1]


def test_one_line() -> None:
    """The reasons are counted, and the packages to install are named once each."""
    reasons = ["not installed: ctr, containerd", "not installed: nginx", "not installed: /venv/bin/weed"]
    assert describe_skips([*reasons, "the file system has no number of inodes"]) == (
        "4 skipped: not installed: weed, containerd, ctr, nginx (3);"
        " the file system has no number of inodes (1); apt-get install containerd nginx-light"
    )
    assert describe_skips(["there is one file system only"]) == "1 skipped: there is one file system only (1)"


def test_a_run(tmp_path: Path) -> None:
    """pytest prints the line at the end of a run."""
    (tmp_path / "test_it.py").write_text(
        "from tests.integration.parts.programs import require\n\n\n"
        "def test_it():\n    require('no-such-program')\n"
    )
    options = ("-q", "-c", "pyproject.toml", "-p", "tests.conftest")
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", **BYTECODE}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 skipped: not installed: no-such-program (1); apt-get install no-such-program" in run.stdout


def test_packages() -> None:
    """Every package that is named is one that continuous integration installs."""
    listed = re.search(r"packages=\((.*?)\n\)", (ROOT / ".ci/run").read_text("utf-8"), re.DOTALL)
    assert listed
    installed = set(re.sub(r"#.*", "", listed[1]).split())
    asked = set()
    for file in (ROOT / "tests").rglob("*.py"):
        for call in re.findall(r"\b(?:require|make_machine)\(([^)]*)\)", file.read_text("utf-8")):
            asked |= set(re.findall(r'"([^"]+)"', call))
    asked -= {"no-such-program", "http://{mirror.host("}
    assert {package_of(each) for each in asked} <= installed
