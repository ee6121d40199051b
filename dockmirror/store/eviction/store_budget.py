"""The budget of a store, and the number of bytes that it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from .. import files, layout

_DEFAULT_SHARE = 5
_MAX_DEFAULT_SIZE = 100 * 10**9
_MAX_DEFAULT_FREE = 10 * 10**9


@frozen
class Shortfall:
    """An amount to be freed: bytes and inodes."""

    bytes: int = 0
    inodes: int = 0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0

    def __sub__(self, freed: Shortfall) -> Shortfall:
        return Shortfall(self.bytes - freed.bytes, self.inodes - freed.inodes)


@frozen
class Budget:
    """The number of bytes that may be stored, and what must stay free on the file system."""

    size: int
    free_bytes: int = 0
    free_inodes: int = 0

    @classmethod
    def default(cls, status: os.statvfs_result) -> Budget:
        """Return a fifth of the file system, at most 100 GB, with another fifth kept free, at most 10 GB.

        The same share of the inodes stays free as of the bytes.
        """
        total = status.f_blocks * status.f_frsize
        fifth = total // _DEFAULT_SHARE
        free = min(fifth, _MAX_DEFAULT_FREE)
        return cls(min(fifth, _MAX_DEFAULT_SIZE), free, status.f_files * free // total if total else 0)

    @property
    def size_after_eviction(self) -> int:
        """The number of bytes that may be stored when an eviction has ended: a tenth less."""
        return self.size * 9 // 10

    @property
    def free_after_eviction(self) -> int:
        """The number of bytes that are free then: a tenth more."""
        return _with_spare(self.free_bytes)

    def shortfall(self, size: int, status: os.statvfs_result) -> Shortfall:
        """Return what to free so that a tenth of each limit is spare; nothing while all limits are kept."""
        excess = size - self.size_after_eviction if size > self.size else 0
        free = _missing(status.f_bavail * status.f_frsize, self.free_bytes)
        # btrfs and others make inodes on demand and report a total of 0.
        inodes = _missing(status.f_favail, self.free_inodes) if status.f_files else 0
        return Shortfall(max(excess, free), inodes)


def _with_spare(required: int) -> int:
    return required * 11 // 10


def _missing(free: int, required: int) -> int:
    return _with_spare(required) - free if free < required else 0


@frozen
class StoreUsage:
    """The number of stored bytes, and when a scan last counted them, in seconds since the epoch."""

    size: int
    scanned: float

    @classmethod
    def parse(cls, text: str) -> StoreUsage | None:
        """Parse a stored usage; None if it is malformed or incomplete."""
        try:
            size, scanned, end = text.split(" ")
            return cls(int(size), float(scanned)) if end == ".\n" else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.size} {self.scanned} .\n"


class UsageCounter:
    """The locked file of the store's usage; nobody else scans, evicts or counts while it is locked."""

    def __init__(self, file: int) -> None:
        self._file = file

    def read(self) -> StoreUsage | None:
        """Return the usage; None if it is unknown."""
        return StoreUsage.parse(os.pread(self._file, 256, 0).decode("ascii", "replace"))

    def write(self, usage: StoreUsage) -> None:
        """Store the usage; it is unknown after a crash during this, and if the disk is full."""
        os.ftruncate(self._file, 0)
        with suppress(OSError):
            os.pwrite(self._file, str(usage).encode(), 0)

    def add(self, count: int) -> None:
        """Add to the number of bytes, or subtract; an unknown usage stays unknown."""
        usage = self.read()
        if usage is not None:
            self.write(StoreUsage(max(0, usage.size + count), usage.scanned))


@contextmanager
def try_lock_usage_counter(root: Path) -> Iterator[UsageCounter | None]:
    """Lock the usage counter; yields None while another process has locked it."""
    file = files.lock(root / layout.USAGE_COUNTER)
    try:
        yield None if file is None else UsageCounter(file)
    finally:
        if file is not None:
            os.close(file)


@contextmanager
def wait_for_usage_counter(root: Path) -> Iterator[UsageCounter]:
    """Wait until the usage counter is locked by this process, which may take as long as a scan."""
    file = files.wait_for_lock(root / layout.USAGE_COUNTER)
    try:
        yield UsageCounter(file)
    finally:
        os.close(file)


def read_store_usage(root: Path) -> StoreUsage | None:
    """Read the usage without a lock."""
    found = files.read_small_file(root / layout.USAGE_COUNTER)
    return StoreUsage.parse(found.data.decode("ascii", "replace")) if found else None
