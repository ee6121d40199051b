"""Calls between two processes."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dockmirror.workers.worker_pool import PeerLost, RpcChannel, RpcError
from tests.stacks import Outcome


class Pair:
    """Both ends of a channel; ``carry`` delivers what they have sent."""

    def __init__(self, **methods: Any) -> None:
        self.lost = 0
        self.here, self.there = RpcChannel({}, self._lost), RpcChannel(methods)
        for end in (self.here, self.there):
            end.makeConnection(StringTransport())

    def carry(self, piece: int = 7) -> None:
        """Deliver all messages in small pieces, until no end sends any more."""
        moved = True
        while moved:
            moved = False
            for sender, receiver in ((self.here, self.there), (self.there, self.here)):
                transport: Any = sender.transport
                sent = transport.value()
                transport.clear()
                for start in range(0, len(sent), piece):
                    receiver.dataReceived(sent[start : start + piece])
                moved = moved or bool(sent)

    def disconnect(self) -> None:
        """Lose the connection."""
        for end in (self.here, self.there):
            end.connectionLost(Failure(ConnectionDone()))

    def _lost(self) -> None:
        self.lost += 1


async def double(value: Any) -> Any:
    return value * 2


def test_answers_reach_their_callers_in_any_order() -> None:
    """Values are JSON, and each answer belongs to its own call."""
    waiting: list[Deferred[str]] = []

    async def later(value: str) -> str:
        waiting.append(Deferred())
        return value + await waiting[-1]

    pair = Pair(later=later, double=double)
    first, second = (Outcome(pair.here.call("later", name)) for name in ("a", "b"))
    quick = Outcome(pair.here.call("double", ["\n", "\N{SNOWMAN}"]))
    pair.carry()
    assert quick.get() == ["\n", "\N{SNOWMAN}"] * 2
    waiting[1].callback("2")
    waiting[0].callback("1")
    pair.carry()
    assert (first.get(), second.get()) == ("a1", "b2")


def test_a_large_message_fits_into_a_line() -> None:
    pair = Pair(double=double)
    outcome = Outcome(pair.here.call("double", "x" * 300_000))
    pair.carry(10_000)
    assert outcome.get() == "x" * 600_000


def test_an_exception_reaches_the_caller_as_its_text() -> None:

    async def fails(_: object) -> None:
        raise ValueError("no: \N{SNOWMAN}")

    pair = Pair(fails=fails)
    outcomes = [Outcome(pair.here.call(name)) for name in ("fails", "unknown")]
    pair.carry()
    assert [type(each.error) for each in outcomes] == [RpcError, RpcError]
    assert str(outcomes[0].error) == "no: \N{SNOWMAN}"


def test_calls_fail_when_the_other_end_is_gone() -> None:
    """Both waiting calls and new ones fail."""
    pair = Pair(double=double)
    waiting = Outcome(pair.here.call("double", 1))
    pair.disconnect()
    assert pair.lost == 1
    assert isinstance(waiting.error, PeerLost)
    assert isinstance(Outcome(pair.here.call("double", 1)).error, PeerLost)
    assert isinstance(Outcome(RpcChannel({}).call("x")).error, PeerLost)


def test_the_answer_to_a_cancelled_call_is_ignored() -> None:
    pair = Pair(double=double)
    cancelled = Outcome(pair.here.call("double", 1))
    cancelled.work.cancel()
    pair.carry()
    assert isinstance(cancelled.error, CancelledError)
    after = Outcome(pair.here.call("double", 2))
    pair.carry()
    assert after.get() == 4


def test_an_answer_to_a_lost_caller_is_dropped() -> None:
    waiting: Deferred[int] = Deferred()

    async def later(_: object) -> int:
        return await waiting

    pair = Pair(later=later)
    Outcome(pair.here.call("later"))
    pair.carry()
    pair.disconnect()
    waiting.callback(1)
    transport: Any = pair.there.transport
    assert transport.value() == b""
