"""The client of an object store: requests by way of obstore; all calls block."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from attrs import frozen

from ...oci.digest import Digest, Verifier
from .. import layout
from ..store_directory import check_format

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

PART_SIZE = 8 * 1024 * 1024
"""Bytes of each part of an upload, several of which are sent at once; more if there were too many parts."""
_MAX_PARTS = 10_000
"""Parts of an upload that S3 accepts; others accept more."""
_UPLOAD_CONCURRENCY = 4

Metadata = Mapping[str, str]


@frozen
class StoredObject:
    """An object that was opened, and the bytes that were requested of it.

    :ivar size: of the whole object.
    :ivar modified: in seconds since the epoch.
    """

    size: int
    modified: float
    metadata: Metadata
    body: ObjectReader


@frozen
class ListedObject:
    """An object in a listing."""

    key: str
    size: int
    modified: float


def with_known_format(connect: Callable[[], ObjectStore]) -> Callable[[], ObjectStore]:
    """Return a function that connects to a bucket of mirrors, and checks its format by one request.

    The function raises NewerFormat if this version does not know the format.
    """

    def connect_and_check() -> ObjectStore:
        store = connect()
        number = _read(store, str(layout.FORMAT))
        if number is not None:
            check_format(number)
        return store

    return connect_and_check


class BlockingBucket:
    """Makes requests; they raise obstore's exceptions.

    :param connect: called before the first request, and again if it fails.
    :param make_read_step: returns the step with which an ``ObjectReader`` reads on, by the object's key.
    """

    def __init__(self, connect: Callable[[], ObjectStore], make_read_step: Callable[[str], ReadStep]) -> None:
        self._connect = connect
        self._make_read_step = make_read_step
        self._store: ObjectStore | None = None

    def get(self, key: str, options: Any) -> StoredObject | None:
        """Open an object; None if there is none."""
        import obstore

        try:
            result = obstore.get(self._client, key, options=options)
        except FileNotFoundError:
            return None
        meta = result.meta
        metadata = {str(name): str(value) for name, value in result.attributes.items()}
        body = ObjectReader(result, self._make_read_step(key))
        return StoredObject(meta["size"], meta["last_modified"].timestamp(), metadata, body)

    def read(self, key: str) -> bytes | None:
        """Read a small object; None if there is none."""
        return _read(self._client, key)

    def read_first_byte(self, key: str) -> None:
        """Read one byte of an object, unless it is missing or empty."""
        found = self.get(key, {"head": True})
        byte = self.get(key, {"range": (0, 1)}) if found and found.size else None
        if byte is not None:
            byte.body.read_all_blocking()

    def put(self, key: str, data: bytes, metadata: Metadata, new: bool = False) -> bool:
        """Store an object; False if it should be new and exists already."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if new else "overwrite"
        try:
            obstore.put(
                self._client, key, data, attributes=_attributes(metadata), mode=mode, use_multipart=False
            )
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def upload(self, key: str, file: BinaryIO, metadata: Metadata) -> None:
        """Store a file in parts."""
        import obstore

        obstore.put(
            self._client, key, file,
            attributes=_attributes(metadata), chunk_size=part_size(os.fstat(file.fileno()).st_size),
            max_concurrency=_UPLOAD_CONCURRENCY,
        )  # fmt: skip

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones are ignored."""
        import obstore

        try:
            obstore.delete(self._client, list(keys))
        except FileNotFoundError:  # raised by some stores
            for key in keys if len(keys) > 1 else ():
                self.delete([key])

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Iterate over all objects below a path."""
        import obstore

        for chunk in obstore.list(self._client, prefix):
            for each in chunk:
                yield ListedObject(each["path"], each["size"], each["last_modified"].timestamp())

    def sign(self, key: str, seconds: float) -> str:
        """Return a presigned URL of an object."""
        import obstore

        signable: Any = self._client
        return str(obstore.sign(signable, "GET", key, timedelta(seconds=seconds)))

    @property
    def _client(self) -> ObjectStore:
        if self._store is None:
            self._store = self._connect()
        return self._store


def open_for_small_objects(address: BucketAddress) -> BlockingBucket:
    """Return the bucket of mirrors at an address, for a caller that opens no object to read it in pieces."""

    def refuse(_: str) -> Any:
        raise AssertionError("no object is opened")

    return BlockingBucket(with_known_format(address.open), refuse)


def _read(store: ObjectStore, key: str) -> bytes | None:
    import obstore

    try:
        return bytes(obstore.get(store, key).bytes())
    except FileNotFoundError:
        return None


def part_size(size: int) -> int:
    """Return the size of the parts in which a file of that size is uploaded."""
    return max(PART_SIZE, -(-size // _MAX_PARTS))


def _attributes(metadata: Metadata) -> Any:
    return {"Content-Type": "application/octet-stream", **metadata}


CHUNK_SIZE = 1024 * 1024
"""Approximate number of bytes that are read, and kept in memory, at a time."""
STALL_TIMEOUT = 10.0
"""Seconds to wait for a chunk."""

T = TypeVar("T")


class ReadStep(Protocol):
    """Runs one read in a thread."""

    def __call__(self, call: Callable[[], T], seconds: float, /) -> Awaitable[T]:
        """Return the result of the call."""


class ObjectReader:
    """An open object, to be read once or closed."""

    def __init__(self, result: GetResult, step: ReadStep) -> None:
        self._result: GetResult | None = result
        self._step = step
        self._chunks: Iterator[object] | None = None
        self._verifier: Verifier | None = None

    def start_verifying(self, digest: Digest) -> None:
        """Hash the chunks as they come, in the thread that reads them."""
        self._verifier = digest.verifier()

    def is_verified(self) -> bool:
        """Report whether the chunks read so far are the content of that digest."""
        return self._verifier is not None and self._verifier.matches()

    def read_all_blocking(self) -> bytes:
        """Read everything; the call blocks."""
        assert self._result is not None
        return bytes(self._result.bytes())

    async def read_all(self) -> bytes:
        """Read everything.

        :raises OSError: if that fails or stalls.
        """
        return await self._step(self.read_all_blocking, STALL_TIMEOUT)

    async def read_chunk(self) -> bytes:
        """Read the next chunk; empty at the end.

        :raises OSError: if that fails or stalls.
        """
        return await self._step(self._read_chunk, STALL_TIMEOUT)

    def close(self) -> None:
        self._result = self._chunks = None

    def _read_chunk(self) -> bytes:
        if self._chunks is None:
            if self._result is None:
                return b""
            self._chunks = iter(self._result.stream(CHUNK_SIZE))
        chunk = next(self._chunks, None)
        if chunk is None:
            return b""
        data = bytes(memoryview(chunk))  # type: ignore[arg-type]
        if self._verifier is not None:
            self._verifier.update(data)
        return data


_CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "1h"}
"""Timeouts of the threads; those who wait for a thread give up sooner."""
_RETRY = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


def is_available() -> bool:
    """Report whether obstore is installed, which is an optional dependency."""
    return find_spec("obstore") is not None


@frozen
class BucketAddress:
    """The URL of a bucket and a prefix in it, such as ``s3://bucket/prefix``, or of a CDN by https.

    Credentials are found by obstore, in the environment or from the machine.

    :ivar endpoint: the URL of an S3 server other than Amazon's.
    :ivar region: of a bucket of Amazon's; None for the one that obstore finds.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def is_cdn(self) -> bool:
        return self.url.startswith("https://")

    def open(self) -> ObjectStore:
        """Return a client; nothing is requested yet.

        The client has threads, which do not survive a fork of this process.
        """
        from obstore.store import from_url

        client: Any = dict(_CLIENT)
        settings: Any = {}
        if self.endpoint is not None:
            settings["endpoint"] = self.endpoint
            client["allow_http"] = self.endpoint.startswith("http://")
        if self.region is not None:
            settings["region"] = self.region
        store: ObjectStore = from_url(self.url, client_options=client, retry_config=_RETRY, **settings)  # type: ignore[call-overload]
        return store
