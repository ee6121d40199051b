"""Lines for whoever takes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from twisted.logger import Logger

from .posix import chown_to_parent

_log = Logger()


class LineWriter:
    """Writes lines to what may take none: a full disk, or a pipe that nobody reads any more.

    That stops nobody: what is not written is told of once, until it goes well again.

    :param name: of what they are written to, for the message.
    :param put: takes a line without its end, or raises OSError.
    """

    def __init__(self, name: str, put: Callable[[str], object]) -> None:
        self._name = name
        self._put = put
        self._failing = False

    def write(self, line: str) -> None:
        """Adds a line, given without its end."""
        try:
            self._put(line)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                _log.error("{name} takes no lines: {error}", name=self._name, error=error.strerror)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line and its end in one call: where nothing is buffered, each call is a write of its own.

    Another process could write to the same pipe between two.
    """
    stream.write(f"{line}\n")
    stream.flush()


class AppendOnlyFile(LineWriter):
    """Adds lines to a file that only its owner may read; several processes may do so at once.

    :raises OSError: when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lambda line: os.write(self._file, f"{line}\n".encode()))
        made = not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if made:
            chown_to_parent(path)

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._file)
