"""Listening sockets that one process binds and others accept from."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..system.posix import remove_dead_socket

_SYSTEMD = re.compile(r"(^|:)systemd:.*")


@frozen
class ListeningSocket:
    """A socket that is listening already.

    :ivar descriptor: its file descriptor in the process that inherits it.
    :ivar family: the number of its address family.
    """

    descriptor: int
    family: int


class ReclaimingReactor:
    """A reactor that also listens on UNIX sockets which a killed process has left behind."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenUNIX(self, address: str, *args: Any, **kwargs: Any) -> IListeningPort:
        remove_dead_socket(Path(address))
        listening: IListeningPort = self._reactor.listenUNIX(address, *args, **kwargs)
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class BindOnlyReactor(ReclaimingReactor):
    """A reactor for the binding process: its ports listen, but accept no connection."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._ports: list[Any] = []

    @property
    def sockets(self) -> Sequence[ListeningSocket]:
        """The listening sockets, in the order in which they were opened."""
        return [ListeningSocket(port.fileno(), port.socket.family) for port in self._ports]

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.listenTCP(*args, **kwargs))

    def listenSSL(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.listenSSL(*args, **kwargs))

    def listenUNIX(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(super().listenUNIX(*args, **kwargs))

    def adoptStreamPort(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.adoptStreamPort(*args, **kwargs))

    def _stop_accepting(self, port: Any) -> IListeningPort:
        port.stopReading()
        # Workers accept from the same socket until they stop.  So it is only closed here, as Twisted does
        # with inherited sockets; a shutdown would end it for all of them.
        port._shouldShutdown = False
        self._ports.append(port)
        listening: IListeningPort = port
        return listening


class InheritedSocketsReactor:
    """A reactor for a worker: each call to listen takes the next of the inherited sockets."""

    def __init__(self, reactor: Any, sockets: Sequence[ListeningSocket]) -> None:
        self._reactor = reactor
        self._remaining = list(sockets)

    def listenTCP(self, port: int, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(factory)

    def listenUNIX(self, address: str, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))

    def _adopt(self, factory: Any) -> IListeningPort:
        inherited = self._remaining.pop(0)
        try:
            if inherited.family == socket.AF_UNIX:
                port: Any = _InheritedUnixPort(inherited.descriptor, factory, self._reactor)
                port.startListening()
            else:
                family = socket.AddressFamily(inherited.family)
                port = self._reactor.adoptStreamPort(inherited.descriptor, family, factory)
        finally:
            os.close(inherited.descriptor)  # the port has its own copy
        listening: IListeningPort = port
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _InheritedUnixPort(unix.Port):
    """A UNIX socket whose file belongs to the binding process.

    Twisted's own class would change the mode of the file, and remove it when it stops.
    """

    def __init__(self, descriptor: int, factory: Any, reactor: Any) -> None:
        super().__init__(b"\0", factory, reactor=reactor)
        self._preexistingSocket = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)


def inherited_endpoint(endpoint: str) -> str:
    """Return the endpoint that a worker opens; systemd passes its sockets to the binding process only."""
    return _SYSTEMD.sub(r"\1tcp:0", endpoint)
