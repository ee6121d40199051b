"""A client that fetches a blob in parts, several at the same time."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from .mirror import Mirror

PART = 8 * 1024 * 1024
"""Bytes of a part."""
AT_ONCE = 8
"""Parts that are under way at the same time."""


class PartedClient:
    """Fetches blobs as containerd 2.3 does with ``concurrent_layer_fetch_buffer``.

    It asks for ``bytes=K-`` for each part, takes the bytes of the part, and closes the connection.

    :param is_open_ended: whether it asks for ``bytes=K-``; otherwise for just the part.
    """

    def __init__(self, mirror: Mirror, host: str, is_open_ended: bool = True) -> None:
        self._mirror = mirror
        self._host = host
        self._is_open_ended = is_open_ended

    def fetch(self, path: str, size: int) -> str:
        """Return the digest of a blob, of which the manifest has told the size."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = pool.map(
                lambda first: self.read(path, first, min(PART, size - first)), range(0, size, PART)
            )
            hashed = hashlib.sha256()
            for part in parts:
                hashed.update(part)
        return f"sha256:{hashed.hexdigest()}"

    def read_all(self, path: str, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a blob, given by offset and length, which are read one after another."""
        return [self.read(path, first, length) for first, length in parts]

    def read(self, path: str, first: int, length: int) -> bytes:
        """Return one part."""
        last = "" if self._is_open_ended else first + length - 1
        with closing(http.client.HTTPConnection("127.0.0.1", self._mirror.port, timeout=60)) as connection:
            headers = {"Host": self._host, "Range": f"bytes={first}-{last}"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            assert response.status == 206, response.status
            return response.read(length)
