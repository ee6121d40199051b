"""How much a store holds, as the processes that share it know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from .. import atomic_file, files, layout


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
