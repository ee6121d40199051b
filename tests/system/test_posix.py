"""The limit on open files, file ownership, lines that are appended to files, and blocked signals."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.logger import ILogObserver, globalLogPublisher

from dockmirror.app.message_log import MessageLog
from dockmirror.system.posix import (
    AppendOnlyFile,
    LineWriter,
    blocked_signals,
    chown_to_parent,
    explain_unwritable,
    explain_write_error,
    make_directory_for,
    raise_connection_limit,
    remove_dead_socket,
    write_line,
)
from dockmirror.system.request_context import current_pull
from tests.stacks import logged

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_limit() -> None:
    """It allows a client for three files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    clients = raise_connection_limit()
    soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft, after, clients) == (min(hard, 1_000_000), hard, (soft - 64) // 3)


def owner(path: Path) -> tuple[int, int]:
    """Return the user and group."""
    return path.stat().st_uid, path.stat().st_gid


@as_root
def test_a_missing_directory_is_created_for_the_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "above" / "cache"
    for user in (65534, 1):
        make_directory_for(directory, user, 65533)
        assert owner(directory) == (65534, 65533)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert owner(directory.parent) == (0, 0)


@as_root
def test_a_file_is_given_to_the_owner_of_its_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    chown_to_parent(file)
    assert owner(file) == owner(tmp_path) == (0, 0)
    os.chown(tmp_path, 65534, 65533)
    chown_to_parent(file)
    assert owner(file) == (65534, 65533)


def test_a_broken_pipe_is_logged_once_by_its_name() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = LineWriter("standard output", lambda line: os.write(writing, line.encode()))
    with logged() as texts:
        lines.write("a")
        lines.write("b")
    os.close(writing)
    (text,) = texts
    assert "cannot write to standard output: Broken pipe" in text


class RecordingPipe(io.RawIOBase):
    """A pipe that records each write to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written.append(bytes(data))  # type: ignore[call-overload]
        return len(self.written[-1])


@pytest.mark.parametrize("length", [10, 20_000])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_line_and_its_end_are_one_write(buffered: bool, length: int) -> None:
    """No other process's line comes in between."""
    pipe = RecordingPipe()
    raw = io.BufferedWriter(pipe) if buffered else pipe
    write_line(io.TextIOWrapper(raw, write_through=not buffered), "a" * length)  # type: ignore[type-var]
    assert pipe.written == [b"a" * length + b"\n"]


def test_processes_append_lines_to_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    one, other = AppendOnlyFile(path), AppendOnlyFile(path)
    for file, line in ((one, "a"), (other, "b"), (one, "\N{SNOWMAN}")):
        file.write(line)
    assert path.read_text("utf-8") == "a\nb\n\N{SNOWMAN}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    one.close()
    other.close()
    with pytest.raises(OSError, match="nowhere"):
        AppendOnlyFile(tmp_path / "nowhere" / "audit")


def test_a_full_disk_is_logged_once_until_lines_can_be_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pull whose line finds the disk full has nothing to do with it."""
    full, messages = AppendOnlyFile(Path("/dev/full")), list[str]()
    message_log = cast(ILogObserver, MessageLog(messages.append))
    globalLogPublisher.addObserver(message_log)
    token = current_pull.set("7f3a")
    try:
        full.write("a")
        full.write("b")
        with monkeypatch.context() as writable:
            writable.setattr(os, "write", lambda _, data: len(data))
            full.write("c")
            full.write("d")
        full.write("e")
    finally:
        current_pull.reset(token)
        globalLogPublisher.removeObserver(message_log)
    assert [message.partition(" ")[2] for message in messages] == [
        "error: cannot write to /dev/full: No space left on device",
        "/dev/full is written again; lost lines: 2",
        "error: cannot write to /dev/full: No space left on device",
    ]
    full.close()


def test_no_part_of_a_line_stays_in_a_full_file(tmp_path: Path) -> None:
    """The next line stands alone, whichever process writes it."""
    path = tmp_path / "audit"
    one, other = AppendOnlyFile(path), AppendOnlyFile(path)
    one.write("before")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with logged() as texts:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4, hard))
        try:
            one.write("too long")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        other.write("after")
        one.write("at last")
    assert path.read_text() == "before\nafter\nat last\n"
    assert ["no space for a whole line" in texts[0], "lost lines: 1" in texts[1]] == [True, True]
    one.close()
    other.close()


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    """The part of a line that a pipe has taken cannot be taken back, and so ends before the next line."""
    path = tmp_path / "audit"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        AppendOnlyFile(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    pipe = AppendOnlyFile(path)
    size = fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    with logged() as texts:
        pipe.write("a" * 2 * size)
        pipe.write("b")
        taken = os.read(reading, size)
        pipe.write("c")
    assert len(texts) == 2
    assert taken + os.read(reading, size) == b"a" * size + b"\nc\n"
    pipe.close()
    os.close(reading)


def test_a_blocked_signal_arrives_once_it_is_unblocked() -> None:
    received = list[int]()
    previous = signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    try:
        with blocked_signals([signal.SIGUSR2]):
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
            assert received == []
        assert received == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, previous)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "its disk is full (No space left on device). Free some space"),
        (errno.EACCES, "it cannot be written (Permission denied). Run the mirror as the owner"),
        (errno.EIO, "its disk fails (Input/output error). Check the disk"),
    ],
)
def test_an_error_of_the_cache_says_what_to_do(number: int, reason: str) -> None:
    assert explain_write_error(OSError(number, os.strerror(number))).startswith(reason)


def test_a_directory_of_another_user_needs_its_owner_or_another_path() -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert explain_unwritable(Path("/c"), denied) == (
        "/c cannot be written: Permission denied. Run the mirror as a user who may write there, such as"
        " the owner, or set another path"
    )
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain_unwritable(Path("/c"), full) == "/c cannot be written: No space left on device"


def test_a_read_only_disk_needs_another_mount_or_another_path() -> None:
    """Another user could not write there either."""
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert explain_unwritable(Path("/c"), read_only) == (
        "/c cannot be written: Read-only file system. Mount it for writing, mount a volume there, or set"
        " another path"
    )
    assert explain_write_error(read_only) == (
        "its disk is read-only (Read-only file system). Mount it for writing; if it was, see the kernel's log"
        " for errors of the disk"
    )


def test_only_a_socket_on_which_nobody_listens_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its lock; whatever else has that name stays."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    alive, dead, file, missing = map(Path, ("alive", "dead", "file", "missing"))
    file.touch()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(alive))
        listening.listen()
        for each in (alive, dead, file, missing):
            Path(f"{each}.lock").symlink_to(str(os.getpid()))
            remove_dead_socket(each)
    assert {each.name for each in tmp_path.iterdir()} == {
        "alive", "alive.lock", "file", "file.lock", "missing.lock"
    }  # fmt: skip
