"""An upstream asked through real outbound proxies that want a password."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from OpenSSL import SSL
from treq import content
from twisted.internet import reactor as _reactor
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import Site

from dockmirror.body.bodies import collect
from dockmirror.middleware.token_registry import TokenRegistry
from dockmirror.system.networks import parse_networks
from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.agents import ConcurrencyLimit
from dockmirror.upstream.proxy import Proxy, ProxyError, ProxySettings
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy
from dockmirror.upstream.upstream_responses import follow_redirects
from tests.connections import FakeResolver
from tests.listening import Secured
from tests.stacks import asked, client, upstream

from .conftest import MakeMachine
from .parts.authority import Authority
from .parts.cdn import CDN_ADDRESS, CDN_HOST, BlobStore
from .parts.front import Front
from .parts.images import image
from .parts.process import free_port
from .parts.programs import require
from .parts.proxies import PASSWORD, USERNAME, RunningProxy, Squid, dante, tinyproxy
from .parts.registry import Registry
from .parts.tokens import Tokens

pytestmark = pytest.mark.integration

reactor: Any = _reactor
Proxying = tuple[RunningProxy, str]


@pytest.fixture(scope="module")
def proxies(make_machine: MakeMachine, authority: Authority) -> Iterator[dict[str, RunningProxy]]:
    """The proxies by their names."""
    require("tinyproxy", "squid", "danted")
    certificate = authority.issue("127.0.0.1")
    with (
        tinyproxy(make_machine()) as first,
        Squid(make_machine(), certificate) as second,
        dante(make_machine()) as third,
    ):
        yield {"tinyproxy": first, "squid": second, "dante": third}


@pytest.fixture(params=["tinyproxy http", "squid http", "squid https", "dante socks5h", "dante socks5"])
def proxying(proxies: dict[str, RunningProxy], request: pytest.FixtureRequest) -> Proxying:
    """Each proxy with the scheme by which it is used."""
    name, scheme = request.param.split()
    return proxies[name], scheme


@pytest.fixture
def agent(proxying: Proxying, authority: Authority) -> ConcurrencyLimit:
    """An agent whose connections go through a proxy."""
    proxy, scheme = proxying
    return _agent(proxy.url(scheme), authority)


def _agent(url: str, authority: Authority) -> ConcurrencyLimit:
    """An agent for one request at a time, which resolves names only if the proxy does not."""
    proxy = Proxy.parse(url)
    names = {address: [address] for address in ("127.0.0.1", "127.0.0.2")}
    if not proxy.resolves_names:
        names |= {"tls.test": ["127.0.0.1"], CDN_HOST: [CDN_ADDRESS]}
    allowed = AllowedAddresses([], parse_networks(["127.0.0.0/8"]))
    tls = make_tls_policy(authority.certificate.read_bytes())
    endpoints = UpstreamEndpoints(
        reactor, FakeResolver(names), tls, allowed, 5, proxies=ProxySettings(proxy, proxy)
    )
    pool = HTTPConnectionPool(reactor, persistent=False)
    return ConcurrencyLimit(Agent.usingEndpointFactory(reactor, endpoints, pool), 1, reactor)


@pytest_twisted.ensureDeferred
async def test_registry(agent: ConcurrencyLimit, proxying: Proxying, tls_registry: Registry) -> None:
    """A registry is asked by name, over TLS that reaches from the mirror to it."""
    pushed = image(proxying[1])
    tls_registry.push("public/proxied", pushed, "latest")
    registry = upstream(agent, reactor, f"https://tls.test:{tls_registry.port}", ())
    manifest = await registry.fetch(asked("/v2/public/proxied/manifests/latest"))
    assert await collect(manifest.body, 100_000) == pushed.manifest.data
    for blob in pushed.blobs:
        answer = await registry.fetch(asked(f"/v2/public/proxied/blobs/{blob.digest}"))
        assert await collect(answer.body, 100_000) == blob.data
    assert PASSWORD not in proxying[0].read_log()


@pytest_twisted.ensureDeferred
async def test_all_servers(
    agent: ConcurrencyLimit,
    proxying: Proxying,
    tokens: Tokens,
    token_registry: Registry,
    front: Front,
    blob_store: BlobStore,
) -> None:
    """A registry, its token service and its CDN are asked through the proxy alike, without TLS, too."""
    pushed = image(f"plain {proxying[1]}")
    token_registry.push("public/plain", pushed, "latest")
    before = len(tokens.requests), len(front.requests), len(blob_store.requests)
    registry = TokenRegistry(upstream(agent, reactor, front.url, (tokens.url,)), reactor)
    for blob in pushed.blobs:
        answer = await registry.fetch(asked(f"/v2/public/plain/blobs/{blob.digest}"))
        assert await collect(answer.body, 100_000) == blob.data
    after = len(tokens.requests), len(front.requests), len(blob_store.requests)
    assert all(more > less for more, less in zip(after, before, strict=True))


class _Seeing(Resource):
    """A server that redirects ``/from`` to another host, and records hosts and headers."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.location = ""
        self.hosts: list[str] = []
        self.headers: list[tuple[bytes, list[bytes]]] = []

    def render_GET(self, request: Any) -> bytes:
        self.hosts.append(request.getHeader("Host").partition(":")[0])
        self.headers += request.requestHeaders.getAllRawHeaders()
        if request.path == b"/from":
            request.redirect(self.location.encode())
        return b"seen"


@pytest_twisted.async_yield_fixture()
async def seeing(authority: Authority) -> AsyncIterator[tuple[str, _Seeing]]:
    """Two servers over TLS, the address of the first, and what they have seen."""
    seen = _Seeing()
    certificate = authority.issue("tls.test", CDN_HOST)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(str(certificate.certificate))
    context.use_privatekey_file(str(certificate.key))
    served: Any = TLSMemoryBIOFactory(Secured(context), False, Site(seen))
    first, second = (reactor.listenTCP(0, served, interface=host) for host in ("127.0.0.1", CDN_ADDRESS))
    seen.location = f"https://{CDN_HOST}:{second.getHost().port}/to"
    yield f"https://tls.test:{first.getHost().port}/from", seen
    for port in (first, second):
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_redirect(agent: ConcurrencyLimit, seeing: tuple[str, _Seeing]) -> None:
    """A redirect to another host is followed through the proxy; neither host hears of the proxy."""
    url, seen = seeing
    followed = await follow_redirects(
        client(agent, reactor), "GET", url, (("Authorization", "Bearer upstream"),)
    )
    assert await content(followed.response) == b"seen"
    assert seen.hosts == ["tls.test", CDN_HOST]
    said = [name.lower() for name, _ in seen.headers]
    assert said.count(b"authorization") == 1
    assert not any(name.startswith((b"proxy", b"via", b"x-forwarded", b"forwarded")) for name in said)
    assert USERNAME not in str(seen.headers)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("login", ["", f"{USERNAME}:wrong-secret@"])
async def test_refused(proxying: Proxying, authority: Authority, tls_registry: Registry, login: str) -> None:
    """A wrong password is an error of the proxy's, without any password in it."""
    proxy, scheme = proxying
    agent = _agent(proxy.url(scheme, login), authority)
    with pytest.raises(ProxyError) as refused:
        await agent.request(b"GET", f"https://tls.test:{tls_registry.port}/v2/".encode())
    told = str(refused.value)
    assert told.startswith(f"the proxy {proxy.url(scheme, '')} ")
    assert (
        "requires a user name and password" in told
        if not login
        else "rejects the user name or password" in told
    )
    assert "secret" not in told + repr(refused.value)


@pytest_twisted.ensureDeferred
async def test_nobody_there(agent: ConcurrencyLimit, proxying: Proxying) -> None:
    """A server that the proxy cannot connect to is told of as the proxy says."""
    proxy, scheme = proxying
    with pytest.raises(ProxyError) as refused:
        await agent.request(b"GET", f"https://tls.test:{free_port()}/v2/".encode())
    assert str(refused.value).startswith(f"the proxy {proxy.url(scheme, '')} answered ")
