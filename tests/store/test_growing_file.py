"""The file of a blob on its way in, and who may do what with it when."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.store.growing.partial import Partial, Place, Standing, is_locked, open_partial
from dockmirror.store.growing.told import Told, tell_size, tell_verified

from .meanwhile import before
from .upstream import all_closed

DATA = b"data"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where the blob will be."""
    with all_closed(tmp_path):
        yield Place.of(tmp_path, "docker.io", Digest.of(DATA))


def filled(place: Place) -> Partial:
    """What another process has filled and verified."""
    partial, standing = open_partial(place)
    assert standing is Standing.OURS
    partial.write(DATA, 0)
    return partial


def finish(partial: Partial) -> None:
    """The other process comes to its end."""
    partial.sync()
    partial.keep()
    partial.close()


def test_lock(place: Place) -> None:
    """The first who opens it fills it; the lock goes with that process's last descriptor."""
    first, standing = open_partial(place)
    second, other = open_partial(place)
    assert (standing, other) == (Standing.OURS, Standing.THEIRS)
    assert is_locked(place)
    first.close()
    assert not is_locked(place)
    assert second.standing() is Standing.OURS
    second.unlock()
    assert not is_locked(place)
    second.close()


def test_finished(place: Place) -> None:
    """It is the same file under its last name; whoever had it open reads on, whoever comes opens that."""
    first = filled(place)
    second, _ = open_partial(place)
    finish(first)
    assert second.standing() is Standing.WHOLE
    third, standing = open_partial(place)
    assert standing is third.standing() is Standing.WHOLE
    assert os.pread(third.file, 10, 0) == os.pread(second.file, 10, 0) == DATA
    assert not place.part.exists()
    second.close()
    third.close()


def test_given_up(place: Place) -> None:
    """Without a name it was given up, and the next one begins anew."""
    first = filled(place)
    second, _ = open_partial(place)
    first.tell(100)
    first.remove()
    first.close()
    assert second.standing() is Standing.GONE
    assert second.told() is None
    third, standing = open_partial(place)
    assert (standing, third.length()) == (Standing.OURS, 0)
    second.close()
    third.close()


def test_finished_while_it_is_opened(place: Place) -> None:
    """Who opens it late does not take the finished blob for a growing file."""
    first = filled(place)
    with before(fcntl.flock, lambda: finish(first)):
        late, standing = open_partial(place)
    assert standing is Standing.WHOLE
    assert os.pread(late.file, 10, 0) == DATA
    assert not place.part.exists()
    late.close()


def test_finished_before_it_is_made(place: Place) -> None:
    """Who makes a new one after the blob was finished finds that, and leaves nothing."""
    first = filled(place)
    with before(os.mkdir, lambda: finish(first)):
        late, standing = open_partial(place)
    assert standing is Standing.WHOLE
    assert not place.part.exists()
    late.close()


def test_given_up_while_it_is_opened(place: Place) -> None:
    """Who opens what is being given up makes a new one."""
    first = filled(place)
    with before(fcntl.flock, first.remove):
        late, standing = open_partial(place)
    assert (standing, late.length()) == (Standing.OURS, 0)
    first.close()
    late.close()


def test_empty_in_place_of_the_blob(place: Place) -> None:
    """It is filled anew: no blob that is empty is not that of nothing."""
    place.blob.parent.mkdir(parents=True)
    place.blob.touch()
    partial = filled(place)
    finish(partial)
    assert place.blob.read_bytes() == DATA


def test_a_directory_in_place_of_the_blob(place: Place) -> None:
    """It is no blob, and nothing can be kept there."""
    place.blob.mkdir(parents=True)
    partial = filled(place)
    with pytest.raises(IsADirectoryError):
        partial.keep()
    partial.close()


def test_what_was_told_of_another(place: Place) -> None:
    """A new file has nothing told of it, whatever was left."""
    place.part.parent.mkdir(parents=True)
    place.told.write_text("100\n")
    partial, _ = open_partial(place)
    assert partial.told() is None
    partial.close()


def test_name_taken_away(place: Place) -> None:
    """A file whose name was given to another against the rule takes nothing of that one's away."""
    first = filled(place)
    place.part.unlink()
    second, standing = open_partial(place)
    assert standing is Standing.OURS
    with pytest.raises(FileNotFoundError):
        first.keep()
    first.remove()
    assert second.standing() is Standing.OURS
    first.close()
    second.close()


@given(st.none() | st.integers(0), st.none() | st.integers(0))
def test_told(tmp_path_factory: pytest.TempPathFactory, size: int | None, verified: int | None) -> None:
    """What is told is read; a line that is being written is none yet."""
    path = tmp_path_factory.mktemp("told") / "told"
    tell_size(path, size)
    if verified is not None:
        tell_verified(path, verified)
    text = path.read_bytes()
    wanted = Told(size) if verified is None else Told(verified, verified=True)
    assert Told.read(path) == wanted
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert Told.read(path) in (None, Told(size))


@pytest.mark.parametrize("text", ["x\n", "\n", "1\nverified x\n", "é\n"])
def test_told_nonsense(tmp_path: Path, text: str) -> None:
    """Anything else tells nothing."""
    path = tmp_path / "told"
    path.write_text(text)
    assert Told.read(path) is None
