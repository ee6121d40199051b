"""Where an upstream's Agent connects to."""

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
from dockmirror.upstream.proxy import Proxy, ProxyError
from dockmirror.upstream.proxy_settings import NoProxy, ProxySettings
from dockmirror.upstream.server_trust import tls_policy
from tests.connections import ALSO_PUBLIC, PUBLIC, Connections, connections, failure_of, result_of

HTTP, LOCAL, REMOTE = (
    Proxy.parse(f"{scheme}://proxy.example:3128") for scheme in ("http", "socks5", "socks5h")
)
SOCKS_GREETED = b"\x05\x00"
SOCKS_OPEN = b"\x05\x00\x00\x01" + bytes(6)


def test_interfaces() -> None:
    """Endpoints are what an Agent takes, and give what it connects with."""
    endpoints = connections(PUBLIC).endpoints
    verifyObject(IAgentEndpointFactory, endpoints)
    verifyObject(IPolicyForHTTPS, tls_policy())
    for url in (b"http://r.example/", b"https://r.example/"):
        verifyObject(IStreamClientEndpoint, endpoints.endpointForURI(URI.fromBytes(url)))


def test_other_scheme() -> None:
    """There are no connections but for http and https."""
    with pytest.raises(SchemeNotSupported):
        connections(PUBLIC).endpoints.endpointForURI(URI.fromBytes(b"ftp://r.example/"))


def _through(proxy: Proxy, names: dict[str, list[str]], **choices: Any) -> Connections:
    return Connections(
        {"proxy.example": ["10.9.9.9"], **names}, proxies=ProxySettings(proxy, proxy), **choices
    )


def _told(here: Connections, url: bytes) -> bytes:
    """What the proxy is asked for."""
    here.connect(url)
    wire = here.accept()
    if not wire.value().startswith(b"CONNECT "):
        wire.clear()
        wire.protocol.dataReceived(SOCKS_GREETED)
        return bytes(wire.value())
    return bytes(wire.value().split()[1])


def test_bypassed() -> None:
    """What no proxy leads to is connected to directly, and judged; the rest is not."""
    proxies = ProxySettings(HTTP, HTTP, NoProxy.parse("r.example"))
    here = Connections({"proxy.example": ["10.9.9.9"], "r.example": ["10.1.2.3"]}, proxies=proxies)
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)
    assert _told(here, b"https://other.example/") == b"other.example:443"


def test_by_scheme() -> None:
    """Each scheme has its own proxy, or none."""
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
def test_judged_before_proxy(proxy: Proxy, host: str, address: str) -> None:
    """No proxy is asked for an address that is refused, nor to look up a name that means its own machine."""
    here = _through(proxy, {host.strip("[]"): [address]})
    assert isinstance(failure_of(here.connect(f"http://{host}/".encode())), AddressRefused)
    assert here.dialled() == []


@pytest.mark.parametrize(
    ("proxy", "told"),
    [(HTTP, b"8.8.8.8:443"), (REMOTE, b"\x05\x01\x00\x01\x08\x08\x08\x08\x01\xbb")],
)
def test_literal_through_proxy(proxy: Proxy, told: bytes) -> None:
    """An address that is allowed is told to the proxy."""
    assert _told(_through(proxy, {PUBLIC: [PUBLIC]}), b"https://8.8.8.8/") == told


def test_names_are_the_proxys() -> None:
    """A proxy that is told names is told them, though nobody here knows them."""
    assert _told(_through(HTTP, {}), b"https://r.example/") == b"r.example:443"
    assert _told(_through(REMOTE, {}), b"https://r.example/") == b"\x05\x01\x00\x03\x09r.example\x01\xbb"


def test_addresses_are_judged() -> None:
    """A proxy that is told addresses is told one that is allowed, and none that is not."""
    here = _through(LOCAL, {"r.example": ["10.1.2.3", PUBLIC]})
    assert _told(here, b"https://r.example/") == b"\x05\x01\x00\x01\x08\x08\x08\x08\x01\xbb"
    here = _through(LOCAL, {"r.example": ["10.1.2.3"]})
    assert isinstance(failure_of(here.connect(b"https://r.example/")), AddressRefused)


def test_addresses_are_tried() -> None:
    """Of several addresses the first that a proxy can connect to is used."""
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


def test_no_address_reached() -> None:
    """Where a proxy reaches no address, its failure is told."""
    here = _through(LOCAL, {"r.example": [PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(SOCKS_GREETED)
    wire.protocol.dataReceived(b"\x05\x05\x00\x01" + bytes(6))
    failed = failure_of(connecting)
    assert isinstance(failed, ProxyError)
    assert 'answered "connection refused" to the request for 8.8.8.8:80' in str(failed)


def test_silent_proxy_with_addresses() -> None:
    """A proxy that is told addresses and says nothing is told of, not the upstream."""
    here = _through(LOCAL, {"r.example": [PUBLIC]})
    connecting = here.connect(b"http://r.example/")
    here.accept()
    here.reactor.pump([5, 5])
    assert "the proxy socks5://proxy.example:3128 connecting to 8.8.8.8:80 took" in str(
        failure_of(connecting)
    )


FIXED: dict[str, Any] = {"fixed": ["R.Example."], "addresses": AllowedAddresses(["https://r.example"])}


def test_fixed() -> None:
    """A name with a fixed address is looked up here, and the proxy is told the address, whatever it is."""
    here = {"r.example": ["10.1.2.3"]}
    assert _told(_through(HTTP, here, **FIXED), b"https://r.example/") == b"10.1.2.3:443"
    told = b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb"
    assert _told(_through(REMOTE, here, **FIXED), b"https://r.example/") == told


def test_fixed_name_in_tls() -> None:
    """To a fixed address TLS is spoken by name."""
    here = _through(HTTP, {"r.example": ["10.1.2.3"]}, **FIXED)
    here.connect(b"https://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
    assert b"\x00\x09r.example" in wire.value()


def test_reached() -> None:
    """Addresses are told of as they are dialled: a host's directly, and else the proxy's."""
    reached: list[tuple[str, str]] = []
    here = _through(HTTP, {}, reached=lambda host, address: reached.append((host, address)))
    here.connect(b"http://r.example/")
    assert reached == [("proxy.example", "10.9.9.9")]


def test_odd_name_through_proxy() -> None:
    """A name that SOCKS cannot carry fails as a connection does."""
    here = _through(REMOTE, {})
    connecting = here.connect(b"http://" + b"x" * 256 + b"/")
    assert here.accept().aborted
    assert isinstance(failure_of(connecting), ProxyError)
