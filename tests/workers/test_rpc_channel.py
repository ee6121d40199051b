"""What two processes ask each other."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dockmirror.workers.rpc_channel import PeerLost, RpcChannel, RpcError
from tests.stacks import Outcome


class Pair:
    """Both ends of a line; what one sends reaches the other at ``carry``."""

    def __init__(self, **asks: Any) -> None:
        self.lost = 0
        self.here, self.there = RpcChannel({}, self._lost), RpcChannel(asks)
        for end in (self.here, self.there):
            end.makeConnection(StringTransport())

    def carry(self, piece: int = 7) -> None:
        """All that was sent arrives, in small pieces, until nothing more is sent."""
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

    def part(self) -> None:
        """The connection is lost."""
        for end in (self.here, self.there):
            end.connectionLost(Failure(ConnectionDone()))

    def _lost(self) -> None:
        self.lost += 1


async def doubled(value: Any) -> Any:
    """Twice the value."""
    return value * 2


def test_answers() -> None:
    """Are values of JSON, each to its own question, in whichever order they are given."""
    waiting: list[Deferred[str]] = []

    async def later(value: str) -> str:
        waiting.append(Deferred())
        return value + await waiting[-1]

    pair = Pair(later=later, doubled=doubled)
    first, second = (Outcome(pair.here.ask("later", name)) for name in ("a", "b"))
    quick = Outcome(pair.here.ask("doubled", ["\n", "\N{SNOWMAN}"]))
    pair.carry()
    assert quick.get() == ["\n", "\N{SNOWMAN}"] * 2
    waiting[1].callback("2")
    waiting[0].callback("1")
    pair.carry()
    assert (first.get(), second.get()) == ("a1", "b2")


def test_a_large_one() -> None:
    """Fits into a line."""
    pair = Pair(doubled=doubled)
    outcome = Outcome(pair.here.ask("doubled", "x" * 300_000))
    pair.carry(10_000)
    assert outcome.get() == "x" * 600_000


def test_what_could_not_be_done() -> None:
    """Is told in the words of the one that could not."""

    async def refused(_: object) -> None:
        raise ValueError("no: \N{SNOWMAN}")

    pair = Pair(refused=refused)
    outcomes = [Outcome(pair.here.ask(name)) for name in ("refused", "unknown")]
    pair.carry()
    assert [type(each.error) for each in outcomes] == [RpcError, RpcError]
    assert str(outcomes[0].error) == "no: \N{SNOWMAN}"


def test_an_end_that_is_gone() -> None:
    """Answers nobody: who waits is told, and who asks then, too."""
    pair = Pair(doubled=doubled)
    waiting = Outcome(pair.here.ask("doubled", 1))
    pair.part()
    assert pair.lost == 1
    assert isinstance(waiting.error, PeerLost)
    assert isinstance(Outcome(pair.here.ask("doubled", 1)).error, PeerLost)
    assert isinstance(Outcome(RpcChannel({}).ask("x")).error, PeerLost)


def test_who_does_not_wait_any_more() -> None:
    """Is not missed when the answer comes."""
    pair = Pair(doubled=doubled)
    asked = Outcome(pair.here.ask("doubled", 1))
    asked.work.cancel()
    pair.carry()
    assert isinstance(asked.error, CancelledError)
    after = Outcome(pair.here.ask("doubled", 2))
    pair.carry()
    assert after.get() == 4


def test_an_answer_when_the_asker_is_gone() -> None:
    """Goes nowhere, and nothing fails."""
    waiting: Deferred[int] = Deferred()

    async def later(_: object) -> int:
        return await waiting

    pair = Pair(later=later)
    Outcome(pair.here.ask("later"))
    pair.carry()
    pair.part()
    waiting.callback(1)
    transport: Any = pair.there.transport
    assert transport.value() == b""
