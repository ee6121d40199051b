"""The HTTP/1.1 server: a site, and connections that enforce the limits of ``HttpLimits``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Site as TwistedSite

from ..oci.errors import RegistryError, SizeInvalid
from ..oci.media import parse_media_type
from .connections import HttpLimits, MinimumRate, OpenConnections, Timer, WriteTimeout
from .request_reader import HeadBuffer, RequestBody, TlsHelloLog, malformed_request, tls_hello_error
from .server_request import BodyLimit, ServerRequest


class LimitedHTTPChannel(HTTPChannel):
    """A connection that passes complete request heads to Twisted's parser, and request bodies only on
    demand.
    """

    transport: ITCPTransport
    requests: list[ServerRequest]
    site: Any

    def __init__(
        self, connections: OpenConnections, limits: HttpLimits, body_limit: BodyLimit, clock: IReactorTime
    ) -> None:
        super().__init__()
        self._connections = connections
        self._limits = limits
        self._body_limit = body_limit
        self._clock = clock
        self._deadline = Timer(clock)
        self._next_turn = Timer(clock)
        self._write_timeout = WriteTimeout(limits.write_seconds, self._abort_unread, clock)
        self._opened_at = 0.0
        self._input = HeadBuffer(limits.head_bytes)
        self._target = b""
        self._is_processing = False
        self._awaits_turn = False
        self._is_paused = False  # responses wait for the client to read
        self._is_silent = True
        # Of the request that runs: bytes that still come and are discarded; None while input is read.
        self._unread_bytes: float | None = None
        self._body: RequestBody | None = None  # not yet read to its end by the resource
        self._linger_left: int | None = None
        self._is_closing = False

    def connectionMade(self) -> None:
        """Start the time in which the client must send a request."""
        super().connectionMade()
        # Heads are measured before Twisted sees them: its own limits must not be smaller.
        self.totalHeadersSize = self.MAX_LENGTH = self._limits.head_bytes
        self._opened_at = self._clock.seconds()
        self._connections.add(self, self.transport.getPeer())
        limits, draining = self._limits, self._connections.draining
        self._deadline.set(
            limits.first_request_seconds if draining else limits.head_seconds, self.loseConnection
        )

    def dataReceived(self, data: bytes) -> None:
        """Accept bytes from the client, or pipelined ones that Twisted kept while a response ran."""
        self._is_silent = False
        self._input.bytes += data
        self._process_input()

    def _process_input(self) -> None:
        """Process the buffered input until more must arrive.

        After a request that is answered at once, other clients have a turn before the next one.
        """
        if self._is_processing or self._awaits_turn:
            return
        self._is_processing = True
        try:
            while self._input.bytes and self._process_next():
                if self._input.bytes and not self.requests and self._unread_bytes is None:
                    self._networkProducer.pauseProducing()
                    self._awaits_turn = True
                    self._next_turn.set(0, self._continue_input)
                    break
        finally:
            self._is_processing = False

    def _continue_input(self) -> None:
        self._awaits_turn = False
        self._networkProducer.resumeProducing()
        self._process_input()

    def _process_next(self) -> bool:
        """Process the next piece of the input; return False if more must arrive first."""
        try:
            if self._unread_bytes is not None:
                self._discard(self._unread_bytes)
            elif self._body is not None:
                return self._feed_body(self._body)
            elif self.line_mode:
                return not self._must_wait() and self._process_head()
            else:
                super().dataReceived(self._input.take())
        except RegistryError as error:
            self._refuse(error)
        return True

    def _must_wait(self) -> bool:
        """Begin no request while the client reads no responses: they would fill the memory."""
        if self._is_paused:
            self._deadline.clear()  # the time in which the client must read runs instead
            self._networkProducer.pauseProducing()
        return self._is_paused

    def _process_head(self) -> bool:
        if self._input.is_tls_hello:
            self._refuse_tls()
            return True
        was_partial = self._input.has_partial_head
        head = self._input.take_head()
        if head is not None:
            # Twisted would check the target byte by byte, which the buffer has done faster.
            method, self._target, rest = head.split(b" ", 2)
            super().dataReceived(b"%b / %b" % (method, rest))
        elif (
            self._input.has_partial_head and not was_partial
        ):  # empty lines before it do not restart the timer
            self._deadline.set(self._limits.head_seconds, self._time_out)
        return head is not None

    def allHeadersReceived(self) -> None:
        """Decide about the request's body, before Twisted answers an ``Expect``."""
        request = self.requests[-1]
        self._path = self._target  # Twisted was given "/"
        # Twisted sets them on the request only after the body, and keeps them here until then.
        request.identify(self._command, self._path, self._version)
        if self.length != 0:
            self._admit_body(request)
        super().allHeadersReceived()

    def _admit_body(self, request: ServerRequest) -> None:
        """Stream the body to the request's resource, leave it unread, reject it, or collect it."""
        announced, limit = self.length, self._body_limit(request)
        if limit is None:
            self._body = request.body = self._make_body(request, announced)
            self.length = 0  # for Twisted the request is complete, and is dispatched
        elif limit == 0:
            self._unread_bytes = math.inf if announced is None else announced
            self.length = 0  # for Twisted the request is complete, and is dispatched
        elif announced is not None and announced > limit:
            raise SizeInvalid(f"the request's body is larger than {limit} bytes", status=413)
        else:
            request.body_limit = limit
            self._deadline.set(self._limits.body_seconds, self._time_out)

    def _make_body(self, request: ServerRequest, length: int | None) -> RequestBody:
        min_rate = MinimumRate(self._limits.body_window_bytes, self._limits.body_seconds)
        media_type = parse_media_type(request.field("content-type"))
        expected = (request.field("expect") or "").lower() == "100-continue"
        continue_due = expected and self._version == b"HTTP/1.1"

        def resume() -> None:
            nonlocal continue_due
            if continue_due and not self._input.bytes:
                super(LimitedHTTPChannel, self)._send100Continue()
            continue_due = False
            self._networkProducer.resumeProducing()
            self._process_input()

        return RequestBody(
            length, media_type, min_rate, self._clock, resume, self._networkProducer.pauseProducing
        )

    def _feed_body(self, body: RequestBody) -> bool:
        """Pass input to the body's resource; pause the client while the resource takes nothing."""
        if not body.is_wanted:
            self._networkProducer.pauseProducing()
            return False
        body.receive(self._input.take())
        self._finish_body()
        return True

    def _finish_body(self) -> None:
        """Once the body is complete, treat the input behind it as the next request."""
        if self._body is not None and self._body.is_complete:
            self._input.put_back(self._body.trailing_data)
            self._body = None
            self._networkProducer.resumeProducing()  # to notice when the client leaves

    def begin_response(self) -> None:
        """Discard the rest of the request's body: no other request can follow on this connection."""
        self._finish_body()
        if self._body is not None:
            self._unread_bytes, self._body, self.persistent = self._body.remaining, None, False
            self._networkProducer.resumeProducing()
            self._process_input()

    def checkPersistence(self, request: ServerRequest, version: bytes) -> bool:
        """Tell whether another request may follow.  Twisted's version overlooks ``IConnection: close,
        TE``.
        """
        options = b",".join(request.requestHeaders.getRawHeaders(b"connection", [])).lower().split(b",")
        if version != b"HTTP/1.1" or b"close" in map(bytes.strip, options):
            return False
        return self._unread_bytes is None and not self._connections.draining

    def _send100Continue(self) -> None:
        # Twisted calls this for every Expect; one whose body stays unread gets its final status instead.
        if self.length != 0:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's own response has no body; and raising stops its parser.
        raise malformed_request("syntax")

    def allContentReceived(self) -> None:
        """Stop the timer: the response may take as long as it needs."""
        self._deadline.clear()
        super().allContentReceived()

    def requestDone(self, request: ServerRequest) -> None:
        """Wait for the next request, which may be buffered already."""
        if self.persistent:
            self._deadline.set(self._limits.idle_seconds, self.loseConnection)
        super().requestDone(request)

    def _time_out(self) -> None:
        self._refuse(RegistryError("the request did not arrive in time", status=408))

    def _refuse_tls(self) -> None:
        """Refuse a TLS hello, which is no request and has no line in the access log."""
        self.site.tls_hellos.add(self.transport.getPeer())
        request = ServerRequest(self)
        request.is_logged = False
        self.requests.append(request)
        self._refuse(tls_hello_error())

    def _refuse(self, error: RegistryError) -> None:
        """Send an error response without asking a resource, and ignore all further input."""
        self._unread_bytes, self.persistent = math.inf, False
        if not self.requests:
            self.requests.append(ServerRequest(self))
        self.requests[-1].refuse(error)

    def loseConnection(self) -> None:
        """Close once all is sent; let a client that is still sending read the response first."""
        if self._unread_bytes and self._linger_left is None:
            self._linger_left = self._limits.linger_bytes
            self._deadline.set(self._limits.linger_seconds, self.loseConnection)
        elif not self._is_closing:
            self._is_closing, self._unread_bytes = True, 0
            self._deadline.set(self._limits.idle_seconds, self._abort_unread)
            super().loseConnection()

    def _discard(self, unread_bytes: float) -> None:
        count = len(self._input.take())
        self._unread_bytes = max(0, unread_bytes - count)
        if self._linger_left is not None:
            self._linger_left -= count
            if not self._unread_bytes or self._linger_left <= 0:
                self.loseConnection()

    def drain(self) -> None:
        """Close once no request is running."""
        if self.requests:
            self.persistent = False
            return
        if self._input.bytes or self._unread_bytes is not None:
            return
        remaining = self._opened_at + self._limits.first_request_seconds - self._clock.seconds()
        if self._is_silent and remaining > 0:
            self._deadline.set(remaining, self.loseConnection)
        else:
            self.loseConnection()

    def pauseProducing(self) -> None:
        """Pause the response, and start the time in which the client must read on."""
        super().pauseProducing()
        self._is_paused = True
        self._write_timeout.start()

    def resumeProducing(self) -> None:
        """Resume the response: the client has read some of it."""
        self._write_timeout.stop()
        self._is_paused = False
        super().resumeProducing()
        self._process_input()

    def abort(self, reason: str) -> None:
        for request in self.requests:
            request.reason = reason
        self.transport.abortConnection()

    def _abort_unread(self) -> None:
        self.abort("the client did not read the response in time")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._deadline.clear()
        self._next_turn.clear()
        self._write_timeout.cancel()
        try:
            super().connectionLost(reason)
        finally:
            self._connections.remove(self)


_DEFAULT_LIMITS = HttpLimits()


class HttpSite(TwistedSite):
    """A Twisted site with limits, streamed request bodies and graceful shutdown.

    :param body_limit: how many bytes of a request's body may be collected; called when a request with a body
        has a complete head (``method``, ``uri``, ``path`` and ``requestHeaders`` are set).  With 0 the
        request is dispatched at once, with an empty ``content``; with None as well, and its resource may read
        ``body``.
    :param log: called once for each request, when its response is complete or cut off.
    :ivar connections: the open ones; ``connections.drain`` closes them.
    """

    displayTracebacks = False
    noisy = False
    reactor: IReactorTime

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        body_limit: BodyLimit = lambda _: 0,
        limits: HttpLimits = _DEFAULT_LIMITS,
        log: Callable[[ServerRequest], None] = lambda _: None,
    ) -> None:
        # Twisted's idle timer is off: each byte would restart it.
        super().__init__(
            resource, ServerRequest, timeout=None, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.connections = OpenConnections(reactor)
        self.tls_hellos = TlsHelloLog(reactor)
        self._clock, self._body_limit = reactor, body_limit
        self._set_limits(limits)
        self._log_request = log

    def serve(
        self, resource: IResource, log: Callable[[ServerRequest], None], limits: HttpLimits = _DEFAULT_LIMITS
    ) -> None:
        """Replace resources, log and limits; running requests are reported to the new log.

        :param limits: of the connections that come from now on.
        """
        self.resource, self._log_request = resource, log
        self._set_limits(limits)

    def _set_limits(self, limits: HttpLimits) -> None:
        build = partial(LimitedHTTPChannel, self.connections, limits, self._body_limit, self._clock)
        self.protocol = build  # type: ignore[method-assign, assignment]  # Twisted's negotiates HTTP/2

    def startFactory(self) -> None:
        """Do nothing: Twisted would start a clock for a log of its own."""

    def log(self, request: ServerRequest) -> None:  # type: ignore[override]  # there are no others here
        """Log a finished request; called by the request."""
        if request.is_logged:
            self._log_request(request)

    def acceptableProtocols(self) -> list[bytes]:
        """Leave HTTP/2 to proxies in front, even if ``h2`` is installed."""
        return [b"http/1.1"]
