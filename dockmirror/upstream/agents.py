"""Agents that wrap another agent, and change, bound or measure the requests to an upstream's servers."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, frozen
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..concurrency.backoff import Backoff
from ..headers import first
from ..metrics import Metrics
from ..oci.header_fields import CDN_LOOP, Hop, format_hops
from ..oci.request import find_repository
from ..system.request_context import current_hops, current_pull
from .addresses import parse_origin
from .bounded_endpoint import with_timeout
from .checked_endpoint import AddressRefused
from .upload_client import RequestBodyProducer

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds for which a host's circuit is open after the first failure, doubled with each that follows.

The first delay is short: a download that was interrupted is resumed in less than two seconds.
"""
_QUOTA = re.compile(r"\s*([0-9]{1,12})(?![0-9])")


@frozen
class AgentRequest:
    """The arguments of ``IAgent.request``."""

    method: bytes
    uri: bytes
    headers: Headers | None
    body: IBodyProducer | None

    @property
    def is_upload(self) -> bool:
        return isinstance(self.body, RequestBodyProducer)

    def send(self, agent: IAgent) -> Deferred[IResponse]:
        return agent.request(self.method, self.uri, self.headers, self.body)


@implementer(IAgent)
class AgentWrapper:
    """Base class of the wrappers: a subclass says in ``handle`` how a request reaches the wrapped agent."""

    def __init__(self, agent: IAgent) -> None:
        self.agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self.handle(AgentRequest(method, uri, headers, bodyProducer))

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return request.send(self.agent)


class ObservedResponse(proxyForInterface(IResponse, "_response")):  # type: ignore[misc]
    """A response that reports the size of each piece of its body, and the end of the body."""

    def __init__(
        self,
        response: IResponse,
        on_bytes: Callable[[int], object] = lambda size: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(response)
        self._on_bytes = on_bytes
        self._on_end = on_end

    def deliverBody(self, protocol: IProtocol) -> None:
        self._response.deliverBody(_BodyObserver(protocol, self._on_bytes, self._on_end))


class _BodyObserver(Protocol):
    """Passes a body on to the protocol that it is delivered to."""

    def __init__(
        self, protocol: IProtocol, on_bytes: Callable[[int], object], on_end: Callable[[], object]
    ) -> None:
        self._protocol = protocol
        self._on_bytes = on_bytes
        self._on_end = on_end

    def makeConnection(self, transport: Any) -> None:
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._on_bytes(len(data))
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._on_end()
        self._protocol.connectionLost(reason)


class ConcurrencyLimit(AgentWrapper):
    """Runs a limited number of requests at a time, and as many uploads; the others wait in order.

    A request runs until its response's body has ended, or until it has failed or been cancelled.  That bounds
    the busy connections as well: each carries one request.  Idle connections of the pool are not counted,
    since they would stand in the way of requests to another host.  Uploads last as long as their clients take
    to send them, and must not keep others from pulling.

    The receiver of a response with a body must have it delivered; until then the request counts as running.

    :param patience: seconds that a request may wait; then it fails with ``TimeoutError``.
    """

    def __init__(self, agent: IAgent, limit: int, clock: IReactorTime, patience: float = 30.0) -> None:
        super().__init__(agent)
        self._slots = DeferredSemaphore(limit)
        self._upload_slots = DeferredSemaphore(limit)
        self._clock = clock
        self._patience = patience

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._send_in_turn(request))

    async def _send_in_turn(self, request: AgentRequest) -> IResponse:
        slots = self._upload_slots if request.is_upload else self._slots
        activity = f"waiting for one of the {slots.limit} concurrent requests to end"
        await with_timeout(slots.acquire(), self._patience, self._clock, activity)
        try:
            response = await request.send(self.agent)
        except BaseException:
            slots.release()
            raise
        if response.length == 0:
            slots.release()
            return response
        observed: IResponse = ObservedResponse(response, on_end=slots.release)
        return observed


class HostCircuitBreaker(AgentWrapper):
    """Repeats a server's last connection failure for a while instead of connecting again.

    A server is known by scheme, host and port: while the token service or the host of the blobs is down, the
    registry itself is still asked.  Failures after a connection was made are not counted here.
    """

    def __init__(self, agent: IAgent, clock: IReactorTime) -> None:
        super().__init__(agent)
        self._backoff: Backoff[tuple[bytes, bytes], BaseException] = Backoff(
            clock, FIRST_DELAY, LONGEST_DELAY
        )

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        parts = urlsplit(request.uri)
        server = parts.scheme, parts.netloc
        pause = self._backoff.current_pause(server)
        if pause is not None:
            return fail(pause.reason.with_traceback(None))  # else the traceback would grow each time
        responding: Deferred[Any] = request.send(self.agent)
        return responding.addCallbacks(self._close, self._open, callbackArgs=(server,), errbackArgs=(server,))

    def _close(self, response: IResponse, server: tuple[bytes, bytes]) -> IResponse:
        self._backoff.record_success(server)
        return response

    def _open(self, failure: Failure, server: tuple[bytes, bytes]) -> Failure:
        """Begin a pause, unless the failure is the mirror's own, which a failure to bind is."""
        if failure.check(ConnectError, DNSLookupError) and not failure.check(ConnectBindError):
            assert failure.value is not None
            self._backoff.record_failure(server, failure.value)
        return failure


class AccountGuard(AgentWrapper):
    """Sends credentials to a registry only for the repositories that their account is for.

    A redirect within the registry may lead to a repository of another account, or of none.

    :param url: the registry's URL.
    :param is_own: returns whether the account is for a repository, whose name may be invalid.
    """

    def __init__(self, agent: IAgent, url: str, is_own: Callable[[str], bool]) -> None:
        super().__init__(agent)
        self._origin = parse_origin(url)
        self._is_own = is_own

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        headers = request.headers
        if headers is None or not headers.hasHeader(b"Authorization") or self._may_send(request.uri):
            return request.send(self.agent)
        without = headers.copy()
        without.removeHeader(b"Authorization")
        return evolve(request, headers=without).send(self.agent)

    def _may_send(self, uri: bytes) -> bool:
        url = uri.decode("ascii", "replace")
        if parse_origin(url) != self._origin:
            return True
        repository = find_repository(urlsplit(uri).path)
        return repository is None or self._is_own(repository)


class InstrumentedAgent(AgentWrapper):
    """Measures the responses of one upstream's servers: seconds, bytes and remaining rate limit.

    :param names: the names of the upstream and of the account that asks.
    :param report_quota: called with the limit and the remaining requests that a response announces.
    """

    def __init__(
        self,
        agent: IAgent,
        names: tuple[str, str],
        metrics: Metrics,
        clock: IReactorTime,
        report_quota: Callable[[int | None, int | None], None],
    ) -> None:
        super().__init__(agent)
        self._clock = clock
        self._names = names
        upstream, _ = names
        self._seconds = metrics.upstream_seconds.labels(upstream)
        self._received = metrics.received_bytes.labels(upstream)
        self._quotas = {"RateLimit-Limit": metrics.limit, "RateLimit-Remaining": metrics.remaining}
        self._report_quota = report_quota

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        # The time that a request's body takes says nothing about the upstream.
        started = None if request.is_upload else self._clock.seconds()
        return request.send(self.agent).addCallback(self._measure, started)

    def _measure(self, response: IResponse, started: float | None) -> IResponse:
        if started is not None:
            self._seconds.observe(self._clock.seconds() - started)
        quotas = {name: parse_quota(first(response.headers, name) or "") for name in self._quotas}
        for name, number in quotas.items():
            if number is not None:
                self._quotas[name].labels(*self._names).set(number)
        self._report_quota(*quotas.values())
        if response.length == 0:
            return response
        observed: IResponse = ObservedResponse(response, on_bytes=self._received.inc)
        return observed


def parse_quota(text: str) -> int | None:
    """Return the number in a ``RateLimit-Limit`` or ``RateLimit-Remaining``, such as ``100;w=21600``.

    Source: draft-ietf-httpapi-ratelimit-headers before its version 08, as Docker Hub writes them.
    """
    match = _QUOTA.match(text)
    return int(match[1]) if match else None


class IdentityEncodingAgent(AgentWrapper):
    """Requests bytes as they are stored, and passes them on undecoded.

    treq adds gzip to every ``Accept-Encoding``, and decodes responses that are labelled so; a blob that its
    CDN labels ``gzip`` would no longer match its digest.
    """

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        headers = request.headers.copy() if request.headers else Headers()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return evolve(request, headers=headers).send(self.agent).addCallback(_remove_content_encoding)


def _remove_content_encoding(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"Content-Encoding")
    return response


class LoopMarkingAgent(AgentWrapper):
    """Adds this mirror to the mirrors that each request has passed; see ``oci/header_fields.py``.

    :param mirror_id: the identifier of this mirror.
    :param asks_peer: True if the agent asks another mirror of the fleet.
    """

    def __init__(self, agent: IAgent, mirror_id: str, asks_peer: bool = False) -> None:
        super().__init__(agent)
        self._mirror_id = mirror_id
        self._asks_peer = asks_peer

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        headers = request.headers.copy() if request.headers else Headers()
        hops = (*current_hops.get(), Hop(self._mirror_id, current_pull.get(), self._asks_peer))
        headers.setRawHeaders(CDN_LOOP, [format_hops(hops)])
        return evolve(request, headers=headers).send(self.agent)


class HostAgent(AgentWrapper):
    """Asks one server for another host than its own, and follows it to no other server.

    :param url: a URL of the server.
    :param host: the value of ``Host``.
    """

    def __init__(self, agent: IAgent, url: str, host: str) -> None:
        super().__init__(agent)
        self._origin = parse_origin(url)
        self._host = host

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        """Fail with ``AddressRefused`` for another server."""
        if parse_origin(request.uri.decode()) != self._origin:
            return fail(AddressRefused("a peer may not redirect to another server"))
        headers = request.headers.copy() if request.headers else Headers()
        headers.setRawHeaders("Host", [self._host])
        return evolve(request, headers=headers).send(self.agent)


class UploadAgent(AgentWrapper):
    """Sends uploads through an agent of their own.

    :param uploads: an agent over ``UnpooledConnections``.
    """

    def __init__(self, agent: IAgent, uploads: IAgent) -> None:
        super().__init__(agent)
        self._uploads = uploads

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        return request.send(self._uploads if request.is_upload else self.agent)


class RawPathAgent(Agent):
    """Twisted's agent, sending each path as it stands in the URL.

    Twisted puts the path together with ``urlunparse``, which newer Pythons have write ``//a`` as ``////a``
    (CPython issue 67693); a URL may be signed.
    """

    def _requestWithEndpoint(
        self, key: Any, endpoint: IStreamClientEndpoint, method: bytes, parsedURI: URI, *rest: Any
    ) -> Deferred[IResponse]:
        """Send the path of the URL; the rest are the headers, the body and the path by ``urlunparse``."""
        headers, body, _ = rest
        path = raw_path(parsedURI)
        return super()._requestWithEndpoint(key, endpoint, method, parsedURI, headers, body, path)


def raw_path(uri: URI) -> bytes:
    """Return the path, parameters and query of a URL, unchanged."""
    parameters = b";" + uri.params if uri.params else b""
    query = b"?" + uri.query if uri.query else b""
    return (uri.path or b"/") + parameters + query


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
