"""Contents that have an end, although their length is not told."""

from __future__ import annotations

import pytest

from dockmirror.body.wrappers import SizeLimitedBody
from dockmirror.oci.errors import Unavailable

from ..answering import Feed, Pieces, Recorder, now, watch

DATA = b"0123456789"


@pytest.mark.parametrize("most", [10, 11])
def test_a_body_within_the_limit_passes(most: int) -> None:
    """All of it is delivered."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(SizeLimitedBody(feed, most).deliver(recorder))
    feed.send(DATA[:4], DATA[4:])
    feed.end()
    assert (outcome, recorder.data) == ([None], DATA)


@pytest.mark.parametrize("most", [0, 4, 5, 9])
def test_a_body_beyond_the_limit_is_cancelled(most: int) -> None:
    """The piece that exceeds the limit is not passed on."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(SizeLimitedBody(feed, most).deliver(recorder))
    feed.send(DATA[:5], DATA[5:], DATA)
    assert [type(error) for error in outcome] == [Unavailable]
    assert (feed.state, recorder.data) == ("cancelled", DATA[:5] if most >= 5 else b"")


def test_a_large_body_written_at_once_fails() -> None:
    """There was no delivery left to cancel."""
    recorder = Recorder()
    with pytest.raises(Unavailable, match="larger than 9 bytes"):
        now(SizeLimitedBody(Pieces([DATA]), 9).deliver(recorder))
    assert recorder.data == b""
