"""The directory of a store: its checks at start, its format, and who may enter it; all calls block.

Everything in it is private to its owner; only a group may read the files of blobs, for a proxy in front that
sends them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from stat import S_IMODE, S_ISDIR
from tempfile import NamedTemporaryFile, TemporaryDirectory

from twisted.logger import Logger

from ..system.posix import MOUNTS, chown_to_parent, explain_unwritable, find_network_file_system
from . import layout

FORMAT = 1
"""The newest format that this version reads and writes; a store without a number has format 1."""
_DIRECTORIES = layout.BLOBS, layout.REPOSITORIES, layout.GROWING, layout.DOCUMENTS, layout.TEMPORARY
_OTHERS_MODE, _NON_OWNER_MODE = 0o007, 0o077
_DIRECTORY, _FILE, _PRIVATE = 0o750, 0o640, 0o700

_log = Logger()


class UnusableDirectory(Exception):
    """Raised if a directory cannot hold a store; the message is a sentence for the operator."""


class NewerFormat(OSError):
    """Raised if a newer version of the mirror has written a store; the message is for the operator."""


def prepare_directory(root: Path, mounts: Path = MOUNTS, group: int | None = None) -> None:
    """Make the directory if it is missing, private to its owner, and check whether it can hold a store.

    An existing directory keeps its mode; if others may enter it, its subdirectories are made private.

    :param mounts: the kernel's table of mounts.
    :param group: may enter the directory of blobs; the directory's mode changes for that.
    :raises UnusableDirectory: if it cannot hold a store.
    """
    with _report_write_errors(root):
        root.mkdir(0o700, parents=True, exist_ok=True)
    require_local_disk(root, mounts)
    require_known_format(root)
    with _report_write_errors(root):
        for each in _DIRECTORIES:
            _make_directories(root, Path(each))
        if group is not None:
            _share_with_group(root, group)
        _close_to_others(root)
        _require_one_file_system(root)
        with TemporaryDirectory(prefix="try-", dir=root / layout.TEMPORARY) as trial:
            _require_case_sensitivity(root, Path(trial))
            _require_locks(root, Path(trial))


def require_known_format(root: Path) -> None:
    """Check that no newer version has written a directory in a format that this one does not know.

    :raises UnusableDirectory: if one has, or the directory cannot be read.
    """
    try:
        check_directory_format(root)
    except NewerFormat as error:
        raise UnusableDirectory(f"{root} cannot be used: {error}") from None
    except OSError as error:
        raise UnusableDirectory(explain_unwritable(root, error)) from None


def check_format(data: bytes) -> None:
    """Check the number of a format, as a store has it.

    :raises NewerFormat: if this version does not know the format.
    """
    text = data[:20].decode("ascii", "replace").strip()
    if not text.isdecimal() or int(text) > FORMAT:
        raise NewerFormat(
            f"it has format {text!r} of a newer dockmirror, and this version knows formats up to {FORMAT};"
            " install the newer version, or use another directory or bucket"
        )


def check_directory_format(root: Path) -> None:
    """Check the format of a directory.

    :raises NewerFormat: as ``check_format`` does.
    :raises OSError: if the number cannot be read.
    """
    try:
        data = (root / layout.FORMAT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    check_format(data)


def _make_directories(root: Path, directory: Path) -> None:
    for each in reversed([directory, *directory.parents[:-1]]):
        if not (root / each).is_dir():
            (root / each).mkdir(exist_ok=True)  # several processes start at once
            chown_to_parent(root / each)


def share_file(blobs: Path, name: PurePosixPath, group: int) -> None:
    """Let a group read a file below the directory of blobs.

    :raises OSError: if a mode or a group cannot be set; it names the file or directory.
    """
    path = blobs
    for part in name.parts:
        path /= part
        _share(path, group)


def closed_directories(path: Path, group: int) -> Iterator[Path]:
    """Yield the existing directories above a path that members of the group cannot enter."""
    for directory in path.absolute().parents:
        if directory.exists():
            status = directory.stat()
            if not status.st_mode & (0o010 if status.st_gid == group else 0o001):
                yield directory


def _share_with_group(root: Path, group: int) -> None:
    """Let a group enter the directories down to that of blobs, and none of those beside them."""
    try:
        for private in (layout.REPOSITORIES, layout.TEMPORARY.parent):
            _set_mode(root / private, os.stat(root / private), _PRIVATE)
        for shared in (*reversed(layout.BLOBS.parents), layout.BLOBS):
            _share(root / shared, group)
    except PermissionError as error:
        raise UnusableDirectory(
            f"{error.filename} cannot be given to the group of 'cache_group': run the mirror as the owner of"
            " its cache, and as a member of that group"
        ) from None


def _share(path: Path, group: int) -> None:
    status = os.stat(path)
    if status.st_gid != group:
        os.chown(path, -1, group)
    _set_mode(path, status, _DIRECTORY if S_ISDIR(status.st_mode) else _FILE)


def _set_mode(path: Path, status: os.stat_result, mode: int) -> None:
    if S_IMODE(status.st_mode) != mode:
        os.chmod(path, mode)


def _close_to_others(root: Path) -> None:
    """Make the subdirectories private if others may enter the directory."""
    if not root.stat().st_mode & _OTHERS_MODE:
        return
    for name in dict.fromkeys(each.parts[0] for each in _DIRECTORIES):
        directory = root / name
        if not directory.stat().st_mode & _NON_OWNER_MODE:
            continue
        try:
            directory.chmod(0o700)
        except PermissionError:
            _log.warn(
                "others may read {path}, which belongs to another user: set its mode to 0700", path=directory
            )


def try_writing(root: Path) -> None:
    """Write a small file in the store and delete it.

    :raises OSError: if nothing can be written.
    """
    with NamedTemporaryFile(prefix="try-", dir=root / layout.TEMPORARY) as trial:
        trial.write(bytes(4096))
        trial.flush()


def require_local_disk(root: Path, mounts: Path = MOUNTS) -> None:
    """:raises UnusableDirectory: if a directory, which may be missing, lies on a network file system."""
    kind = find_network_file_system(root, mounts)
    if kind is not None:
        raise UnusableDirectory(
            f"{root} lies on a network file system ({kind}); use a local disk: "
            "the processes of the mirror coordinate with locks, which are not reliable over a network"
        )


def is_case_sensitive(directory: Path) -> bool:
    """Try whether V1 and v1 are two files in the directory."""
    (directory / "V1").touch()
    return not (directory / "v1").exists()


def _require_case_sensitivity(root: Path, trial: Path) -> None:
    if not is_case_sensitive(trial):
        raise UnusableDirectory(
            f"{root} lies on a file system that ignores case, and tags may differ in case only"
        )


def _require_locks(root: Path, trial: Path) -> None:
    with (trial / "V1").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnusableDirectory(
                f"{root} lies on a file system without locks ({error.strerror}), which the mirror needs"
            ) from None


def _require_one_file_system(root: Path) -> None:
    if len({(root / each).stat().st_dev for each in _DIRECTORIES}) > 1:
        raise UnusableDirectory(f"{root} spans several file systems, but files must be renamed within one")


@contextmanager
def _report_write_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise UnusableDirectory(f"{root} is not a directory") from None
    except OSError as error:
        raise UnusableDirectory(explain_unwritable(root, error)) from None
