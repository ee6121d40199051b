"""What a bucket is asked, by way of obstore; calls that block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import frozen

from ...oci.digest import Digest, Verifier

if TYPE_CHECKING:
    from obstore.store import ObjectStore
if TYPE_CHECKING:
    from obstore import GetResult

PART_SIZE = 8 * 1024 * 1024
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
            part.body.read_all_blocking()

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
            attributes=_attributes(metadata), chunk_size=PART_SIZE, max_concurrency=_PARTS,
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


CHUNK_SIZE = 1024 * 1024
"""About how many bytes are taken from the bucket, and held, at a time."""
STALL_TIMEOUT = 10.0
"""Seconds after which a piece must have come."""

T = TypeVar("T")


class ReadStep(Protocol):
    """Goes on with what was opened, in a thread."""

    def __call__(self, call: Callable[[], T], patience: float, /) -> Awaitable[T]:
        """What the call returned."""


class ObjectReader:
    """Opened; read once, or closed."""

    def __init__(self, result: GetResult, step: ReadStep) -> None:
        self._result: GetResult | None = result
        self._step = step
        self._pieces: Iterator[object] | None = None
        self._verifier: Verifier | None = None

    def start_verifying(self, digest: Digest) -> None:
        """Pieces are hashed as they come, in the thread that they come in."""
        self._verifier = digest.verifier()

    def is_verified(self) -> bool:
        """Whether those that have come are the content of that digest."""
        return self._verifier is not None and self._verifier.verified()

    def read_all_blocking(self) -> bytes:
        """Everything; this call blocks."""
        assert self._result is not None
        return bytes(self._result.bytes())

    async def read_all(self) -> bytes:
        """Everything.

        :raises OSError: when it does not come.
        """
        return await self._step(self.read_all_blocking, STALL_TIMEOUT)

    async def read_chunk(self) -> bytes:
        """The next bytes; none at the end.

        :raises OSError: when they do not come.
        """
        return await self._step(self._next, STALL_TIMEOUT)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._result = self._pieces = None

    def _next(self) -> bytes:
        if self._pieces is None:
            if self._result is None:
                return b""
            self._pieces = iter(self._result.stream(CHUNK_SIZE))
        piece = next(self._pieces, None)
        if piece is None:
            return b""
        data = bytes(memoryview(piece))  # type: ignore[arg-type]
        if self._verifier is not None:
            self._verifier.update(data)
        return data


_CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "1h"}
"""What hangs is given up by whoever waits for it, sooner; of these only the thread hears."""
_RETRY = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


def is_available() -> bool:
    """Whether what speaks to object stores is installed: it is an extra."""
    return find_spec("obstore") is not None


@frozen
class BucketAddress:
    """A bucket and a prefix in it, such as ``s3://bucket/prefix``.

    Credentials are those that obstore finds by itself: in the environment, or of the machine.

    :ivar endpoint: of an S3 server that is not Amazon's.
    """

    url: str
    endpoint: str | None = None

    def __str__(self) -> str:
        return self.url

    def open(self) -> ObjectStore:
        """What speaks to it; nothing is asked yet.

        It has threads of its own, which no fork of this process would have.
        """
        from obstore.store import from_url

        client: Any = dict(_CLIENT)
        settings: Any = {}
        if self.endpoint is not None:
            settings["endpoint"] = self.endpoint
            client["allow_http"] = self.endpoint.startswith("http://")
        store: ObjectStore = from_url(self.url, client_options=client, retry_config=_RETRY, **settings)  # type: ignore[call-overload]
        return store
