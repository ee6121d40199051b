"""A connection of HTTP/1.1, read with limits."""

from __future__ import annotations

import math

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from ..headers import first
from ..oci.errors import RegistryError, SizeInvalid
from ..oci.media import parse_media_type
from .connections import OpenConnections, network_of
from .head_buffer import HeadBuffer
from .head_parser import malformed
from .limits import HttpLimits
from .request_body import MinimumRate, RequestBody
from .server_request import BodyLimit, ServerRequest
from .timer import Timer
from .write_timeout import WriteTimeout


class LimitedHTTPChannel(HTTPChannel):
    """A connection; it hands complete heads to Twisted's parser, and only such bodies as the site wants."""

    transport: ITCPTransport
    requests: list[ServerRequest]

    def __init__(
        self, connections: OpenConnections, limits: HttpLimits, body_limit: BodyLimit, clock: IReactorTime
    ) -> None:
        super().__init__()
        self._connections = connections
        self._limits = limits
        self._body_limit = body_limit
        self._clock = clock
        self._deadline = Timer(clock)
        self._stall = WriteTimeout(limits.stall_seconds, self.abort, clock)
        self._opened = 0.0
        self._received = HeadBuffer(limits.head_bytes)
        self._receiving = False
        self._silent = True
        self._unread: float | None = None  # what still comes and is thrown away; None while input is read
        self._body: RequestBody | None = None  # whose resource has not taken all of it yet
        self._linger_left: int | None = None
        self._closing = False

    def connectionMade(self) -> None:
        """The client has until it must have sent something."""
        super().connectionMade()
        # Heads are measured before Twisted sees them: its own limits must not be the smaller ones.
        self.totalHeadersSize = self.MAX_LENGTH = self._limits.head_bytes
        self._opened = self._clock.seconds()
        self._connections.add(self, network_of(self.transport.getPeer()))
        limits, draining = self._limits, self._connections.draining
        self._deadline.set(limits.young_seconds if draining else limits.head_seconds, self.loseConnection)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, or pipelined ones that Twisted kept while a response ran."""
        self._silent = False
        self._received.add(data)
        self._use()

    def _use(self) -> None:
        """Uses up what was received, as far as somebody wants it."""
        if self._receiving:
            return
        self._receiving = True
        try:
            while self._received and self._take():
                pass
        finally:
            self._receiving = False

    def _take(self) -> bool:
        """Uses up some of what was received; False where more must arrive first."""
        try:
            if self._unread is not None:
                self._discard(self._unread)
            elif self._body is not None:
                return self._feed(self._body)
            elif self.line_mode:
                return self._take_head()
            else:
                super().dataReceived(self._received.take())
        except RegistryError as error:
            self._refuse(error)
        return True

    def _take_head(self) -> bool:
        begun = self._received.head_begun
        head = self._received.take_head()
        if head is not None:
            super().dataReceived(head)
        elif self._received.head_begun and not begun:  # empty lines before it do not begin it anew
            self._deadline.set(self._limits.head_seconds, self._too_slow)
        return head is not None

    def allHeadersReceived(self) -> None:
        """Decides about the body, before Twisted answers an Expect."""
        request = self.requests[-1]
        # Twisted tells the request only after the body; this is where it keeps them until then.
        request.identify(self._command, self._path, self._version)
        if self.length != 0:
            self._admit_body(request)
        super().allHeadersReceived()

    def _admit_body(self, request: ServerRequest) -> None:
        """Leaves the body to the request's resource, leaves it unread, refuses it or collects it."""
        announced, limit = self.length, self._body_limit(request)
        if limit is None:
            self._body = request.body = self._streamed(request, announced)
            self.length = 0  # for Twisted the request is complete, and is dispatched
        elif limit == 0:
            self._unread = math.inf if announced is None else announced
            self.length = 0  # for Twisted the request is complete, and is dispatched
        elif announced is not None and announced > limit:
            raise SizeInvalid(f"the request's body is larger than {limit} bytes", status=413)
        else:
            request.body_limit = limit
            self._deadline.set(self._limits.body_seconds, self._too_slow)

    def _streamed(self, request: ServerRequest, length: int | None) -> RequestBody:
        pace = MinimumRate(self._limits.body_pace, self._limits.body_seconds)
        kind = parse_media_type(first(request.requestHeaders, "Content-Type"))
        expected = (first(request.requestHeaders, "Expect") or "").lower() == "100-continue"
        going_on = expected and self._version == b"HTTP/1.1"

        def begin() -> None:
            nonlocal going_on
            if going_on and not self._received:
                super(LimitedHTTPChannel, self)._send100Continue()
            going_on = False
            self._networkProducer.resumeProducing()
            self._use()

        return RequestBody(length, kind, pace, self._clock, begin, self._networkProducer.pauseProducing)

    def _feed(self, body: RequestBody) -> bool:
        """Gives the body's resource what has come of it, and has the client wait where nobody takes it."""
        if not body.wanted:
            self._networkProducer.pauseProducing()
            return False
        body.receive(self._received.take())
        self._note_end()
        return True

    def _note_end(self) -> None:
        """Where all of the body was taken, what follows it is the next request."""
        if self._body is not None and self._body.ended:
            self._received.put_back(self._body.rest)
            self._body = None
            self._networkProducer.resumeProducing()  # so that it is seen when the client leaves

    def begin_response(self) -> None:
        """What has not been taken of the request's body by now is not wanted: no other request can follow."""
        self._note_end()
        if self._body is not None:
            self._unread, self._body, self.persistent = self._body.left, None, False
            self._networkProducer.resumeProducing()
            self._use()

    def checkPersistence(self, request: ServerRequest, version: bytes) -> bool:
        """Whether another request may follow.  Twisted's version overlooks ``IConnection: close, TE``."""
        options = b",".join(request.requestHeaders.getRawHeaders(b"connection", [])).lower().split(b",")
        if version != b"HTTP/1.1" or b"close" in map(bytes.strip, options):
            return False
        return self._unread is None and not self._connections.draining

    def _send100Continue(self) -> None:
        # Twisted calls this for every Expect; one whose body stays unread gets its final status instead.
        if self.length != 0:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's own answer has no body; and raising keeps its parser from going on.
        raise malformed("syntax")

    def allContentReceived(self) -> None:
        """The request is complete: its response may take as long as it needs."""
        self._deadline.clear()
        super().allContentReceived()

    def requestDone(self, request: ServerRequest) -> None:
        """The response is complete; the next request may be here already."""
        if self.persistent:
            self._deadline.set(self._limits.idle_seconds, self.loseConnection)
        super().requestDone(request)

    def _too_slow(self) -> None:
        self._refuse(RegistryError("the request did not arrive in time", status=408))

    def _refuse(self, error: RegistryError) -> None:
        """Answers in place of a resource; nothing that follows is understood any more."""
        self._unread, self.persistent = math.inf, False
        if not self.requests:
            self.requests.append(ServerRequest(self))
        self.requests[-1].refuse(error)

    def loseConnection(self) -> None:
        """Closes when all is sent, and not before a client that still sends had time to read the response."""
        if self._unread and self._linger_left is None:
            self._linger_left = self._limits.linger_bytes
            self._deadline.set(self._limits.linger_seconds, self.loseConnection)
        elif not self._closing:
            self._closing, self._unread = True, 0
            self._deadline.set(self._limits.idle_seconds, self.abort)
            super().loseConnection()

    def _discard(self, unread: float) -> None:
        count = len(self._received.take())
        self._unread = max(0, unread - count)
        if self._linger_left is not None:
            self._linger_left -= count
            if not self._unread or self._linger_left <= 0:
                self.loseConnection()

    def drain(self) -> None:
        """Closes when no request is under way any more."""
        if self.requests:
            self.persistent = False
            return
        if self._received or self._unread is not None:
            return
        left = self._opened + self._limits.young_seconds - self._clock.seconds()
        if self._silent and left > 0:
            self._deadline.set(left, self.loseConnection)
        else:
            self.loseConnection()

    def pauseProducing(self) -> None:
        """What was to be sent does not go: the client has until it must have taken some of it."""
        super().pauseProducing()
        self._stall.begin()

    def resumeProducing(self) -> None:
        """The client has taken something."""
        self._stall.over()
        super().resumeProducing()

    def abort(self) -> None:
        """Closes without sending what is left."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client left, or the connection was closed here."""
        self._deadline.clear()
        self._stall.forget()
        try:
            super().connectionLost(reason)
        finally:
            self._connections.remove(self)
