"""Blobs: fetched once, kept, and given from the store: whole, in part, or just told of."""

from __future__ import annotations

from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown, RangeInvalid, Unreachable
from dockmirror.oci.header_fields import ContentRange, Range, format_etag

from .mirrors import NAME, Mirror, body, header
from .origin import Origin, repository

DATA = bytes(range(256)) * 4
DIGEST = Digest.of(DATA)
PATH = f"{NAME}/blobs/{DIGEST}"
TYPE = "application/octet-stream"


def held() -> Mirror:
    """Return a mirror that holds the blob, and whose upstream is down."""
    origin = Origin()
    origin.shelf(NAME).publish(b"configuration", DATA)
    mirror = Mirror(origin)
    mirror.pull(NAME)
    origin.take()
    origin.trouble = Unreachable()
    return mirror


@pytest.fixture
def warm() -> Mirror:
    return held()


@pytest.fixture
def cold(origin: Origin, mirror: Mirror) -> Mirror:
    origin.shelf(NAME).publish(b"configuration", DATA)
    return mirror


def ranged(text: str) -> Range:
    parsed = Range.parse(f"bytes={text}")
    assert parsed is not None
    return parsed


def parts(content_type: str, data: bytes) -> list[tuple[Any, ...]]:
    """Return the parts of a multipart body: media type, range, bytes."""
    whole: Any = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data)
    assert whole.get_content_type() == "multipart/byteranges"
    return [
        (part["Content-Type"], part["Content-Range"], part.get_payload(decode=True))
        for part in whole.get_payload()
    ]


def test_it_is_fetched_once(origin: Origin, cold: Mirror) -> None:
    """The blob is stored, and linked to its repository."""
    answer = cold.ask(PATH)
    assert (answer.status, answer.body.descriptor) == (200, Descriptor(TYPE, DIGEST, len(DATA)))
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss; stored"
    assert body(answer) == DATA
    assert cold.store.contents.links == {(repository(NAME), DIGEST, ContentKind.BLOB)}
    again = cold.ask(PATH)
    assert (body(again), header(again, "Cache-Status")) == (DATA, "dockmirror; hit")
    assert origin.take() == [f"nobody: GET {PATH}"]


def test_head_and_conditional_requests_are_hits(warm: Mirror) -> None:
    """No body is opened for them."""
    head = warm.ask(PATH, head=True)
    assert (head.status, head.body.descriptor) == (200, Descriptor(TYPE, DIGEST, len(DATA)))
    assert body(head) == b""
    for told in (format_etag(DIGEST), f"W/{format_etag(DIGEST)}", f'"x", {format_etag(DIGEST)}', "*"):
        answer = warm.ask(PATH, if_none_match=told)
        assert (answer.status, answer.body.descriptor.digest, body(answer)) == (304, DIGEST, b"")
    assert warm.get(PATH, if_none_match='"x"') == DATA
    assert warm.store.faults.opened == 0


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        *(("0-0", 0, 0), ("0-", 0, 1023), ("5-9", 5, 9), ("1000-", 1000, 1023), ("1000-5000", 1000, 1023)),
        *(("-1", 1023, 1023), ("-24", 1000, 1023), ("-5000", 0, 1023), ("1023-1023", 1023, 1023)),
        *(("5-9,2000-", 5, 9), ("-0,5-9", 5, 9)),
    ],
)
def test_a_single_range_is_served(warm: Mirror, asked: str, first: int, last: int) -> None:
    """Ranges may have an end, no end, or only a length."""
    answer = warm.ask(PATH, range=ranged(asked))
    assert (answer.status, answer.content_range) == (206, ContentRange(first, last, 1024))
    assert answer.body.descriptor == Descriptor(TYPE, DIGEST, last - first + 1)
    assert body(answer) == DATA[first : last + 1]


@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300)), min_size=2, max_size=16))
def test_several_ranges_are_served(spans: list[tuple[int, int]]) -> None:
    """As one multipart body, in the requested order, with exact lengths."""
    warm = held()
    asked = ranged(",".join(f"{first}-{first + more}" for first, more in spans))
    assume(any(first < 1024 for first, _ in spans))
    there = asked.resolve(1024)
    assume(len(there) > 1)
    answer = warm.ask(PATH, range=asked)
    descriptor = answer.body.descriptor
    data = body(answer)
    assert (answer.status, answer.content_range, descriptor.size) == (206, None, len(data))
    assert descriptor.media_type is not None
    assert parts(descriptor.media_type, data) == [
        (TYPE, str(part), DATA[part.first : part.last + 1]) for part in there
    ]
    assert (header(answer, "ETag"), header(answer, "Accept-Ranges")) == (format_etag(DIGEST), "bytes")


def test_the_boundary_is_random(warm: Mirror) -> None:
    kinds = {warm.ask(PATH, range=ranged("0-1,4-5")).body.descriptor.media_type for _ in range(10)}
    assert len(kinds) == 10


def test_more_than_sixteen_ranges_are_ignored(warm: Mirror) -> None:
    many = ranged(",".join(f"{n}-{n}" for n in range(0, 34, 2)))
    answer = warm.ask(PATH, range=many)
    assert (answer.status, answer.content_range, body(answer)) == (200, None, DATA)
    assert warm.ask(PATH, range=Range(many.spans[:16])).status == 206


@pytest.mark.parametrize("asked", ["1024-", "5000-6000", "-0", "2000-,3000-"])
def test_an_unsatisfiable_range_is_refused_with_the_size(warm: Mirror, asked: str) -> None:
    with pytest.raises(RangeInvalid) as caught:
        warm.ask(PATH, range=ranged(asked))
    assert (caught.value.status, caught.value.content_size) == (416, 1024)
    assert warm.store.faults.opened == 0


def test_an_empty_blob_is_served(origin: Origin, mirror: Mirror) -> None:
    """No range of it can be satisfied."""
    empty = f"{NAME}/blobs/{Digest.of(b'')}"
    origin.shelf(NAME).blobs[Digest.of(b"")] = b""
    for _ in range(2):
        assert mirror.get(empty) == b""
    with pytest.raises(RangeInvalid):
        mirror.ask(empty, range=ranged("0-"))
    assert origin.take() == [f"nobody: GET {empty}"]


@pytest.mark.parametrize("asked", ["5-9", "1000-", "-24", "0-99"])
def test_a_range_of_a_missing_blob_is_passed_through(origin: Origin, cold: Mirror, asked: str) -> None:
    answer = cold.ask(PATH, range=ranged(asked))
    assert (answer.status, answer.content_range) == (206, ranged(asked).resolve(1024)[0])
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss"
    body(answer)
    assert origin.take() == [f"nobody: GET {PATH} bytes={asked}"]
    assert not cold.store.contents.held


def test_a_head_of_a_missing_blob_fetches_nothing(origin: Origin, cold: Mirror) -> None:
    answer = cold.ask(PATH, head=True)
    assert answer.body.descriptor == Descriptor(TYPE, DIGEST, len(DATA))
    assert origin.take() == [f"nobody: HEAD {PATH}"]


def test_nothing_is_fetched_for_one_who_has_it(origin: Origin, cold: Mirror) -> None:
    """It is only asked whether it would be given."""
    answer = cold.ask(PATH, if_none_match=format_etag(DIGEST))
    assert (answer.status, answer.body.descriptor.digest) == (304, DIGEST)
    assert origin.take() == [f"nobody: HEAD {PATH}"]
    other = Digest.of(b"x")
    with pytest.raises(BlobUnknown):
        cold.ask(f"{NAME}/blobs/{other}", if_none_match=format_etag(other))


def test_an_evicted_blob_is_fetched_again(origin: Origin, cold: Mirror) -> None:
    cold.get(PATH)
    cold.store.evict(DIGEST)
    assert cold.get(PATH) == DATA
    assert origin.take() == [f"nobody: GET {PATH}"] * 2


def test_a_stored_blob_of_another_repository_is_not_fetched(origin: Origin, cold: Mirror) -> None:
    """The upstream is asked for consent, and the blob is linked."""
    cold.store.contents.held[DIGEST] = DATA
    assert cold.get(PATH) == DATA
    assert origin.take() == [f"nobody: CHECK {PATH}"]
    assert (repository(NAME), DIGEST, ContentKind.BLOB) in cold.store.contents.links
