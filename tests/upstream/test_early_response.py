"""Contents sent to an upstream, and answers that do not wait for their end; real bytes, no socket."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface.verify import verifyObject

from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import RegistryError
from dockmirror.upstream.body_producer import RequestBodyProducer
from dockmirror.upstream.early_response import UnpooledConnections, UploadAgent
from dockmirror.upstream.failures import root_cause
from tests.answering import Feed
from tests.fakes import Wire
from tests.stacks import Outcome

TAKING, ANSWERING = 60.0, 300.0


class Push:
    """A content on its way to an upstream whose part the test plays."""

    def __init__(self, size: int | None = 10) -> None:
        self.clock = Clock()
        self.wire = Wire(UnpooledConnections(self.clock))
        self.feed = Feed(Descriptor(size=size))
        self.late: list[float] = []
        self.sent: list[int] = []
        self.sending = RequestBodyProducer(
            self.feed, self.clock, (TAKING, ANSWERING), self.late.append, self.sent.append
        )
        headers = Headers({b"Host": [b"r.example"]})
        self.asked: Deferred[Any] = self.wire.agent.request(
            b"PUT", b"http://r.example/x", headers, self.sending
        )
        self.outcome = Outcome(self.asked)

    @property
    def transport(self) -> Any:
        """The connection."""
        return self.wire.transports[-1]

    @property
    def body(self) -> bytes:
        """What has reached the upstream behind the headers."""
        return bytes(self.transport.value()).partition(b"\r\n\r\n")[2]


@pytest.fixture
def push() -> Push:
    """One with a length."""
    return Push()


def test_it_is_a_body() -> None:
    """As Twisted's client sends them."""
    assert verifyObject(IBodyProducer, Push().sending)


def test_with_a_length(push: Push) -> None:
    """It is told, and the bytes follow as they come."""
    assert b"Content-Length: 10\r\n" in push.transport.value()
    assert b"Connection: close\r\n" in push.transport.value()
    push.feed.send(b"0123", b"456789")
    push.feed.end()
    assert push.body == b"0123456789"
    assert push.sent == [4, 6]
    push.wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert push.outcome.get().code == 201
    assert push.transport.producer is None


def test_without_a_length() -> None:
    """It goes in chunks, and ends with the last one."""
    push = Push(None)
    push.feed.send(b"0123")
    assert push.body == b"4\r\n0123\r\n"
    push.feed.end()
    assert push.body == b"4\r\n0123\r\n0\r\n\r\n"


def test_back_pressure(push: Push) -> None:
    """The upstream sets the pace."""
    push.transport.producer.pauseProducing()
    assert push.feed.paused
    push.transport.producer.resumeProducing()
    assert not push.feed.paused


@pytest.mark.parametrize("size", [10, None])
class TestEarly:
    """An answer before the whole was sent."""

    def test_comes_at_once(self, size: int | None) -> None:
        """Before its own body has come, and no more of the content goes."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\n")
        assert push.outcome.get().code == 413
        assert push.feed.state == "cancelled"
        assert push.transport.producer is None
        assert push.body == before
        assert not push.transport.disconnecting
        push.wire.send(b"wrong")
        assert push.transport.disconnecting

    def test_whole(self, size: int | None) -> None:
        """With nothing to follow."""
        push = Push(size)
        push.wire.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        assert push.outcome.get().code == 401
        assert push.feed.state == "cancelled"
        assert push.transport.disconnecting

    def test_not_when_it_is_to_go_on(self, size: int | None) -> None:
        """What the upstream says meanwhile is no answer."""
        push = Push(size)
        push.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert not push.outcome
        assert push.feed.state == "open"

    def test_a_connection_that_is_lost(self, size: int | None) -> None:
        """Has the content end, too."""
        push = Push(size)
        push.feed.send(b"01")
        push.wire.lose(ConnectionLost())
        assert isinstance(root_cause(push.outcome.error), ConnectionLost)
        assert push.feed.state == "cancelled"

    def test_who_asks_gives_up(self, size: int | None) -> None:
        """Then the connection is cut off, and what was sent is not completed."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.asked.cancel()
        assert push.feed.state == "cancelled"
        assert push.transport.disconnected or push.transport.aborting
        assert push.body == before

    def test_a_content_that_breaks_off(self, size: int | None) -> None:
        """Is never completed, and who asks learns why."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.feed.break_off(RegistryError("the client stopped", status=408))
        cause = root_cause(push.outcome.error)
        assert isinstance(cause, RegistryError)
        assert cause.status == 408
        assert push.body == before
        assert push.transport.disconnected or push.transport.aborting


class TestTime:
    """How long an upstream may take."""

    def test_to_take_something(self, push: Push) -> None:
        """So long, and not a moment more; while it takes, the client's time is not its fault."""
        push.clock.advance(10 * TAKING)
        push.transport.producer.pauseProducing()
        push.clock.advance(TAKING - 1)
        push.transport.producer.resumeProducing()
        push.clock.advance(TAKING)
        assert push.late == []
        push.transport.producer.pauseProducing()
        push.clock.advance(TAKING)
        assert push.late == [TAKING]

    def test_to_answer(self, push: Push) -> None:
        """Longer: it may have to look at all of it."""
        push.feed.send(b"0123456789")
        push.feed.end()
        push.clock.advance(ANSWERING - 1)
        assert push.late == []
        push.clock.advance(1)
        assert push.late == [ANSWERING]


def test_contents_go_apart() -> None:
    """Over connections that nobody has used before; all else goes as ever."""
    kept, new = Wire(), Wire(UnpooledConnections(Clock()))
    apart = UploadAgent(kept.agent, new.agent)
    assert verifyObject(IAgent, apart)
    apart.request(b"GET", b"http://r.example/")
    assert (len(kept.transports), len(new.transports)) == (1, 0)
    sending = RequestBodyProducer(Feed(), Clock(), (1, 1), lambda _: None, lambda _: None)
    apart.request(b"PUT", b"http://r.example/", None, sending)
    assert (len(kept.transports), len(new.transports)) == (1, 1)
