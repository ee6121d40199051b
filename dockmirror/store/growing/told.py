"""What the filler of a growing file tells other processes."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from .. import files

_UNKNOWN = "-"
_VERIFIED = "verified "


@frozen
class Told:
    """Written a line at a time; a line without its end is being written, and tells nothing yet.

    :ivar size: None where the upstream does not tell it.
    :ivar verified: whether the bytes are known to be right; a filler that is gone may have said so and
        not have named the blob, and the next one knows nothing of it until it has looked itself.
    """

    size: int | None
    verified: bool = False

    @classmethod
    def read(cls, path: Path) -> Told | None:
        """What was told last; None where that is nothing."""
        try:
            lines = path.read_text("ascii").split("\n")[:-1]
            if not lines:
                return None
            if lines[-1].startswith(_VERIFIED):
                return cls(int(lines[-1].removeprefix(_VERIFIED)), verified=True)
            return cls(None if lines[0] == _UNKNOWN else int(lines[0]))
        except (FileNotFoundError, ValueError):
            return None


def tell_size(path: Path, size: int | None) -> None:
    """Tells anew."""
    files.remove(path)
    with open(path, "xb") as told:
        told.write(f"{_UNKNOWN if size is None else size}\n".encode())


def tell_verified(path: Path, size: int) -> None:
    """Tells more."""
    with open(path, "ab") as told:
        told.write(f"{_VERIFIED}{size}\n".encode())
