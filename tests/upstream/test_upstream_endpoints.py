"""Endpoints of an upstream: direct and through proxies."""

from __future__ import annotations

from typing import Any

import pytest
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

HTTP, LOCAL, REMOTE = (
    Proxy.parse(f"{scheme}://proxy.example:3128") for scheme in ("http", "socks5", "socks5h")
)
SOCKS_GREETED = b"\x05\x00"
SOCKS_OPEN = b"\x05\x00\x00\x01" + bytes(6)


def test_it_is_an_endpoint_factory() -> None:
    endpoints = connections(PUBLIC).endpoints
    verifyObject(IAgentEndpointFactory, endpoints)
    verifyObject(IPolicyForHTTPS, make_tls_policy())
    for url in (b"http://r.example/", b"https://r.example/"):
        verifyObject(IStreamClientEndpoint, endpoints.endpointForURI(URI.fromBytes(url)))


def test_only_http_and_https_are_supported() -> None:
    with pytest.raises(SchemeNotSupported):
        connections(PUBLIC).endpoints.endpointForURI(URI.fromBytes(b"ftp://r.example/"))


def _through(proxy: Proxy, names: dict[str, list[str]], **choices: Any) -> Connections:
    return Connections(
        {"proxy.example": ["10.9.9.9"], **names}, proxies=ProxySettings(proxy, proxy), **choices
    )


def _target_of(here: Connections, url: bytes) -> bytes:
    """Return the target that the proxy was sent."""
    here.connect(url)
    wire = here.accept()
    if not wire.value().startswith(b"CONNECT "):
        wire.clear()
        wire.protocol.dataReceived(SOCKS_GREETED)
        return bytes(wire.value())
    return bytes(wire.value().split()[1])


def test_no_proxy_hosts_are_connected_to_directly() -> None:
    """Their addresses are checked."""
    proxies = ProxySettings(HTTP, HTTP, NoProxy.parse("r.example"))
    here = Connections({"proxy.example": ["10.9.9.9"], "r.example": ["10.1.2.3"]}, proxies=proxies)
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)
    assert _target_of(here, b"https://other.example/") == b"other.example:443"


def test_each_scheme_has_its_own_proxy() -> None:
    here = Connections(
        {"proxy.example": ["10.9.9.9"], "r.example": [PUBLIC]}, proxies=ProxySettings(https=HTTP)
    )
    here.connect(b"http://r.example/")
    here.connect(b"https://r.example/")
    assert here.dialled() == [PUBLIC, "10.9.9.9"]


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
    """A proxy must not look up names of its own machine."""
    here = _through(proxy, {host.strip("[]"): [address]})
    assert isinstance(failure_of(here.connect(f"http://{host}/".encode())), AddressRefused)
    assert here.dialled() == []


@pytest.mark.parametrize(
    ("proxy", "message"),
    [(HTTP, b"8.8.8.8:443"), (REMOTE, b"\x05\x01\x00\x01\x08\x08\x08\x08\x01\xbb")],
)
def test_an_allowed_address_is_sent_to_the_proxy(proxy: Proxy, message: bytes) -> None:
    assert _target_of(_through(proxy, {PUBLIC: [PUBLIC]}), b"https://8.8.8.8/") == message


def test_a_proxy_that_resolves_names_is_sent_names() -> None:
    """The mirror may be unable to resolve them."""
    assert _target_of(_through(HTTP, {}), b"https://r.example/") == b"r.example:443"
    assert _target_of(_through(REMOTE, {}), b"https://r.example/") == b"\x05\x01\x00\x03\x09r.example\x01\xbb"


def test_a_proxy_that_is_sent_addresses_gets_allowed_ones() -> None:
    here = _through(LOCAL, {"r.example": ["10.1.2.3", PUBLIC]})
    assert _target_of(here, b"https://r.example/") == b"\x05\x01\x00\x01\x08\x08\x08\x08\x01\xbb"
    here = _through(LOCAL, {"r.example": ["10.1.2.3"]})
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)


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


def test_the_proxys_failure_is_raised_if_it_reaches_no_address() -> None:
    here = _through(LOCAL, {"r.example": [PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(SOCKS_GREETED)
    wire.protocol.dataReceived(b"\x05\x05\x00\x01" + bytes(6))
    failed = failure_of(connecting)
    assert isinstance(failed, ProxyError)
    assert 'answered "connection refused" to the request for 8.8.8.8:80' in str(failed)


def test_a_silent_proxy_is_named() -> None:
    """The upstream is not."""
    here = _through(LOCAL, {"r.example": [PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    here.accept()
    here.reactor.pump([5, 5])
    assert "the proxy socks5://proxy.example:3128 connecting to 8.8.8.8:80 took" in str(
        failure_of(connecting)
    )


FIXED: dict[str, Any] = {"fixed_names": ["R.Example."], "addresses": AllowedAddresses(["https://r.example"])}


def test_a_fixed_name_is_resolved_by_the_mirror() -> None:
    """Every proxy is sent its address."""
    here = {"r.example": ["10.1.2.3"]}
    assert _target_of(_through(HTTP, here, **FIXED), b"https://r.example/") == b"10.1.2.3:443"
    message = b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb"
    assert _target_of(_through(REMOTE, here, **FIXED), b"https://r.example/") == message


def test_tls_to_a_fixed_address_uses_the_name() -> None:
    here = _through(HTTP, {"r.example": ["10.1.2.3"]}, **FIXED)
    here.connect(b"https://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
    assert b"\x00\x09r.example" in wire.value()


def test_dialled_addresses_are_reported() -> None:
    """The host's without a proxy, and else the proxy's."""
    reached: list[tuple[str, str]] = []
    here = _through(HTTP, {}, on_dial=lambda host, address: reached.append((host, address)))
    here.connect(b"http://r.example/")
    assert reached == [("proxy.example", "10.9.9.9")]


def test_a_name_too_long_for_socks_is_a_connection_error() -> None:
    here = _through(REMOTE, {})
    connecting = here.connect(b"http://" + b"x" * 256 + b"/")
    assert here.accept().aborted
    assert isinstance(failure_of(connecting), ProxyError)
