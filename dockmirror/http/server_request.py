"""One request and its response."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http.client import responses
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as TwistedRequest

from ..oci.errors import RegistryError, SizeInvalid, Unsupported
from ..oci.scope import Scope
from .access import ClientAddress
from .request_body import RequestBody

BodyLimit = Callable[["ServerRequest"], int | None]


class ServerRequest(TwistedRequest):
    """A request as its resource sees it.

    ``content`` holds the body as far as it is wanted; nothing parses it, ``args`` come from the query alone.
    ``sentLength`` counts what goes through ``write``: whoever sends by another way adds to it.

    :ivar asking: who is asking, as soon as that is known.
    :ivar admitted: who is asking, once it was let in.
    :ivar scopes: what a client that is refused for want of credentials should ask a token for.
    :ivar writable: whether it is for a registry that takes writes.
    :ivar upstream_status: what the upstream answered, where it was asked.
    :ivar started: when its head was complete, in the clock's seconds.
    :ivar body_limit: how many bytes of body may still come.
    :ivar body: the body, where its resource may take it while it comes, until a response begins.
    :ivar cut_off: whether the response ended before it was complete: the client left, or it was aborted.
    """

    transport: ITCPTransport
    defaultContentType = None
    clientproto = b"HTTP/1.1"  # the version of an answer to what could not be parsed
    peer: ClientAddress | None = None
    admitted_client: ClientAddress | None = None
    scopes: tuple[Scope, ...] = ()
    writable = False
    upstream_status: int | None = None
    body_limit = 0
    body: RequestBody | None = None
    cut_off = False
    _log = Logger()

    def __init__(self, channel: Any, queued: object = False) -> None:
        super().__init__(channel, queued)
        self._clock: IReactorTime = channel.site.reactor
        self._log_end: Callable[[ServerRequest], None] = channel.site.log
        self._begin: Callable[[], None] = channel.begin_response
        self.started = self._clock.seconds()

    def __repr__(self) -> str:
        """Without the query, in which passwords come: whatever is logged of a request is this."""
        return f"<{type(self).__name__} {self.method!r} {self.path!r}>"

    def identify(self, method: bytes, uri: bytes, version: bytes) -> None:
        """What is asked, known before the body."""
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.partition(b"?")[0]

    @property
    def is_token(self) -> bool:
        """Whether it is for the token service, on whichever host and below whichever registry's name."""
        return self.path.endswith(b"/v2/auth")

    def gotLength(self, _: int | None) -> None:
        """The body is kept in memory; Twisted would take a file for one of unknown length."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keeps a piece of the body.

        :raises SizeInvalid: where it is more than is wanted, which of a chunked body is only known now.
        """
        self.body_limit -= len(data)
        if self.body_limit < 0:
            raise SizeInvalid("the request's body is too large", status=413)
        super().handleContentChunk(data)

    def render(self, resrc: IResource) -> None:
        """Has the resource answer.  Twisted's version says in HTML that a method is not allowed."""
        try:
            body = resrc.render(self)
        except UnsupportedMethod as unsupported:
            self.setHeader(b"Allow", b", ".join(unsupported.allowedMethods))
            self.refuse(Unsupported())
            return
        if body is NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"{resrc!r} rendered no bytes but {type(body)}")
        self._answer(body)

    def refuse(self, error: RegistryError) -> None:
        """Answers with an error of our own; nothing may have been written yet."""
        self.setResponseCode(error.status, responses.get(error.status, "Unknown").encode())
        self.setHeader(b"Content-Type", b"application/json")
        self._answer(error.body())

    def _answer(self, body: bytes) -> None:
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes) -> None:
        """Sends a piece of the response's body; the first one after its headers."""
        if not self.startedWriting and not self.cut_off:
            self._begin()
            self.setHeader(b"Server", b"dockmirror")
            self.setHeader(b"Date", _date(int(self._clock.seconds())))
            if not self.channel.persistent:
                self.setHeader(b"Connection", b"close")
        super().write(data)

    def processingFailed(self, reason: Failure) -> Failure:
        """Says that something went wrong and not what; cuts off a response that has begun."""
        asked = (self.method + b" " + self.path).decode("ascii")
        self._log.failure("{asked} failed", failure=reason, asked=asked)
        if self.finished or self.cut_off:
            return reason
        if self.startedWriting:
            self.abort()
        else:
            self.responseHeaders = Headers()  # they described what will not be sent
            self.refuse(RegistryError("internal error"))
        return reason

    def abort(self) -> None:
        """Cuts off the response: no client may take what was sent for the whole."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The client left, or the connection was closed here, before the response was complete."""
        self.cut_off = True
        super().connectionLost(reason)
        self._log_end(self)


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    """Written once a second."""
    written: bytes = datetimeToString(seconds)
    return written
