"""What a bucket is asked, by way of obstore; calls that block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .object_reader import ObjectReader, ReadStep

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PART = 8 * 1024 * 1024
"""Bytes of each part in which a file is uploaded, so many at a time."""
_PARTS = 4

Metadata = Mapping[str, str]


@frozen
class StoredObject:
    """An object that is there, and its bytes as far as they were asked for.

    :ivar size: of the whole.
    :ivar modified: in seconds since the epoch.
    """

    size: int
    modified: float
    metadata: Metadata
    body: ObjectReader


@frozen
class ListedObject:
    """An object in a list."""

    key: str
    size: int
    modified: float


class BlockingBucket:
    """One of obstore each, which raise what that raises.

    :param connect: called when it is asked first.
    :param reading: makes what reads on in an object that was opened, by its key.
    """

    def __init__(self, connect: Callable[[], ObjectStore], reading: Callable[[str], ReadStep]) -> None:
        self._connect = connect
        self._reading = reading
        self._store: ObjectStore | None = None

    def get(self, key: str, options: Any) -> StoredObject | None:
        """An object, opened; None where there is none."""
        import obstore

        try:
            result = obstore.get(self._connected, key, options=options)
        except FileNotFoundError:
            return None
        meta = result.meta
        metadata = {str(name): str(value) for name, value in result.attributes.items()}
        body = ObjectReader(result, self._reading(key))
        return StoredObject(meta["size"], meta["last_modified"].timestamp(), metadata, body)

    def read_first_byte(self, key: str) -> None:
        """An object, where it is there and has one."""
        found = self.get(key, {"head": True})
        part = self.get(key, {"range": (0, 1)}) if found and found.size else None
        if part is not None:
            part.body.all()

    def put(self, key: str, data: bytes, metadata: Metadata, new: bool = False) -> bool:
        """Whether it is put: not so where it is to be new, and there is one already."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if new else "overwrite"
        try:
            obstore.put(
                self._connected, key, data, attributes=_attributes(metadata), mode=mode, use_multipart=False
            )
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def upload(self, key: str, file: Path, metadata: Metadata) -> None:
        """A file, in parts."""
        import obstore

        obstore.put(
            self._connected, key, file,
            attributes=_attributes(metadata), chunk_size=PART, max_concurrency=_PARTS,
        )  # fmt: skip

    def delete(self, keys: Sequence[str]) -> None:
        """Objects, there or not."""
        import obstore

        try:
            obstore.delete(self._connected, list(keys))
        except FileNotFoundError:  # some stores say so
            for key in keys if len(keys) > 1 else ():
                self.delete([key])

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Everything below a path."""
        import obstore

        for chunk in obstore.list(self._connected, prefix):
            for each in chunk:
                yield ListedObject(each["path"], each["size"], each["last_modified"].timestamp())

    def sign(self, key: str, seconds: float) -> str:
        """An address at which anybody gets an object for so long."""
        import obstore

        signable: Any = self._connected
        return str(obstore.sign(signable, "GET", key, timedelta(seconds=seconds)))

    @property
    def _connected(self) -> ObjectStore:
        if self._store is None:
            self._store = self._connect()
        return self._store


def _attributes(metadata: Metadata) -> Any:
    return {"Content-Type": "application/octet-stream", **metadata}
