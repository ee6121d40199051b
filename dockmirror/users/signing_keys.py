"""The keys by which the mirror knows its own tokens, in a file that all its processes share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..system.ownership import chown_to_parent

_BYTES = 32


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in the file, one a line in hexadecimal; made with one where there is no file.

    The first is signed with, all are believed: a new line on top replaces a key without a break.

    :raises OSError: when the file can be neither read nor made.
    :raises ValueError: when it holds no keys, or others may read it.
    """
    if not path.exists():
        _make(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"others may read {path}: expected mode 0600")
        lines = file.read().split()
    try:
        keys = tuple(bytes.fromhex(line.decode("ascii")) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) < _BYTES for key in keys):
        raise ValueError(f"expected keys of at least {_BYTES} bytes in {path}, in hexadecimal, one a line")
    return keys


def _make(path: Path) -> None:
    """Whole or not at all; of two processes that do it at once the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
        chown_to_parent(beside)
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
