"""Sockets that one process binds and others accept from."""

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

from dockmirror.workers.worker_program import (
    BindOnlyReactor,
    InheritedSocketsReactor,
    ListeningSocket,
    ReclaimingReactor,
    inherited_endpoint,
)

reactor: Any = twisted_reactor


class Hello(Protocol):
    """Greets each client, and closes the connection."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    """A socket that listens already, as systemd passes one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def read_greeting(family: int, address: Any) -> bytes:
    """Connect, and return what the server sends; blocks."""
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        return client.recv(100)


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
@pytest.mark.parametrize(
    "endpoint", ["tcp:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1", "unix:s:mode=660"]
)
async def test_one_process_binds_and_another_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The binding process accepts no client, also not one that connected early; it may stop first."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    binding = BindOnlyReactor(reactor)
    bound: Any = await serverFromString(binding, endpoint).listen(Factory.forProtocol(Protocol))
    (listening,) = binding.sockets
    family, address = bound.socket.family, bound.socket.getsockname()
    early = deferToThread(read_greeting, family, address)
    copy = ListeningSocket(os.dup(listening.descriptor), listening.family)
    inheriting = InheritedSocketsReactor(reactor, [copy])
    accepting: Any = await serverFromString(inheriting, endpoint).listen(Factory.forProtocol(Hello))
    assert await early == b"hello"
    assert await deferToThread(read_greeting, family, address) == b"hello"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(copy.descriptor)
    if family == socket.AF_UNIX:
        await accepting.stopListening()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
        await bound.stopListening()
        assert not (tmp_path / "s").exists()
    else:
        await bound.stopListening()
        assert await deferToThread(read_greeting, family, address) == b"hello"
        await accepting.stopListening()


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_a_socket_from_systemd_is_passed_on_like_others(inherited: socket.socket) -> None:
    """Sockets are in the order in which they were opened."""
    binding = BindOnlyReactor(reactor)
    passed: Any = binding.adoptStreamPort(inherited.fileno(), socket.AF_INET, Factory.forProtocol(Protocol))
    opened: Any = await serverFromString(binding, "tcp:0:interface=\\:\\:1").listen(
        Factory.forProtocol(Protocol)
    )
    assert [each.family for each in binding.sockets] == [socket.AF_INET, socket.AF_INET6]
    assert binding.sockets[0].descriptor not in (inherited.fileno(), binding.sockets[1].descriptor)
    await passed.stopListening()
    await opened.stopListening()


def test_other_methods_are_those_of_the_reactor() -> None:
    assert BindOnlyReactor(reactor).callLater == reactor.callLater
    assert InheritedSocketsReactor(reactor, []).seconds == reactor.seconds


@pytest.mark.parametrize(
    ("endpoint", "accepting"),
    [
        ("tcp:8080", "tcp:8080"),
        ("unix:/run/a", "unix:/run/a"),
        ("systemd:domain=INET6:index=0", "tcp:0"),
        ("https:systemd:domain=INET:name=web", "https:tcp:0"),
        ("https:443", "https:443"),
        ("unix:/run/systemd\\:x", "unix:/run/systemd\\:x"),
    ],
)
def test_a_worker_opens_no_socket_of_systemd(endpoint: str, accepting: str) -> None:
    """Systemd passes its sockets to the binding process only."""
    assert inherited_endpoint(endpoint) == accepting


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
@pytest.mark.parametrize("kind", [ReclaimingReactor, BindOnlyReactor])
async def test_a_socket_that_a_killed_process_has_left_behind_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ReclaimingReactor]
) -> None:
    """Even if another process has its number by now, as in a container, where each is the first one."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind("s")
    (tmp_path / "s.lock").symlink_to(str(os.getpid()))
    listening: Any = await serverFromString(kind(reactor), "unix:s").listen(Factory.forProtocol(Protocol))
    await listening.stopListening()
    assert os.listdir(tmp_path) == []
