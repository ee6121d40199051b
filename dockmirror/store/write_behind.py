"""What the bucket is still to be given: a file for each, so that a restart forgets none; calls that block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from attrs import frozen

from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Repository, Tag
from . import atomic_file, files, layout

_TAKEN = ".taken-"


@frozen
class PendingContent:
    """A content, and that a repository has it."""

    repository: Repository
    digest: Digest
    kind: ContentKind

    def fields(self) -> dict[str, object]:
        """As it is written."""
        return {"is": self.kind.value, "repository": self.repository.name, "digest": str(self.digest)}


@frozen
class PendingTag:
    """What a tag names, as it is when its turn comes."""

    repository: Repository
    tag: Tag

    def fields(self) -> dict[str, object]:
        """As it is written."""
        return {"is": "tag", "repository": self.repository.name, "tag": self.tag.name}


@frozen
class PendingDocument:
    """A document, as it is when its turn comes."""

    name: str

    def fields(self) -> dict[str, object]:
        """As it is written."""
        return {"is": "document", "name": self.name}


PendingWrite = PendingContent | PendingTag | PendingDocument
_ORDER = ("blob", "manifest", "tag", "document")
"""What is given first: nothing is told of before it is there."""


def enqueue(root: Path, owed: PendingWrite, now: float) -> None:
    """Notes it.

    :raises OSError: when that cannot be written.
    """
    atomic_file.replace_file(
        _path(root, owed), json.dumps(owed.fields()).encode(), root / layout.WRITING, now
    )


def is_queued(root: Path, owed: PendingWrite) -> bool:
    """Whether that is noted, and nobody has taken it yet."""
    return _path(root, owed).exists()


def pending(root: Path) -> list[Path]:
    """What is noted, in the order in which it is to be given."""
    try:
        names = os.listdir(root / layout.OWED)
    except FileNotFoundError:
        return []
    return [root / layout.OWED / name for name in sorted(names, key=_rank)]


def claim(path: Path) -> tuple[PendingWrite | None, Path]:
    """What it is, and where it is noted from now on: what is noted anew meanwhile is not lost.

    :raises OSError: when it is not there any more.
    """
    taken = path
    if _TAKEN not in path.name:
        taken = path.with_name(f"{path.name}{_TAKEN}{token_hex(4)}")
        os.rename(path, taken)
    return _parse(taken.read_bytes()), taken


def requeue(path: Path, owed: PendingWrite, root: Path) -> None:
    """It could not be given now."""
    if _path(root, owed).exists():
        files.remove(path)
    else:
        os.rename(path, _path(root, owed))


def ack(path: Path) -> None:
    """It was given, or there is nothing to give any more."""
    files.remove(path)


def pending_contents(root: Path) -> Iterator[Digest]:
    """The contents that are not to be lost yet."""
    for path in pending(root):
        with suppress(OSError):
            owed = _parse(path.read_bytes())
            if isinstance(owed, PendingContent):
                yield owed.digest


def lock_queue(root: Path) -> int | None:
    """An open file that, until it is closed, keeps others from giving; None where another has it."""
    return files.lock(root / layout.GIVING)


def _path(root: Path, owed: PendingWrite) -> Path:
    fields = owed.fields()
    return root / layout.OWED / f"{fields['is']}-{sha256(json.dumps(fields).encode()).hexdigest()}"


def _rank(name: str) -> tuple[int, str]:
    kind = name.partition("-")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER)), name


def _parse(data: bytes) -> PendingWrite | None:
    try:
        fields = json.loads(data)
        if fields["is"] == "document":
            return PendingDocument(str(fields["name"]))
        repository = Repository(fields["repository"])
        if fields["is"] == "tag":
            return PendingTag(repository, Tag(fields["tag"]))
        return PendingContent(repository, Digest.parse(fields["digest"]), ContentKind(fields["is"]))
    except (ValueError, KeyError, TypeError, RegistryError):
        return None
