"""The histories of tags: on the disk, and shared by mirrors through a bucket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.admission.admit import TagAges, admitted_digests
from dockmirror.interfaces import ITagHistory, Sighting
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.bucket.bucket_tag_history import TieredTagHistory
from dockmirror.store.tag_history import MAX_AGE, MAX_SIGHTINGS, LocalTagHistory, TagHistoryFiles, TagRecord

from ..answering import now
from ..bucket_table import row
from .bucket.machines import BucketThreads, bucket
from .threads import inline

DAY = 86_400.0
START = 1_700_000_000.0
A, B, C = (Digest.of(name.encode()) for name in "abc")
NGINX, LATEST = Repository("library/nginx"), Tag("latest")
KEY = "docker", NGINX, LATEST


def record_of(*seen: tuple[Digest, float]) -> TagRecord:
    """Return the record of these sightings, by days."""
    record = TagRecord()
    for digest, days in seen:
        record = record.with_sighting(digest, days * DAY)
    return record


def spans(record: TagRecord) -> list[tuple[str, float, float]]:
    """Return the sightings with short names, in days."""
    names = {A: "a", B: "b", C: "c"}
    return [(names[each.digest], each.first / DAY, each.last / DAY) for each in record.sightings]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([(A, 1)], [("a", 1, 1)]),
        ([(A, 1), (A, 3)], [("a", 1, 3)]),
        ([(A, 1), (B, 2), (A, 3)], [("a", 1, 1), ("b", 2, 2), ("a", 3, 3)]),
        ([(A, 5), (A, 2)], [("a", 5, 5)]),
        ([(A, 5), (B, 2)], [("a", 5, 5), ("b", 5, 5)]),
        ([(A, 1), (B, 2), (B, 402), (C, 403)], [("b", 2, 402), ("c", 403, 403)]),
    ],
    ids=["first", "extended", "broken", "clock set back", "moved, clock set back", "after 400 days"],
)
def test_sightings(seen: list[tuple[Digest, float]], expected: list[tuple[str, float, float]]) -> None:
    record = record_of(*seen)
    assert spans(record) == expected
    assert TagRecord.parse(bytes(record)) == record
    assert record.sightings[0].is_baseline == (seen[0][0] == record.sightings[0].digest)


def test_a_frozen_tag_keeps_what_it_is_served_as() -> None:
    """However often it has moved for 400 days; whatever the cool-down, and after a rollback as well."""
    moves = [(Digest.of(b"%d" % move), 40 + move * 0.72) for move in range(900)]
    for seen in ([(A, 1), (A, 20), (B, 21), (B, 30), (C, 31)], [(A, 1), (A, 20), (B, 21), (B, 28), (A, 31)]):
        record = record_of(*seen, *moves)
        for days in (7, 15, 30):
            admitted = [admitted_digests(TagAges(each, days * DAY, "refuse")) for each in (
                record.remembered(690 * DAY), record_of(*seen).sightings,
            )]  # fmt: skip
            assert admitted[0][-1:] == admitted[1][-1:], days
        assert admitted_digests(TagAges(record.remembered(690 * DAY), 30 * DAY, "serve"))[-1] == A


def test_a_tag_that_nobody_asks_for_is_forgotten() -> None:
    """After 400 days it counts as one that was never seen."""
    record = record_of((A, 1), (A, 20))
    assert record.remembered(420 * DAY) == record.sightings
    assert record.remembered(421 * DAY) == ()
    assert tuple(evolve(record, pulled=100 * DAY).remembered(421 * DAY)) == record.sightings
    again = record.with_sighting(B, 500 * DAY)
    assert spans(again) == [("b", 500, 500)]
    assert again.sightings[0].is_baseline


def test_the_version_changes_with_each_sighting(tmp_path: Path, clock: Clock) -> None:
    """It is unknown for a moment after a change, which another one might not show."""
    history = LocalTagHistory(tmp_path, clock, inline)
    assert now(history.version("docker", NGINX)) is None
    versions = set()
    for digest in (A, B):
        now(history.record(*KEY, digest, START))
        os.utime(history.files.directory("docker", NGINX), (clock.seconds(), clock.seconds()))
        assert now(history.version("docker", NGINX)) is None
        clock.advance(10)
        versions.add(now(history.version("docker", NGINX)))
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([(A, 1), (A, 5)], [(A, 3), (A, 9)], [("a", 1, 9)]),
        ([(A, 1), (A, 9)], [(B, 4), (B, 5)], [("a", 1, 4), ("b", 4, 5), ("a", 9, 9)]),
        ([(A, 1), (A, 2)], [(B, 4), (B, 5)], [("a", 1, 2), ("b", 4, 5)]),
        ([(A, 1), (B, 2), (A, 3)], [(A, 2.5)], [("a", 1, 1), ("b", 2, 2), ("a", 2.5, 3)]),
        ([(A, 1), (A, 2)], [], [("a", 1, 2)]),
    ],
    ids=["overlapping", "broken by theirs", "one after the other", "broken by ours", "nothing"],
)
def test_merging(
    ours: list[tuple[Digest, float]],
    theirs: list[tuple[Digest, float]],
    expected: list[tuple[str, float, float]],
) -> None:
    """Either order gives the same."""
    one, other = record_of(*ours), record_of(*theirs)
    for merged in (one.merge(other), other.merge(one), one.merge(other).merge(other)):
        assert spans(merged) == expected
        assert [each.is_baseline for each in merged.sightings] == [True] + [False] * (len(expected) - 1)


SEEN = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.integers(0, 300), st.booleans()),
    min_size=1,
    max_size=20,
    unique_by=lambda each: each[1],
).map(lambda each: sorted(each, key=lambda one: one[1]))


@given(SEEN)
def test_merging_makes_nothing_older(seen: Sequence[tuple[Digest, float, bool]]) -> None:
    """Two mirrors that share what they saw know no digest for longer than one that saw everything."""
    parts = [record_of(*((d, t) for d, t, is_ours in seen if is_ours is whose)) for whose in (True, False)]
    merged, whole = parts[0].merge(parts[1]), record_of(*((d, t) for d, t, _ in seen))
    times = [each.first for each in merged.sightings]
    assert times == sorted(times)
    assert all(each.first <= each.last for each in merged.sightings)
    assert merged.sightings[-1].last == whole.sightings[-1].last
    assert [merged.merge(part) for part in parts] == [merged, merged]
    assert {each.digest for each in merged.sightings} == {each.digest for each in whole.sightings}


def test_the_shortest_sightings_are_forgotten() -> None:
    """Neither the first of all nor the longest is."""
    record = record_of(
        (A, 0), (B, 1), (B, 20), *((A if n % 2 else C, 21 + n / 100) for n in range(MAX_SIGHTINGS + 100))
    )
    assert len(record.sightings) == MAX_SIGHTINGS
    assert record.sightings[0].is_baseline
    assert spans(record)[1] == ("b", 1, 20)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(START)
    return clock


@pytest.fixture(params=["disk", "tiered"])
def history(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> ITagHistory:
    local = LocalTagHistory(tmp_path, clock, inline)
    return local if request.param == "disk" else TieredTagHistory(local, bucket(clock), clock)


def test_a_tag_is_recorded(history: ITagHistory, clock: Clock) -> None:
    """With the time when a client asked for it last, too."""
    assert now(history.sightings(*KEY)) == []
    now(history.record(*KEY, A, START))
    now(history.record(*KEY, A, START + 60))  # so soon after the first that it is not written
    now(history.record(*KEY, A, START + 600))
    now(history.record(*KEY, B, START + 700))
    first, second = now(history.sightings(*KEY))
    assert first == Sighting(A, START, START + 600, is_baseline=True)
    assert second == Sighting(B, START + 700, START + 700)
    now(history.record_push(*KEY, B, START - DAY))  # it had another digest before
    assert now(history.sightings(*KEY)) == [first, second]
    assert now(history.last_pull(*KEY)) == 0
    now(history.record_pull(*KEY, START))
    assert now(history.last_pull(*KEY)) == START
    now(history.record("docker", NGINX, Tag("1.27"), A, START))
    now(history.record("docker", Repository("library"), Tag("_tags"), A, START))
    now(history.record_push("docker", NGINX, Tag("1.27"), A, START - DAY))
    assert now(history.sightings("docker", NGINX, Tag("1.27")))[0].first == START - DAY
    assert now(history.tags("quay")) == []
    assert now(history.tags("docker", NGINX)) == [(NGINX, Tag("1.27")), (NGINX, LATEST)]
    now(history.record(*KEY, C, START + MAX_AGE + 650))
    assert now(history.sightings(*KEY))[:2] == [first, second]  # which a cool-down of 5 minutes would serve
    now(history.record(*KEY, A, START + 2 * MAX_AGE + 700))
    assert [each.is_baseline for each in now(history.sightings(*KEY))] == [True]


def test_a_clock_that_is_far_ahead_forgets_nothing(history: ITagHistory, clock: Clock) -> None:
    """The upstream's time is right, so that a cool-down serves what it has admitted before."""
    for digest, days in ((A, 0), (A, 8), (B, 9)):
        now(history.record(*KEY, digest, START + days * DAY))
        clock.advance(MAX_AGE)
    sightings = now(history.sightings(*KEY))
    assert [each.digest for each in sightings] == [A, B]
    assert admitted_digests(TagAges(sightings, 7 * DAY)) == [A]


@pytest.mark.parametrize("data", ['{"sightings": [["sha256:x", 1, 2, true]], "pulled": 0}', "[" * 100_000])
def test_a_malformed_file_is_an_error(tmp_path: Path, clock: Clock, data: str) -> None:
    """It must not count as a tag that was never seen."""
    history = LocalTagHistory(tmp_path, clock, inline)
    now(history.record(*KEY, A, START))
    TagHistoryFiles(tmp_path).path(KEY).write_text(data)
    with pytest.raises(OSError, match="malformed"):
        now(history.sightings(*KEY))


def test_processes_share_the_files(tmp_path: Path, clock: Clock) -> None:
    one, other = (LocalTagHistory(tmp_path, clock, inline) for _ in range(2))
    now(one.record(*KEY, A, START))
    now(other.record(*KEY, B, START + 1))
    assert [each.digest for each in now(one.sightings(*KEY))] == [A, B]


def test_mirrors_share_a_bucket(tmp_path: Path, clock: Clock) -> None:
    """A tag without a local history waits for the bucket; while that is down, it is refused, not recorded."""
    store, threads = MemoryStore(), BucketThreads()
    one, other = (
        TieredTagHistory(
            LocalTagHistory(tmp_path / name, clock, inline), bucket(clock, store, threads), clock
        )
        for name in ("one", "other")
    )
    now(one.record(*KEY, A, START))
    now(one.upload())
    assert now(other.tags("docker")) == [(NGINX, LATEST)]
    now(other.record(*KEY, B, START + DAY))
    assert [each.digest for each in now(other.sightings(*KEY))] == [A, B]
    now(other.upload())
    clock.advance(700)
    now(one.sightings(*KEY))
    assert [each.digest for each in now(one.sightings(*KEY))] == [A, B]
    threads.down = True
    now(one.record(*KEY, C, START + 2 * DAY))
    now(one.upload())
    unknown = "docker", NGINX, Tag("unknown")
    now(one.record(*unknown, A, START))
    with pytest.raises(OSError, match=r"^the bucket: .*no route"):
        now(one.sightings(*unknown))
    threads.down = False
    clock.advance(3600)
    now(one.upload())
    assert [each.digest for each in now(other.sightings(*KEY))] == [A, B, C]
    assert not now(one.sightings(*unknown))


@row("the history of a tag, when an upstream is asked about it", "one GET, at most once in ten minutes")
@row("… when the tag has moved, or once an hour", "one GET and one PUT")
def test_few_requests(tmp_path: Path, clock: Clock) -> None:
    shared = bucket(clock)
    history = TieredTagHistory(LocalTagHistory(tmp_path, clock, inline), shared, clock)

    def counted(digest: Digest, *seconds: float) -> dict[str, int]:
        shared.requests.clear()
        for each in seconds:
            clock.advance(each)
            now(history.record(*KEY, digest, clock.seconds()))
            now(history.sightings(*KEY))
            now(history.upload())
        return dict(shared.requests)

    assert counted(A, 0) == {"get": 2, "put": 1}
    assert counted(A, 60, 60, 60) == {}
    assert counted(A, 500, 500) == {"get": 1}
    assert counted(B, 60) == {"get": 1, "put": 1}
    assert counted(B, 3600) == {"get": 2, "put": 1}
