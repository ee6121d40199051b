"""How much may be held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from .. import atomic_file, files, layout

_DEFAULT_SHARE = 5
_DEFAULT_MOST = 100 * 10**9


@frozen
class Shortfall:
    """What has to go: bytes, and files and directories."""

    bytes: int = 0
    inodes: int = 0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0

    def __sub__(self, freed: Shortfall) -> Shortfall:
        return Shortfall(self.bytes - freed.bytes, self.inodes - freed.inodes)


@frozen
class Budget:
    """How many bytes may be held, and what must stay free on the file system, whoever fills it."""

    size: int
    free_bytes: int = 0
    free_inodes: int = 0

    @classmethod
    def default(cls, status: os.statvfs_result) -> Budget:
        """A fifth of the file system, at most 100 GB, and a fifth kept free."""
        size = status.f_blocks * status.f_frsize // _DEFAULT_SHARE
        return cls(min(size, _DEFAULT_MOST), size, status.f_files // _DEFAULT_SHARE)

    def shortfall(self, held: int, status: os.statvfs_result) -> Shortfall:
        """What has to go, so that a tenth of each measure is spare; nothing while all are kept."""
        size = held - self.size * 9 // 10 if held > self.size else 0
        free = _lacking(status.f_bavail * status.f_frsize, self.free_bytes)
        # btrfs and others have no fixed number of inodes, and say that they have none at all.
        inodes = _lacking(status.f_favail, self.free_inodes) if status.f_files else 0
        return Shortfall(max(size, free), inodes)


def _lacking(free: int, wanted: int) -> int:
    return wanted * 11 // 10 - free if free < wanted else 0


@frozen
class StoreUsage:
    """How many bytes are held, and when that was last found out by a walk, in seconds since the epoch."""

    held: int
    walked: float

    @classmethod
    def parse(cls, text: str) -> StoreUsage | None:
        """None where the text is of something else, or was not written to its end."""
        try:
            held, walked, end = text.split(" ")
            return cls(int(held), float(walked)) if end == ".\n" else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.held} {self.walked} .\n"


class UsageCounter:
    """The file of the figures, locked: nobody else walks, evicts, or counts meanwhile."""

    def __init__(self, file: int) -> None:
        self._file = file

    def read(self) -> StoreUsage | None:
        """None where they are not known."""
        return StoreUsage.parse(os.pread(self._file, 256, 0).decode("ascii", "replace"))

    def write(self, figures: StoreUsage) -> None:
        """In two steps: after a crash between them the figures are not known."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(figures).encode(), 0)

    def add(self, count: int) -> None:
        """Count bytes that came, or that went where it is negative; what is not known stays so."""
        known = self.read()
        if known is not None:
            self.write(StoreUsage(max(0, known.held + count), known.walked))


@contextmanager
def lock_usage_counter(root: Path) -> Iterator[UsageCounter | None]:
    """The figures, for one at a time; None while another has them."""
    file = files.lock(root / layout.HELD)
    try:
        yield None if file is None else UsageCounter(file)
    finally:
        if file is not None:
            os.close(file)


@contextmanager
def in_turn(root: Path) -> Iterator[UsageCounter]:
    """Give the figures as soon as nobody else has them; it may take as long as a walk."""
    file = files.wait_for_lock(root / layout.HELD)
    try:
        yield UsageCounter(file)
    finally:
        os.close(file)


def read_figures(root: Path) -> StoreUsage | None:
    """Read what is known now, while another may be counting."""
    found = atomic_file.read_small_file(root / layout.HELD)
    return StoreUsage.parse(found.data.decode("ascii", "replace")) if found else None
