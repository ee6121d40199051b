"""HTTP requests to the servers of one upstream, the responses' bodies, and the errors that failures mean."""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from hyperlink import URL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import (
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..body.bodies import collect
from ..headers import first
from ..interfaces import IBody
from ..oci.digest import Descriptor
from ..oci.errors import BrokenOff, RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from .addresses import parse_origin
from .checked_endpoint import AddressRefused

IDLE_TIMEOUT = 60.0
"""Seconds in which an upstream that is being read must send something."""


@implementer(IBody)
class ResponseBody:
    """The body of an upstream's response, passed on as it arrives."""

    def __init__(
        self,
        response: IResponse,
        descriptor: Descriptor,
        clock: IReactorTime,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self.descriptor = descriptor
        self._response = response
        self._clock = clock
        self._idle_timeout = idle_timeout

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; fail with ``BrokenOff`` if the connection is lost, with ``TimedOut`` if it
        stalls.
        """
        forwarder = _BodyForwarder(consumer, self._clock, self._idle_timeout)
        self._response.deliverBody(forwarder)
        return forwarder.done

    def discard(self) -> None:
        """Close the connection: the upstream may be sending already, and has no other way to be stopped."""
        self._response.deliverBody(_BodyDiscarder())


class _BodyDiscarder(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IPushProducer)
class _BodyForwarder(Protocol):
    """A protocol between a response and a consumer, which passes the consumer's back-pressure on."""

    def __init__(self, consumer: IConsumer, clock: IReactorTime, idle_timeout: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._give_up(None))
        self._consumer = consumer
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._idle_timer: IDelayedCall | None = None
        self._has_ended = False

    def connectionMade(self) -> None:
        self._start_idle_timer()
        self._consumer.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._has_ended:
            if self._idle_timer is not None:
                self._idle_timer.reset(self._idle_timeout)
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        self._stop_idle_timer()
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._idle_timer is None and not self._has_ended:
            self._start_idle_timer()
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        self._give_up(Unreachable("the body is no longer needed"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        complete = reason is not None and reason.check(ResponseDone, PotentialDataLoss)
        self._end(None if complete else BrokenOff("the upstream closed the connection within the body"))

    @property
    def _transport(self) -> IPushProducer:
        assert self.transport is not None
        return IPushProducer(self.transport)

    def _give_up(self, error: Unreachable | None) -> None:
        """End before the upstream did; without an error if the delivery was cancelled."""
        if not self._has_ended:
            self._end(error, fire=error is not None)
            assert self.transport is not None
            self.transport.loseConnection()

    def _end(self, error: Unreachable | None, fire: bool = True) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._stop_idle_timer()
        self._consumer.unregisterProducer()
        if fire:
            self.done.callback(None) if error is None else self.done.errback(error)

    def _start_idle_timer(self) -> None:
        error = TimedOut("the upstream stopped sending")
        self._idle_timer = self._clock.callLater(self._idle_timeout, self._give_up, error)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None and self._idle_timer.active():
            self._idle_timer.cancel()
        self._idle_timer = None


_CONNECTION_DIED = (ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent)
_NOT_CONNECTED = (AddressRefused, ConnectError, DNSLookupError)
Header = tuple[str, str]
_SIZE = re.compile(r"[0-9]{1,18}")
_DRAIN_LIMIT = 64 * 1024


class NoAnswer(ConnectTimedOut):
    """A server that was connected to did not respond in time."""


FAILURES = (
    *_CONNECTION_DIED, RequestGenerationFailed, ResponseFailed, AddressRefused, CancelledError, ConnectError,
    ConnectionLost, DNSLookupError, ValueError,
)  # fmt: skip
"""The failures of a request that got no response."""


def find_root_cause(failure: BaseException) -> BaseException:
    """Return the innermost of the reasons that Twisted wrapped: for connections, an error of
    ``UpstreamEndpoints``.
    """
    reasons: list[Failure] = getattr(failure, "reasons", [])
    innermost = reasons[0].value if reasons else None
    return failure if innermost is None else find_root_cause(innermost)


def is_connection_lost(failure: BaseException) -> bool:
    """Tell whether the connection was lost; another one may succeed."""
    return isinstance(failure, _CONNECTION_DIED) or isinstance(find_root_cause(failure), ConnectionClosed)


def classify_error(cause: BaseException) -> type[RegistryError]:
    """Return the error that a root cause means for a client."""
    if isinstance(cause, ConnectTimedOut):
        return TimedOut
    if isinstance(cause, ConnectBindError):  # the mirror's own failure: no descriptor, no port
        return Unavailable
    return Unreachable if isinstance(cause, _NOT_CONNECTED) else Unreadable


def describe_failure(cause: BaseException) -> str:
    """Describe a root cause for clients."""
    if isinstance(cause, DNSLookupError):
        return "its name cannot be resolved"
    if isinstance(cause, AddressRefused):  # internal addresses are not shown to clients
        return "its address is not allowed; see the mirror's log"
    if any(isinstance(part, bytes) for part in cause.args):  # of the answer, which Twisted cannot parse
        return "its answer is not valid HTTP"
    return " ".join(str(cause).split()) or type(cause).__name__


def content_length(response: IResponse) -> int | None:
    """Return the size of the body, if announced; for a HEAD, the size of the body that GET would bring."""
    header = first(response.headers, "Content-Length")
    if header is not None:
        return int(header) if _SIZE.fullmatch(header.strip()) else None
    is_head = response.request.method == b"HEAD"  # to Twisted the body of its response has no bytes
    return response.length if isinstance(response.length, int) and not is_head else None


def make_headers(pairs: tuple[Header, ...]) -> Headers:
    headers = Headers()
    for name, value in pairs:
        headers.addRawHeader(name, value)
    return headers


class _RawHostURL(URL):
    """A URL with an ASCII host, which hyperlink would encode as if it were an internationalized name.

    hyperlink rejects names with underscores, which containers have, and fails at IPv6 addresses.
    """

    def to_uri(self) -> URL:
        """Encode only the part behind the host."""
        named = URL.from_text(self.replace(host="name").to_text())
        return named.to_uri().replace(host=self.host.lower())


def parse_url(url: str) -> URL:
    """Parse a URL and keep its host as written.

    :raises ValueError: when it is not a URL.
    """
    parsed = URL.from_text(url)
    return _RawHostURL.from_text(url) if parsed.host.isascii() else parsed


class UpstreamClient:
    """Sends requests to the servers of one upstream.

    :param name: the upstream's name, for messages.
    :param url: the upstream's own URL.
    :param timeout: seconds until the response's headers must be there, and as many again for a body that is
        read whole.
    :param idle_timeout: seconds in which a body that is passed on must go on.
    """

    def __init__(
        self,
        http: HTTPClient,
        clock: IReactorTime,
        name: str,
        url: str,
        timeout: float = 60.0,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._http = http
        self._clock = clock
        self._name = name
        self._origin = parse_origin(url)
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._log = Logger()

    async def request(
        self, method: str, url: str, headers: tuple[Header, ...] = (), form: tuple[Header, ...] | None = None
    ) -> IResponse:
        """Return the response, its body unread; retry once if a connection died before or within the headers.

        :param form: the fields of a POST.
        :raises Unreachable: naming the server and the reason.
        :raises Unavailable: when no descriptor is left for a connection.
        """
        is_last_attempt = method not in ("GET", "HEAD")
        while True:
            try:
                return await self._request_once(method, url, headers, form)
            except FAILURES as failure:
                if isinstance(find_root_cause(failure), CancelledError):
                    raise CancelledError from failure
                if is_last_attempt or not is_connection_lost(failure):
                    raise self.translate_failure(url, failure) from failure
                is_last_attempt = True

    def make_body(self, response: IResponse, descriptor: Descriptor) -> ResponseBody:
        return ResponseBody(response, descriptor, self._clock, self._idle_timeout)

    async def read(self, response: IResponse, limit: int) -> bytes:
        """Return the response's whole body, of ``limit`` bytes at most.

        :raises Unavailable: when it is longer.
        :raises TimedOut: when it takes too long, even if bytes keep arriving.
        """
        body = self.make_body(response, Descriptor(size=content_length(response)))
        reading = Deferred.fromCoroutine(collect(body, limit))
        return await reading.addTimeout(self._timeout, self._clock, _raise_timed_out)

    def is_other_host(self, url: str) -> bool:
        """Tell whether a URL is of another server than the registry itself."""
        return parse_origin(url) != self._origin

    def release(self, response: IResponse) -> None:
        """Discard the body; a short one is read to its end, so that the connection can be reused."""
        Deferred.fromCoroutine(self.read(response, _DRAIN_LIMIT)).addErrback(lambda _: None)

    def _request_once(
        self, method: str, url: str, headers: tuple[Header, ...], form: tuple[Header, ...] | None
    ) -> Deferred[IResponse]:
        raw = make_headers(headers)
        data = None
        if form is not None:
            data = urlencode(form).encode()
            raw.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
        responding = self._http.request(
            method,
            parse_url(url),
            headers=raw,
            data=data,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type]
        )
        return responding.addTimeout(self._timeout, self._clock, self._time_out)

    def _time_out(self, _: object, seconds: float) -> NoReturn:
        raise NoAnswer(string=f"it did not answer within {seconds:g} s")

    def translate_failure(self, url: str, failure: BaseException) -> RegistryError:
        """Log a failed request, and return the error to raise."""
        cause = find_root_cause(failure)
        server = urlsplit(url).netloc.rpartition("@")[2]
        self._log.warn("{upstream}: {server}: {cause}", upstream=self._name, server=server, cause=str(cause))
        return classify_error(cause)(
            f"the upstream {self._name} cannot be reached: {server}: {describe_failure(cause)}",
            from_other_host=self.is_other_host(url),
        )


def _raise_timed_out(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream's response was not complete within {seconds:g} s")
