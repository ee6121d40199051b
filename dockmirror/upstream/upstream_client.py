"""Requests out: one question, one response, failures in words."""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from ..body.in_memory import collect
from ..headers import first
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, TimedOut
from .failures import FAILURES, NoAnswer, connection_lost, describe, error_class_for, root_cause
from .identity_encoding import parse_url
from .response_body import ResponseBody
from .trusted_realms import origin

Header = tuple[str, str]
_SIZE = re.compile(r"[0-9]{1,18}")
_RELEASED = 64 * 1024


def length_of(response: IResponse) -> int | None:
    """The body's size in bytes, where the upstream tells it; for a HEAD, the size of what GET would bring."""
    told = first(response.headers, "Content-Length")
    if told is not None and _SIZE.fullmatch(told.strip()):
        return int(told)
    return response.length if isinstance(response.length, int) else None


class UpstreamClient:
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

    async def request(
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
                if retried or not connection_lost(failure):
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

    def is_other_host(self, url: str) -> bool:
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
            parse_url(url),
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
        return error_class_for(cause)(
            f"the upstream {self._name} cannot be reached: {server}: {describe(cause)}",
            from_other_host=self.is_other_host(url),
        )


def _too_slow(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the upstream's answer was not there, whole, within {seconds:g} s")
