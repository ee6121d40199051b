"""Sockets on which one process listens for others."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

_SYSTEMD = re.compile(r"(^|:)systemd:.*")


@frozen
class ListeningSocket:
    """A socket that listens already.

    :ivar descriptor: its number, in the process that is told of it.
    :ivar family: its address family's number.
    """

    descriptor: int
    family: int


class BindOnlyReactor:
    """A reactor for the process that binds: what listens by it accepts nobody."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[Any] = []

    @property
    def sockets(self) -> Sequence[ListeningSocket]:
        """Those that listen, in the order in which they were asked for."""
        return [ListeningSocket(port.fileno(), port.socket.family) for port in self._ports]

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        """See ``IReactorTCP``."""
        return self._held(self._reactor.listenTCP(*args, **kwargs))

    def listenSSL(self, *args: Any, **kwargs: Any) -> IListeningPort:
        """See ``IReactorSSL``."""
        return self._held(self._reactor.listenSSL(*args, **kwargs))

    def listenUNIX(self, *args: Any, **kwargs: Any) -> IListeningPort:
        """See ``IReactorUNIX``."""
        return self._held(self._reactor.listenUNIX(*args, **kwargs))

    def adoptStreamPort(self, *args: Any, **kwargs: Any) -> IListeningPort:
        """See ``IReactorSocket``."""
        return self._held(self._reactor.adoptStreamPort(*args, **kwargs))

    def _held(self, port: Any) -> IListeningPort:
        port.stopReading()
        # Others have the socket too, and accept from it until they are told to end: it is closed here, as
        # Twisted does with sockets that it was given, and not shut down for all of them.
        port._shouldShutdown = False
        self._ports.append(port)
        held: IListeningPort = port
        return held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class InheritedSocketsReactor:
    """A reactor for a process that accepts: what is to listen takes the next of the sockets that do."""

    def __init__(self, reactor: Any, sockets: Sequence[ListeningSocket]) -> None:
        self._reactor = reactor
        self._left = list(sockets)

    def listenTCP(self, port: int, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        """See ``IReactorTCP``."""
        return self._adopted(factory)

    def listenUNIX(self, address: str, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        """See ``IReactorUNIX``."""
        return self._adopted(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *_: Any, **__: Any) -> IListeningPort:
        """See ``IReactorSSL``."""
        return self._adopted(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))

    def _adopted(self, factory: Any) -> IListeningPort:
        listening = self._left.pop(0)
        try:
            if listening.family == socket.AF_UNIX:
                port: Any = _InheritedUnixPort(listening.descriptor, factory, self._reactor)
                port.startListening()
            else:
                family = socket.AddressFamily(listening.family)
                port = self._reactor.adoptStreamPort(listening.descriptor, family, factory)
        finally:
            os.close(listening.descriptor)  # of which the port has a copy of its own
        adopted: IListeningPort = port
        return adopted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _InheritedUnixPort(unix.Port):
    """A UNIX socket whose name belongs to the process that bound it.

    Twisted's own would set the name's mode anew, and remove it at its end.
    """

    def __init__(self, descriptor: int, factory: Any, reactor: Any) -> None:
        super().__init__(b"\0", factory, reactor=reactor)
        self._preexistingSocket = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)


def adoptable(endpoint: str) -> str:
    """The endpoint as a process that adopts its socket asks for it: what systemd gave, it gave to another."""
    return _SYSTEMD.sub(r"\1tcp:0", endpoint)
