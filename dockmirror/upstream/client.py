"""Requests out: one question, one response, failures in words."""

from __future__ import annotations

import re
from http.cookiejar import DefaultCookiePolicy
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from hyperlink import URL
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

from ..content.held import collect
from ..headers import first
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from .body import ResponseBody
from .checked import AddressRefused
from .realms import origin

Header = tuple[str, str]
_DIED = (ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent)
_NOT_CONNECTED = (AddressRefused, ConnectError, DNSLookupError)


_SIZE = re.compile(r"[0-9]{1,18}")
_RELEASED = 64 * 1024


def length_of(response: IResponse) -> int | None:
    """The body's size in bytes, where the upstream tells it; for a HEAD, the size of what GET would bring."""
    told = first(response.headers, "Content-Length")
    if told is not None and _SIZE.fullmatch(told.strip()):
        return int(told)
    return response.length if isinstance(response.length, int) else None


class NoAnswer(ConnectTimedOut):
    """A server that was connected to did not answer in time."""


@implementer(IAgent)
class Undecoded:
    """Asks for bytes as they are stored, and gives them on as they come.

    treq asks for gzip beside whatever is asked, and decodes what is labelled so; a blob whose CDN
    labels it ``gzip`` would arrive as other bytes than its digest names.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        plain = headers.copy() if headers else Headers()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(_unlabelled)


def _unlabelled(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"Content-Encoding")
    return response


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
        """There is nothing left to write."""

    resumeProducing = stopProducing = pauseProducing


def http_client(agent: IAgent) -> HTTPClient:
    """treq without its decoding, and without cookies: one user's must not travel with another's request."""
    jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(Undecoded(agent), jar, _Form)


class _AtAddress(URL):
    """At an IPv6 address, which hyperlink would encode as if it were a name, and fails."""

    def to_uri(self) -> URL:
        """Only what follows the host may have to be encoded."""
        named = URL.from_text(self.replace(host="name").to_text())
        return named.to_uri().replace(host=self.host)


def addressed(url: str) -> URL:
    """:raises ValueError: when it is no URL."""
    parsed = URL.from_text(url)
    return _AtAddress.from_text(url) if ":" in parsed.host else parsed


class Client:
    """Asks the servers of one upstream.

    :param name: the upstream's name, for messages.
    :param url: the upstream's own address.
    :param timeout: seconds until the response's headers are there, and as many again until all is there of
        what is read whole.
    """

    def __init__(
        self, http: HTTPClient, clock: IReactorTime, name: str, url: str, timeout: float = 60.0
    ) -> None:
        self._http = http
        self._clock = clock
        self._name = name
        self._own = origin(url)
        self._timeout = timeout
        self._log = Logger()

    async def ask(
        self, method: str, url: str, headers: tuple[Header, ...] = (), form: tuple[Header, ...] | None = None
    ) -> IResponse:
        """The response, its body not yet read; where a connection died before, or within its headers, it is
        asked for once more.

        :param form: the fields of a POST.
        :raises Unreachable: saying which server, and why.
        :raises Unavailable: when there is no descriptor left for a connection.
        """
        retried = method not in ("GET", "HEAD")
        while True:
            try:
                return await self._once(method, url, headers, form)
            except FAILURES as failure:
                if isinstance(root_cause(failure), CancelledError):
                    raise CancelledError from failure
                if retried or not died(failure):
                    raise self.unreachable(url, failure) from failure
                retried = True

    def body(self, response: IResponse, descriptor: Descriptor) -> ResponseBody:
        """The response's body as a content."""
        return ResponseBody(response, descriptor, self._clock)

    async def read(self, response: IResponse, limit: int) -> bytes:
        """The response's whole body, of ``limit`` bytes at most.

        :raises Unavailable: when it is longer.
        :raises TimedOut: when it takes too long, although some of it comes all the time.
        """
        body = self.body(response, Descriptor(size=length_of(response)))
        reading = Deferred.fromCoroutine(collect(body, limit))
        return await reading.addTimeout(self._timeout, self._clock, _too_slow)

    def is_elsewhere(self, url: str) -> bool:
        """Whether another server has that address than the registry itself."""
        return origin(url) != self._own

    def release(self, response: IResponse) -> None:
        """Has no use for the body; a short one is read to its end, so that the connection stays of use."""
        Deferred.fromCoroutine(self.read(response, _RELEASED)).addErrback(lambda _: None)

    def _once(
        self, method: str, url: str, headers: tuple[Header, ...], form: tuple[Header, ...] | None
    ) -> Deferred[IResponse]:
        raw = Headers()
        for key, value in headers:
            raw.addRawHeader(key, value)
        data = None
        if form is not None:
            data = urlencode(form).encode()
            raw.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
        asked = self._http.request(
            method,
            addressed(url),
            headers=raw,
            data=data,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type]
        )
        return asked.addTimeout(self._timeout, self._clock, self._late)

    def _late(self, _: object, seconds: float) -> NoReturn:
        raise NoAnswer(string=f"it did not answer within {seconds:g} s")

    def unreachable(self, url: str, failure: BaseException) -> RegistryError:
        """The error to raise where a server gave no answer."""
        cause = root_cause(failure)
        server = urlsplit(url).netloc.rpartition("@")[2]
        self._log.warn("{upstream}: {server}: {cause}", upstream=self._name, server=server, cause=str(cause))
        return _row(cause)(
            f"the upstream {self._name} cannot be reached: {server}: {_why(cause)}",
            elsewhere=self.is_elsewhere(url),
        )


FAILURES = (
    *_DIED, RequestGenerationFailed, ResponseFailed, AddressRefused, CancelledError, ConnectError,
    ConnectionLost, DNSLookupError, ValueError,
)  # fmt: skip
"""What comes of a question that got no answer."""


def root_cause(failure: BaseException) -> BaseException:
    """The innermost of the reasons that Twisted wrapped: see ``Endpoints`` for those of connecting."""
    reasons: list[Failure] = getattr(failure, "reasons", [])
    innermost = reasons[0].value if reasons else None
    return failure if innermost is None else root_cause(innermost)


def died(failure: BaseException) -> bool:
    """Whether the connection was lost, which the next one need not be."""
    return isinstance(failure, _DIED) or isinstance(root_cause(failure), ConnectionClosed)


def _too_slow(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream's answer was not there, whole, within {seconds:g} s")


def _row(cause: BaseException) -> type[RegistryError]:
    if isinstance(cause, ConnectTimedOut):
        return TimedOut
    if isinstance(cause, ConnectBindError):  # a failure of our own: no descriptor, no port
        return Unavailable
    return Unreachable if isinstance(cause, _NOT_CONNECTED) else Unreadable


def _why(cause: BaseException) -> str:
    if isinstance(cause, DNSLookupError):
        return "its name cannot be resolved"
    if isinstance(cause, AddressRefused):  # what a name resolves to within the house is not for everybody
        return "its address may not be connected to; the log says why"
    return " ".join(str(cause).split()) or type(cause).__name__
