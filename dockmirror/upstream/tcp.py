"""TCP connections that deliver what has been received before they report that they cannot write."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.internet.tcp import Client, Connector


class DrainingClient(Client):
    """A connection that is read to its end when a write fails.

    A server that refuses a body answers, closes the connection, and the next write to it fails, although
    the answer has been received.  Twisted's own connection would close without looking at it.
    """

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """See ``IConnection``."""
        written = super().writeSomeData(data)
        if isinstance(written, ConnectionLost):
            while received := self._received():
                self.protocol.dataReceived(received)
        return written

    def _received(self) -> bytes:
        """Return some of what has been received; empty where there is no more."""
        try:
            return bytes(self.socket.recv(self.bufferSize))
        except OSError:
            return b""


class _DrainingConnector(Connector):
    def _makeTransport(self) -> Client:
        return DrainingClient(self.host, self.port, self.bindAddress, self, self.reactor)


class DrainingTCP:
    """Opens such connections, as ``IReactorTCP.connectTCP`` opens Twisted's."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """See ``IReactorTCP``."""
        connector = _DrainingConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector
