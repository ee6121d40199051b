"""A program that is asked one thing, and answers it."""

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
"""Seconds for it to answer and end."""
LIMIT = 64 * 1024
"""Bytes of an answer."""


class ProcessFailed(Exception):
    """The program did not answer."""


@frozen
class ProcessResult:
    """What came of a program.

    :ivar code: its exit status; None where a signal ended it.
    """

    code: int | None
    output: bytes = field(repr=False)


async def run_process(
    reactor: Any, command: Sequence[str], environ: Mapping[str, str], said: bytes
) -> ProcessResult:
    """Starts a program, says that to it, and waits for its end; its standard error is dropped.

    :param reactor: an ``IReactorProcess`` and ``IReactorTime``.
    :param command: the program's path, and its arguments.
    :raises Unanswered: where it is too slow, or says too much; it is killed then.
    """
    asking = _RunningProcess(said)
    try:
        reactor.spawnProcess(asking, command[0], command, dict(environ))
    except OSError as error:
        raise ProcessFailed(f"cannot be started: {error.strerror}") from error
    return await asking.ended.addTimeout(TIMEOUT, reactor, _late)


def _late(_: object, seconds: float) -> NoReturn:
    raise ProcessFailed(f"did not end within {seconds:g} s")


class _RunningProcess(ProcessProtocol):
    """:ivar ended: cancelled, it kills the program."""

    transport: IProcessTransport

    def __init__(self, said: bytes) -> None:
        self.ended: Deferred[ProcessResult] = Deferred(lambda _: self._kill())
        self._said = said
        self._output = b""

    def connectionMade(self) -> None:
        self.transport.write(self._said)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > LIMIT and not self.ended.called:
            self._kill()
            self.ended.errback(ProcessFailed(f"said more than {LIMIT} bytes"))

    def processEnded(self, reason: Failure) -> None:
        if not self.ended.called:
            self.ended.callback(ProcessResult(getattr(reason.value, "exitCode", None), self._output))

    def _kill(self) -> None:
        self.transport.loseConnection()
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
