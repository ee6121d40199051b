"""The file of a partial download, and which process may do what with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.store.downloads.partial_file import (
    PartialFile,
    PartialMetadata,
    PartialPaths,
    PartialState,
    is_locked,
    open_partial,
)

from ..threads import before
from .upstream import all_closed

DATA = b"data"


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[PartialPaths]:
    """The paths of a blob of which nothing is there."""
    with all_closed(tmp_path):
        yield PartialPaths.of(tmp_path, "docker.io", Digest.of(DATA))


def filled(paths: PartialPaths) -> PartialFile:
    """Return what another process has written and verified."""
    partial, state = open_partial(paths)
    assert state is PartialState.OWNED
    partial.write(DATA, 0)
    return partial


def finish(partial: PartialFile) -> None:
    """Have the other process commit the blob."""
    partial.sync()
    partial.commit()
    os.close(partial.descriptor)


def test_the_first_process_that_opens_the_file_owns_it(paths: PartialPaths) -> None:
    """The first process that opens the file owns it, until it closes the file or releases the lock."""
    first, state = open_partial(paths)
    second, other = open_partial(paths)
    assert (state, other) == (PartialState.OWNED, PartialState.LOCKED)
    assert is_locked(paths)
    os.close(first.descriptor)
    assert not is_locked(paths)
    assert second.state() is PartialState.OWNED
    second.unlock()
    assert not is_locked(paths)
    os.close(second.descriptor)


def test_a_committed_file_is_the_blob(paths: PartialPaths) -> None:
    """Processes that have a committed file open read on; those that come open the blob."""
    first = filled(paths)
    second, _ = open_partial(paths)
    finish(first)
    assert second.state() is PartialState.COMPLETE
    third, state = open_partial(paths)
    assert state is third.state() is PartialState.COMPLETE
    assert os.pread(third.descriptor, 10, 0) == os.pread(second.descriptor, 10, 0) == DATA
    assert not paths.part.exists()
    os.close(second.descriptor)
    os.close(third.descriptor)


def test_a_file_that_was_given_up_is_unlinked(paths: PartialPaths) -> None:
    """A file that was given up is unlinked for those who have it open; the next process begins a new one."""
    first = filled(paths)
    second, _ = open_partial(paths)
    first.write_size(100)
    first.remove()
    os.close(first.descriptor)
    assert second.state() is PartialState.UNLINKED
    assert second.metadata() is None
    third, state = open_partial(paths)
    assert (state, third.length()) == (PartialState.OWNED, 0)
    os.close(second.descriptor)
    os.close(third.descriptor)


@pytest.mark.parametrize("call", [fcntl.flock, os.mkdir], ids=["before the lock", "before the file is made"])
def test_a_blob_that_is_committed_while_it_is_opened_is_complete(paths: PartialPaths, call: object) -> None:
    """A process that opens the file while another commits it is given the blob, and leaves no file."""
    first = filled(paths)
    with before(call, lambda: finish(first)):
        late, state = open_partial(paths)
    assert state is PartialState.COMPLETE
    assert os.pread(late.descriptor, 10, 0) == DATA
    assert not paths.part.exists()
    os.close(late.descriptor)


def test_a_blob_that_was_written_to_is_begun_anew(paths: PartialPaths) -> None:
    """A finished blob that somebody has truncated is not opened as the blob; a new file replaces it."""
    finish(filled(paths))
    os.truncate(paths.blob, 2)
    partial, state = open_partial(paths)
    assert (state, partial.length()) == (PartialState.OWNED, 0)
    partial.write(DATA, 0)
    finish(partial)
    assert paths.blob.read_bytes() == DATA


def test_a_file_that_is_given_up_while_it_is_opened_is_made_anew(paths: PartialPaths) -> None:
    """A process that opens a file while another gives it up makes a new one."""
    first = filled(paths)
    with before(fcntl.flock, first.remove):
        late, state = open_partial(paths)
    assert (state, late.length()) == (PartialState.OWNED, 0)
    os.close(first.descriptor)
    os.close(late.descriptor)


def test_an_empty_file_or_a_directory_is_no_blob(paths: PartialPaths) -> None:
    """An empty file in place of the blob is replaced; a directory there cannot be."""
    paths.blob.parent.mkdir(parents=True)
    paths.blob.touch()
    finish(filled(paths))
    assert paths.blob.read_bytes() == DATA
    paths.blob.unlink()
    paths.blob.mkdir()
    partial = filled(paths)
    with pytest.raises(IsADirectoryError):
        partial.commit()
    os.close(partial.descriptor)


def test_a_new_file_has_no_metadata(paths: PartialPaths) -> None:
    """A new file has no metadata, whatever another one has left."""
    paths.part.parent.mkdir(parents=True)
    paths.metadata.write_text("100\n")
    partial, _ = open_partial(paths)
    assert partial.metadata() is None
    os.close(partial.descriptor)


def test_a_file_without_its_name_does_not_touch_the_next_one(paths: PartialPaths) -> None:
    """A file whose name another one has taken cannot be committed, and removes nothing of that one's."""
    first = filled(paths)
    paths.part.unlink()
    second, state = open_partial(paths)
    assert state is PartialState.OWNED
    with pytest.raises(FileNotFoundError):
        first.commit()
    first.remove()
    assert second.state() is PartialState.OWNED
    os.close(first.descriptor)
    os.close(second.descriptor)


@settings(max_examples=25)
@given(st.none() | st.integers(0), st.none() | st.integers(0))
def test_metadata_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, size: int | None, verified: int | None
) -> None:
    """Metadata is read as it was written; a line that is still being written does not count."""
    path = tmp_path_factory.mktemp("metadata") / "size"
    partial = PartialFile(PartialPaths(path, path, path), -1)
    partial.write_size(size)
    if verified is not None:
        partial.write_verified_length(verified)
    text = path.read_bytes()
    wanted = PartialMetadata(size) if verified is None else PartialMetadata(verified, is_verified=True)
    assert PartialMetadata.read(path) == wanted
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert PartialMetadata.read(path) in (None, PartialMetadata(size))


@pytest.mark.parametrize("text", ["x\n", "\n", "1\nverified x\n", "é\n"])
def test_nonsense_is_no_metadata(tmp_path: Path, text: str) -> None:
    """Metadata that makes no sense is read as if there were none."""
    path = tmp_path / "size"
    path.write_text(text)
    assert PartialMetadata.read(path) is None
