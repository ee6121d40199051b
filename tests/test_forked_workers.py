"""Workers that are forked from a process that has collected the tests."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tests.forked_workers import fork_workers
from tests.integration.parts.process import BYTECODE

ROOT = Path(__file__).parents[1]
TESTS = """
import os
from pathlib import Path

with Path(__file__).with_suffix(".imports").open("a") as imports:
    imports.write("imported")


def test_passes(tmp_path: Path) -> None:
    assert tmp_path.parent.name == "popen-" + os.environ["PYTEST_XDIST_WORKER"]


def test_fails() -> None:
    os.system("echo printed by $PYTEST_XDIST_WORKER")
    assert not "a reason"
"""

SCRIPT = """
import os, sys
from twisted.internet import reactor
calls = [len(reactor.getReaders()), "tests.test_scheduling" in sys.modules, os.getppid()]
reactor.callWhenRunning(reactor.stop)
reactor.run()
print(*calls, sys.stdin.readline(), end="")
"""


def _said(worker: SimpleNamespace) -> str:
    """Run a script in the worker as execnet does: its first line is the program, and more follows."""
    command = [*shlex.split(worker.python), "-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]
    return subprocess.run(  # noqa: S603
        command, input=f"{SCRIPT!r}\nmore\n", stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def test_workers_are_forked_while_the_process_runs() -> None:
    """Each has the imported tests and a reactor of its own; a later one is an interpreter without them."""
    worker = SimpleNamespace()
    process = fork_workers(["tests/test_scheduling.py"], [worker])
    forked = [_said(worker) for _ in range(2)]
    process.communicate(timeout=60)
    assert forked == [f"1 True {process.pid} more\n"] * 2
    assert _said(worker).split()[1] == "False"


def test_a_run_imports_tests_once(tmp_path: Path) -> None:
    """Workers have output and temporary directories of their own."""
    files = [tmp_path / "test_1.py", tmp_path / "test_2.py"]
    for each in files:
        each.write_text(TESTS)
    options = ("-n2", "-q", "-c", "pyproject.toml", "-p", "tests.conftest")
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", **BYTECODE}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 failed, 2 passed" in run.stdout
    assert run.stdout.count("\nprinted by gw0\n") == run.stdout.count("\nprinted by gw1\n") == 1
    assert [each.with_suffix(".imports").read_text() for each in files] == ["imported"] * 2
