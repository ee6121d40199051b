"""A store of a newer version is recognized by its number, and left as it is."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.store import layout, write_behind
from dockmirror.store.bucket.bucket import MIN_BACKOFF, BucketUnavailable
from dockmirror.store.store_directory import (
    FORMAT,
    NewerFormat,
    UnusableDirectory,
    check_directory_format,
    check_format,
    prepare_directory,
)

from ..answering import now
from .bucket.machines import bucket

NEWER = str(FORMAT + 1).encode()


@pytest.mark.parametrize("number", [NEWER, b"", b"two", b"9" * 5000, b"\xff"])
def test_what_this_version_does_not_know_is_refused(tmp_path: Path, number: bytes) -> None:
    """Nothing is made in the directory."""
    path = tmp_path / layout.FORMAT
    path.parent.mkdir()
    path.write_bytes(number)
    with pytest.raises(
        UnusableDirectory, match=r"of a newer dockmirror, .* or use another directory or bucket"
    ):
        prepare_directory(tmp_path)
    assert [each for each in tmp_path.rglob("*") if each != path] == [path.parent]


def test_what_this_version_knows_is_used(tmp_path: Path) -> None:
    prepare_directory(tmp_path)
    for number in (str(FORMAT), f"{FORMAT}\n"):
        check_format(number.encode())
        (tmp_path / layout.FORMAT).write_text(number)
        prepare_directory(tmp_path)


def test_a_number_that_cannot_be_read_is_no_number(tmp_path: Path) -> None:
    (tmp_path / layout.FORMAT).mkdir(parents=True)
    with pytest.raises(UnusableDirectory, match="cannot be written: Is a directory"):
        prepare_directory(tmp_path)
    with pytest.raises(OSError, match="Is a directory") as raised:
        check_directory_format(tmp_path)
    assert not isinstance(raised.value, NewerFormat)


def test_nothing_is_written_into_a_bucket_of_a_newer_version() -> None:
    """The bucket counts as failing; a mirror that was replaced by the newer version begins to use it."""
    store, clock = MemoryStore(), Clock()
    obstore.put(store, str(layout.FORMAT), NEWER)
    older = bucket(clock, store)
    for request in (lambda: older.put(layout.USAGE_COUNTER, b"1"), lambda: older.delete(["any"])):
        with pytest.raises(
            BucketUnavailable, match=f"it has format '{NEWER.decode()}' of a newer dockmirror"
        ):
            now(request())
        clock.advance(10 * MIN_BACKOFF)
    assert [each["path"] for chunk in obstore.list(store) for each in chunk] == [str(layout.FORMAT)]
    obstore.put(store, str(layout.FORMAT), str(FORMAT).encode())
    now(older.put(layout.USAGE_COUNTER, b"1"))


def test_pending_writes_of_unknown_kinds_are_left_alone(tmp_path: Path) -> None:
    """They are those of a newer version that shares the directory."""
    prepare_directory(tmp_path)
    write_behind.enqueue(tmp_path, write_behind.PendingDocument("known"), 1.0)
    unknown = tmp_path / layout.WRITE_BEHIND / "signature-1234"
    unknown.write_text('{"is": "signature"}')
    (pending,) = write_behind.list_pending(tmp_path)
    assert pending.name.startswith("document-")
    assert unknown.exists()
