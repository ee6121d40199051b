"""Connections that a server closes while it is written to, over real sockets."""
# mypy: allow-untyped-decorators

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol

from dockmirror.upstream.tcp import DrainingTCP

ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000)


class Recorder(Protocol):
    """Notes what it is given, and why it has ended."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        """See ``Protocol``."""
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        """See ``Protocol``."""
        self.lost = reason.value


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:50], b""])
@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_write_that_fails(answer: bytes) -> None:
    """It is delivered, and then the connection is lost."""
    with _listening() as server:
        endpoint = TCP4ClientEndpoint(DrainingTCP(reactor), *server.getsockname())
        recorder: Any = await endpoint.connect(Factory.forProtocol(Recorder))
        accepted, _ = server.accept()
        transport = recorder.transport
        transport.pauseProducing()  # the reactor sees that it can be written to, and not yet what has come
        transport.write(b"body")
        assert transport.doWrite() is None
        assert select.select([accepted], [], [], 10)[0]
        accepted.sendall(answer)
        accepted.close()  # which resets the connection: the body was not read
        _wait_until_reset(transport)
        transport.write(b"more")
        error = transport.doWrite()
        assert isinstance(error, ConnectionLost)
        assert recorder.received == answer
        transport.abortConnection()


def _wait_until_reset(transport: Any) -> None:
    poll = select.poll()
    poll.register(transport.fileno(), 0)
    assert poll.poll(10_000)


@pytest_twisted.ensureDeferred
async def test_nobody_listens() -> None:
    """Where there is no connection the failure is the usual one."""
    with _listening() as server:
        address = server.getsockname()
    with pytest.raises(Refused):
        await TCP4ClientEndpoint(DrainingTCP(reactor), *address).connect(Factory.forProtocol(Recorder))
