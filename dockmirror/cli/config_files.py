"""Files of others, written so that each is as it was or as it should be."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import chain, count
from pathlib import Path


def replace_text(path: Path, text: str) -> bool:
    """Puts a text in the place of a file, with the rights that it had; a link's target, where it is a link.

    :returns: whether it said anything else before.
    :raises OSError: when it cannot be; the file is as it was then.
    """
    path = path.resolve()
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _like(path, Path(beside))
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    return True


def back_up(path: Path) -> None:
    """Keeps a copy of a file beside it, as ``.bak``, if there is such a file; earlier copies stay.

    :raises OSError: when it cannot be.
    """
    if path.exists():
        names = chain([f"{path.name}.bak"], (f"{path.name}.bak{number}" for number in count(2)))
        shutil.copy2(path, next(each for each in map(path.with_name, names) if not each.exists()))


def _like(there: Path, beside: Path) -> None:
    if there.exists():
        state = there.stat()
        os.chown(beside, state.st_uid, state.st_gid)
        os.chmod(beside, state.st_mode & 0o7777)
    else:
        os.chmod(beside, 0o644)
