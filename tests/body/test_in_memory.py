"""Contents that are here already, and contents that are read whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.body.in_memory import BytesBody, NoBody, collect, json_body
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import RegistryError, Unavailable, Unreachable

from ..answering import Feed, Pieces, Recorder, now, watch
from ..values import CHUNKS


def test_json_tells_its_type_and_size() -> None:
    """As clients insist on."""
    content = json_body(b"{}")
    assert content.descriptor == Descriptor("application/json", None, 2)
    assert now(collect(content, 2)) == b"{}"


def test_what_is_absent_is_described_all_the_same() -> None:
    """A HEAD tells of the body that a GET would bring, and brings none."""
    content = NoBody(Descriptor("a/b", None, 5))
    recorder = Recorder()
    now(content.deliver(recorder))
    assert (content.descriptor.size, recorder.data) == (5, b"")


def test_bytes_do_not_show() -> None:
    """A token's answer does not stand in a log."""
    assert "s3cret" not in repr(BytesBody(b"s3cret", Descriptor()))


@given(CHUNKS, st.integers(0, 60), st.booleans(), st.booleans())
def test_a_content_is_collected_up_to_a_limit(
    chunks: list[bytes], limit: int, at_once: bool, told: bool
) -> None:
    """However it comes, told beforehand how large it is or not: all, or the error; never a beginning."""
    whole = b"".join(chunks)
    descriptor = Descriptor(size=len(whole) if told else None)
    feed = Feed(descriptor)
    outcome = watch(collect(Pieces(chunks, descriptor) if at_once else feed, limit))
    feed.send(*chunks)
    feed.end()
    if len(whole) <= limit:
        assert outcome == [whole]
    else:
        assert [type(error) for error in outcome] == [Unavailable]


def test_what_is_told_to_be_too_large_is_not_read() -> None:
    """It is discarded before a byte of it has come."""
    feed = Feed(Descriptor(size=3))
    with pytest.raises(Unavailable):
        now(collect(feed, 2))
    assert feed.state == "discarded"


def test_what_proves_too_large_is_left() -> None:
    """With the first byte that is too many; the rest is not waited for."""
    feed = Feed(Descriptor(size=2))
    outcome = watch(collect(feed, 2))
    feed.send(b"ab")
    assert (outcome, feed.state) == ([], "open")
    feed.send(b"c")
    assert feed.state == "cancelled"
    assert [type(error) for error in outcome] == [Unavailable]


@pytest.mark.parametrize("error", [Unreachable("broken off"), Unavailable("corrupt")])
def test_a_failure_is_passed_on(error: RegistryError) -> None:
    """As it is, even if as much has come as there may be."""
    feed = Feed()
    outcome = watch(collect(feed, 1))
    feed.send(b"a")
    feed.break_off(error)
    assert outcome == [error]


def test_whoever_waits_may_leave() -> None:
    """The content is given back."""
    feed = Feed()
    collecting = Deferred.fromCoroutine(collect(feed, 10))
    outcome = watch(collecting)
    collecting.cancel()
    assert feed.state == "cancelled"
    assert [type(error) for error in outcome] == [CancelledError]
