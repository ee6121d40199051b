"""The number of a store's format, by which the mirror recognizes what a newer version has written."""

from __future__ import annotations

from pathlib import Path

from . import layout

FORMAT = 1
"""The newest format that this version reads and writes; a store without a number has format 1."""


class NewerFormat(OSError):
    """Raised if a newer version of the mirror has written a store; the message is for the operator."""


def check_format(data: bytes) -> None:
    """Check the number of a format, as a store has it.

    :raises NewerFormat: if this version does not know the format.
    """
    text = data[:20].decode("ascii", "replace").strip()
    if not text.isdecimal() or int(text) > FORMAT:
        raise NewerFormat(
            f"it has format {text!r} of a newer dockmirror, and this version knows formats up to {FORMAT};"
            " install the newer version, or use another directory or bucket"
        )


def check_directory_format(root: Path) -> None:
    """Check the format of a directory.

    :raises NewerFormat: as ``check_format`` does.
    :raises OSError: if the number cannot be read.
    """
    try:
        data = (root / layout.FORMAT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    check_format(data)
