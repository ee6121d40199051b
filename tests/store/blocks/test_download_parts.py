"""Parts of a blob that is being downloaded as a whole."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from dockmirror.oci.errors import RangeInvalid
from dockmirror.store.downloads.context import LINGER, MAX_WAIT

from ..downloads.upstream import Client
from .parts import BLOB, END, MEBIBYTE, PartMirror, PartSource, PartUpstream, set_back, settle


def download(mirror: PartMirror, upstream: PartUpstream) -> Client:
    return mirror.read(PartSource(upstream))


def test_a_part_that_comes_soon_is_read_from_the_download(mirror: PartMirror, upstream: PartUpstream) -> None:
    """It costs no request, and waits for its bytes."""
    whole = download(mirror, upstream)
    upstream.bodies[0].advance(MEBIBYTE)
    mirror.turn(1)
    early, late = (mirror.read_part(PartSource(upstream), first, first + 99) for first in (5, MEBIBYTE + 5))
    assert early.data == BLOB[5:105]
    assert late.data == b""
    settle(upstream, mirror)
    assert (late.outcome, late.data) == (True, BLOB[MEBIBYTE + 5 : MEBIBYTE + 105])
    assert (whole.outcome, whole.data == BLOB, upstream.requests) == (True, True, [(0, END - 1)])


def test_a_part_that_comes_late_is_read_from_blocks(mirror: PartMirror, upstream: PartUpstream) -> None:
    """Its blocks are fetched for all who cannot wait."""
    download(mirror, upstream)
    upstream.bodies[0].advance(1000)
    mirror.turn(1)
    reads = [mirror.read_part(PartSource(upstream), 9 * MEBIBYTE, 9 * MEBIBYTE) for _ in range(3)]
    assert upstream.requests[1:] == [(9 * MEBIBYTE, 10 * MEBIBYTE - 1)]
    settle(upstream, mirror)
    assert [read.data for read in reads] == [BLOB[9 * MEBIBYTE : 9 * MEBIBYTE + 1]] * 3


def test_a_download_that_stalls(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A part of it is fetched by itself after 5 s without a byte of it."""
    download(mirror, upstream)
    upstream.bodies[0].advance(MEBIBYTE)
    mirror.turn(1)
    read = mirror.read_part(PartSource(upstream), MEBIBYTE - 10, MEBIBYTE + 99)
    mirror.turn(MAX_WAIT)
    assert upstream.requests[1:] == [(MEBIBYTE, MEBIBYTE + 99)]
    upstream.bodies[1].finish()
    assert (read.outcome, read.data == read.wanted) == (True, True)
    settle(upstream, mirror)


def test_a_clock_that_is_set_back_makes_no_wait_for_a_download_longer(
    mirror: PartMirror, upstream: PartUpstream
) -> None:
    download(mirror, upstream)
    upstream.bodies[0].advance(MEBIBYTE)
    mirror.turn(1)
    mirror.read_part(PartSource(upstream), MEBIBYTE + 10, MEBIBYTE + 99)
    set_back(mirror.clock, 3600)
    upstream.bodies[0].advance(5)
    mirror.turn(MAX_WAIT)
    assert upstream.requests[1:] == [(MEBIBYTE + 10, MEBIBYTE + 99)]
    settle(upstream, mirror)


def test_a_download_whose_upstream_does_not_answer(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A part waits for 5 s, and is read from blocks then."""
    opening: Deferred[None] = Deferred()
    upstream.opening = opening
    mirror.join(PartSource(upstream)).once(lambda reader: Client().read(reader, mirror.descriptor))
    other = PartUpstream()
    read = mirror.read_part(PartSource(other), 0, 99)
    mirror.turn(MAX_WAIT)
    assert other.requests == [(0, MEBIBYTE - 1)]
    settle(other, mirror)
    assert read.data == BLOB[:100]
    opening.callback(None)
    settle(upstream, mirror)


@pytest.mark.parametrize("is_soon", [True, False])
def test_a_reader_of_parts_counts_as_a_reader(
    mirror: PartMirror, upstream: PartUpstream, is_soon: bool
) -> None:
    """A download goes on for some seconds after the last part was read from it."""
    whole = download(mirror, upstream)
    upstream.bodies[0].advance(MEBIBYTE)
    mirror.turn(1)
    assert mirror.read_part(PartSource(upstream), 0, 99).outcome is True
    whole.leave()
    mirror.turn(LINGER - 1 if is_soon else LINGER)
    assert upstream.bodies[0].state == ("open" if is_soon else "cancelled")
    read = mirror.read_part(PartSource(upstream), 100, 199)
    settle(upstream, mirror)
    assert read.data == BLOB[100:200]
    mirror.turn(LINGER)


def leave_early(mirror: PartMirror, upstream: PartUpstream, length: int) -> None:
    """A client reads so many bytes of the whole, and is gone; so is the download some seconds later."""
    whole = download(mirror, upstream)
    upstream.bodies[0].advance(length)
    mirror.turn(1)
    whole.leave()
    mirror.turn(LINGER)
    assert upstream.bodies[0].state == "cancelled"


@pytest.mark.parametrize("first", [1, MEBIBYTE + 5, 2 * MEBIBYTE])
def test_a_client_that_resumes_has_a_broken_download_go_on(
    mirror: PartMirror, upstream: PartUpstream, first: int
) -> None:
    """No byte is fetched twice, and the blob is held afterwards."""
    leave_early(mirror, upstream, 2 * MEBIBYTE)
    read = mirror.read_part(PartSource(upstream), first)
    settle(upstream, mirror)
    assert (read.outcome, read.data == BLOB[first:]) == (True, True)
    assert upstream.requests == [(0, END - 1), (2 * MEBIBYTE, END - 1)]
    assert mirror.blob.exists()


@pytest.mark.parametrize(("first", "last"), [(2 * MEBIBYTE + 1, None), (MEBIBYTE, MEBIBYTE + 99), (0, None)])
def test_other_parts_of_a_broken_download_are_read_from_blocks(
    mirror: PartMirror, upstream: PartUpstream, first: int, last: int | None
) -> None:
    """They begin after its end, or do not go on to the end of the blob, or begin anew."""
    leave_early(mirror, upstream, 2 * MEBIBYTE)
    read = mirror.read_part(PartSource(upstream), first, last)
    assert upstream.requests[1][0] == first // MEBIBYTE * MEBIBYTE
    settle(upstream, mirror)
    assert read.data == read.wanted


def test_a_part_behind_the_end_of_a_download(mirror: PartMirror, upstream: PartUpstream) -> None:
    download(mirror, upstream)
    assert isinstance(mirror.read_part(PartSource(upstream), END).error, RangeInvalid)
    settle(upstream, mirror)
