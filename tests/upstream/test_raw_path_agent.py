"""Requests by the very path that was asked for."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from dockmirror.upstream.raw_path_agent import RawPathAgent


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class Wire:
    """Leads everywhere, and keeps what is sent there."""

    def __init__(self) -> None:
        self.transport = StringTransport()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """One wire for all."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connects at once."""
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        protocol.makeConnection(self.transport)
        return succeed(protocol)


@pytest.mark.parametrize(
    "target",
    ["/", "/a", "//two//slashes/", "//host.example/a?b=//c", "/a;b?c=d&e", "/v2/x/blobs/sha256:0?ns=a"],
)
def test_the_path_is_what_was_written(target: str) -> None:
    """Whatever Python's own way to put an address together makes of it."""
    wire = Wire()
    RawPathAgent.usingEndpointFactory(Clock(), wire).request(b"GET", f"https://cdn.example{target}".encode())
    assert wire.transport.value().partition(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
