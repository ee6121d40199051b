"""What two processes ask each other, over a pair of sockets: a line of JSON for each question and answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

RpcMethods = Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]
"""What may be asked for, by name: each takes a value of JSON, and gives one."""
_log = Logger()


class PeerLost(Exception):
    """The other process answers no more."""


class RpcError(Exception):
    """The other process could not do it, and said why."""


class RpcChannel(LineOnlyReceiver):
    """One end; each may ask the other.

    :param asks: what the other one may ask for here; an exception's text is its answer.
    :param lost: called when the other end is gone.
    """

    delimiter = b"\n"
    MAX_LENGTH = 64 * 1024 * 1024

    def __init__(self, asks: RpcMethods, lost: Callable[[], None] = lambda: None) -> None:
        self._asks = asks
        self._lost = lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._next = 0
        self._gone = False

    async def ask(self, name: str, value: object = None) -> Any:
        """What the other end answers.

        :raises Refused: with what it said instead.
        :raises Gone: when it is gone, or goes before it has answered.
        """
        if self._gone or self.transport is None:
            raise PeerLost
        self._next += 1
        number = self._next
        answer: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._waiting[number] = answer
        self._send({"ask": name, "value": value, "number": number})
        return await answer

    def lineReceived(self, line: bytes) -> None:
        """See ``LineOnlyReceiver``."""
        message = json.loads(line)
        if "ask" in message:
            Deferred.fromCoroutine(self._answer(message)).addErrback(_failed)
            return
        waiting = self._waiting.pop(message["number"], None)
        if waiting is None:
            return
        if "error" in message:
            waiting.errback(RpcError(message["error"]))
        else:
            waiting.callback(message["answer"])

    async def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            told = {"answer": await self._asks[message["ask"]](message["value"])}
        except Exception as error:
            told = {"error": str(error)}
        self._send({**told, "number": message["number"]})

    def _forget(self, number: int) -> None:
        """Nobody waits for that answer any more."""
        self._waiting.pop(number, None)

    def _send(self, message: object) -> None:
        if not self._gone:
            self.sendLine(json.dumps(message).encode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._gone = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.errback(PeerLost())
        self._lost()


def _failed(failure: Failure) -> None:
    _log.failure("an answer to another process failed", failure=failure)
