"""Run an external program with an input, a time limit and an output limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

TIMEOUT = 30.0
"""Seconds until the program must have ended."""
LIMIT = 64 * 1024
"""Bytes of output."""


class ProcessFailed(Exception):
    """The program could not be started, was too slow, or printed too much."""


@frozen
class ProcessResult:
    """The result of a program.

    :ivar code: the exit status; None if a signal ended it.
    """

    code: int | None
    output: bytes = field(repr=False)


async def run_process(
    reactor: Any, command: Sequence[str], environ: Mapping[str, str], data: bytes
) -> ProcessResult:
    """Run a program and return its output; its standard error is discarded.

    :param reactor: an ``IReactorProcess`` and ``IReactorTime``.
    :param command: the program's path and arguments.
    :param data: its standard input.
    :raises ProcessFailed: when it cannot be started, is too slow, or prints too much; it is killed then.
    """
    process = _RunningProcess(data)
    try:
        reactor.spawnProcess(process, command[0], command, dict(environ))
    except OSError as error:
        raise ProcessFailed(f"cannot be started: {error.strerror}") from error
    return await process.ended.addTimeout(TIMEOUT, reactor, _raise_timeout)


def _raise_timeout(_: object, seconds: float) -> NoReturn:
    raise ProcessFailed(f"did not end within {seconds:g} s")


class _RunningProcess(ProcessProtocol):
    """:ivar ended: fires with the result; cancelling it kills the program."""

    transport: IProcessTransport

    def __init__(self, data: bytes) -> None:
        self.ended: Deferred[ProcessResult] = Deferred(lambda _: self._kill())
        self._data = data
        self._output = b""

    def connectionMade(self) -> None:
        self.transport.write(self._data)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > LIMIT and not self.ended.called:
            self._kill()
            self.ended.errback(ProcessFailed(f"printed more than {LIMIT} bytes"))

    def processEnded(self, reason: Failure) -> None:
        if not self.ended.called:
            self.ended.callback(ProcessResult(getattr(reason.value, "exitCode", None), self._output))

    def _kill(self) -> None:
        self.transport.loseConnection()
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
