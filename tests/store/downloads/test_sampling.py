"""Samples of a blob that is being downloaded, which are compared with what the upstream gives."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.body.verified import CorruptContent
from dockmirror.oci.consent import SAMPLE, Sample

from ...answering import now, watch
from .upstream import DATA, HALF, SIZE, HeldCheck, Joining, Mirror, Source, Upstream, finish, full


async def sample_of(source: HeldCheck) -> Sample | None:
    """Take a sample of the blob that is checked."""
    return await source.held.sample()


@pytest.fixture
def source(upstream: Upstream) -> HeldCheck:
    """The source of a client that joins."""
    return HeldCheck(upstream)


@pytest.fixture
def joining(mirror: Mirror, upstream: Upstream, source: HeldCheck) -> Joining:
    """A client that joins a download of which half has come."""
    mirror.read(Source(upstream))
    upstream.body.advance(HALF)
    return mirror.join(source)


def test_a_sample_waits_until_enough_has_come(
    mirror: Mirror, upstream: Upstream, source: HeldCheck, joining: Joining
) -> None:
    """A sample of a blob below 1 MiB waits for all of it; of a finished one it is taken at once."""
    sampled = watch(sample_of(source))
    assert (sampled, source.held.size) == ([], SIZE)
    finish(upstream, mirror)
    for sample in (*sampled, now(sample_of(source))):
        assert isinstance(sample, Sample)
        first, last = sample.part.first, sample.part.last
        assert (sample.part.length, sample.part.size) == (SAMPLE, SIZE)
        assert sample.data == DATA[first : last + 1]
    source.answer.callback(None)
    joining.reader.leave()


def test_the_wait_for_a_sample_may_end(upstream: Upstream, source: HeldCheck, joining: Joining) -> None:
    """A cancelled wait ends at once, and the client stays; a client that leaves is given no sample."""
    sampling = Deferred.fromCoroutine(sample_of(source))
    cancelled, sampled = watch(sampling), watch(sample_of(source))
    sampling.cancel()
    assert isinstance(cancelled[0], CancelledError)
    assert (joining.error, sampled) == (None, [])
    joining.cancel()
    assert sampled == [None]
    assert now(sample_of(source)) is None
    upstream.body.finish()


def test_a_sample_fails_with_the_download(
    mirror: Mirror, upstream: Upstream, source: HeldCheck, joining: Joining
) -> None:
    """A sample fails with the reason why the download failed."""
    sampled = watch(sample_of(source))
    upstream.body.send_these(DATA[HALF:-1]).end()
    mirror.turn(times=10)
    assert isinstance(sampled[0], CorruptContent)
    source.answer.callback(None)
    assert isinstance(joining.error, CorruptContent)


def test_of_a_blob_of_unknown_size_there_is_no_sample(mirror: Mirror, upstream: Upstream) -> None:
    """The size is a part of the proof."""
    upstream.size = None
    mirror.read(Source(upstream))
    source = HeldCheck(upstream)
    joining = mirror.join(source)
    assert source.held.size is None
    assert now(sample_of(source)) is None
    joining.cancel()
    finish(upstream, mirror)


def test_there_is_no_sample_when_the_disk_is_full(
    mirror: Mirror, upstream: Upstream, source: HeldCheck, joining: Joining
) -> None:
    """A sample does not wait for bytes that the disk has not taken."""
    sampled = watch(sample_of(source))
    with full(HALF):
        upstream.body.advance()
    mirror.turn(times=10)
    assert sampled == [None]
    joining.cancel()
    finish(upstream, mirror)
