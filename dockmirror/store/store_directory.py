"""Whether a directory can hold a store: looked at once, at start; nothing in it is walked."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from twisted.logger import Logger

from ..system.ownership import chown_to_parent
from . import layout

_MOUNTS = Path("/proc/self/mountinfo")
_DIRECTORIES = layout.BLOBS, layout.REPOSITORIES, layout.GROWING, layout.DOCUMENTS, layout.WRITING
_NETWORK = (
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.rclone", "fuse.s3fs",
    "fuse.seaweedfs", "fuse.sshfs",
)  # fmt: skip
_OTHERS, _ALL_BUT_OWNER = 0o007, 0o077
_ESCAPED = re.compile(r"\\([0-7]{3})")

_log = Logger()


class UnusableDirectory(Exception):
    """A directory that can hold no store: one sentence for the operator."""


def prepare_directory(root: Path, mounts: Path = _MOUNTS) -> None:
    """Makes the directory where it is not there, for its owner alone, and looks whether it will do.

    One that was there keeps its mode; where that lets everybody in, what lies in it is closed to all others.

    :param mounts: the kernel's table of what is mounted where.
    :raises UnusableDirectory: when it will not.
    """
    with _written(root):
        root.mkdir(0o700, parents=True, exist_ok=True)
    _refuse_network(root, mounts)
    with _written(root):
        for each in _DIRECTORIES:
            _make(root, Path(each))
        _close(root)
        _refuse_divided(root)
        with TemporaryDirectory(prefix="try-", dir=root / layout.WRITING) as trial:
            _refuse_folding(root, Path(trial))
            _refuse_lockless(root, Path(trial))


def _make(root: Path, directory: Path) -> None:
    for each in reversed([directory, *directory.parents[:-1]]):
        if not (root / each).is_dir():
            (root / each).mkdir(exist_ok=True)  # several processes start at once
            chown_to_parent(root / each)


def _close(root: Path) -> None:
    """Lets nobody but the owner into a store whose directory everybody may enter."""
    if not root.stat().st_mode & _OTHERS:
        return
    for name in dict.fromkeys(each.parts[0] for each in _DIRECTORIES):
        directory = root / name
        if not directory.stat().st_mode & _ALL_BUT_OWNER:
            continue
        try:
            directory.chmod(0o700)
        except PermissionError:
            _log.warn("others may read {path}, which is another user's: expected mode 0700", path=directory)


def try_writing(root: Path) -> None:
    """Writes a little in the store, and takes it away again.

    :raises OSError: when nothing can be written.
    """
    with NamedTemporaryFile(prefix="try-", dir=root / layout.WRITING) as trial:
        trial.write(bytes(4096))
        trial.flush()


def file_system(mounts: str, path: Path) -> str | None:
    """The type of the file system that a resolved path lies on, by the kernel's table of mounts."""
    longest, found = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= longest:  # of two on one point the later hides
            longest, found = len(point.parts), after.split(" ")[0]
    return found


def _refuse_network(root: Path, mounts: Path) -> None:
    if not mounts.exists():
        return
    kind = file_system(mounts.read_text("utf-8", "surrogateescape"), root.resolve())
    if kind in _NETWORK:
        raise UnusableDirectory(
            f"{root} lies on a network file system ({kind}), and the cache needs a disk of this machine: "
            "its processes agree by locks that do not reach over a network"
        )


def is_case_sensitive(directory: Path) -> bool:
    """Whether V1 and v1 are two files there, which is tried."""
    (directory / "V1").touch()
    return not (directory / "v1").exists()


def _refuse_folding(root: Path, trial: Path) -> None:
    if not is_case_sensitive(trial):
        raise UnusableDirectory(
            f"{root} lies on a file system that does not tell V1 from v1, and tags may differ in nothing else"
        )


def _refuse_lockless(root: Path, trial: Path) -> None:
    with (trial / "V1").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnusableDirectory(
                f"{root} lies on a file system without locks ({error.strerror}), by which the cache's "
                "processes agree"
            ) from None


def _refuse_divided(root: Path) -> None:
    if len({(root / each).stat().st_dev for each in _DIRECTORIES}) > 1:
        raise UnusableDirectory(
            f"{root} spans several file systems, and files get their names by moving within one"
        )


@contextmanager
def _written(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnusableDirectory(f"{root} cannot be written: {error.strerror}") from None
