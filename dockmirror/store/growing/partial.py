"""The file of a blob on its way in, as every process on the directory sees it.

Only whoever holds its lock (``flock``, which belongs to the open file) writes to it, tells of it, or
takes its name away.  A name that is taken away is never given to these bytes again, except the one
under ``blobs/``: so an open file that has neither was given up.  These calls block, but not for long;
``sync`` does.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path

from attrs import frozen

from ...oci.digest import Digest
from .. import files, layout
from ..data import open_file
from ..seal import seal
from .told import Told, tell_size, tell_verified


class Standing(Enum):
    """How an open growing file stands."""

    OURS = "its lock is held here"
    THEIRS = "its lock is held by another"
    WHOLE = "it is the finished blob"
    GONE = "it has no name any more: it was given up"


@frozen
class Place:
    """Where a growing blob lies, where its size is told, and where it will be when it is whole."""

    part: Path
    told: Path
    blob: Path

    @classmethod
    def of(cls, root: Path, registry: str, digest: Digest) -> Place:
        """The place of a blob from that registry."""
        return cls(
            root / layout.growing(registry, digest),
            root / layout.growing_size(registry, digest),
            root / layout.data(digest),
        )


class Partial:
    """A growing file, or the finished blob, that was opened.

    :ivar file: the descriptor; whoever has this closes it.
    """

    def __init__(self, place: Place, file: int) -> None:
        self.place = place
        self.file = file

    def standing(self) -> Standing:
        """Takes the lock where it is free."""
        locked = self._lock()
        if self._is(self.place.part):
            return Standing.OURS if locked else Standing.THEIRS
        return Standing.WHOLE if self._is(self.place.blob) else Standing.GONE

    def unlock(self) -> None:
        """Lets another fill it; closing alone would not, where a thread still reads."""
        fcntl.flock(self.file, fcntl.LOCK_UN)

    def length(self) -> int:
        """How many bytes there are."""
        return os.fstat(self.file).st_size

    def write(self, data: bytes, offset: int) -> None:
        """:raises OSError: when the disk takes nothing; a part of the data may have been written."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.file, view, offset)
            view, offset = view[written:], offset + written

    def tell(self, size: int | None) -> None:
        """Tells other processes anew; before the first byte, so that what is read has a size."""
        tell_size(self.place.told, size)

    def tell_verified(self, size: int) -> None:
        """Lets readers in other processes finish, which would else wait for the disk."""
        tell_verified(self.place.told, size)

    def told(self) -> Told | None:
        """What was told last.  It is this file's only if this has its name afterwards, too."""
        return Told.read(self.place.told)

    def sync(self) -> None:
        """:raises OSError: when the disk has lost bytes: what is read from now on may be wrong."""
        os.fsync(self.file)

    def keep(self) -> None:
        """Makes a file that is whole, verified and synced the finished blob.

        :raises OSError: when it cannot be named, or somebody has taken its name away against the rule.
        """
        if not self._is(self.place.part):
            raise FileNotFoundError(f"{self.place.part} is another file than was filled")
        files.remove(self.place.told)
        with suppress(OSError):  # then it is read once more when it is opened
            seal(self.file, os.fstat(self.file).st_mtime)
        files.place(self.place.part, self.place.blob)

    def remove(self) -> None:
        """Gives it up."""
        if self._is(self.place.part):
            files.remove(self.place.told)
            files.remove(self.place.part)

    def close(self) -> None:
        """For whoever has not given the descriptor away."""
        os.close(self.file)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self.file), os.stat(path))
        except FileNotFoundError:
            return False


def open_partial(place: Place) -> tuple[Partial, Standing]:
    """The growing file, made where there is none, or the finished blob: never one that is ``GONE``.

    :raises OSError: when it cannot be opened or made.
    """
    while True:
        finished = _open_finished(place.blob)
        if finished is not None:
            return Partial(place, finished), Standing.WHOLE
        os.makedirs(place.part.parent, exist_ok=True)
        file = _open(place.part, os.O_RDWR | os.O_CREAT)
        standing = None if file is None else _settle(Partial(place, file))
        if file is not None and standing is not None:
            return Partial(place, file), standing


def is_locked(place: Place) -> bool:
    """Whether somebody fills the growing file now."""
    file = _open(place.part, os.O_RDONLY)
    if file is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _open(path: Path, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except (FileNotFoundError, NotADirectoryError):  # also where its directory was just removed
        return None


def _open_finished(blob: Path) -> int | None:
    """None also where that is empty: but for the blob of nothing, which is soon filled anew, it is none."""
    try:
        file = open_file(blob)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if os.fstat(file).st_size:
        return file
    os.close(file)
    return None


def _is_finished(blob: Path) -> bool:
    file = _open_finished(blob)
    if file is not None:
        os.close(file)
    return file is not None


def _settle(partial: Partial) -> Standing | None:
    """How it may be used; None, and it is closed, where it was finished or given up meanwhile."""
    with ExitStack() as closing:
        closing.callback(partial.close)
        standing = partial.standing()
        if standing in (Standing.WHOLE, Standing.GONE):
            return None
        if standing is Standing.OURS:
            if _is_finished(partial.place.blob):  # now that it is locked nobody else finishes it
                partial.remove()
                return None
            if not partial.length():
                files.remove(partial.place.told)  # of a file that somebody else has removed
        closing.pop_all()
        return standing
