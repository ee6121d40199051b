"""A request as it is read from a connection: its head, checked before Twisted parses it, and its body.

Twisted itself rejects two lengths, a length beside a transfer coding, names that are no tokens, spaces in the
target, and versions other than 1.0 and 1.1.  Only what it lets pass is checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.http import _ChunkedTransferDecoder, _IdentityTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError, Unsupported
from .connections import MinimumRate, Timer

_LOG_PERIOD = 60.0
_TLS_RECORD = b"\x16\x03"
"""The first bytes of a TLS handshake (RFC 8446, 5.1), with which no HTTP request begins."""
_HEAD_END = b"\r\n\r\n"
_TEXT = bytes([9, *range(32, 127), *range(128, 256)])
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@:][^/?#@]*)(/[^?]*)?(\?.*)?", re.DOTALL)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_log = Logger()


def tls_hello_error() -> RegistryError:
    """Return the response: from its plain HTTP the client learns what is wrong, and says so."""
    return Unsupported("this port speaks plain HTTP, and the client spoke TLS: use http://", status=400)


def is_plain_http(data: bytes) -> bool:
    """Return whether a connection began with a method instead of a TLS handshake."""
    return data[:1].isupper()


def plain_http_response() -> bytes:
    """Return the whole response to a client of plain HTTP, which could read no alert."""
    body = Unsupported("this port speaks TLS, and the client spoke plain HTTP: use https://").body()
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b" % (len(body), body)
    )


class TlsHelloLog:
    """Logs clients that speak TLS to a port of plain HTTP, once a minute at most."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._logged = -inf
        self._more = 0

    def add(self, peer: IAddress) -> None:
        """Take note of a client."""
        now = self._clock.seconds()
        if 0 <= now - self._logged < _LOG_PERIOD:
            self._more += 1
            return
        _log.info(
            "{client} spoke TLS to a port of plain HTTP{more}: it needs http://, or the mirror an https:"
            " endpoint (dockerd tries TLS first even where insecure-registries has the mirror)",
            client=getattr(peer, "host", "a client").removeprefix("::ffff:"),
            more=f", as did {self._more} others since the last such line" if self._more else "",
        )
        self._logged, self._more = now, 0


def malformed_request(message: str) -> RegistryError:
    """Return the error for a request that is invalid or ambiguous."""
    return Unsupported(f"malformed request: {message}", status=400)


def find_head_end(received: bytearray, scanned: int, limit: int) -> int | None:
    """Return the index behind the first head; None if more must arrive.

    :param scanned: how many of these bytes an earlier call has scanned.
    :param limit: the most bytes that a head may have, request line and empty line included.
    :raises RegistryError: 400 at a control character (so a TLS hello on a plain port is answered at once),
        431 when the limit is reached before the end.
    """
    found = received.find(_HEAD_END, max(0, scanned - len(_HEAD_END) + 1), limit)
    end = None if found < 0 else found + len(_HEAD_END)
    if _has_control(received, scanned, end or limit):
        raise malformed_request("control character")
    if end is None and len(received) >= limit:
        raise Unsupported(f"the request's header block is larger than {limit} bytes", status=431)
    return end


def _has_control(received: bytearray, scanned: int, stop: int) -> bool:
    """Tell whether there is a control character, CR and LF as pairs excepted.

    A CR that is the last byte may yet become a pair.
    """
    start = scanned - received.endswith(b"\r", 0, scanned)
    unpaired = received[start:stop].removesuffix(b"\r").replace(b"\r\n", b"")
    return bool(unpaired.translate(None, _TEXT))


def to_origin_form(head: bytes) -> bytes:
    """Return the head with its target in origin-form, ready for Twisted's parser.

    An absolute-form target's authority replaces ``Host`` (RFC 9112 section 3.2.2).

    :raises RegistryError: when the framing or the target host is ambiguous.
    """
    line, *fields = head[: -len(_HEAD_END)].split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3:
        raise malformed_request("request line")
    method, target, version = parts
    _check_fields(fields, version)
    path, authority = _split_target(target)
    if authority is None:
        return head
    other_fields = [field for field in fields if not field.lower().startswith(b"host:")]
    return b"\r\n".join(
        (b"%b %b %b" % (method, path, version), b"Host: " + authority, *other_fields, b"", b"")
    )


def _check_fields(fields: list[bytes], version: bytes) -> None:
    hosts = []
    for field in fields:
        if field[0] in b" \t":
            raise malformed_request("folded header")
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts.append(value)
        # Twisted ignores "identity", and decodes chunks that HTTP/1.0 does not define.
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == b"HTTP/1.0"):
            raise malformed_request("transfer coding")
        elif name == b"content-length" and not _LENGTH.fullmatch(value):
            raise malformed_request("content length")
    if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts) or not all(map(_HOST.fullmatch, hosts)):
        raise malformed_request("host")


def _split_target(target: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin-form, and its authority if it has one."""
    if not target.isascii():
        raise malformed_request("target")
    if target.startswith(b"/"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise malformed_request("target")
    return (absolute[2] or b"/") + (absolute[3] or b""), absolute[1]


class HeadBuffer:
    """The input of a connection that has not been processed: request heads, and the bytes between them.

    :param head_bytes: the most that a head may have.
    :ivar bytes: the input; what has arrived is appended to it.
    :ivar has_partial_head: True if a head has begun to arrive and is not complete.
    """

    def __init__(self, head_bytes: int) -> None:
        self.has_partial_head = False
        self._head_bytes = head_bytes
        self.bytes = bytearray()
        self._scanned = 0  # of an incomplete head

    @property
    def is_tls_hello(self) -> bool:
        """The buffered bytes begin a TLS handshake instead of a head."""
        return self.bytes.startswith(_TLS_RECORD)

    def put_back(self, data: bytes) -> None:
        """Insert bytes before the buffered ones."""
        self.bytes[:0] = data

    def take(self) -> bytes:
        """Remove and return all bytes."""
        data = bytes(self.bytes)
        self.bytes.clear()
        return data

    def take_head(self) -> bytes | None:
        """Remove the next head and return it in origin-form; None if more must arrive.

        :raises RegistryError: when it is malformed or too large.
        """
        while self.bytes.startswith(b"\r\n"):  # to be ignored, RFC 9112 section 2.2
            del self.bytes[:2]
            self._scanned = 0
        if not self.bytes:
            return None
        end = find_head_end(self.bytes, self._scanned, self._head_bytes)
        if end is None:
            self.has_partial_head, self._scanned = True, len(self.bytes)
            return None
        head = to_origin_form(bytes(self.bytes[:end]))
        del self.bytes[:end]
        self.has_partial_head, self._scanned = False, 0
        return head


@implementer(IBody, IPushProducer)
class RequestBody:
    """A body that is read from the client at the pace of its consumer.

    Nothing is read before a consumer registers, and nothing is kept: a body of any length costs as much
    memory as one read of a socket.

    :param length: None for a chunked body.
    :param on_wanted: called each time the consumer is ready; the channel then passes input to ``receive``.
    :param on_paused: called each time the consumer pauses.
    :ivar is_complete: True if the last byte has arrived.
    :ivar trailing_data: the input behind the body.
    """

    def __init__(
        self,
        length: int | None,
        media_type: str | None,
        min_rate: MinimumRate,
        clock: IReactorTime,
        on_wanted: Callable[[], None],
        on_paused: Callable[[], None],
    ) -> None:
        self.descriptor = Descriptor(media_type, None, length)
        self.is_complete = False
        self.trailing_data = b""
        self._min_rate = min_rate
        self._on_wanted = on_wanted
        self._on_paused = on_paused
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False
        self._window_bytes = 0
        self._window_timer = Timer(clock)
        self._remaining: float = math.inf if length is None else length
        self._decoder = (
            _ChunkedTransferDecoder(self._write, self._complete)
            if length is None
            else _IdentityTransferDecoder(length, self._write, self._complete)
        )

    @property
    def is_wanted(self) -> bool:
        """Tell whether a consumer is ready for more."""
        return self._consumer is not None and not self._paused

    @property
    def remaining(self) -> float:
        """Return how many bytes have not arrived; infinite if unknown."""
        return 0 if self.is_complete else self._remaining

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; fail with 408 if the client stops sending, with 400 if its chunks are
        malformed.
        """
        self._done = Deferred(self._cancel)
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._start_window()
        self._on_wanted()
        return self._done

    def discard(self) -> None:
        """Do nothing: the channel discards the body when the response begins."""

    def receive(self, data: bytes) -> None:
        """Accept a piece of the body as it stood on the connection."""
        self._window_bytes += len(data)
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            self._remaining = math.inf
            self._fail(malformed_request("chunks"))

    def pauseProducing(self) -> None:
        self._paused = True
        self._window_timer.clear()
        self._on_paused()

    def resumeProducing(self) -> None:
        if self._consumer is not None and self._paused:
            self._paused = False
            self._start_window()
            self._on_wanted()

    def stopProducing(self) -> None:
        self._fail(RegistryError("the request's body is no longer needed"))

    def _write(self, data: bytes) -> None:
        self._remaining -= len(data)
        if self._consumer is not None and data:
            self._consumer.write(data)

    def _complete(self, trailing_data: bytes) -> None:
        self.is_complete, self.trailing_data = True, trailing_data
        if self._detach_consumer():
            self._done.callback(None)

    def _fail(self, error: RegistryError) -> None:
        if self._detach_consumer():
            self._done.errback(error)

    def _cancel(self, _: Deferred[None]) -> None:
        self._detach_consumer()

    def _detach_consumer(self) -> bool:
        """Unregister from the consumer; return whether there was one."""
        self._window_timer.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
        return consumer is not None

    def _start_window(self) -> None:
        self._window_bytes = 0
        self._window_timer.set(self._min_rate.seconds, self._check_rate)

    def _check_rate(self) -> None:
        if self._window_bytes < self._min_rate.bytes:
            self._fail(RegistryError("the request's body did not arrive in time", status=408))
        else:
            self._start_window()
