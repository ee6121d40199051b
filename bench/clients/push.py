"""Connections that push blobs, whose bytes the kernel sends from memory."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import selectors
import time
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

from attrs import frozen

MIB = 1024 * 1024
_HEAD = 16 * 1024


@frozen
class Pushed:
    """A blob of so many mebibytes; the last one is unique, and all blobs share the others."""

    size: int
    digest: str
    last: int

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.size * MIB


class Blobs:
    """Blobs of one size with different digests; each takes a mebibyte of memory, and all share one more."""

    def __init__(self, count: int, mebibytes: int, seed: int = 0) -> None:
        source = random.Random(seed)
        common, hashed = source.randbytes(MIB), hashlib.sha256()
        self._common = _in_memory(common)
        for _ in range(mebibytes - 1):
            hashed.update(common)
        self._pushed = [self._blob(hashed.copy(), source.randbytes(MIB), mebibytes) for _ in range(count)]

    def _blob(self, hashed: hashlib._Hash, last: bytes, mebibytes: int) -> Pushed:
        hashed.update(last)
        return Pushed(mebibytes, f"sha256:{hashed.hexdigest()}", _in_memory(last))

    def push(self, repository: str, host: str = "") -> float:
        """Push all blobs at once, each on its own connection; return the seconds until all were accepted."""
        started = time.monotonic()
        pushes = [_Push(repository, host, each, self._common) for each in self._pushed]
        _run(pushes)
        return time.monotonic() - started


class _Push:
    def __init__(self, repository: str, host: str, blob: Pushed, common: int) -> None:
        url = urlsplit(repository)
        assert url.hostname
        host = host or url.netloc
        asking = http.client.HTTPConnection(url.hostname, url.port)
        asking.request("POST", f"{url.path}/blobs/uploads/", b"", {"Host": host})
        begun = asking.getresponse()
        begun.read()
        if begun.status != 202:
            raise ConnectionError(f"an upload begins with {begun.status}")
        self.socket = asking.sock
        self.socket.setblocking(False)
        location = urlsplit(urljoin(repository, begun.headers["Location"]))
        query = f"{location.query}{'&' if location.query else ''}digest={blob.digest}"
        self._head = (
            f"PUT {location.path}?{query} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {blob.bytes}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._asking, self._blob, self._common = asking, blob, common
        self._sent = 0

    def send(self) -> bool:
        """Send what the kernel accepts now; return True after the last byte."""
        if self._head:
            self._head = self._head[self.socket.send(self._head) :]
        elif self._sent < self._blob.bytes:
            piece, offset = divmod(self._sent, MIB)
            source = self._blob.last if piece == self._blob.size - 1 else self._common
            self._sent += os.sendfile(self.socket.fileno(), source, offset, MIB - offset)
        return self._sent == self._blob.bytes

    def end(self) -> None:
        """Read the response."""
        status = re.match(rb"HTTP/1.1 (\d+)", self.socket.recv(_HEAD))
        if status is None or status[1] != b"201":
            raise ConnectionError("the blob was not taken")
        self._asking.close()


def _run(pushes: Sequence[_Push]) -> None:
    with selectors.DefaultSelector() as selector:
        for each in pushes:
            selector.register(each.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, each)
        while selector.get_map():
            for key, events in selector.select(1):
                if events & selectors.EVENT_READ:
                    selector.unregister(key.fileobj)
                    key.data.end()
                elif key.data.send():
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)


def _in_memory(data: bytes) -> int:
    file = os.memfd_create("pushed")
    os.write(file, data)
    return file
