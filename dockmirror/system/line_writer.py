"""Write lines to a stream or an append-only file that may fail at times."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from twisted.logger import Logger

from .posix import chown_to_parent

_log = Logger()


class LineWriter:
    """Writes lines to a target that may fail: a full disk, or a pipe that nobody reads.

    Failures do not stop the mirror: the first one is logged, and again after writing has worked in between.

    :param name: of the target, for the message.
    :param put: writes a line, given without its line break, or raises OSError.
    """

    def __init__(self, name: str, put: Callable[[str], object]) -> None:
        self._name = name
        self._put = put
        self._failing = False

    def write(self, line: str) -> None:
        """Write a line, given without its line break."""
        try:
            self._put(line)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                _log.error("cannot write to {name}: {error}", name=self._name, error=error.strerror)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line and its line break in one call, so that other processes cannot write in between.

    Without buffering, each call is a write of its own.
    """
    stream.write(f"{line}\n")
    stream.flush()


class AppendOnlyFile(LineWriter):
    """Appends lines to a file that only its owner may read; several processes may share it.

    :raises OSError: when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lambda line: os.write(self._file, f"{line}\n".encode()))
        made = not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if made:
            chown_to_parent(path)

    def close(self) -> None:
        os.close(self._file)
