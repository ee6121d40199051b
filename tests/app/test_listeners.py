"""Listeners, and the certificates that they show."""

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
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from zope.interface import implementer

from dockmirror.app.endpoints import HttpsEndpoint
from dockmirror.app.listeners import BACKLOG, Listener, make_listener
from dockmirror.config.settings import ConfigurationError
from dockmirror.http.server import HttpSite
from dockmirror.tls.certificate_directory import CertificateDirectories
from tests.answering import watch
from tests.integration.parts.process import free_port
from tests.issued import Issued, issue
from tests.stacks import logged

reactor: Any = _reactor
FIRST, SECOND = issue("m.example", days=3000), issue("m.example", days=3000)


@pytest.mark.parametrize(
    ("endpoint", "transport", "directory"),
    [
        ("https:443", "tcp:443", None),
        ("https:443:interface=\\:\\:", "tcp:443:interface=\\:\\:", None),
        ("https:443:certificates=/etc/c:interface=\\:\\:", "tcp:443:interface=\\:\\:", "/etc/c"),
        ("https:443:certificates=/etc/a\\:b", "tcp:443", "/etc/a:b"),
        ("https:tcp:443:certificates=/etc/c", "tcp:443", "/etc/c"),
        ("https:systemd:domain=INET6:index=0", "systemd:domain=INET6:index=0", None),
        ("https:unix:/run/m.sock:mode=660:certificates=/etc/c", "unix:/run/m.sock:mode=660", "/etc/c"),
        ("tcp:443", None, None),
        ("ssl:443:privateKey=https", None, None),
        ("httpsx:443", None, None),
    ],
)
def test_https_endpoints_are_parsed(endpoint: str, transport: str | None, directory: str | None) -> None:
    """TLS works over any endpoint, a port alone stands for TCP, and the directory may stand anywhere."""
    expected = transport and HttpsEndpoint(transport, Path(directory) if directory else None)
    assert HttpsEndpoint.parse(endpoint) == expected


@pytest.mark.parametrize(
    ("endpoint", "backlog"),
    [("tcp:0:interface=127.0.0.1", BACKLOG), ("tcp:0:interface=127.0.0.1:backlog=7", 7)],
)
def test_a_listener_has_a_large_backlog_unless_the_operator_sets_one(endpoint: str, backlog: int) -> None:
    listening, directories = MemoryReactorClock(), CertificateDirectories(None, "", reactor)
    service = make_listener("listen.0", endpoint, HttpSite(Resource(), reactor), listening, directories)
    service.privilegedStartService()
    assert [server[2] for server in listening.tcpServers] == [backlog]


@pytest_twisted.ensureDeferred
async def test_a_listener_fails_at_once_on_a_port_in_use_and_frees_it_when_it_stops() -> None:
    def listener(port: int) -> Listener:
        return Listener(TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"), Factory())

    port = free_port()
    first, second = listener(port), listener(port)
    first.privilegedStartService()
    with pytest.raises(CannotListenError):
        second.privilegedStartService()
    await first.stopService()
    await second.stopService()
    second.privilegedStartService()
    await second.stopService()


@implementer(IStreamServerEndpoint)
class SlowEndpoint:
    """Listens when the test says so."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()

    def listen(self, factory: object) -> Deferred[Any]:
        return self.listening


def test_the_failure_of_an_endpoint_that_fails_later_is_logged() -> None:
    endpoint = SlowEndpoint()
    listener = Listener(endpoint, Factory())
    listener.setName("listen.0")
    listener.privilegedStartService()
    with logged() as lines:
        endpoint.listening.errback(CannotListenError("interface", 1, OSError("in use")))
    assert any("listen.0: cannot listen" in line for line in lines)
    assert watch(listener.stopService()) == [None]


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("https:443", r"^listen: .*no certificate with its key found"),
        ("https:443:certificates=/nowhere", r"^listen: /nowhere: no certificate .*No such file or directory"),
        ("systemd:domain=INET6:index=0", r"^listen: .*, not 'systemd:.*: systemd passed no such socket"),
        ("systemd:domain=INET6:name=x", r"^listen: .*, not 'systemd:.*: systemd passed no such socket"),
    ],
)
def test_an_unusable_endpoint_is_refused_by_its_setting(tmp_path: Path, endpoint: str, message: str) -> None:
    directories = CertificateDirectories(tmp_path, "m.example", reactor)
    with pytest.raises(ConfigurationError, match=message) as raised:
        make_listener("listen.0", endpoint, HttpSite(Resource(), reactor), reactor, directories)
    assert "\n" not in str(raised.value)


class _FullFactory(Factory):
    noisy = False

    def buildProtocol(self, _: object) -> None:
        """Reject the connection."""


def test_a_rejected_connection_is_closed_below_tls(tmp_path: Path) -> None:
    (tmp_path / "m.pem").write_bytes(FIRST.key + FIRST.certificate)
    listening, directories = MemoryReactorClock(), CertificateDirectories(tmp_path, "m.example", reactor)
    make_listener("listen.0", "https:443", _FullFactory(), listening, directories).privilegedStartService()
    (_, factory, *_), *_ = listening.tcpServers
    assert factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1)) is None


class _Hello(Resource):
    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        return b"hello"


class Listening:
    """A listener on the loopback interface, and its clients."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put(FIRST)
        self.port = free_port()
        directories = CertificateDirectories(path, "m.example", reactor)
        endpoint = f"https:{self.port}:interface=127.0.0.1"
        self.service = make_listener("listen.0", endpoint, HttpSite(_Hello(), reactor), reactor, directories)

    def put(self, issued: Issued) -> None:
        """Replace the certificate."""
        (self.path / "beside").write_bytes(issued.key + issued.certificate)
        (self.path / "beside").rename(self.path / "m.pem")

    def connect(self, issued: Issued, **limits: Any) -> ssl.SSLSocket:
        """Connect as a client that trusts only this certificate; blocks."""
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


def get(connection: ssl.SSLSocket) -> bytes:
    """Send a request, and return the answer's bytes."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: m.example\r\n\r\n")
    received = b""
    while not received.endswith(b"hello"):
        piece = connection.recv(1000)
        assert piece, received
        received += piece
    return received


@pytest_twisted.async_yield_fixture()
async def listening(tmp_path: Path) -> Any:
    """A listener that runs during the test."""
    one = Listening(tmp_path)
    one.service.privilegedStartService()
    yield one
    await one.service.stopService()


@pytest_twisted.ensureDeferred
async def test_tls_1_2_and_1_3_are_spoken_with_http_1_1(listening: Listening) -> None:
    def ask() -> None:
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            with listening.connect(FIRST, maximum_version=version) as connection:
                assert connection.selected_alpn_protocol() == "http/1.1"
                assert connection.version() == version.name.replace("_", ".")
                assert get(connection).endswith(b"hello")
        with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises(ssl.SSLError):
            listening.connect(
                FIRST, maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1
            )

    await deferToThread(ask)


@pytest_twisted.ensureDeferred
async def test_a_client_that_speaks_plain_http_is_told_so(listening: Listening) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: m.example\r\n\r\n")
            with connection.makefile("rb") as file:
                return file.read()

    head, _, body = (await deferToThread(ask)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"this port speaks TLS, and the client spoke plain HTTP: use https://" in body


@pytest_twisted.ensureDeferred
async def test_a_renewed_certificate_is_shown_to_new_connections(listening: Listening) -> None:
    def ask() -> None:
        with listening.connect(FIRST) as before:
            get(before)
            listening.put(SECOND)
            while True:
                try:
                    after = listening.connect(SECOND)
                    break
                except ssl.SSLCertVerificationError:
                    time.sleep(0.1)
            with after:
                assert get(after).endswith(b"hello")
            assert get(before).endswith(b"hello")

    await deferToThread(ask)
