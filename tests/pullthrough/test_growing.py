"""Downloads, and the clients that may join them."""

from __future__ import annotations

from contextlib import suppress

import pytest

from dockmirror.body.bodies import BytesBody, CorruptContent
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown, RangeInvalid, RegistryError, TooManyRequests, Unauthorized
from dockmirror.oci.header_fields import ContentRange, Range

from ..answering import Recorder, watch
from .mirrors import GRANTED, Mirror, body, header
from .origin import Origin

DATA = bytes(range(256)) * 4
DIGEST = Digest.of(DATA)
PUBLIC = f"library/busybox/blobs/{DIGEST}"
PRIVATE = f"me/private/blobs/{DIGEST}"
LONG = 5.0


@pytest.fixture
def slow(origin: Origin, mirror: Mirror) -> Mirror:
    """A mirror whose clients have grants, and whose downloads are slow."""
    origin.shelf("library/busybox").publish(b"configuration", DATA)
    origin.shelf("me/private", {"alice", "bob"}).publish(b"configuration", DATA)
    mirror.ask("library/busybox/manifests/latest")
    for who in ("alice", "bob"):
        mirror.ask("me/private/manifests/latest", who)
    mirror.store.downloads.slow = True
    origin.take()
    return mirror


def test_many_read_one_fetch(origin: Origin, slow: Mirror) -> None:
    """A public blob is requested once for all readers."""
    answers = [slow.ask(PUBLIC, who) for who in (None, None, "somebody", None)]
    assert origin.take() == [f"nobody: GET {PUBLIC}"]
    assert [answer.upstream_status for answer in answers] == [200, None, None, None]
    statuses = [header(answer, "Cache-Status") for answer in answers]
    assert statuses == ["dockmirror; fwd=miss; stored", *["dockmirror; fwd=miss; collapsed"] * 3]
    assert {header(answer, "Cache-Control") for answer in answers} == {
        "public, max-age=31536000, immutable",
        None,
    }
    slow.store.downloads.finish()
    assert [body(answer) for answer in answers] == [DATA] * 4
    assert slow.get(PUBLIC) == DATA
    assert origin.take() == []


@pytest.mark.parametrize("held_up", [False, True])
def test_joining_through_another_repository_costs_one_question(slow: Mirror, held_up: bool) -> None:
    """All clients that join there share it, also while it is being asked."""
    slow.ask(PRIVATE, "alice")
    slow.origin.take()
    slow.origin.held_up = held_up
    waiting = [slow.later(PUBLIC, who) for who in (None, "x", "y", None, None)]
    slow.origin.go_on()
    statuses = [header(answer, "Cache-Status") for (answer,) in waiting]
    assert statuses == ["dockmirror; fwd=miss; collapsed"] * 5
    assert slow.origin.take() == [f"nobody: CHECK {PUBLIC}"]


def test_a_private_download_is_joined_after_consent(origin: Origin, slow: Mirror) -> None:
    """A fresh grant is enough; otherwise the upstream is asked with the client's own credentials."""
    slow.ask(PRIVATE, "alice")
    origin.take()
    slow.ask(PRIVATE, "bob")
    assert origin.take() == []
    slow.clock.advance(GRANTED)
    slow.ask(PRIVATE, "bob")
    assert origin.take() == [f"bob: CHECK {PRIVATE}"]


@pytest.mark.parametrize(
    "details", [{}, {"range": Range.starting_at(0)}, {"range": Range.starting_at(5)}, {"head": True}]
)
@pytest.mark.parametrize("who", [None, "mallory"])
def test_strangers_do_not_join(slow: Mirror, who: str | None, details: dict[str, object]) -> None:
    slow.origin.shelf("library/busybox").blobs.clear()
    slow.ask(PRIVATE, "alice")
    for path, error in ((PRIVATE, Unauthorized), (PUBLIC, BlobUnknown)):
        with pytest.raises(error):
            slow.ask(path, who, **details)
    assert slow.store.downloads.readers == 1


def test_where_everybody_is_refused_the_clients_own_credentials_decide(origin: Origin, slow: Mirror) -> None:
    """The mirror may be at its limit, or the repository not be public any more."""
    slow.ask(PRIVATE, "alice")
    origin.troubles["nobody"] = TooManyRequests()
    origin.take()
    assert slow.ask(PUBLIC, "somebody").status == 200
    assert origin.take() == [f"nobody: CHECK {PUBLIC}", f"somebody: CHECK {PUBLIC}"]
    with pytest.raises(TooManyRequests):
        slow.ask(f"library/busybox/blobs/{Digest.of(b'x')}")


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("0-", 0, 1023), ("0-9", 0, 9), ("5-", 5, 1023), ("-9", 1015, 1023)]
)
def test_a_range_joins_a_download(origin: Origin, slow: Mirror, asked: str, first: int, last: int) -> None:
    """It waits if that does not take long."""
    slow.ask(PUBLIC)
    slow.store.downloads.seconds = LONG
    answer = slow.ask(PUBLIC, range=Range.parse(f"bytes={asked}"))
    assert (answer.status, answer.content_range) == (206, ContentRange(first, last, 1024))
    assert answer.body.descriptor.size == last - first + 1
    outcome = watch(answer.body.deliver(sink := Recorder()))
    assert outcome == []
    slow.store.downloads.finish()
    assert (outcome, sink.data) == ([None], DATA[first : last + 1])
    assert origin.take() == [f"nobody: GET {PUBLIC}"]


def test_a_range_that_would_wait_long_is_passed_through(origin: Origin, slow: Mirror) -> None:
    """A range from the first byte on joins in any case."""
    slow.ask(PUBLIC)
    slow.store.downloads.seconds = LONG + 0.1
    origin.take()
    answer = slow.ask(PUBLIC, range=Range.starting_at(5, 9))
    assert (answer.status, body(answer)) == (206, DATA[5:10])
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss"
    assert slow.ask(PUBLIC, range=Range.starting_at(0)).status == 206
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes=5-9"]
    assert slow.store.downloads.readers == 2


@pytest.mark.parametrize("asked", ["0-", "0-9", "5-"])
def test_ranges_of_a_blob_of_unknown_size_are_passed_through(
    origin: Origin, slow: Mirror, asked: str
) -> None:
    slow.store.downloads.told = False
    whole = slow.ask(PUBLIC)
    assert whole.body.descriptor.size is None
    answer = slow.ask(PUBLIC, range=Range.parse(f"bytes={asked}"))
    assert (answer.status, answer.content_range is None) == (206, False)
    assert slow.store.downloads.readers == 1


def test_several_ranges_are_passed_through(origin: Origin, slow: Mirror) -> None:
    slow.ask(PUBLIC)
    origin.take()
    slow.later(PUBLIC, range=Range.parse("bytes=0-1,5-6"))
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes=0-1,5-6"]


def test_an_unsatisfiable_range_of_a_download_is_refused(origin: Origin, slow: Mirror) -> None:
    slow.ask(PUBLIC)
    with pytest.raises(RangeInvalid) as caught:
        slow.ask(PUBLIC, range=Range.starting_at(1024))
    assert caught.value.content_size == 1024
    assert slow.store.downloads.readers == 1


def test_a_corrupt_blob_is_an_error(origin: Origin, slow: Mirror) -> None:
    """Nothing of it is stored."""
    origin.shelf("library/busybox").blobs[DIGEST] = b"something else"
    with pytest.raises(CorruptContent):
        slow.ask(PUBLIC)
    assert DIGEST not in slow.store.contents.held


def test_a_reader_continues_a_download(origin: Origin, slow: Mirror) -> None:
    """With its own path and credentials, and without its range and conditions."""
    slow.ask(PRIVATE, "alice")
    slow.ask(PRIVATE, "alice", range=Range.starting_at(0), if_none_match='"x"')
    source = slow.store.downloads.source
    assert source is not None
    watch(source.open(1000))
    request = origin.asked[-1].request
    assert str(origin.asked[-1]) == f"alice: GET {PRIVATE} bytes=1000-"
    assert request.if_none_match is None


def test_the_same_credentials_join_without_a_question(origin: Origin, mirror: Mirror) -> None:
    """The upstream is giving them the blob already; a refusal meanwhile ends that."""
    origin.shelf("me/private", {"alice"}).publish(b"c", DATA)
    mirror.store.downloads.slow = True
    for who in ("alice", "alice"):
        mirror.ask(PRIVATE, who)
    assert origin.take() == [f"alice: GET {PRIVATE}"]
    origin.shelf("me/private").readers.clear()
    with pytest.raises(Unauthorized):
        mirror.ask("me/private/manifests/latest", "alice")
    origin.take()
    with pytest.raises(Unauthorized):
        mirror.ask(PRIVATE, "alice")
    assert origin.take() == [f"alice: CHECK {PRIVATE}"]


@pytest.mark.parametrize("path", [PRIVATE, f"team/own/blobs/{DIGEST}"])
def test_a_page_in_place_of_a_blob_is_no_consent_to_it(origin: Origin, mirror: Mirror, path: str) -> None:
    """Neither for who was sent the page, nor for others who may pull from that repository."""
    origin.shelf("me/private", {"alice"}).publish(b"c", DATA)
    origin.shelf("team/own", {"mallory"}).publish(b"m", b"own")
    mirror.ask("team/own/manifests/latest", "mallory")
    page = Answer(BytesBody(b"<html>", Descriptor("text/html", None, 6)), 200, upstream_status=200)
    for range in (None, Range.starting_at(0, 5)):
        origin.says = page
        with suppress(RegistryError):
            body(mirror.ask(path, "mallory", range=range))
    origin.says = None
    mirror.store.downloads.slow = True
    mirror.ask(PRIVATE, "alice")
    for range in (None, Range.starting_at(5)):
        with pytest.raises(RegistryError):
            mirror.ask(path, "mallory", range=range)
    mirror.store.downloads.finish()
    with pytest.raises(RegistryError):
        mirror.ask(path, "mallory")


def test_a_blob_that_was_only_begun_is_no_grant(origin: Origin, mirror: Mirror) -> None:
    """Consent is bytes: until it is whole and right, nothing else of the repository is served."""
    origin.shelf("me/private", {"alice"}).publish(b"c", DATA)
    mirror.pull("me/private", "alice")
    config = f"me/private/blobs/{Digest.of(b'c')}"
    mirror.store.evict(Digest.of(DATA))
    mirror.store.downloads.slow = True
    restarted = mirror.restarted()
    first = restarted.ask(PRIVATE, "alice")
    origin.take()
    restarted.get(config, "alice")
    assert origin.take() == [f"alice: CHECK {config}"]
    mirror.store.downloads.finish()
    assert body(first) == DATA
