"""Replace other programs' files atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import chain, count
from pathlib import Path


def replace_text(path: Path, text: str) -> bool:
    """Replace a file's text, or that of a link's target, and keep its owner and permissions.

    :returns: True when the text changed.
    :raises OSError: when the file cannot be written; it is unchanged then.
    """
    path = path.resolve()
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _copy_owner(path, Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def back_up(path: Path) -> None:
    """Copy a file, if it exists, to ``.bak`` beside it; earlier copies stay.

    :raises OSError: when the copy cannot be written.
    """
    if path.exists():
        names = chain([f"{path.name}.bak"], (f"{path.name}.bak{number}" for number in count(2)))
        shutil.copy2(path, next(each for each in map(path.with_name, names) if not each.exists()))


def _copy_owner(existing: Path, temporary: Path) -> None:
    if existing.exists():
        state = existing.stat()
        os.chown(temporary, state.st_uid, state.st_gid)
        os.chmod(temporary, state.st_mode & 0o7777)
    else:
        os.chmod(temporary, 0o644)
