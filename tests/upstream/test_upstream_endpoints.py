"""Endpoints of an upstream: direct and through proxies, over verified TLS."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from cryptography.hazmat.primitives import serialization
from treq import content
from twisted.internet.error import SSLError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface.verify import verifyObject

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.proxy import NoProxy, Proxy, ProxyError, ProxySettings
from dockmirror.upstream.upstream_endpoints import make_tls_policy
from tests.connections import ALSO_PUBLIC, PUBLIC, Connections, connections, failure_of, result_of
from tests.listening import AUTHORITY, Authority, Listening, Server, real_agent, soon

HTTP, LOCAL, REMOTE = (
    Proxy.parse(f"{scheme}://proxy.example:3128") for scheme in ("http", "socks5", "socks5h")
)
SOCKS_GREETED = b"\x05\x00"
SOCKS_OPEN = b"\x05\x00\x00\x01" + bytes(6)


def test_only_http_and_https_are_supported() -> None:
    endpoints = connections(PUBLIC).endpoints
    verifyObject(IAgentEndpointFactory, endpoints)
    verifyObject(IPolicyForHTTPS, make_tls_policy())
    for url in (b"http://r.example/", b"https://r.example/"):
        verifyObject(IStreamClientEndpoint, endpoints.endpointForURI(URI.fromBytes(url)))
    with pytest.raises(SchemeNotSupported):
        endpoints.endpointForURI(URI.fromBytes(b"ftp://r.example/"))


def _through(proxy: Proxy, names: dict[str, list[str]], **options: Any) -> Connections:
    return Connections(
        {"proxy.example": ["10.9.9.9"], **names}, proxies=ProxySettings(proxy, proxy), **options
    )


def _target_of(here: Connections, url: bytes) -> bytes:
    """Return the target that the proxy was sent."""
    here.connect(url)
    wire = here.accept()
    if wire.value().startswith(b"CONNECT "):
        return bytes(wire.value().split()[1])
    wire.clear()
    wire.protocol.dataReceived(SOCKS_GREETED)
    return bytes(wire.value())


def test_no_proxy_hosts_are_connected_to_directly() -> None:
    """Their addresses are checked; each scheme has its own proxy."""
    names = {"proxy.example": ["10.9.9.9"], "r.example": ["10.1.2.3"], "other.example": [PUBLIC]}
    here = Connections(names, proxies=ProxySettings(https=HTTP, no_proxy=NoProxy.parse("r.example")))
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)
    assert _target_of(here, b"https://other.example/") == b"other.example:443"
    here.connect(b"http://other.example/")
    assert here.dialled() == ["10.9.9.9", PUBLIC]


@pytest.mark.parametrize("proxy", [HTTP, REMOTE, LOCAL])
@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("[::1]", "::1"),
        ("169.254.169.254", "169.254.169.254"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0x7F000001.", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("r.LocalHost.", "127.0.0.1"),
        ("metadata", "169.254.169.254"),
        ("metadata.google.internal", "169.254.169.254"),
        ("instance-data.ec2.internal", "169.254.169.254"),
    ],
)
def test_addresses_are_checked_before_a_proxy_is_asked(proxy: Proxy, host: str, address: str) -> None:
    """A proxy must not look up names of its own machine; one that is sent addresses gets allowed ones."""
    here = _through(proxy, {host.strip("[]"): [address]})
    assert isinstance(failure_of(here.connect(f"http://{host}/".encode())), AddressRefused)
    assert here.dialled() == []
    here = _through(LOCAL, {"r.example": [address]})
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)


FIXED: dict[str, Any] = {"fixed_names": ["R.Example."], "addresses": AllowedAddresses(["https://r.example"])}


PUBLIC_TARGET = b"\x05\x01\x00\x01\x08\x08\x08\x08\x01\xbb"
FIXED_TARGET = b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb"


@pytest.mark.parametrize(
    ("proxy", "names", "options", "host", "target"),
    [
        (HTTP, {PUBLIC: [PUBLIC]}, {}, PUBLIC, b"8.8.8.8:443"),
        (REMOTE, {PUBLIC: [PUBLIC]}, {}, PUBLIC, PUBLIC_TARGET),
        (HTTP, {}, {}, "r.example", b"r.example:443"),
        (REMOTE, {}, {}, "r.example", b"\x05\x01\x00\x03\x09r.example\x01\xbb"),
        (LOCAL, {"r.example": ["10.1.2.3", PUBLIC]}, {}, "r.example", PUBLIC_TARGET),
        (HTTP, {"r.example": ["10.1.2.3"]}, FIXED, "r.example", b"10.1.2.3:443"),
        (REMOTE, {"r.example": ["10.1.2.3"]}, FIXED, "r.example", FIXED_TARGET),
    ],
)
def test_a_proxy_is_sent_a_name_or_an_allowed_address(
    proxy: Proxy, names: dict[str, list[str]], options: dict[str, Any], host: str, target: bytes
) -> None:
    """A name where it resolves names: the mirror may be unable to.  A fixed name is not sent."""
    assert _target_of(_through(proxy, names, **options), f"https://{host}/".encode()) == target


def test_the_first_address_that_the_proxy_reaches_is_used() -> None:
    here = _through(LOCAL, {"r.example": [PUBLIC, ALSO_PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    first = here.accept()
    here.reactor.advance(0.3)
    second = here.accept()
    for wire in (first, second):
        wire.protocol.dataReceived(SOCKS_GREETED)
    first.protocol.dataReceived(b"\x05\x04\x00\x01" + bytes(6))
    second.protocol.dataReceived(SOCKS_OPEN)
    assert isinstance(result_of(connecting), Protocol)
    assert b"\x08\x08\x04\x04" in second.value()


def test_a_proxy_that_reaches_no_address_is_named() -> None:
    """With its failure; the upstream is not."""
    here = _through(LOCAL, {"r.example": [PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(SOCKS_GREETED)
    wire.protocol.dataReceived(b"\x05\x05\x00\x01" + bytes(6))
    failed = failure_of(connecting)
    assert isinstance(failed, ProxyError)
    assert 'answered "connection refused" to the request for 8.8.8.8:80' in str(failed)
    silent = here.connect(b"http://r.example/")
    here.accept()
    here.reactor.pump([5, 5])
    reason = "the proxy socks5://proxy.example:3128 connecting to 8.8.8.8:80 took"
    assert reason in str(failure_of(silent))


def test_tls_to_a_fixed_address_uses_the_name() -> None:
    """The dialled addresses are reported: the host's without a proxy, and else the proxy's."""
    dialled: list[tuple[str, str]] = []
    names = {"r.example": ["10.1.2.3"]}
    here = _through(HTTP, names, on_dial=lambda *address: dialled.append(address), **FIXED)
    here.connect(b"https://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
    assert b"\x00\x09r.example" in wire.value()
    assert ("proxy.example", "10.9.9.9") in dialled


def test_a_name_too_long_for_socks_is_a_connection_error() -> None:
    here = _through(REMOTE, {})
    connecting = here.connect(b"http://" + b"x" * 256 + b"/")
    assert here.accept().aborted
    assert isinstance(failure_of(connecting), ProxyError)


@pytest.mark.parametrize("name", ["my_registry", "a" * 64])
def test_a_name_that_no_certificate_can_have_fails_as_tls(name: str) -> None:
    """HTTP without TLS needs no certificate."""
    here = Connections({name: [PUBLIC]})
    assert isinstance(failure_of(here.connect(f"https://{name}/".encode())), SSLError)
    if name == "my_registry":
        here.connect(f"http://{name}/".encode())
        assert here.dialled() == [PUBLIC]


def test_the_client_hello_names_host_and_protocols() -> None:
    """It offers HTTP/1.1 over TLS 1.3 or 1.2, nothing else."""
    here = connections(PUBLIC)
    here.connect(b"https://r.example/")
    hello = here.accept().value()
    assert b"\x00\x09r.example" in hello
    assert b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03" in hello
    assert b"\x00\x10\x00\x0b\x00\x09\x08http/1.1" in hello


@pytest.mark.parametrize("host", ["r.example", "r.example.", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_with_the_hosts_name_is_accepted(
    serve: Callable[..., Listening], ca_file: str, host: str
) -> None:
    """The socket is closed in the end."""
    server = serve(Server, AUTHORITY.issue("r.example", "127.0.0.1"))
    response = await real_agent(ca_file).request(b"GET", server.url(host))
    assert server.accepted[0].transport.negotiatedProtocol == b"http/1.1"
    assert await content(response) == b"hello"
    await server.accepted[0].lost
    assert server.clients() == []


@pytest.mark.parametrize(
    ("authority", "names", "days", "reason"),
    [
        (AUTHORITY, ("other.example",), (-1, 1), "is for another name"),
        (AUTHORITY, ("127.0.0.1",), (-1, 1), "is for another name"),
        (AUTHORITY, (), (-1, 1), "names no host"),
        (Authority("stranger"), ("r.example",), (-1, 1), "is signed by an untrusted authority"),
        (AUTHORITY, ("r.example",), (-2, -1), "has expired"),
        (AUTHORITY, ("r.example",), (1, 2), "is not valid yet"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_untrusted_certificate_is_refused_with_a_reason(
    serve: Callable[..., Listening],
    ca_file: str,
    authority: Authority,
    names: tuple[str, ...],
    days: tuple[int, int],
    reason: str,
) -> None:
    """Before any request is sent."""
    server = serve(Server, authority.issue(*names, days=days))
    with pytest.raises(SSLError, match=f"TLS handshake with r.example: its certificate {reason}"):
        await real_agent(ca_file).request(b"GET", server.url())
    await server.accepted[0].lost
    assert await soon(lambda: server.clients() == [])


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities_are_trusted(
    serve: Callable[..., Listening], ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a CA file and without."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    server = serve(Server, AUTHORITY.issue("r.example"))
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().certificate.public_bytes(serialization.Encoding.PEM))
    for chosen in (None, str(other)):
        response = await real_agent(chosen).request(b"GET", server.url())
        assert await content(response) == b"hello"


def test_a_ca_file_without_a_certificate_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="PEM"):
        make_tls_policy(b"")
