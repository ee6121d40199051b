"""A recall is in force in all workers of two mirrors that share a bucket, by every route."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from .parts.command import dockmirror
from .parts.images import Image, image, index_of
from .parts.kept import blob_file, holds
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.seaweed import CREDENTIALS
from .parts.sharing import Sharing

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "library/recalled"
EVERYWHERE = 60.0
"""Seconds after which no worker of the machine, and no mirror of the bucket, gives it out."""


def outcomes(mirror: Mirror, paths: list[str]) -> Iterator[tuple[str, int]]:
    """The status of each path, by each host and method, on connections of their own."""
    for client, prefix in ((mirror.client("docker"), ""), (mirror.client(), "docker.io/")):
        for path in paths:
            for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-9"})):
                url = f"/v2/{prefix}{NAME}/{path}"
                yield f"{method} {url}", client.request(method, url, headers=headers).status


class SlowReader:
    """A client that has the beginning of a blob, and reads no further."""

    def __init__(self, mirror: Mirror, digest: str) -> None:
        host = mirror.host()
        self._socket = socket.create_connection(("127.0.0.1", mirror.port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        request = f"GET /v2/docker.io/{NAME}/blobs/{digest} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        self._socket.sendall(request.encode())
        self.received = self._socket.recv(4096)

    def read_rest(self) -> int:
        """Read to the end of the connection, and return the number of bytes in all."""
        with self._socket:
            count = len(self.received)
            try:
                while data := self._socket.recv(MIB):
                    count += len(data)
            except ConnectionResetError:
                pass
            return count


def test_recall(sharing: Sharing) -> None:
    """Every route refuses the digest in time, the rest is served, and after the recall is lifted, all is."""
    bad, good = image("bad", layers=(32 * MIB, 3_000)), image("good")
    index = index_of(bad, good)
    for pushed, tag in ((bad, "bad"), (good, "good"), (index, "index")):
        sharing.registry.push(NAME, pushed, tag)
    mirrors = [sharing.add(workers=2, redirect=True, tag_ttl=0) for _ in range(2)]
    for mirror in mirrors:
        for each in (bad, good):
            for blob in each.blobs:
                assert mirror.client("docker").blob(NAME, blob.digest).status in (200, 307)
        for reference in ("bad", "good", "index", bad.digest, good.digest):
            assert mirror.client("docker").manifest(NAME, reference).status == 200
    one, two = mirrors
    for pushed in (good, bad):
        sharing.registry.push(NAME, pushed, "moved")
        assert one.client("docker").manifest(NAME, "moved").body == pushed.manifest.data
    layer = bad.layers[0].digest
    refused = [
        *(f"manifests/{each}" for each in ("bad", "index", bad.digest, index.digest)),
        *(f"blobs/{each}" for each in (bad.digest, layer)),
    ]
    served = [f"manifests/{each}" for each in ("good", good.digest)]
    wait_until(lambda: bad.digest[7:] in "".join(sharing.keys()), "the bucket has the manifest")
    for mirror in mirrors:
        sharing.uploaded(mirror, {})
    wait_until(lambda: holds(one.cache, f"docker.io/{NAME}", bad), "the image is held")
    slow = SlowReader(one, layer)
    assert slow.received.startswith(b"HTTP/1.1 200")

    recalled = dockmirror(one, "recall", bad.digest, "--reason", "CVE-2026-33634", environ=CREDENTIALS)
    began = time.monotonic()
    assert recalled.returncode == 0, recalled.stderr
    assert layer in recalled.stdout
    assert {status for _, status in outcomes(one, refused)} == {403}
    for client, name in ((one.client("docker"), NAME), (one.client(), f"docker.io/{NAME}")):
        for _ in range(8):
            fallback = client.manifest(name, "moved")
            assert fallback.body == good.manifest.data, fallback.body
            assert "recalled" in fallback.headers["Warning"]
    wait_until(lambda: "cut off 1 transfers" in one.read_log(), "the transfer is cut off")
    assert slow.read_rest() < 32 * MIB
    assert not blob_file(one.cache, bad.digest).exists()
    assert bad.digest[7:] not in "".join(filter(lambda key: "/blobs/" in key, sharing.keys()))

    # The layers, which a search finds, may reach the other mirror later than the manifest.
    wait_until(lambda: {status for _, status in outcomes(two, refused)} == {403}, "all of it is refused")
    assert time.monotonic() - began < EVERYWHERE
    for mirror in mirrors:
        assert {(path, status) for path, status in outcomes(mirror, refused) if status != 403} == set()
        assert {status for _, status in outcomes(mirror, served)} <= {200, 206}
        wait_until(lambda at=mirror: not blob_file(at.cache, bad.digest).exists(), "the bytes are gone")  # type: ignore[misc]
        exported = dockmirror(mirror, "export", f"{NAME}:index", "-o", "-")
        assert exported.returncode == 1
        assert "recalled" in exported.stderr

    lifted = dockmirror(two, "recall", "lift", bad.digest, environ=CREDENTIALS)
    assert lifted.returncode == 0, lifted.stderr
    wait_until(lambda: one.client("docker").manifest(NAME, bad.digest).status == 200, "it is served again")
    for mirror in mirrors:
        assert {status for _, status in outcomes(mirror, [refused[0], refused[1], *served])} <= {200, 206}


def test_recall_in_flight(sharing: Sharing) -> None:
    """A download that the upstream is still sending is cut off, and nothing is served in an outage."""
    bad, good = image("flying", layers=(8 * MIB,)), image("standing")
    sharing.registry.push(NAME, good, "moved")
    one = sharing.add(workers=2, tag_ttl=0)
    assert pulled_tag(one, good)
    sharing.registry.push(NAME, bad, "moved")
    assert one.client("docker").manifest(NAME, "moved").body == bad.manifest.data
    for blob in good.blobs:
        one.client("docker").blob(NAME, blob.digest)
    layer = bad.layers[0].digest
    with sharing.blobs.valve.shut(MIB):
        readers = [SlowReader(one, layer) for _ in range(2)]
        recalled = dockmirror(one, "recall", bad.digest, "--reason", "CVE-2026-33634", environ=CREDENTIALS)
        assert recalled.returncode == 0, recalled.stderr
        assert max(reader.read_rest() for reader in readers) < 8 * MIB
    sharing.stop_upstream()
    refused = [f"manifests/{bad.digest}", f"blobs/{layer}", f"blobs/{bad.digest}"]
    assert {status for _, status in outcomes(one, refused)} == {403}
    for _ in range(8):
        assert pulled_tag(one, good)


def pulled_tag(mirror: Mirror, expected: Image) -> bool:
    """Return True if the tag that moves is that image."""
    return mirror.client("docker").manifest(NAME, "moved").body == expected.manifest.data
