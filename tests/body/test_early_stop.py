"""A content that is left before its end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from dockmirror.body.early_stop import EarlyStopConsumer

from ..answering import Feed, Pieces, Recorder, watch


class One(EarlyStopConsumer):
    """Wants one piece."""

    def forward_piece(self, data: bytes) -> None:
        """Passes it on."""
        self.has_enough = True
        self.consumer.write(data)


def test_enough_is_enough() -> None:
    """What comes then is not passed on, and the content is left."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(One(recorder).forward(feed))
    feed.send(b"a", b"b")
    assert [type(each) for each in outcome] == [CancelledError]
    assert (feed.state, recorder.data) == ("cancelled", b"a")


def test_what_has_come_at_once_is_complete() -> None:
    """It cannot be left any more; nothing of it is passed on that is not wanted."""
    recorder = Recorder()
    assert watch(One(recorder).forward(Pieces([b"a", b"b"]))) == [None]
    assert recorder.data == b"a"
