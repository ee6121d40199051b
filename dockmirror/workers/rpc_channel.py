"""Remote procedure calls between two processes: one line of JSON for each call and each answer."""

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
"""The methods that may be called, by name; each takes and returns a JSON value."""
_log = Logger()


class PeerLost(Exception):
    """The other process is gone, and will not answer."""


class RpcError(Exception):
    """The method failed in the other process; the text is that of its exception."""


class RpcChannel(LineOnlyReceiver):
    """One end of a connection on which either end may call methods of the other.

    :param methods: the methods that the other end may call here.
    :param on_lost: called when the other end is gone.
    """

    delimiter = b"\n"
    MAX_LENGTH = 64 * 1024 * 1024

    def __init__(self, methods: RpcMethods, on_lost: Callable[[], None] = lambda: None) -> None:
        self._methods = methods
        self._on_lost = on_lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._last_id = 0
        self._is_lost = False

    async def call(self, method: str, value: object = None) -> Any:
        """Call a method of the other end, and return its answer.

        :raises RpcError: when the method raises an exception.
        :raises PeerLost: when the other end is gone, or goes before it answers.
        """
        if self._is_lost or self.transport is None:
            raise PeerLost
        self._last_id += 1
        call_id = self._last_id
        answer: Deferred[Any] = Deferred(lambda _: self._forget(call_id))
        self._waiting[call_id] = answer
        self._send({"call": method, "value": value, "id": call_id})
        return await answer

    def lineReceived(self, line: bytes) -> None:
        message = json.loads(line)
        if "call" in message:
            Deferred.fromCoroutine(self._answer(message)).addErrback(_log_failed_answer)
            return
        waiting = self._waiting.pop(message["id"], None)
        if waiting is None:
            return
        if "error" in message:
            waiting.errback(RpcError(message["error"]))
        else:
            waiting.callback(message["answer"])

    async def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            outcome = {"answer": await self._methods[message["call"]](message["value"])}
        except Exception as error:
            outcome = {"error": str(error)}
        self._send({**outcome, "id": message["id"]})

    def _forget(self, call_id: int) -> None:
        self._waiting.pop(call_id, None)

    def _send(self, message: object) -> None:
        if not self._is_lost:
            self.sendLine(json.dumps(message).encode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.errback(PeerLost())
        self._on_lost()


def _log_failed_answer(failure: Failure) -> None:
    _log.failure("cannot answer another process", failure=failure)
