"""Sockets on which one process listens for others."""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as twisted_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from dockmirror.workers.sockets import BindOnlyReactor, InheritedSocketsReactor, ListeningSocket, adoptable

reactor: Any = twisted_reactor


class Hello(Protocol):
    """Says so to everybody, and closes."""

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    """A socket that listens already, as systemd gives one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def heard(family: int, address: Any) -> bytes:
    """What a client hears; None where nobody answers for a while."""
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        return client.recv(100)


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
@pytest.mark.parametrize(
    "endpoint", ["tcp:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1", "unix:s:mode=660"]
)
async def test_one_binds_and_the_other_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """Whoever binds accepts nobody; a client that came before is served by whoever adopts."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    holding = BindOnlyReactor(reactor)
    held: Any = await serverFromString(holding, endpoint).listen(Factory.forProtocol(Protocol))
    (there,) = holding.sockets
    family, address = held.socket.family, held.socket.getsockname()
    early = deferToThread(heard, family, address)
    copy = ListeningSocket(os.dup(there.descriptor), there.family)
    adopting = InheritedSocketsReactor(reactor, [copy])
    adopted: Any = await serverFromString(adopting, endpoint).listen(Factory.forProtocol(Hello))
    assert await early == b"hello"
    assert await deferToThread(heard, family, address) == b"hello"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(copy.descriptor)
    await adopted.stopListening()
    if family == socket.AF_UNIX:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    await held.stopListening()
    assert not (tmp_path / "s").exists()


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_the_one_that_binds_stops_first(tmp_path: Path) -> None:
    """Whoever has adopted the socket goes on to accept from it until it stops as well."""
    holding = BindOnlyReactor(reactor)
    held: Any = await serverFromString(holding, "tcp:0:interface=127.0.0.1").listen(
        Factory.forProtocol(Protocol)
    )
    (there,) = holding.sockets
    address = held.socket.getsockname()
    adopting = InheritedSocketsReactor(reactor, [ListeningSocket(os.dup(there.descriptor), there.family)])
    adopted: Any = await serverFromString(adopting, "tcp:0").listen(Factory.forProtocol(Hello))
    await held.stopListening()
    assert await deferToThread(heard, socket.AF_INET, address) == b"hello"
    await adopted.stopListening()


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_what_was_given(unix: socket.socket) -> None:
    """Is held as well, and several are in the order in which they were asked for."""
    holding = BindOnlyReactor(reactor)
    given: Any = holding.adoptStreamPort(unix.fileno(), socket.AF_INET, Factory.forProtocol(Protocol))
    made: Any = await serverFromString(holding, "tcp:0:interface=\\:\\:1").listen(
        Factory.forProtocol(Protocol)
    )
    assert [each.family for each in holding.sockets] == [socket.AF_INET, socket.AF_INET6]
    assert holding.sockets[0].descriptor not in (unix.fileno(), holding.sockets[1].descriptor)
    await given.stopListening()
    await made.stopListening()


def test_the_rest_is_the_reactors() -> None:
    """Whatever else is asked of it."""
    assert BindOnlyReactor(reactor).callLater == reactor.callLater
    assert InheritedSocketsReactor(reactor, []).seconds == reactor.seconds


@pytest.mark.parametrize(
    ("endpoint", "adopted"),
    [
        ("tcp:8080", "tcp:8080"),
        ("unix:/run/a", "unix:/run/a"),
        ("systemd:domain=INET6:index=0", "tcp:0"),
        ("https:systemd:domain=INET:name=web", "https:tcp:0"),
        ("https:443", "https:443"),
        ("unix:/run/systemd\\:x", "unix:/run/systemd\\:x"),
    ],
)
def test_what_systemd_gave(endpoint: str, adopted: str) -> None:
    """It gave to the process that binds: another one knows nothing of it."""
    assert adoptable(endpoint) == adopted
