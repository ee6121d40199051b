"""The server side of HTTP/1.1: a site whose connections are read with limits."""

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

_LIMITS = HttpLimits()


class HttpSite(TwistedSite):
    """What listens: the resources, and how the requests for them are read.

    :param body_limit: how many bytes of a request's body may be read; asked when a body is announced and the
        head is complete (``method``, ``uri``, ``path``, ``requestHeaders`` are there).  With 0 the request is
        dispatched at once, with an empty ``content``; with None, too, and its resource may take the ``body``.
    :param log: called once for each request, when its response is complete or cut off (``Request.cut_off``).
    :ivar connections: those that are open; ``connections.drain`` ends them.
    """

    displayTracebacks = False
    reactor: IReactorTime

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        body_limit: BodyLimit = lambda _: 0,
        limits: HttpLimits = _LIMITS,
        log: Callable[[ServerRequest], None] = lambda _: None,
    ) -> None:
        # Twisted's idle timer is off: each byte would wind it up again.
        super().__init__(
            resource, ServerRequest, timeout=None, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.connections = OpenConnections(reactor)
        self._clock, self._body_limit = reactor, body_limit
        self._keep_to(limits)
        self._log_request = log

    def serve(
        self, resource: IResource, log: Callable[[ServerRequest], None], limits: HttpLimits = _LIMITS
    ) -> None:
        """Serves these from now on; a request that runs is told of to the new log.

        :param limits: of the connections that come from now on.
        """
        self.resource, self._log_request = resource, log
        self._keep_to(limits)

    def _keep_to(self, limits: HttpLimits) -> None:
        build = partial(LimitedHTTPChannel, self.connections, limits, self._body_limit, self._clock)
        self.protocol = build  # type: ignore[method-assign, assignment]  # Twisted's negotiates HTTP/2

    def startFactory(self) -> None:
        """Twisted would start a clock for a log of its own."""

    def log(self, request: ServerRequest) -> None:  # type: ignore[override]  # there are no others here
        """Called by a request at its end."""
        self._log_request(request)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/2 is left to proxies in front, even where ``h2`` is installed."""
        return [b"http/1.1"]
