"""A request with its query, credentials and range, and its response."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http.client import responses
from io import BytesIO
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IConsumer, IReactorTime, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as TwistedRequest
from zope.interface import implementer

from ..body.consumers import ForwardingConsumer
from ..interfaces import IAccelConsumer, IFileConsumer
from ..oci.errors import RegistryError, SizeInvalid, Unsupported
from ..oci.header_fields import ContentRange, Hop, Range
from ..oci.request import Requester
from ..oci.token import MARKER, Credentials, Scope
from ..system.networks import ClientAddress
from ..system.request_context import current_pull
from .accel import is_same_for_nginx, prepare_for_accel
from .request_reader import RequestBody

_UNSAFE = re.compile(r"[^ -~]")
_PHRASE_LENGTH = 200
BodyLimit = Callable[["ServerRequest"], int | None]


class ServerRequest(TwistedRequest):
    """A request as its resource sees it.

    ``content`` holds a collected body; nothing parses it, ``args`` come from the query alone.  ``sentLength``
    counts what passes through ``write``: other ways of sending, and what is left to a proxy, add to it.

    :ivar peer: the client, as soon as it is identified.
    :ivar admitted_client: the client, once it was let in.
    :ivar scopes: the scopes that a challenge to this request names.
    :ivar hops: the mirrors that the request has passed.
    :ivar is_from_peer: True if the last of them is another mirror of the fleet, which asks for a client.
    :ivar pull_id: the number of the pull that the request belongs to; empty if it belongs to none.
    :ivar fields: the values of the header fields, one for each line, by their names in lower case; bytes
        outside ASCII are replaced.
    :ivar is_token_request: True if it is for the token service, on any host and below any registry's name.
    :ivar is_writable: True if its registry accepts writes.
    :ivar upstream_status: the upstream's status, if it was asked.
    :ivar reason: a sentence that says why the request was refused, or why its response was cut off.
    :ivar is_logged: True if the request appears in the access log.
    :ivar started: when the head was complete, in the clock's seconds.
    :ivar body_limit: how many bytes of body may still be collected.
    :ivar body: a streamed body, which its resource may read until the response begins.
    :ivar is_cut_off: True if the response ended incomplete: the client left, or it was aborted.
    :ivar may_accelerate: True if a proxy in front, which passed the request on, may send a file itself.
    :ivar is_accelerated: True if the body was left to that proxy.
    """

    transport: ITCPTransport
    defaultContentType = None
    clientproto = b"HTTP/1.1"  # the version of a response to a request that cannot be parsed
    peer: ClientAddress | None = None
    admitted_client: ClientAddress | None = None
    scopes: tuple[Scope, ...] = ()
    hops: tuple[Hop, ...] = ()
    is_from_peer = False
    fields: Mapping[str, Sequence[str]] = MappingProxyType({})
    is_token_request = False
    is_writable = False
    upstream_status: int | None = None
    reason: str | None = None
    is_logged = True
    body_limit = 0
    body: RequestBody | None = None
    is_cut_off = False
    may_accelerate = False
    is_accelerated = False
    pull_id = ""
    _log = Logger()

    def __init__(self, channel: Any, queued: object = False) -> None:
        super().__init__(channel, queued)
        self._site = channel.site
        self._clock: IReactorTime = channel.site.reactor
        self._log_end: Callable[[ServerRequest], None] = channel.site.log
        self._on_response_begin: Callable[[], None] = channel.begin_response
        self.started = self._clock.seconds()

    def __repr__(self) -> str:
        """Leave out the query, which may hold passwords: logs show this text."""
        return f"<{type(self).__name__} {self.method!r} {self.path!r}>"

    def identify(self, method: bytes, uri: bytes, version: bytes) -> None:
        """Set the request line and the header fields, which are known before the body."""
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.partition(b"?")[0]
        self.is_token_request = self.path.endswith(b"/v2/auth")
        self.fields = {
            name.decode("ascii", "replace").lower(): [value.decode("ascii", "replace") for value in values]
            for name, values in self.requestHeaders.getAllRawHeaders()
        }

    def field(self, name: str) -> str | None:
        """Return the first value of a header field, or None; the name is in lower case."""
        values = self.fields.get(name, ())
        return values[0] if values else None

    def drop_credentials(self) -> None:
        """Remove the credentials, so that they are not passed on."""
        self.requestHeaders.removeHeader("Authorization")
        self.fields = {name: lines for name, lines in self.fields.items() if name != "authorization"}

    def join_pull(self, number: str) -> None:
        """Set the number of the pull, which messages of the answering coroutine bear from now on."""
        self.pull_id = number
        current_pull.set(number)

    @property
    def requester(self) -> Requester:
        """The client as policy servers are told of it; empty until it is let in."""
        client = self.admitted_client
        return Requester() if client is None else Requester(str(client.address or ""), client.user or "")

    @property
    def requested_host(self) -> str:
        """The host that the client used, with its port if any; empty until the client is identified."""
        return self.peer.host if self.peer is not None else ""

    @property
    def is_site_draining(self) -> bool:
        """Tell whether the site stops, and waits only for the responses that run."""
        return bool(self._site.connections.draining)

    def gotLength(self, _: int | None) -> None:
        """Collect the body in memory; Twisted would use a file if its length is unknown."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Collect a piece of the body.

        :raises SizeInvalid: when it exceeds the limit, which a chunked body shows only now.
        """
        self.body_limit -= len(data)
        if self.body_limit < 0:
            raise SizeInvalid("the request's body is too large", status=413)
        super().handleContentChunk(data)

    def render(self, resrc: IResource) -> None:
        """Have the resource respond.  Twisted's version rejects a method in HTML."""
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
        self._send(body)

    def refuse(self, error: RegistryError, page: bytes | None = None) -> None:
        """Respond with an error; nothing may have been written yet.

        Of a 5xx most clients show the status line only, so it has the reason too.

        :param page: the document that says it to a person; programs get JSON.
        """
        self.reason = " ".join(error.summary.split())
        phrase = responses.get(error.status, "Unknown")
        if error.status >= 500:
            phrase = f"{phrase}: {_UNSAFE.sub('?', self.reason)[:_PHRASE_LENGTH]}"
        self.setResponseCode(error.status, phrase.encode())
        self.setHeader(b"Content-Type", b"application/json" if page is None else b"text/html; charset=utf-8")
        self._send(error.body() if page is None else page)

    def _send(self, body: bytes) -> None:
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body, after the headers."""
        if not self.startedWriting and not self.is_cut_off:
            self._on_response_begin()
            self.setHeader(b"Server", b"dockmirror")
            self.setHeader(b"Date", _date(int(self._clock.seconds())))
            if not self.channel.persistent:
                self.setHeader(b"Connection", b"close")
        super().write(data)

    def processingFailed(self, reason: Failure) -> Failure:
        """Respond with a bare internal error; cut off a response that has begun."""
        request = (self.method + b" " + self.path).decode("ascii")
        self._log.failure("{request} failed", failure=reason, request=request, pull=self.pull_id)
        if self.finished or self.is_cut_off:
            return reason
        if self.startedWriting:
            self.abort()
        else:
            self.responseHeaders = Headers()  # they described a response that will not be sent
            self.refuse(RegistryError("internal error"))
        return reason

    def abort(self) -> None:
        """Cut off the response, so that no client takes it for complete."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Mark the response as cut off, and log the request."""
        self.is_cut_off = True
        super().connectionLost(reason)
        self._log_end(self)


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    """Format the current second once."""
    written: bytes = datetimeToString(seconds)
    return written


def make_response_consumer(request: ServerRequest) -> IConsumer:
    """Return the consumer of a response's body; the response headers must be set."""
    transport = request.transport
    # Wrappers claim the interfaces of a socket, too; and without a length each chunk needs a head.
    if isinstance(transport, Connection) and not transport.TLS and _has_length(request):
        return _SocketConsumer(request, transport)
    return _ResponseConsumer(request)


def _has_length(request: ServerRequest) -> bool:
    return request.responseHeaders.hasHeader(b"Content-Length")


@implementer(IAccelConsumer)
class _ResponseConsumer(ForwardingConsumer):
    """A consumer that tolerates a client that has left."""

    consumer: ServerRequest

    def send_by_proxy(self, name: PurePosixPath, part: ContentRange) -> bool:
        request, headers = self.consumer, self.consumer.responseHeaders
        is_whole_body = headers.getRawHeaders(b"Content-Length") == [b"%d" % part.length]
        if not request.may_accelerate or request.startedWriting or not is_whole_body:
            return False
        if not is_same_for_nginx(request.code, request.fields):
            return False
        prepare_for_accel(headers, name)
        request.sentLength += part.length
        request.is_accelerated = True
        return True

    def unregisterProducer(self) -> None:
        if not self.consumer.is_cut_off:
            self.consumer.unregisterProducer()


@implementer(IFileConsumer)
class _SocketConsumer(_ResponseConsumer):
    """A client on a plain socket, to which files are sent by the kernel for as long as it accepts more.

    For Twisted the connection is one whose producer is paused whenever the socket is full.
    """

    def __init__(self, request: ServerRequest, transport: Connection) -> None:
        super().__init__(request)
        self._transport = transport
        self._has_buffered = False

    def write(self, data: bytes) -> None:
        self._has_buffered = True
        super().write(data)

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        if not self.consumer.startedWriting:
            self.write(b"")  # the head
        sent = None if self._has_buffered else self._send(file, offset, length)
        if sent != length:
            self._pause_producer()
        return sent

    def _send(self, file: int, offset: int, length: int) -> int | None:
        try:
            sent = os.sendfile(self._transport.fileno(), file, offset, length)
        except BlockingIOError:
            return None
        except (ConnectionError, TimeoutError):
            self._transport.abortConnection()
            return None
        self.consumer.sentLength += sent
        return sent

    def _pause_producer(self) -> None:
        """Pause as the transport does with a full buffer; it resumes its producer once the socket is
        writable.
        """
        self._transport.producerPaused = True
        self.consumer.channel.pauseProducing()
        self._transport.startWriting()
        self._has_buffered = False


_MOST = 50
Parameters = tuple[tuple[str, str], ...]


def parse_query(request: ServerRequest) -> Parameters:
    """Parse the query of the request.

    :raises RegistryError: when there are too many parameters.
    """
    return parse_pairs(request.uri.partition(b"?")[2])


def parse_pairs(encoded: bytes) -> Parameters:
    """Parse a query or a form (``application/x-www-form-urlencoded``).

    :raises RegistryError: when there are too many parameters.
    """
    try:
        text = encoded.decode("ascii", "replace")
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST))
    except ValueError:
        raise RegistryError(f"more than {_MOST} parameters", status=400) from None


def parse_credentials(request: ServerRequest) -> Credentials | None:
    """Return the client's credentials; the marker token for anonymous access counts as none.

    :raises RegistryError: when they are malformed, or there are two: a server could read the other one.
    """
    headers = [header for header in request.fields.get("authorization", ()) if header]
    if len(headers) > 1:
        raise RegistryError("more than one 'Authorization'", status=400)
    parsed = Credentials.parse(headers[0]) if headers else None
    return None if parsed is None or parsed.is_bearer(MARKER) else parsed


def parse_range(request: ServerRequest, etag: str) -> Range | None:
    """Return the requested range, or None if the whole content is to be sent.

    Only GET takes ranges (RFC 9110, 14.2), and only if ``If-Range`` names the current content (13.1.5).

    :param etag: the strong entity tag of the current content.
    """
    if request.method != b"GET" or request.field("if-range") not in (None, etag):
        return None
    return Range.parse(request.field("range") or "")
