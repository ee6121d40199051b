"""A download that is killed at any step can be continued, and has served nothing wrong."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm")  # noqa: S108


def test_a_download_may_be_killed_before_each_system_call() -> None:
    """A download that is killed before any of its system calls is continued; no byte is fetched twice."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        command = [sys.executable, "-m", "tests.store.downloads.download_crash", directory]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
