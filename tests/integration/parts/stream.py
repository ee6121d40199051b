"""Responses of a mirror that are read piece by piece, however large."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager

from .mirror import Mirror

_PIECE = 256 * 1024


@contextmanager
def begun(
    mirror: Mirror, path: str, headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The response of the mirror's own host, its body not yet read; what is not read is not waited for."""
    with closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=60)) as connection:
        connection.request("GET", path, headers={"Host": mirror.host(), **(headers or {})})
        yield connection.getresponse()


def digest_of(response: http.client.HTTPResponse) -> str:
    """The digest of what is left of the body."""
    hashed = hashlib.sha256()
    while piece := response.read(_PIECE):
        hashed.update(piece)
    return f"sha256:{hashed.hexdigest()}"


def fetched(mirror: Mirror, repository: str, digest: str) -> str:
    """The digest of the bytes that came for that digest; of none where they did not come whole."""
    with begun(mirror, f"/v2/docker.io/{repository}/blobs/{digest}") as response:
        return digest_of(response) if response.status == 200 else f"{response.status}"
