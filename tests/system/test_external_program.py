"""Real programs that are asked, and what comes of them."""

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
    """A reactor that runs without signal handlers is not told that a process has ended."""
    reaping = LoopingCall(reapAllProcesses)
    reaping.start(0.01)
    yield
    reaping.stop()


async def asked(path: Path, script: str, said: bytes = b"", **environ: str) -> ProcessResult:
    """Run a script."""
    command = [program(path / "program", script), "get"]
    return await run_process(reactor, command, {"PATH": "/usr/bin:/bin", **environ}, said)


@pytest_twisted.ensureDeferred
async def test_an_answer(tmp_path: Path) -> None:
    """It is told its arguments, its input to the end, and its environment, and nothing else of ours."""
    ended = await asked(tmp_path, 'printf "%s|" "$1" "$(cat)" "$A" "$HOME"', b"server", A="b")
    assert ended == ProcessResult(0, b"get|server|b||")


@pytest_twisted.ensureDeferred
async def test_a_failure(tmp_path: Path) -> None:
    """A failing program returns its exit status and output; standard error is dropped."""
    assert await asked(tmp_path, "echo none; echo oh >&2; exit 3", b"x" * 100_000) == ProcessResult(
        3, b"none\n"
    )


@pytest_twisted.ensureDeferred
async def test_a_signal(tmp_path: Path) -> None:
    """A program ended by a signal has no exit status."""
    assert await asked(tmp_path, "kill -9 $$") == ProcessResult(None, b"")


@pytest_twisted.ensureDeferred
async def test_one_that_says_too_much(tmp_path: Path) -> None:
    """A program that prints too much is killed."""
    with pytest.raises(ProcessFailed, match=f"printed more than {LIMIT} bytes"):
        await asked(tmp_path, "exec cat /dev/zero")


@pytest_twisted.ensureDeferred
async def test_one_that_does_not_end(tmp_path: Path) -> None:
    """A program that does not end is killed after the timeout."""

    class Timed:
        """Starts processes as the reactor does, with time as the test has it."""

        def __init__(self) -> None:
            self.clock = Clock()
            self.callLater = self.clock.callLater
            self.seconds = self.clock.seconds
            self.processes: list[Any] = []

        def spawnProcess(self, *arguments: Any) -> None:
            self.processes.append(reactor.spawnProcess(*arguments))

    timed = Timed()
    path = program(tmp_path / "program", "exec sleep 1000")
    asking = Deferred.fromCoroutine(run_process(timed, [path], {"PATH": "/usr/bin:/bin"}, b""))
    timed.clock.advance(TIMEOUT)
    with pytest.raises(ProcessFailed, match="did not end within 30 s"):
        await asking
    while timed.processes[0].pid is not None:
        await deferLater(reactor, 0.01)


def test_what_is_written_does_not_show() -> None:
    """It may be a secret."""
    assert "s3cret" not in repr(ProcessResult(0, b"s3cret"))
