"""HTTP requests to the servers of one upstream, and the translation of failures into registry errors."""

from __future__ import annotations

import re
from http.cookiejar import DefaultCookiePolicy
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import (
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..body.in_memory import collect
from ..headers import first
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from .agents import IdentityEncodingAgent
from .checked_endpoint import AddressRefused
from .response_body import ResponseBody
from .urls import parse_origin, parse_url

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
    return " ".join(str(cause).split()) or type(cause).__name__


def content_length(response: IResponse) -> int | None:
    """Return the size of the body, if announced; for a HEAD, the size of the body that GET would bring."""
    header = first(response.headers, "Content-Length")
    if header is not None and _SIZE.fullmatch(header.strip()):
        return int(header)
    return response.length if isinstance(response.length, int) else None


def make_headers(pairs: tuple[Header, ...]) -> Headers:
    headers = Headers()
    for name, value in pairs:
        headers.addRawHeader(name, value)
    return headers


class UpstreamClient:
    """Sends requests to the servers of one upstream.

    :param name: the upstream's name, for messages.
    :param url: the upstream's own URL.
    :param timeout: seconds until the response's headers must be there, and as many again for a body that is
        read whole.
    """

    def __init__(
        self, http: HTTPClient, clock: IReactorTime, name: str, url: str, timeout: float = 60.0
    ) -> None:
        self._http = http
        self._clock = clock
        self._name = name
        self._origin = parse_origin(url)
        self._timeout = timeout
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
        return ResponseBody(response, descriptor, self._clock)

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


@implementer(IBodyProducer)
class _Form:
    """A form, written at once: it is short."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    resumeProducing = stopProducing = pauseProducing


def make_http_client(agent: IAgent) -> HTTPClient:
    """Return treq without its decoding, and without cookies: clients must not share them."""
    jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(IdentityEncodingAgent(agent), jar, _Form)
