"""The sums of mirrors that share a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import define, field
from obstore.exceptions import GenericError
from obstore.store import LocalStore, MemoryStore, ObjectStore
from twisted.internet.task import Clock

from dockmirror.app.fleet_bucket import FleetReader, FleetUploader
from dockmirror.history.fleet import UPLOAD_PERIOD
from dockmirror.history.history_writer import SUMS_DAYS
from dockmirror.history.pulls import HistoryError, PullFilter
from dockmirror.store import layout

from ..answering import now
from ..history.kept import NOW, KeptHistory, number_at, report
from ..store.bucket.machines import BucketThreads, bucket
from ..store.threads import inline

DAY = 86_400
WEEK = PullFilter(since=NOW - 7 * DAY)


@define
class Address:
    """A bucket, in memory if a test does not say otherwise, which may be down."""

    store: ObjectStore = field(factory=MemoryStore)
    is_down: bool = False

    def __str__(self) -> str:
        return "s3://mirrors"

    def open(self) -> ObjectStore:
        if self.is_down:
            raise GenericError("no route to http://h/x?X-Amz-Signature=s3cret\n\nDebug")
        return self.store


class Mirror:
    """A mirror with a history of its own."""

    def __init__(self, directory: Path, name: str, address: Address) -> None:
        directory.mkdir()
        self.kept = KeptHistory(directory)
        self.clock = self.kept.clock
        self.threads = BucketThreads()
        shared = bucket(self.clock, address.store, self.threads)
        self.uploader = FleetUploader(self.kept.path, name, "1.0", shared, self.clock, inline)

    def pull(self, size: int, age: float = 1) -> None:
        when = self.clock.seconds() - age
        self.kept.write(report(number_at(NOW - when), last=when, cached_bytes=size))
        self.kept.close()

    def upload(self) -> None:
        now(self.uploader.run())


@pytest.fixture
def address() -> Address:
    return Address()


def sums(address: Address, since: float = NOW - DAY) -> dict[str, int]:
    """Return the cached bytes by mirror."""
    fleet = FleetReader(address).read(since)  # type: ignore[arg-type]
    return {each.key: each.cached_bytes for each in fleet.sums("mirror", WEEK)}


def test_each_mirror_tells_its_own(tmp_path: Path, address: Address) -> None:
    mirrors = [Mirror(tmp_path / name, name, address) for name in "ab"]
    for size, mirror in enumerate(mirrors, 1):
        mirror.pull(size)
        mirror.upload()
    assert sums(address) == {"a": 1, "b": 2}
    mirrors[0].pull(10)
    mirrors[0].upload()
    assert sums(address) == {"a": 1, "b": 2}
    mirrors[0].clock.advance(UPLOAD_PERIOD)
    mirrors[0].upload()
    assert sums(address) == {"a": 11, "b": 2}
    fleet = FleetReader(address).read(NOW)  # type: ignore[arg-type]
    assert [(each.name, each.seen) for each in fleet.mirrors()] == [("a", NOW + UPLOAD_PERIOD), ("b", NOW)]


def test_a_failing_bucket_loses_nothing(tmp_path: Path, address: Address) -> None:
    mirror = Mirror(tmp_path / "a", "a", address)
    mirror.threads.down = True
    mirror.pull(5)
    mirror.upload()
    assert sums(address) == {}
    mirror.threads.down = False
    mirror.clock.advance(3 * DAY)
    mirror.pull(7)
    mirror.upload()
    assert sums(address, NOW - 1) == {"a": 12}


def test_old_sums_are_deleted_those_of_other_mirrors_too(tmp_path: Path, address: Address) -> None:
    today = int(NOW // DAY)
    old, kept = (layout.fleet_day(today - SUMS_DAYS - age, "gone") for age in (1, 0))
    shared = bucket(Clock(), address.store)
    for key in (old, kept, layout.FLEET / "another"):
        now(shared.put(key, b""))
    mirror = Mirror(tmp_path / "a", "a", address)
    mirror.upload()
    assert now(shared.get(old)) is not None  # without a history nothing is told
    mirror.pull(1)
    mirror.upload()
    assert now(shared.get(old)) is None
    assert now(shared.get(kept)) is not None
    assert now(shared.get(layout.FLEET / "another")) is not None


def test_a_broken_history_and_a_broken_object_do_no_harm(tmp_path: Path, address: Address) -> None:
    mirror = Mirror(tmp_path / "a", "a", address)
    mirror.pull(1)
    mirror.upload()
    now(bucket(Clock(), address.store).put(layout.fleet_day(int(NOW // DAY), "broken"), b"x"))
    assert sums(address) == {"a": 1}
    mirror.clock.advance(UPLOAD_PERIOD)
    mirror.kept.path.unlink()
    mirror.kept.path.mkdir()
    mirror.upload()
    assert sums(address) == {"a": 1}


def test_unchanged_objects_are_read_once(tmp_path: Path, address: Address) -> None:
    """The listing shows that they have not: here they have, and only their times are as before."""
    mirror = Mirror(tmp_path / "a", "a", address)
    mirror.pull(1)
    mirror.upload()
    [[listed]] = address.store.list()
    data = address.store.get(listed["path"]).bytes()
    address.store = LocalStore(tmp_path / "bucket", mkdir=True)
    address.store.put(listed["path"], data)
    reader = FleetReader(address)  # type: ignore[arg-type]
    before = reader.read(NOW).sums("mirror", WEEK)
    file = tmp_path / "bucket" / listed["path"]
    times = file.stat()
    file.write_bytes(bytes(times.st_size))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reader.read(NOW).sums("mirror", WEEK) == before
    assert [each.cached_bytes for each in before] == [1]
    os.utime(file)
    assert reader.read(NOW).sums("mirror", WEEK) == []


def test_a_failing_bucket_is_named_without_secrets(address: Address) -> None:
    address.is_down = True
    with pytest.raises(HistoryError) as error:
        FleetReader(address).read(NOW)  # type: ignore[arg-type]
    assert str(error.value) == (
        "the sums of the fleet cannot be read from s3://mirrors: no route to http://h/x"
    )
