"""The number that voids decisions: it changes with each new rule and each recall."""

from __future__ import annotations

from pathlib import Path
from secrets import randbelow

from ..store import files, layout


class Generation:
    """The generation of a cache directory's rules, which its processes share as a small file.

    :param root: the cache directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / layout.ADMISSION_GENERATION
        self._temporary = root / layout.TEMPORARY
        self._version: files.Version | None = None
        self._number = 0

    @property
    def number(self) -> int:
        """The current number; one ``stat`` call unless it has changed."""
        version = files.file_version(self._path)
        if version != self._version:
            found = files.read_small_file(self._path)
            self._number = _parse(found.data) if found else 0
            self._version = version
        return self._number

    def advance(self, now: float) -> int:
        """Begin a new generation, and return its number; blocks.

        A random part keeps two that begin at the same time apart.

        :raises OSError: when it cannot be written: then decisions from before stay in force.
        """
        number = max(int(now * 1e6), self.number // 1000) * 1000 + 1000 + randbelow(1000)
        files.replace_file(self._path, str(number).encode(), self._temporary, now)
        return number


def _parse(data: bytes) -> int:
    return int(data) if data.isdigit() else 0
