"""The HTTP/1.1 server: a site whose connections are held to limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site as TwistedSite

from .channel import LimitedHTTPChannel
from .connections import OpenConnections
from .limits import HttpLimits
from .server_request import BodyLimit, ServerRequest
from .tls_hello import TlsHelloLog

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
