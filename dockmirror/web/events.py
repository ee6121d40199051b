"""Server-sent events (WHATWG HTML, 9.2): a response that goes on, with a new text whenever there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from zope.interface import implementer

from ..http.server_request import ServerRequest
from ..oci.errors import RegistryError, TooManyRequests
from ..system.networks import Network, client_network
from .respond import refuse, render_coroutine

INTERVAL = 1.0
"""Seconds between two looks for a new text."""
KEEP_ALIVE = 20.0
"""Seconds of silence after which a comment shows proxies in between that the connection lives."""
LIFETIME = 600.0
"""Seconds after which a stream ends; the browser connects again, and is admitted by the rules of then."""
COMMENT = b":\n\n"
NextEvent = Callable[[], Awaitable[str | None]]
"""Returns the text of a viewer's next event, or None if nothing changed."""


class EventStream(Resource):
    """Sends each viewer an event once a second, if there is one, until the viewer leaves.

    A stream also ends when the mirror stops, after ``LIFETIME``, and when its function fails with a
    ``RegistryError``.

    :param subscribe: returns the function that makes one viewer's events, and remembers what it sent; raises
        ``RegistryError`` to refuse the request.
    :param most: viewers at the same time; further ones are refused.
    :param share: viewers of one network at the same time.
    """

    isLeaf = True

    def __init__(
        self,
        subscribe: Callable[[ServerRequest], NextEvent],
        clock: IReactorTime,
        most: int = 64,
        share: int = 16,
    ) -> None:
        super().__init__()
        self._subscribe = subscribe
        self._clock = clock
        self._most, self._share = most, share
        self._viewers = Counter[Network | None]()

    def render_GET(self, request: ServerRequest) -> int:
        try:
            if self._viewers.total() >= self._most or self._viewers[_network(request)] >= self._share:
                raise TooManyRequests("too many pages are open; reload this one later", status=503)
            next_event = self._subscribe(request)
        except RegistryError as error:
            return refuse(request, error)
        return render_coroutine(request, self._send(request, next_event))

    async def _send(self, request: ServerRequest, next_event: NextEvent) -> None:
        viewer, network = _Viewer(request), _network(request)
        self._viewers[network] += 1
        try:
            await self._send_until_end(viewer, next_event)
        except RegistryError as error:
            request.reason = error.summary
        finally:
            self._viewers[network] -= 1
            self._viewers = +self._viewers  # without networks that have none
        viewer.end()

    async def _send_until_end(self, viewer: _Viewer, next_event: NextEvent) -> None:
        began = last = self._clock.seconds()
        viewer.begin()
        while viewer.is_open and self._clock.seconds() - began < LIFETIME:
            if not viewer.is_full:
                text = await next_event()
                if text is not None or self._clock.seconds() - last >= KEEP_ALIVE:
                    viewer.write(COMMENT if text is None else encode_event(text))
                    last = self._clock.seconds()
            await deferLater(self._clock, INTERVAL)


def _network(request: ServerRequest) -> Network | None:
    """Return the viewer's network; all who use a socket without addresses are one."""
    client = request.admitted_client
    return client_network(client.address) if client and client.address else None


def encode_event(text: str) -> bytes:
    """Encode a text as an event without a name."""
    return "".join(f"data: {line}\n" for line in text.splitlines() or [""]).encode() + b"\n"


@implementer(IPushProducer)
class _Viewer:
    """The response to a viewer, which says when it takes no more for the moment."""

    def __init__(self, request: ServerRequest) -> None:
        self.request = request
        self.is_full = False

    @property
    def is_open(self) -> bool:
        return self.request.method == b"GET" and not self.request.is_site_draining

    def begin(self) -> None:
        for name, value in (
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Accel-Buffering", "no"),  # or nginx keeps events until they fill a buffer
        ):
            self.request.setHeader(name, value)
        self.request.registerProducer(self, True)
        self.write(COMMENT)  # sends the head

    def write(self, data: bytes) -> None:
        if not self.request.is_cut_off:
            self.request.write(data)

    def end(self) -> None:
        if not self.request.is_cut_off:
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False

    def stopProducing(self) -> None:
        """Do nothing: the request is told that the client left, which cancels its coroutine."""
