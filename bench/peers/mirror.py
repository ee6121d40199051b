"""The mirror, by default with one worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from demo.mirror import mirror

from .peer import Peer, repository

NAME = "the mirror"


@contextmanager
def mirrored(
    upstream: str,
    *options: str,
    name: str = NAME,
    own: str = "",
    port: int | None = None,
    **settings: str | int,
) -> Iterator[Peer]:
    """Run a mirror in front of this registry."""
    with mirror(upstream, "--min-free=1MB", *options, own=own, port=port, **settings) as running:
        url = f"http://127.0.0.1:{running.port}/v2/docker.io/{repository(name)}"
        yield Peer(name, url, running.pid)
