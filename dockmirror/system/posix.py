"""Files and signals: owners, open files, types of file systems, lines appended to files, blocked signals."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import lru_cache
from grp import getgrnam
from pathlib import Path
from typing import TextIO

from twisted.logger import Logger

_FALLBACK_LIMIT = 1_000_000
"""More than Linux allows by default."""
_RESERVED = 64
"""Files that the process itself needs, including the reserve of connections for health checks."""
_FILES_PER_CLIENT = 3
"""Files for each client: its connection, the connection to an upstream, and a file of the store."""


def raise_connection_limit() -> int:
    """Raise the soft limit on open files to the hard limit; return the clients that it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FALLBACK_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _FALLBACK_LIMIT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(1, (limit - _RESERVED) // _FILES_PER_CLIENT)


def explain_write_error(error: OSError) -> str:
    """Return why the cache cannot be written, and what to do about it."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"its disk is full ({reason}). Free some space, or set a smaller 'cache_size'"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"it cannot be written ({reason}). Run the mirror as the owner of 'cache'"
    if error.errno == errno.EROFS:
        return (
            f"its disk is read-only ({reason}). Mount it for writing; if it was, see the kernel's log for"
            " errors of the disk"
        )
    return f"its disk fails ({reason}). Check the disk"


def explain_unwritable(directory: Path, error: OSError) -> str:
    """Return that a directory cannot be written, and what to do if another user or another disk helps."""
    advice = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = ". Run the mirror as a user who may write there, such as the owner, or set another path"
    elif error.errno == errno.EROFS:
        advice = ". Mount it for writing, mount a volume there, or set another path"
    return f"{directory} cannot be written: {error.strerror}{advice}"


def make_directory_for(directory: Path, uid: int, gid: int) -> None:
    """Create a directory for the user that twistd will switch to (``--uid``), unless it exists.

    :raises OSError: when it can be neither created nor chowned.
    """
    if not directory.exists():
        directory.mkdir(0o700, parents=True)
        os.chown(directory, uid, gid)


def chown_to_parent(path: Path) -> None:
    """Give a file that root created to the owner of its directory.

    :raises OSError: when the owner cannot be changed.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def remove_dead_socket(path: Path) -> None:
    """Remove a UNIX socket that a killed process has left behind, with Twisted's lock of it.

    Twisted takes the lock for held while a process has its number; in a container that is often this one.

    :raises OSError: when it cannot be removed.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def find_group(name: str) -> int:
    """Return the number of a group, which is given by its name or its number.

    :raises ValueError: when there is no group of that name.
    """
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"expected a group of this machine, not {name!r}") from None


@contextmanager
def blocked_signals(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Block signals in this thread, and in the programs that it starts meanwhile, until they unblock them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


_log = Logger()


class LineWriter:
    """Writes lines to a target that may fail: a full disk, or a pipe that nobody reads.

    Failures do not stop the mirror: the first one is logged, and how many lines were lost when writing works
    again.  Both concern the target, not the pull whose line is written.

    :param name: of the target, for the message.
    :param put: writes a line, given without its line break, or raises OSError.
    """

    def __init__(self, name: str, put: Callable[[str], object]) -> None:
        self._name = name
        self._put = put
        self._lost = 0

    def write(self, line: str) -> None:
        """Write a line, given without its line break."""
        try:
            self._put(line)
        except OSError as error:
            if not self._lost:
                text = "cannot write to {name}: {error}"
                Context().run(_log.error, text, name=self._name, error=error.strerror)
            self._lost += 1
        else:
            lost, self._lost = self._lost, 0
            if lost:
                text = "{name} is written again; lost lines: {lost}"
                Context().run(_log.info, text, name=self._name, lost=lost)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line and its line break in one call, so that other processes cannot write in between.

    Without buffering, each call is a write of its own.
    """
    stream.write(f"{line}\n")
    stream.flush()


def is_output_discarded() -> bool:
    """Return whether standard output is the null device and has a replacement: twistd's in the background."""
    return sys.stdout is not sys.__stdout__ and _is_null(os.getpid())


@lru_cache(maxsize=1)
def _is_null(process: int) -> bool:
    """Look once in each process: going into the background starts another one."""
    try:
        return os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev
    except OSError:  # it is closed
        return False


class AppendOnlyFile(LineWriter):
    """Appends lines to a file that only its owner may read; several processes may share it.

    A line of which a part can be written is lost like any other.  A named pipe is never waited for.

    :raises OSError: when the file cannot be opened, or is a pipe that nobody reads.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), self._append)
        self._break = ""
        made = not path.exists()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        if made:
            chown_to_parent(path)

    def _append(self, line: str) -> None:
        data = f"{self._break}{line}\n".encode()
        count = os.write(self._file, data)
        self._break = ""
        if count < len(data):
            if not self._take_back(count):
                self._break = "\n"
            raise OSError(errno.ENOSPC, "there is no space for a whole line")

    def _take_back(self, count: int) -> bool:
        """Remove the bytes that were written last, so that no process's next line continues them.

        Returns False where that cannot be done: in a pipe, in a file that may only grow, and if another line
        follows already.
        """
        try:
            end = os.lseek(self._file, 0, os.SEEK_CUR)
            if os.fstat(self._file).st_size != end:
                return False
            os.ftruncate(self._file, end - count)
        except OSError:
            return False
        return True

    def close(self) -> None:
        os.close(self._file)


MOUNTS = Path("/proc/self/mountinfo")
_NETWORK_TYPES = (
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs", "fuse.ceph", "fuse.davfs",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.rclone", "fuse.s3fs",
    "fuse.seaweedfs", "fuse.sshfs",
)  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")


def find_file_system(mounts: str, path: Path) -> str | None:
    """Return the type of the file system that a resolved path lies on, from the kernel's table of mounts."""
    depth, file_system = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:  # a later mount hides an earlier one
            depth, file_system = len(point.parts), after.split(" ")[0]
    return file_system


def find_network_file_system(directory: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the network file system that a directory lies on; None if it is on a local one."""
    if not mounts.exists():
        return None
    kind = find_file_system(mounts.read_text("utf-8", "surrogateescape"), directory.resolve())
    return kind if kind in _NETWORK_TYPES else None
