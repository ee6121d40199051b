"""External programs, which really run."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import Clock, LoopingCall, deferLater

from dockmirror.system.external_program import LIMIT, TIMEOUT, ProcessFailed, ProcessResult, run_process
from tests.programs import program

reactor: Any = _reactor


@pytest.fixture(autouse=True)
def _reaping() -> Iterator[None]:
    """Reap processes: a reactor without signal handlers is not told that one has ended."""
    reaping = LoopingCall(reapAllProcesses)
    reaping.start(0.01)
    yield
    reaping.stop()


async def run(path: Path, script: str, said: bytes = b"", **environ: str) -> ProcessResult:
    """Run a script."""
    command = [program(path / "program", script), "get"]
    return await run_process(reactor, command, {"PATH": "/usr/bin:/bin", **environ}, said)


@pytest_twisted.ensureDeferred
async def test_a_program_gets_arguments_input_and_only_its_environment(tmp_path: Path) -> None:
    ended = await run(tmp_path, 'printf "%s|" "$1" "$(cat)" "$A" "$HOME"', b"server", A="b")
    assert ended == ProcessResult(0, b"get|server|b||")


@pytest_twisted.ensureDeferred
async def test_the_result_is_exit_status_and_output(tmp_path: Path) -> None:
    """Standard error is dropped; after a signal there is no status."""
    failed = await run(tmp_path, "echo none; echo oh >&2; exit 3", b"x" * 100_000)
    assert failed == ProcessResult(3, b"none\n")
    assert await run(tmp_path, "kill -9 $$") == ProcessResult(None, b"")


@pytest_twisted.ensureDeferred
async def test_a_program_that_prints_too_much_is_killed(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=f"printed more than {LIMIT} bytes"):
        await run(tmp_path, "exec cat /dev/zero")


@pytest_twisted.ensureDeferred
async def test_a_program_that_does_not_end_is_killed_after_the_timeout(tmp_path: Path) -> None:
    class TimedReactor:
        """Starts real processes; the test advances its clock."""

        def __init__(self) -> None:
            self.clock = Clock()
            self.callLater = self.clock.callLater
            self.seconds = self.clock.seconds
            self.processes: list[Any] = []

        def spawnProcess(self, *arguments: Any) -> None:
            self.processes.append(reactor.spawnProcess(*arguments))

    timed = TimedReactor()
    path = program(tmp_path / "program", "exec sleep 1000")
    asking = Deferred.fromCoroutine(run_process(timed, [path], {"PATH": "/usr/bin:/bin"}, b""))
    timed.clock.advance(TIMEOUT)
    with pytest.raises(ProcessFailed, match="did not end within 30 s"):
        await asking
    while timed.processes[0].pid is not None:
        await deferLater(reactor, 0.01)


def test_the_output_is_not_shown() -> None:
    """It may be a secret."""
    assert "s3cret" not in repr(ProcessResult(0, b"s3cret"))
