"""The upstream of the blobs: an nginx with a file for each, which logs the bytes it sends to each peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from . import nginx
from .certificate import make_certificate
from .peer import Peer, repository

NAME = "the upstream itself"


@frozen
class Origin:
    """A registry without tokens that has the blobs in ``blobs`` in every repository."""

    url: str
    pid: int
    blobs: Path
    log: Path
    trusted: Path | None

    @property
    def peer(self) -> Peer:
        """The registry itself, for direct pulls."""
        return Peer(NAME, f"{self.url}/v2/{repository(NAME)}", self.pid)

    def sent(self, name: str, digest: str) -> int:
        """Return the bytes of a blob sent to the peer of that name, in finished transfers."""
        path = f"/v2/{repository(name)}/blobs/{digest}"
        lines = (line.split() for line in self.log.read_text().splitlines())
        return sum(int(count) for count, uri in lines if uri == path)


@contextmanager
def origin(directory: Path, tls: bool = False, rate: int = 0) -> Iterator[Origin]:
    """Run an origin without blobs."""
    blobs, log = directory / "blobs", directory / "origin.log"
    blobs.mkdir(exist_ok=True)
    trusted = make_certificate(directory) if tls else None
    server = [nginx.files(blobs), f"access_log {log} sent;", f"limit_rate {rate};"]
    if trusted:
        server.append(nginx.tls(trusted))
    http = "log_format sent '$body_bytes_sent $uri';"
    with nginx.serving(directory, server="\n".join(server), http=http) as (port, pid):
        yield Origin(f"{'https' if tls else 'http'}://127.0.0.1:{port}", pid, blobs, log, trusted)
