"""How many requests run at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from treq import content
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.upstream.concurrency_limit import ConcurrencyLimit
from tests.fakes import Wire
from tests.stacks import Outcome

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: y\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Asker:
    """Asks a server that is the test itself, one request at a time unless told otherwise.

    :ivar wire: the connections that were made: one for each request that runs.
    """

    def __init__(self, limit: int = 1) -> None:
        self.clock = Clock()
        self.wire = Wire(HTTPConnectionPool(self.clock))
        self.agent = ConcurrencyLimit(self.wire.agent, limit, self.clock, patience=30)

    def ask(self, path: str = "", method: bytes = b"GET") -> Outcome:
        """A request."""
        return Outcome(self.agent.request(method, b"http://r.example/" + path.encode()))

    @property
    def asked(self) -> list[str]:
        """The paths that the server was asked for, in order of the connections."""
        said = b"".join(transport.value() for transport in self.wire.transports)
        return [line.split()[1].decode() for line in said.splitlines() if b" HTTP/1.1" in line]


def test_interfaces() -> None:
    """An agent, whose responses are responses."""
    asker = Asker()
    verifyObject(IAgent, asker.agent)
    response = asker.ask()
    asker.wire.send(TEN)
    assert verifyObject(IResponse, response.get())
    assert (response.get().code, response.get().length) == (200, 10)
    assert response.get().headers.getRawHeaders("X") == ["y"]


def test_order() -> None:
    """So many run at a time; the others wait, and are asked in the order in which they came."""
    asker = Asker(2)
    responses = [asker.ask(path) for path in "abcd"]
    assert asker.asked == ["/a", "/b"]
    asker.wire.send(EMPTY, at=0)
    assert asker.asked == ["/a", "/c", "/b"], "the connection is used again"
    asker.wire.send(EMPTY, at=1)
    assert asker.asked == ["/a", "/c", "/b", "/d"]
    assert [bool(response) for response in responses] == [True, True, False, False]
    assert len(asker.wire.transports) == 2


@pytest.mark.parametrize(
    ("method", "answer"), [(b"HEAD", TEN), (b"GET", EMPTY), (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n")]
)
def test_no_body(method: bytes, answer: bytes) -> None:
    """A response without a body has ended at once, whether or not anybody reads it."""
    asker = Asker()
    response = asker.ask("a", method)
    asker.ask("b")
    asker.wire.send(answer)
    assert asker.asked == ["/a", "/b"]
    assert Outcome(content(response.get())) == [b""]


def test_body() -> None:
    """A request runs until its response's body has ended, and the next one uses its connection."""
    asker = Asker()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"01234")
    reading = Outcome(content(response.get()))
    assert asker.asked == ["/a"]
    asker.wire.send(b"56789")
    assert reading == [b"0123456789"]
    assert asker.asked == ["/a", "/b"]
    assert len(asker.wire.transports) == 1


def test_body_that_waits() -> None:
    """A body that nobody has read yet runs, though all of it is here."""
    asker = Asker()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"0123456789")
    assert asker.asked == ["/a"]
    assert Outcome(content(response.get())) == [b"0123456789"]
    assert asker.asked == ["/a", "/b"]


class _Leaving(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_broken_body(reason: Exception) -> None:
    """A body that breaks off has ended, and so has one that its reader leaves."""
    asker = Asker()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(TEN + b"01234")
    response.get().deliverBody(_Leaving())
    assert asker.wire.transports[0].disconnecting
    asker.wire.lose(reason)
    assert asker.asked == ["/a", "/b"]


def test_failed() -> None:
    """A request that fails has ended."""
    asker = Asker()
    response = asker.ask("a")
    asker.ask("b")
    asker.wire.send(b"nonsense\r\n\r\n")
    asker.wire.lose(ConnectionLost())
    assert isinstance(response.error, Exception)
    assert asker.asked == ["/a", "/b"]


def test_cancelled() -> None:
    """A request that is cancelled has ended, and one that is cancelled while it waits is never asked."""
    asker = Asker()
    first, second, _ = (asker.ask(path) for path in "abc")
    second.work.cancel()
    assert isinstance(second.error, CancelledError)
    first.work.cancel()
    asker.wire.lose(ConnectionLost())
    assert asker.asked == ["/a", "/c"]


def test_patience() -> None:
    """A request waits for half a minute, and then says for what it waited."""
    asker = Asker()
    first = asker.ask("a")
    second = asker.ask("b")
    asker.clock.advance(30)
    assert isinstance(second.error, ConnectTimedOut)
    told = "waiting for one of the 1 requests that may run at a time to end took more than 30 s"
    assert told in str(second.error)
    assert not first, "what runs has no time to keep here"
    assert asker.clock.getDelayedCalls() == []


def test_no_limit() -> None:
    """Somebody must be let through."""
    with pytest.raises(ValueError, match="tokens >= 1"):
        Asker(0)


@implementer(IAgent)
class _Counting:
    """Gives responses when it is told to, and counts what runs."""

    def __init__(self) -> None:
        self.running: list[Deferred[Any]] = []

    def request(self, *asked: object) -> Deferred[Any]:
        self.running.append(Deferred(self.running.remove))
        return self.running[-1]


class _Response:
    """Has a body of one piece."""

    length = 1

    def __init__(self, ended: Any) -> None:
        self._ended = ended

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(StringTransport())
        self._ended()
        protocol.connectionLost(ConnectionDone())


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "read", "fail", "cancel"]), st.integers(0, 9))))
def test_any_course(course: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order, no more run than may, and as many as may while some wait."""
    agent = _Counting()
    limited = ConcurrencyLimit(agent, 3, Clock())
    asked: list[Outcome] = []
    unread: list[Any] = []

    def step(what: str, which: int) -> None:
        if what == "ask":
            asked.append(Outcome(limited.request(b"GET", b"http://r.example/")))
        elif what in ("answer", "fail") and agent.running:
            one = agent.running.pop(which % len(agent.running))
            if what == "fail":
                one.errback(ConnectionLost())
            else:
                unread.append(None)
                one.callback(_Response(unread.pop))
        elif what == "read" and (bodies := [o for o in asked if o and hasattr(o[0], "deliverBody")]):
            bodies[which % len(bodies)].pop().deliverBody(Protocol())
        elif what == "cancel" and asked:
            asked[which % len(asked)].work.cancel()

    for what, which in course:
        step(what, which)
        waiting = len([o for o in asked if not o and not o.work.called]) - len(agent.running)
        running = len(agent.running) + len(unread)
        assert running <= 3
        assert running == 3 or waiting <= 0
