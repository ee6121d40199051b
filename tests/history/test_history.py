"""The file of the history: what is written is read, within its bounds, and a broken file is replaced."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dockmirror.history.database import UnusableHistory, prepare_directory
from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.pulls import HistoryError, PullFilter
from dockmirror.history.tracker import PartState

from ..stacks import logged
from .kept import NOW, KeptHistory, number_at, report

GB = 10**9
DAY = 86_400.0


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptHistory]:
    history = KeptHistory(tmp_path)
    yield history
    history.close()


def test_a_pull_grows_with_its_parts_whichever_process_reports_them(
    tmp_path: Path, kept: KeptHistory
) -> None:
    """Two processes write the same pull; the tag of a HEAD is its reference, and layers count once."""
    number, other = number_at(2), HistoryWriter(kept.path, HistoryBounds())
    kept.write(report(number, reference="sha256:aa", digest="sha256:aa", cached_bytes=10, saved_pulls=1))
    other.write([report(number, name=9, reference="1.27", gets=0, state=None, digest="sha256:aa")], NOW)
    layer = report(number, 2, PartState(NOW, is_layer=True), reference="", platform="linux/amd64")
    other.write([evolve(layer, upstream_bytes=90)], NOW)
    again = PartState(NOW + 1, is_layer=True, is_cached=True)
    kept.write(report(number, 2, again, reference="", upstream_bytes=5, last=NOW + 1))
    (pull,) = kept.pulls()
    assert (pull.reference, pull.digest, pull.platform) == ("1.27", "sha256:aa", "linux/amd64")
    assert (pull.layers, pull.cached_layers, pull.cached_bytes, pull.upstream_bytes) == (1, 1, 10, 95)
    assert (pull.seconds, pull.outcome, pull.saved_pulls) == (3.0, "running", 1)
    assert (pull.client, pull.registry, pull.repository) == ("10.0.0.1", "docker.io", "library/nginx")
    other.close()


def test_a_failed_pull_that_is_tried_again_is_served(kept: KeptHistory) -> None:
    """Sums follow; the last outcome counts."""
    number = number_at(10)
    kept.write(report(number, state=PartState(NOW - 9, reason="unreachable"), last=NOW - 9))
    assert [(each.outcome, each.reason) for each in kept.pulls()] == [("failed", "unreachable")]
    assert [each.failed for each in kept.reader.sums("day", PullFilter())] == [1]
    kept.write(report(number, state=PartState(NOW - 8), last=NOW - 8))
    assert [(each.outcome, each.reason) for each in kept.pulls()] == [("served", "")]
    (day,) = kept.reader.sums("day", PullFilter())
    assert (day.pulls, day.failed, day.seconds) == (1, 0, 2.0)


def test_a_head_alone_is_no_pull(kept: KeptHistory) -> None:
    """It counts in sums only, and its row is deleted; a blob without a pull counts in sums, too."""
    kept.write(report(number_at(500), gets=0, state=None, last=NOW - 500, saved_requests=1))
    kept.write(report(0, gets=1, cached_bytes=7))
    assert kept.pulls() == []
    sums = kept.reader.sums("registry", PullFilter())
    assert [(each.key, each.pulls, each.cached_bytes, each.saved_requests) for each in sums] == [
        ("docker.io", 0, 7, 1)
    ]
    kept.clock.advance(61)
    kept.write()
    with closing(sqlite3.connect(kept.path)) as connection:
        assert connection.execute("SELECT count(*) FROM pull").fetchone() == (0,)


FOUND: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["c", "b", "a"]),
    ({"image": "docker.io/library/nginx"}, ["b", "a"]),
    ({"image": "docker.io/*:1.2?"}, ["b", "a"]),
    ({"image": "docker.io/library/nginx:1.26"}, ["a"]),
    ({"image": "*/nginx"}, ["b", "a"]),
    ({"image": "lan:5000/app:*"}, ["c"]),
    ({"image": "docker.io/library"}, []),
    ({"digest": "sha256:bb"}, ["b"]),
    ({"client": "10.0.0.1"}, ["a"]),
    ({"client": "10.0.0.0/24"}, ["b", "a"]),
    ({"client": "fd00::/8"}, ["c"]),
    ({"user": "alice"}, ["b"]),
    ({"since": NOW - 100}, ["c", "b"]),
    ({"until": NOW - 100}, ["a"]),
    ({"outcome": "failed"}, ["c"]),
    ({"outcome": "served"}, ["a"]),
    ({"outcome": "running"}, ["b"]),
    ({"outcome": "lost"}, []),
]


@pytest.mark.parametrize(("conditions", "expected"), FOUND)
def test_filters(kept: KeptHistory, conditions: dict[str, Any], expected: list[str]) -> None:
    kept.write(
        report(number_at(200), host="a", reference="1.26", last=NOW - 199),
        report(number_at(50), host="b", client="10.0.0.2", user="alice", digest="sha256:bb"),
        report(
            number_at(10), host="c", client="fd00::1", registry="lan:5000", repository="app",
            state=PartState(NOW, reason="no"),
        ),
    )  # fmt: skip
    assert [each.host for each in kept.pulls(**conditions)] == expected
    counted = kept.reader.sums("registry", PullFilter(**conditions))
    if set(conditions) != {"until"}:  # that counts whole days
        assert sum(each.pulls for each in counted) == len(expected)


def test_a_network_has_addresses_and_narrower_networks(kept: KeptHistory) -> None:
    """Names of regions lie in none, and neither do addresses of the other version."""
    clients = ("10.1.0.9", "10.1.2.0/24", "10.0.0.0/8", "10.2.0.1", "fd00:0:0:1::/64", "a01::1", "office", "")
    kept.write(*(report(number_at(1, count), client=each) for count, each in enumerate(clients)))
    found = {
        network: {each.client for each in kept.pulls(client=network)}
        for network in ("10.1.0.0/16", "10.1.0.9/32", "fd00::/8")
    }
    assert found == {
        "10.1.0.0/16": {"10.1.0.9", "10.1.2.0/24"},
        "10.1.0.9/32": {"10.1.0.9"},
        "fd00::/8": {"fd00:0:0:1::/64"},
    }


def test_pages_follow_each_other(kept: KeptHistory) -> None:
    kept.write(*(report(number_at(each)) for each in range(1, 6)))
    first = kept.reader.pulls(PullFilter(), 2)
    second = kept.reader.pulls(PullFilter(), 2, first[-1].number)
    assert [each.number for each in (*first, *second)] == [number_at(each) for each in range(1, 5)]


def test_sums_by_each_key(kept: KeptHistory) -> None:
    """Hours and days come in order, others by bytes; the upstream's speed says what time the cache saved."""
    kept.write(
        report(number_at(2 * DAY), cached_bytes=300, last=NOW - 2 * DAY + 4),
        report(number_at(60), repository="library/redis", upstream_bytes=100, upstream_seconds=2.0),
        report(number_at(59), client="10.0.0.2", registry="quay.io", cached_bytes=150, saved_pulls=2),
    )
    keys = {
        by: [each.key for each in kept.reader.sums(by, PullFilter())]
        for by in ("hour", "day", "registry", "repository", "client")
    }
    assert keys == {
        "hour": ["2027-01-13T08:00Z", "2027-01-15T07:00Z"],
        "day": ["2027-01-13", "2027-01-15"],
        "registry": ["docker.io", "quay.io"],
        "repository": ["docker.io/library/nginx", "quay.io/library/nginx", "docker.io/library/redis"],
        "client": ["10.0.0.1", "10.0.0.2"],
    }
    first, last = kept.reader.sums("day", PullFilter())
    assert (first.saved_seconds, last.saved_seconds, first.seconds) == (6.0, 3.0, 4.0)
    assert [each.key for each in kept.reader.sums("client", PullFilter(since=NOW - DAY), 1)] == ["10.0.0.2"]
    assert kept.reader.sums("day", PullFilter(user="bob")) == []
    for only in (PullFilter(client="10.0.0.2"), PullFilter(image="quay.io/library/nginx")):
        assert [each.saved_seconds for each in kept.reader.sums("day", only)] == [3.0]  # by everybody's speed


@pytest.mark.parametrize("since", [0.0, (NOW // DAY - 1) * DAY])
def test_the_sums_of_a_repository_outlive_its_pulls(tmp_path: Path, since: float) -> None:
    """They are those of days; parts of days, tags and patterns are counted by the pulls that are left."""
    kept = KeptHistory(tmp_path, HistoryBounds(days=1))
    kept.write(
        *(report(number_at(age), cached_bytes=7, last=NOW - age) for age in (60, DAY + 9, 5 * DAY)),
        report(number_at(61), repository="library/redis"),
    )
    kept.clock.advance(61)
    kept.write()
    nginx = PullFilter(image="docker.io/library/nginx", since=since)
    days = 2 if since else 3
    (of_repository,) = kept.reader.sums("repository", nginx)
    assert (of_repository.key, of_repository.pulls) == ("docker.io/library/nginx", days)
    assert [each.cached_bytes for each in kept.reader.sums("day", nginx)] == [7] * days
    for filter in (
        evolve(nginx, image="docker.io/library/nginx:1.27"),
        evolve(nginx, image="docker.io/library/n*"),
        evolve(nginx, since=NOW - 1000),
    ):
        assert sum(each.pulls for each in kept.reader.sums("repository", filter)) == 1
    for unknown in ("docker.io/library/other", "docker.io/x*"):
        assert kept.reader.sums("repository", evolve(nginx, image=unknown)) == []
    kept.close()
    with closing(sqlite3.connect(kept.path)) as connection, connection:
        connection.execute("DELETE FROM sums")
    assert kept.reader.sums("repository", nginx) == []


def test_a_long_pull_is_running_as_long_as_its_parts_are_known(kept: KeptHistory) -> None:
    long, short = number_at(5 * 3600), number_at(10)
    kept.write(report(long, host="long"), report(short, host="short"))
    assert {each.host for each in kept.pulls(outcome="running")} == {"long", "short"}
    kept.clock.advance(4)
    assert kept.pulls(outcome="running") == []


def test_sums_of_the_last_hours_count_no_other_pulls(kept: KeptHistory) -> None:
    """Earlier parts of days count as whole days."""
    kept.write(*(report(number_at(age), cached_bytes=7, last=NOW - age) for age in (60, 7000, 3 * DAY)))
    for since, pulls in ((NOW - 3600, 1), (NOW - DAY, 2), (NOW - 3 * DAY + 60, 3)):
        (found,) = kept.reader.sums("client", PullFilter(since=since))
        assert (found.pulls, found.cached_bytes) == (pulls, 7 * pulls)


@pytest.mark.parametrize("count", [1, 25_000])
def test_a_network_has_few_and_many_pulls(kept: KeptHistory, count: int) -> None:
    """The newest come first, with the index of clients or without."""
    kept.write(report(number_at(9)), report(number_at(8), client="10.2.0.1", host="other"))
    kept.write(report(number_at(7), client="10.0.0.2", host="newest"))
    fields = "client, user, host, image, reference, gets"
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"  # noqa: S608
    with closing(sqlite3.connect(kept.path)) as connection, connection:
        connection.execute(
            f"INSERT INTO pull (number, {fields}) {numbers}"  # noqa: S608
            f" SELECT number - i, {fields} FROM n, (SELECT * FROM pull ORDER BY number LIMIT 1)"
        )
    filter = PullFilter(client="10.0.0.0/16")
    assert [each.host for each in kept.reader.pulls(filter, 2)] == ["newest", "mirror.example"]
    assert [each.pulls for each in kept.reader.sums("registry", filter)] == [count + 2]
    assert len(kept.reader.pulls(filter, 10, kept.pulls()[0].number)) == min(count + 1, 10)


@pytest.mark.parametrize("count", [1, 8, 9])
def test_a_pattern_finds_few_and_many_images(kept: KeptHistory, count: int) -> None:
    """The newest pull comes first, with the index of images or without."""
    kept.write(*(report(number_at(each + 1), repository=f"team/app-{each}") for each in range(count)))
    kept.write(report(number_at(100)))
    found = kept.pulls(image="docker.io/team/*")
    assert [each.repository for each in found] == [f"team/app-{each}" for each in range(count)]
    assert kept.pulls(image="ghcr.io/*") == []


def test_old_pulls_are_deleted_and_their_sums_stay(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path, HistoryBounds(days=2))
    kept.write(report(number_at(3 * DAY), user="alice", last=NOW - 3 * DAY), report(number_at(DAY)))
    kept.write(report(number_at(390 * DAY), last=NOW - 390 * DAY))
    kept.clock.advance(61)
    kept.write()
    assert [each.number for each in kept.pulls()] == [number_at(DAY)]
    assert len(kept.reader.sums("day", PullFilter())) == 3
    with closing(sqlite3.connect(kept.path)) as connection:
        assert connection.execute("SELECT count(*) FROM word WHERE text = 'alice'").fetchone() == (0,)
    kept.clock.advance(11 * DAY)
    kept.write()
    assert len(kept.reader.sums("day", PullFilter())) == 2
    kept.close()


def test_the_size_is_bounded(tmp_path: Path) -> None:
    """The oldest pulls go first, then sums of the oldest days."""
    kept = KeptHistory(tmp_path, HistoryBounds(size=400_000))
    for batch in range(6):
        kept.write(
            *(report(number_at(6000 - 1000 * batch - each), reference=f"{each:0100}") for each in range(1000))
        )
    kept.clock.advance(300)
    kept.write()
    kept.close()
    assert kept.path.stat().st_size <= 500_000
    assert 0 < len(kept.reader.pulls(PullFilter(), 10_000)) <= 1000
    assert kept.reader.sums("day", PullFilter())[0].pulls == 6000
    kept.close()


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(range(256)) * 40]
)
def test_a_broken_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """One line says so, and the history begins anew."""
    kept = KeptHistory(tmp_path)
    kept.path.write_bytes(content)
    with logged() as lines:
        kept.write(report(number_at(1)))
        kept.write(report(number_at(2)))
    assert len(kept.pulls()) == 2
    assert len(lines) == 1
    assert "was renamed to pulls.db.broken, and a new one begun" in lines[0]
    assert (tmp_path / "pulls.db.broken").read_bytes() == content
    kept.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """One line says so; what this version would write and read is missing meanwhile."""
    newer = KeptHistory(tmp_path)
    newer.write(report(number_at(1)))
    newer.close()
    with closing(sqlite3.connect(newer.path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    older = KeptHistory(tmp_path)
    with logged() as lines:
        older.write(report(number_at(2)))
        older.write(report(number_at(3)))
    assert len(lines) == 1
    assert "for now: it has format 3, and this version of dockmirror knows format 2 only" in lines[0]
    with pytest.raises(HistoryError, match="cannot be read: it has format 3"):
        older.pulls()
    older.close()
    assert {each.name for each in tmp_path.iterdir()} <= {"pulls.db", "pulls.db-wal", "pulls.db-shm"}
    with closing(sqlite3.connect(newer.path)) as connection:
        assert connection.execute("SELECT count(*) FROM pull").fetchone() == (1,)


def test_a_file_that_breaks_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    """Another process that has it open goes over to the new one."""
    kept, other = KeptHistory(tmp_path), KeptHistory(tmp_path)
    kept.write(*(report(number_at(100 + count), repository=f"r/{count}") for count in range(300)))
    kept.close()
    other.write(report(number_at(99)))
    content = bytearray(kept.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    kept.path.unlink()
    kept.path.write_bytes(content)
    with logged() as lines:
        for _ in range(3):
            kept.write(report(number_at(1)))
    other.write(report(number_at(2)))
    assert [each.number for each in other.pulls()] == [number_at(1), number_at(2)]
    assert len([each for each in lines if "broken" in each]) == 1
    kept.close()
    other.close()


def test_a_locked_file_is_written_later(tmp_path: Path, kept: KeptHistory) -> None:
    kept.write(report(number_at(5)))
    kept.writer.close()
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        kept.write(report(number_at(4)))
        holder.execute("ROLLBACK")
    kept.write(report(number_at(3)))
    assert len(kept.pulls()) == 3


def test_a_directory_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    """Once it can, the log says so, and the history goes on."""
    (tmp_path / "disk").touch()
    kept = KeptHistory(tmp_path / "disk" / "history")
    with logged() as lines:
        for _ in range(3):
            kept.write(report(number_at(1)))
        with pytest.raises(HistoryError, match="cannot be read"):
            kept.pulls()
        (tmp_path / "disk").unlink()
        for count in range(3):
            kept.write(report(number_at(2 + count)))
    assert len(lines) == 2
    assert f"for now: {tmp_path}/disk/history cannot be written" in lines[0]
    assert f"the history {kept.path} is written again" in lines[1]
    assert len(kept.pulls()) == 3
    kept.close()


def test_a_directory_that_was_deleted_is_made_again(kept: KeptHistory) -> None:
    """Nothing has failed, so the log says nothing."""
    kept.write(report(number_at(2)))
    shutil.rmtree(kept.path.parent)
    with logged() as lines:
        kept.write(report(number_at(1)))
    assert (len(kept.pulls()), lines) == (1, [])


def test_a_full_disk_costs_the_history_only(tmp_path: Path, kept: KeptHistory) -> None:
    """Once there is room again, it goes on."""
    kept.write(report(number_at(5)))
    connection: Any = kept.writer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [report(number_at(100 + each), repository=f"r/{each}") for each in range(500)]
    with logged() as lines:
        kept.write(*many)
    assert len(lines) == 1
    assert "database or disk is full" in lines[0]
    kept.write(report(number_at(4)))
    assert len(kept.pulls()) == 2


def test_the_file_is_its_owners(tmp_path: Path) -> None:
    directory = prepare_directory(tmp_path / "state" / "history").parent
    kept = KeptHistory(directory)
    kept.write(report(number_at(1)))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {os.stat(each).st_mode & 0o777 for each in directory.iterdir()} == {0o600}
    kept.close()


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"31 30 0:41 / {tmp_path} rw - nfs4 server:/export rw\n")
    with pytest.raises(UnusableHistory, match=r"lies on a network file system \(nfs4\)"):
        prepare_directory(tmp_path / "history", mounts)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableHistory, match="cannot be written: Not a directory"):
        prepare_directory(tmp_path / "file" / "history")
    with pytest.raises(UnusableHistory, match="file is not a directory"):
        prepare_directory(tmp_path / "file")
