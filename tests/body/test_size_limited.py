"""Contents that have an end, although their length is not told."""

from __future__ import annotations

import pytest

from dockmirror.body.size_limited import SizeLimitedBody
from dockmirror.oci.errors import Unavailable

from ..answering import Feed, Pieces, Recorder, now, watch

DATA = b"0123456789"


@pytest.mark.parametrize("most", [10, 11])
def test_what_is_no_longer_passes(most: int) -> None:
    """Whole."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(SizeLimitedBody(feed, most).deliver(recorder))
    feed.send(DATA[:4], DATA[4:])
    feed.end()
    assert (outcome, recorder.data) == ([None], DATA)


@pytest.mark.parametrize("most", [0, 4, 5, 9])
def test_what_is_longer_is_left(most: int) -> None:
    """As soon as that is known; the piece that is too much goes nowhere."""
    feed, recorder = Feed(), Recorder()
    outcome = watch(SizeLimitedBody(feed, most).deliver(recorder))
    feed.send(DATA[:5], DATA[5:], DATA)
    assert [type(error) for error in outcome] == [Unavailable]
    assert (feed.state, recorder.data) == ("cancelled", DATA[:5] if most >= 5 else b"")


def test_what_came_at_once_fails_as_well() -> None:
    """Although there was nothing to leave."""
    recorder = Recorder()
    with pytest.raises(Unavailable, match="larger than 9 bytes"):
        now(SizeLimitedBody(Pieces([DATA]), 9).deliver(recorder))
    assert recorder.data == b""
