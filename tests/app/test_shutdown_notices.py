"""Tests of the messages of a shutdown."""

from __future__ import annotations

import signal

import pytest
from twisted.internet.task import Clock

from dockmirror.app.service import STOP_NOW_LIMIT, ShutdownNotices
from tests.stacks import logged


class Shutdown:
    """A mirror with some transfers."""

    def __init__(self, transfers: int) -> None:
        self.clock = Clock()
        self.events = list[str]()
        self._transfers = transfers
        self.notices = ShutdownNotices(
            self._count, lambda: self.events.append("cut off"), self.clock, lambda: self.events.append("left")
        )

    async def _count(self) -> int:
        return self._transfers


@pytest.mark.parametrize(
    ("transfers", "received", "message"),
    [
        (2, signal.SIGINT, "finishing 2 transfers; Ctrl-C again stops now"),
        (1, signal.SIGTERM, "finishing 1 transfer; SIGTERM again stops now"),
        (0, signal.SIGINT, "stopping"),
    ],
)
def test_the_first_signal_is_answered_with_the_number_of_transfers(
    transfers: int, received: signal.Signals, message: str
) -> None:
    with logged() as messages:
        Shutdown(transfers).notices.announce(received)
    assert len(messages) == 1
    assert message in messages[0]


def test_the_second_signal_cuts_off_the_transfers_and_leaves_when_that_takes_too_long() -> None:
    shutdown = Shutdown(2)
    with logged():
        shutdown.notices.stop_now()
    assert shutdown.events == ["cut off"]
    shutdown.clock.advance(STOP_NOW_LIMIT)
    assert shutdown.events == ["cut off", "left"]
