"""The mirror, with one worker if nothing else is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from demo.mirror import mirror

from .peer import Peer, repository

NAME = "the mirror"


@contextmanager
def mirrored(
    upstream: str, *options: str, name: str = NAME, own: str = "", **settings: str | int
) -> Iterator[Peer]:
    """In front of this registry.

    :param own: lines of settings of the mirror's own.
    :param settings: of that upstream.
    """
    with mirror(upstream, "--min-free=1MB", *options, own=own, **settings) as running:
        url = f"http://127.0.0.1:{running.port}/v2/docker.io/{repository(name)}"
        yield Peer(name, url, running.pid)
