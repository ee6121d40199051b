"""A file to which lines are added."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger

from .owner import give

_log = Logger()


class Appended:
    """Adds lines to a file that only its owner may read; several processes may do so at once.

    A disk that takes nothing stops nobody: what is not written is told of once, until it goes well again.

    :raises OSError: when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, made = path, not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._failing = False
        if made:
            give(path)

    def write(self, line: str) -> None:
        """Adds a line, given without its end."""
        try:
            os.write(self._file, f"{line}\n".encode())
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                _log.error("{path} takes no lines: {error}", path=str(self._path), error=error.strerror)

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._file)
