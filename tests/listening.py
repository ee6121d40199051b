"""Servers on the loopback interface, and certificates for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface import implementer

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy

from .connections import FakeResolver

reactor: Any = _reactor
HEAD = b"HTTP/1.1 200 OK\r\n"


class Authority:
    """A certificate authority of its own."""

    def __init__(self, name: str = "authority") -> None:
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, x509.BasicConstraints(ca=True, path_length=None))

    def issue(self, *names: str, days: tuple[int, int] = (-1, 1)) -> SSL.Context:
        """The options of a server with a certificate for those names and addresses, or for none.

        :param days: from when to when, counted from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        kinds = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        extensions = [x509.SubjectAlternativeName(kinds)] if kinds else []
        context.use_certificate(self._sign("server", key, *extensions, days=days))
        context.use_privatekey(key)
        context.set_alpn_select_callback(lambda _, offered: offered[0])
        return context

    def _sign(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        *extensions: x509.ExtensionType,
        days: tuple[int, int] = (-1, 1),
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self.name, _name(subject), key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        begins, ends = (datetime.now(UTC) + timedelta(each) for each in days)
        builder = builder.not_valid_before(begins).not_valid_after(ends)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


AUTHORITY = Authority()


class Server(Protocol):
    """Says what it was given at the first bytes that it receives, and can tell when it was left."""

    said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self.transport.write(self.said)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self.lost.callback(None)


class Endless(Server):
    """Sends headers for as long as there is somebody."""

    said = b"X: y\r\n" * 1000

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self.transport.write(HEAD)
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """Sends more."""
        self.transport.write(self.said)

    def stopProducing(self) -> None:
        """Nothing to do."""


class Silent(Server):
    """Hears, and says nothing."""

    said = b""


class Vanished(Server):
    """Answers, and then is deaf to whatever the client says."""

    said = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        super().dataReceived(data)
        self.transport.pauseProducing()


@implementer(IOpenSSLServerConnectionCreator)
class Secured:
    """Serves TLS."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``."""
        return SSL.Connection(self._context)


class Listening(Factory):
    """A server on the loopback interface, and the connections that it accepted."""

    noisy = False

    def __init__(self, kind: type[Server], context: SSL.Context | None = None) -> None:
        self.accepted: list[Server] = []
        self._kind = kind
        served: Any = self if context is None else TLSMemoryBIOFactory(Secured(context), False, self)
        self.port = reactor.listenTCP(0, served, interface="127.0.0.1")

    def buildProtocol(self, addr: object) -> Server:
        """See ``IProtocolFactory``."""
        self.accepted.append(self._kind())
        return self.accepted[-1]

    def url(self, host: str = "r.example", scheme: str = "https") -> bytes:
        """Its address by a name."""
        return f"{scheme}://{host}:{self.port.getHost().port}/".encode()

    def clients(self) -> list[Client]:
        """The sockets on this side that are still connected to it."""
        here = self.port.getHost().port
        watched = {*reactor.getReaders(), *reactor.getWriters()}
        return [client for client in watched if isinstance(client, Client) and client.getPeer().port == here]


def real_agent(ca_file: str | None, timeout: float = 5.0) -> Agent:
    """An agent that asks the servers here, without persistent connections."""
    names = {name: ["127.0.0.1"] for name in ("r.example", "r.example.", "127.0.0.1")}
    addresses = AllowedAddresses([], hosts=names)
    tls = make_tls_policy(Path(ca_file).read_bytes() if ca_file else None)
    endpoints = UpstreamEndpoints(reactor, FakeResolver(names), tls, addresses, timeout)
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent: Agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    return agent


async def soon(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, even on a busy machine."""
    for _ in range(3000):
        if condition():
            return True
        await deferLater(reactor, 0.01)
    return False
