"""The queue of writes to the bucket: a file for each, so that a restart loses none; all calls block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from attrs import frozen

from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Repository, Tag
from . import files, layout

_CLAIMED = ".taken"


@frozen
class PendingContent:
    """A content and its link to a repository."""

    repository: Repository
    digest: Digest
    kind: ContentKind

    def to_fields(self) -> dict[str, object]:
        return {"is": self.kind.value, "repository": self.repository.name, "digest": str(self.digest)}


@frozen
class PendingTag:
    """A tag; its target is read when it is uploaded."""

    repository: Repository
    tag: Tag

    def to_fields(self) -> dict[str, object]:
        return {"is": "tag", "repository": self.repository.name, "tag": self.tag.name}


@frozen
class PendingDocument:
    """A document; its bytes are read when it is uploaded."""

    name: str

    def to_fields(self) -> dict[str, object]:
        return {"is": "document", "name": self.name}


PendingWrite = PendingContent | PendingTag | PendingDocument
_ORDER = ("blob", "manifest", "tag", "document")
"""The order of uploads: what a link refers to comes first."""


def enqueue(root: Path, write: PendingWrite, now: float) -> None:
    """Add a write to the queue.

    :raises OSError: if it cannot be stored.
    """
    files.replace_file(
        _path(root, write), json.dumps(write.to_fields()).encode(), root / layout.TEMPORARY, now
    )


def is_pending(root: Path, write: PendingWrite) -> bool:
    """Report whether the write is queued or claimed."""
    queued = _path(root, write)  # again after the claim, which may just have been put back
    return any(path.exists() for path in (queued, _claimed(queued), queued))


def list_pending(root: Path) -> list[Path]:
    """List the files of the pending writes, in the order in which they are to be uploaded.

    Those of unknown kinds are left to the version of the mirror that knows them.  A write that was queued
    again replaces its claim.
    """
    names = set(files.list_names(root / layout.WRITE_BEHIND))
    names -= {f"{name}{_CLAIMED}" for name in names}
    known = [name for name in names if _kind_of(name) in _ORDER]
    return [root / layout.WRITE_BEHIND / name for name in sorted(known, key=_sort_key)]


def name_of(path: Path) -> str:
    """Return the name of a pending write, which stays the same when it is claimed or put back."""
    return path.name.partition(_CLAIMED)[0]


def claim(path: Path) -> tuple[PendingWrite | None, Path]:
    """Claim a write; return it, None if it is malformed, and its file's new path.

    The same write may be enqueued again meanwhile, without being lost.

    :raises OSError: if it is not there any more.
    """
    claimed = path
    if _CLAIMED not in path.name:
        claimed = _claimed(path)
        os.rename(path, claimed)
    return _parse_write(claimed.read_bytes()), claimed


def requeue(path: Path, write: PendingWrite, root: Path) -> None:
    """Put a claimed write back into the queue."""
    if _path(root, write).exists():
        files.remove(path)
    else:
        os.rename(path, _path(root, write))


def ack(path: Path) -> None:
    """Remove a claimed write that was uploaded or has nothing to upload."""
    files.remove(path)


def iter_pending_contents(root: Path) -> Iterator[Digest]:
    """Iterate over the contents that are not in the bucket yet."""
    for path in list_pending(root):
        with suppress(OSError):
            write = _parse_write(path.read_bytes())
            if isinstance(write, PendingContent):
                yield write.digest


def lock_queue(root: Path) -> int | None:
    """Lock the queue until the returned file is closed; None if another process has the lock."""
    return files.lock(root / layout.WRITE_BEHIND_LOCK)


def _path(root: Path, write: PendingWrite) -> Path:
    fields = write.to_fields()
    return root / layout.WRITE_BEHIND / f"{fields['is']}-{sha256(json.dumps(fields).encode()).hexdigest()}"


def _claimed(path: Path) -> Path:
    return path.with_name(path.name + _CLAIMED)


def _sort_key(name: str) -> tuple[int, str]:
    return _ORDER.index(_kind_of(name)), name


def _kind_of(name: str) -> str:
    return name.partition("-")[0]


def _parse_write(data: bytes) -> PendingWrite | None:
    try:
        fields = json.loads(data)
        if fields["is"] == "document":
            return PendingDocument(str(fields["name"]))
        repository = Repository(fields["repository"])
        if fields["is"] == "tag":
            return PendingTag(repository, Tag(fields["tag"]))
        return PendingContent(repository, Digest.parse(fields["digest"]), ContentKind(fields["is"]))
    except (ValueError, KeyError, TypeError, RecursionError, RegistryError):
        return None
