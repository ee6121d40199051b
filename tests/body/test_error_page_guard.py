"""Contents of which it is doubtful whether they are an answer at all."""

from __future__ import annotations

import pytest

from dockmirror.body.error_page_guard import ErrorPageGuardBody
from dockmirror.body.verified import CorruptContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unavailable

from ..answering import Pieces, Recorder, now

DATA = b"<html>a layer</html>"


def test_what_is_right_passes() -> None:
    """Whatever it was called."""
    recorder = Recorder()
    now(ErrorPageGuardBody(Pieces([DATA]), Digest.of(DATA), "a web page").deliver(recorder))
    assert recorder.data == DATA


def test_what_is_wrong_was_another_answer() -> None:
    """And not the content spoilt, which would be left alone for a while."""
    recorder = Recorder()
    with pytest.raises(Unavailable, match="a web page") as raised:
        now(
            ErrorPageGuardBody(
                Pieces([b"<html>please log in</html>"]), Digest.of(DATA), "a web page"
            ).deliver(recorder)
        )
    assert not isinstance(raised.value, CorruptContent)
    assert recorder.data == b""
