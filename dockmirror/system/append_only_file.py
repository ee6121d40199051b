"""A file to which lines are added."""

from __future__ import annotations

import os
from pathlib import Path

from .line_writer import LineWriter
from .ownership import chown_to_parent


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
