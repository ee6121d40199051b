"""A process that is killed at any step serves nothing wrong afterwards and has lost nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ..integration.parts.programs import require
from .crashing import WORKS

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # noqa: S108
_CALL = re.compile(r'(?P<name>fsync|rename|unlink)\((?:\d+<)?"?(?P<path>[^">]+)[">](?:, "(?P<to>[^"]+)")?')


def run(*command: str) -> str:
    """Return the output of a program."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", WORKS)
def test_killed_at_each_step(name: str) -> None:
    """The process is killed with SIGKILL before each call to the operating system."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        assert int(run(sys.executable, "-m", "tests.store.crashing", name, directory)) >= 5


@pytest.mark.integration
def test_power_failure(tmp_path: Path) -> None:
    """A file is synced before it is renamed, and its directory before the next file is renamed."""
    require("strace")
    program = (
        "import sys; from pathlib import Path; from tests.store.stocked import Stocked\n"
        "store = Stocked(Path(sys.argv[1])); store.image(store.blob(b'layer'), tag='latest')"
    )
    traced = str(tmp_path / "traced")
    strace = ("strace", "-y", "-s", "1000", "-o", traced, "-e", "trace=fsync,rename,unlink")
    run(*strace, sys.executable, "-c", program, str(tmp_path / "store"))
    calls = [match for line in Path(traced).read_text().splitlines() if (match := _CALL.match(line))]
    named = [call for call in calls if call["name"] == "rename" and call["path"].startswith(str(tmp_path))]
    assert [Path(call["to"]).name for call in named] == ["data", "link", "data", "link", "link", "link"]
    for number, call in enumerate(named):
        earlier = calls[: calls.index(call)]
        later = calls[calls.index(call) + 1 :]
        later = later[: later.index(named[number + 1])] if number + 1 < len(named) else later
        assert ("fsync", call["path"]) in [(each["name"], each["path"]) for each in earlier]
        directory = str(Path(call["to"]).parent)
        assert ("fsync", directory) in [(each["name"], each["path"]) for each in later]
