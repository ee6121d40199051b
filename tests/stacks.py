"""Single parts of the mirror over a world of servers, and what comes of asking them."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from dockmirror.interfaces import IBody
from dockmirror.oci.request import RegistryRequest, parse_target
from dockmirror.upstream.agents import make_http_client
from dockmirror.upstream.registry_client import ChallengeCache, RegistryClient, TokenRelay, TrustedRealms
from dockmirror.upstream.upstream_client import UpstreamClient
from dockmirror.upstream.upstream_registry import BlobSizes, UpstreamRegistry

from .answering import now as now
from .internet import AUTH, HUB

T = TypeVar("T")


class Outcome(list[Any]):
    """A list that will contain the outcome of work: one value or one failure."""

    def __init__(self, work: Deferred[Any] | Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self.work = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        self.work.addBoth(self.append)

    def get(self) -> Any:
        """The value, or the exception raised."""
        (value,) = self
        if isinstance(value, Failure):
            value.raiseException()
        return value

    @property
    def error(self) -> BaseException:
        """The exception, not raised."""
        (failure,) = self
        assert isinstance(failure, Failure)
        assert failure.value is not None
        return failure.value


def bytes_of(content: IBody) -> bytes:
    """All of a content."""
    consumer = StringTransport()
    Outcome(content.deliver(consumer)).get()
    return bytes(consumer.value())


@contextmanager
def logged() -> Iterator[list[str]]:
    """The texts of all that is logged meanwhile, at every level and with every traceback."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(f"{eventAsText(event)} {eventAsJSON(event)}")

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    try:
        yield texts
    finally:
        globalLogPublisher.removeObserver(observer)


def asked(path: str, **details: Any) -> RegistryRequest:
    """A request for a path under ``/v2/``."""
    return RegistryRequest(parse_target(path.encode()), **details)


def client(agent: IAgent, clock: Clock | None = None, url: str = f"https://{HUB}") -> UpstreamClient:
    """Return the client of an upstream named ``hub``."""
    return UpstreamClient(make_http_client(agent), clock or Clock(), "hub", url)


def upstream(
    agent: IAgent,
    clock: Clock | None = None,
    url: str = f"https://{HUB}",
    realms: tuple[str, ...] = (f"https://{AUTH}",),
) -> UpstreamRegistry:
    """Docker Hub, or another registry."""
    clock = clock or Clock()
    servers = client(agent, clock, url)
    handshake = ChallengeCache(servers, url, clock)
    relay = TokenRelay(servers, handshake, TrustedRealms(url, realms))
    return UpstreamRegistry(
        servers, RegistryClient(url, servers, handshake, clock), handshake, relay, BlobSizes(clock)
    )
