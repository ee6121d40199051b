"""Where the mirror listens: endpoints as they are written, and https over real sockets."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from dockmirror.app.listeners import BACKLOG, HttpsEndpointParser, listener
from dockmirror.config.settings import ConfigurationError
from dockmirror.http.server import HttpSite
from dockmirror.tls.certificate_directories import CertificateDirectories
from tests.integration.parts.process import free_port
from tests.issued import Issued, issue

reactor: Any = _reactor
FIRST, SECOND = issue("m.example", days=3000), issue("m.example", days=3000)


@pytest.mark.parametrize(
    ("endpoint", "below", "directory"),
    [
        ("https:443", "tcp:443", None),
        ("https:443:interface=\\:\\:", "tcp:443:interface=\\:\\:", None),
        ("https:443:certificates=/etc/c:interface=\\:\\:", "tcp:443:interface=\\:\\:", "/etc/c"),
        ("https:443:certificates=/etc/a\\:b", "tcp:443", "/etc/a:b"),
        ("https:tcp:443:certificates=/etc/c", "tcp:443", "/etc/c"),
        ("https:systemd:domain=INET6:index=0", "systemd:domain=INET6:index=0", None),
        ("https:unix:/run/m.sock:mode=660:certificates=/etc/c", "unix:/run/m.sock:mode=660", "/etc/c"),
    ],
)
def test_https(endpoint: str, below: str, directory: str | None) -> None:
    """TLS lies over any endpoint, a port alone is TCP's, and the directory is named anywhere behind it."""
    assert HttpsEndpointParser.parse(endpoint) == HttpsEndpointParser(
        below, Path(directory) if directory else None
    )


@pytest.mark.parametrize(
    ("endpoint", "backlog"),
    [("tcp:0:interface=127.0.0.1", BACKLOG), ("tcp:0:interface=127.0.0.1:backlog=7", 7)],
)
def test_backlog(endpoint: str, backlog: int) -> None:
    """A burst of clients finds room; the operator may say how much."""
    listening = MemoryReactorClock()
    service = listener(
        "listen.0",
        endpoint,
        HttpSite(Resource(), reactor),
        listening,
        CertificateDirectories(None, "", reactor),
    )
    service.privilegedStartService()
    assert [server[2] for server in listening.tcpServers] == [backlog]


@pytest.mark.parametrize("endpoint", ["tcp:443", "ssl:443:privateKey=https", "httpsx:443"])
def test_others(endpoint: str) -> None:
    """What does not begin with it is another endpoint."""
    assert HttpsEndpointParser.parse(endpoint) is None


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("https:443", r"^listen: .*there is no certificate with its key"),
        ("https:443:certificates=/nowhere", r"^listen: /nowhere: there is no .*No such file or directory"),
        ("systemd:domain=INET6:index=0", r"^listen: expected a server endpoint, not 'systemd:"),
        ("systemd:domain=INET6:name=x", r"^listen: expected a server endpoint, not 'systemd:"),
    ],
)
def test_refused(tmp_path: Path, endpoint: str, told: str) -> None:
    """What cannot be listened on is refused in a line that names the setting."""
    directories = CertificateDirectories(tmp_path, "m.example", reactor)
    with pytest.raises(ConfigurationError, match=told) as raised:
        listener("listen.0", endpoint, HttpSite(Resource(), reactor), reactor, directories)
    assert "\n" not in str(raised.value)


class _Full(Factory):
    noisy = False

    def buildProtocol(self, _: object) -> None:
        """There is no room."""


def test_a_connection_that_is_turned_away(tmp_path: Path) -> None:
    """A connection that the site turns away is closed at once below TLS too."""
    (tmp_path / "m.pem").write_bytes(FIRST.key + FIRST.certificate)
    listening, directories = MemoryReactorClock(), CertificateDirectories(tmp_path, "m.example", reactor)
    listener("listen.0", "https:443", _Full(), listening, directories).startService()
    (_, factory, *_), *_ = listening.tcpServers
    assert factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1)) is None


class _Hello(Resource):
    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        return b"hello"


class Listening:
    """A listener on the loopback interface, and those who come to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put(FIRST)
        self.port = free_port()
        directories = CertificateDirectories(path, "m.example", reactor)
        endpoint = f"https:{self.port}:interface=127.0.0.1"
        self.service = listener("listen.0", endpoint, HttpSite(_Hello(), reactor), reactor, directories)

    def put(self, issued: Issued) -> None:
        """Replaces the certificate."""
        (self.path / "beside").write_bytes(issued.key + issued.certificate)
        (self.path / "beside").rename(self.path / "m.pem")

    def connect(self, issued: Issued, **limits: Any) -> ssl.SSLSocket:
        """A client who trusts nothing but that certificate; blocks."""
        context = ssl.create_default_context(cadata=issued.certificate.decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["h2", "http/1.1"])
        for key, value in limits.items():
            setattr(context, key, value)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            return context.wrap_socket(plain, server_hostname="m.example")
        except BaseException:
            plain.close()
            raise


def asked(connection: ssl.SSLSocket) -> bytes:
    """The end of the answer to a request."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: m.example\r\n\r\n")
    received = b""
    while not received.endswith(b"hello"):
        piece = connection.recv(1000)
        assert piece, received
        received += piece
    return received


@pytest_twisted.async_yield_fixture()
async def listening(tmp_path: Path) -> Any:
    """Listens while the test runs."""
    one = Listening(tmp_path)
    one.service.startService()
    yield one
    await one.service.stopService()


@pytest_twisted.ensureDeferred
async def test_served(listening: Listening) -> None:
    """HTTP/1.1 is spoken over TLS 1.3 or 1.2, whatever newer the client offers; older ones are refused."""

    def ask() -> None:
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            with listening.connect(FIRST, maximum_version=version) as connection:
                assert connection.selected_alpn_protocol() == "http/1.1"
                assert connection.version() == version.name.replace("_", ".")
                assert asked(connection).endswith(b"hello")
        with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises(ssl.SSLError):
            listening.connect(
                FIRST, maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1
            )

    await deferToThread(ask)


@pytest_twisted.ensureDeferred
async def test_renewed(listening: Listening) -> None:
    """After a renewal the next connection has the new certificate, and one that was open goes on."""

    def ask() -> None:
        with listening.connect(FIRST) as before:
            asked(before)
            listening.put(SECOND)
            while True:
                try:
                    after = listening.connect(SECOND)
                    break
                except ssl.SSLCertVerificationError:
                    time.sleep(0.1)
            with after:
                assert asked(after).endswith(b"hello")
            assert asked(before).endswith(b"hello")

    await deferToThread(ask)
