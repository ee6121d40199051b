"""Registries, contents and consumers that do as a test tells them, and remember what was done to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Literal, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from dockmirror.body.bodies import json_body
from dockmirror.interfaces import Answer, IBody, IFileConsumer, IUpstream
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import RegistryError, Unreachable
from dockmirror.oci.header_fields import Hop
from dockmirror.oci.request import RegistryRequest, Requester
from dockmirror.oci.token import TokenRequest
from dockmirror.system.request_context import current_hops

Result = TypeVar("Result")
Scripted = Answer | RegistryError | Deferred[Answer]
NOTHING_KNOWN = Descriptor()


def json_answer(document: object, next_page: tuple[tuple[str, str], ...] | None = None) -> Answer:
    """Return an answer with a JSON document, and the query for the next page, if there is one."""
    return Answer(json_body(json.dumps(document).encode()), next_page=next_page)


def watch(coming: Coroutine[Any, Any, Result] | Deferred[Result]) -> list[Result | BaseException]:
    """Return a list that will contain the outcome, a value or an exception."""
    outcome: list[Result | BaseException] = []
    ensureDeferred(coming).addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
    return outcome


def now(coming: Coroutine[Any, Any, Result] | Deferred[Result]) -> Result:
    """Return the outcome of work that needs no time."""
    outcome: list[Result | Failure] = []
    ensureDeferred(coming).addBoth(outcome.append)
    assert outcome, "it has not come to an end"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


@frozen
class Received:
    """A client's request."""

    requester: Requester = field(factory=Requester)
    requested_host: str = ""
    is_from_peer: bool = False


def run_behind(hops: tuple[Hop, ...], call: Callable[[], Result]) -> Result:
    """Return the result of a call for a request that has passed these mirrors."""
    context = copy_context()
    context.run(current_hops.set, hops)
    return context.run(call)


@implementer(IConsumer)
class Recorder:
    """Keeps what is written to it, and is as strict about its producer as a transport.

    :ivar pieces: what was written, as it was cut.
    :ivar producer: what is registered now.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.producer: IPushProducer | None = None

    @property
    def data(self) -> bytes:
        """All that was written."""
        return b"".join(self.pieces)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """There is room for one push producer."""
        assert streaming
        assert self.producer is None
        self.producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def pause(self) -> None:
        """Takes no more for a while."""
        assert self.producer is not None
        self.producer.pauseProducing()

    def resume(self) -> None:
        """Takes more."""
        assert self.producer is not None
        self.producer.resumeProducing()

    def leave(self) -> None:
        """Takes nothing any more."""
        assert self.producer is not None
        self.producer.stopProducing()


@implementer(IFileConsumer)
class FileRecorder(Recorder):
    """Takes bytes of files, too, and is as strict about that as a socket.

    :ivar sent: how many bytes of files it took, each time that it took some.
    :param room: how many bytes go until it is resumed.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.sent: list[int] = []
        self._room = self._left = room

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        assert self.producer is not None
        assert length > 0
        left, wanted = self._left, min(length, self._left)
        data = os.pread(file, wanted, offset)
        self._left -= len(data)
        if len(data) < length:
            self.pause()
        if data:
            self.sent.append(len(data))
            self.pieces.append(data)
        return len(data) if left else None

    def resume(self) -> None:
        self._left = self._room
        super().resume()


@implementer(IBody)
class Pieces:
    """A content that comes at once, cut like this; whole, unless there is an error."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        descriptor: Descriptor = NOTHING_KNOWN,
        error: RegistryError | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.discarded = False
        self._pieces = tuple(pieces)
        self._error = error

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        for piece in self._pieces:
            consumer.write(piece)
        return succeed(None) if self._error is None else fail(self._error)

    def discard(self) -> None:
        self.discarded = True


@implementer(IBody, IPushProducer)
class Feed:
    """A content whose bytes come when the test sends them.

    :ivar state: what has become of it; delivered or discarded twice, it fails.
    :ivar paused: whether it was asked to wait.
    """

    def __init__(self, descriptor: Descriptor = NOTHING_KNOWN) -> None:
        self.descriptor = descriptor
        self.state: Literal["kept", "open", "whole", "broken", "cancelled", "stopped", "discarded"] = "kept"
        self.paused = False
        self._done: Deferred[None] = Deferred(lambda _: self._end("cancelled"))
        self._consumer: IConsumer = Recorder()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        assert self.state == "kept"
        self.state = "open"
        self._consumer = consumer
        consumer.registerProducer(self, True)
        return self._done

    def discard(self) -> None:
        assert self.state == "kept"
        self.state = "discarded"

    def send(self, *pieces: bytes) -> None:
        """The next bytes come, as long as somebody takes them."""
        for piece in pieces:
            if self.state == "open":
                self._consumer.write(piece)

    def end(self) -> None:
        """The last byte has come."""
        if self.state == "open":
            self._end("whole")
            self._done.callback(None)

    def break_off(self, error: RegistryError | None = None) -> None:
        """Nothing more comes."""
        if self.state == "open":
            self._end("broken")
            self._done.errback(error or Unreachable("the upstream broke off"))

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self._end("stopped")
        self._done.errback(Unreachable("nobody takes it any more"))

    def _end(self, state: Literal["whole", "broken", "cancelled", "stopped"]) -> None:
        self.state = state
        self._consumer.unregisterProducer()


@implementer(IUpstream)
class FakeRegistry:
    """Answers with these in turn, and with the last one for ever; remembers what it was asked.

    A token is always given.
    """

    def __init__(self, *answers: Scripted) -> None:
        self.requests: list[RegistryRequest] = []
        self.token_requests: list[TokenRequest] = []
        self._answers = list(answers)

    async def fetch(self, request: RegistryRequest) -> Answer:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, RegistryError):
            raise answer
        return await answer if isinstance(answer, Deferred) else answer

    async def token(self, request: TokenRequest) -> Answer:
        self.token_requests.append(request)
        return Answer(json_body(b'{"token":"t","access_token":"t"}'))
