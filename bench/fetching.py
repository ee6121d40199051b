"""Mirrors that fetch blobs which they do not hold, in front of one upstream."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen

from .blobs import make_blob, verify
from .clients.drain import Drained, drain
from .peers import distribution, nginx
from .peers.mirror import mirrored
from .peers.origin import Origin, origin
from .peers.peer import Peer
from .process import processor_time, wait_until_idle
from .rounds import in_turn

_MEBIBYTE = 1024 * 1024
_LARGE = 4 * _MEBIBYTE


@frozen
class Pulls:
    """Pulls of a blob, one in each round.

    :ivar used: the processor time of a peer for a gigabyte that clients received, in seconds.
    :ivar fetched: what left the upstream, in blobs.
    """

    drained: Mapping[str, Sequence[Drained]]
    used: Mapping[str, Sequence[float]]
    fetched: Mapping[str, Sequence[float]]

    @property
    def rates(self) -> dict[str, list[float]]:
        """The rates of all clients together, in megabytes a second."""
        return {name: [each.rate for each in drained] for name, drained in self.drained.items()}

    @property
    def seconds(self) -> dict[str, list[float]]:
        """The seconds until the last client had finished."""
        return {name: [each.seconds for each in drained] for name, drained in self.drained.items()}

    @property
    def first_bytes(self) -> dict[str, list[float]]:
        """The milliseconds until the last client had its first byte."""
        return {name: [each.first_bytes[-1] * 1e3 for each in d] for name, d in self.drained.items()}


@frozen
class Fetching:
    """An upstream and its mirrors: ours first, and the upstream itself last."""

    upstream: Origin
    peers: Sequence[Peer]
    directory: Path

    def pull(self, rounds: int, mebibytes: int, clients: int) -> Pulls:
        """Pull a new blob in each round, by so many clients at once; verify the bytes of the first round."""
        seeds = range(mebibytes * 1000 + clients, mebibytes * 1000 + clients + rounds + 1)
        size = mebibytes * _MEBIBYTE
        digests = [make_blob(self.upstream.blobs, mebibytes, seed) for seed in seeds]
        pulls = in_turn(
            rounds, {peer.name: partial(self._drain, peer, digests, clients) for peer in self.peers}
        )
        drained = {name: [each for each, _ in pairs] for name, pairs in pulls.items()}
        received = size * clients / 1e9
        used = {name: [seconds / received for _, seconds in pairs] for name, pairs in pulls.items()}
        fetched = {
            peer.name: [self.upstream.sent(peer.name, digest) / size for digest in digests[1:]]
            for peer in self.peers
        }
        for digest in digests:
            (self.upstream.blobs / digest).unlink()
        return Pulls(drained, used, fetched)

    def _drain(self, peer: Peer, digests: Sequence[str], clients: int, number: int) -> tuple[Drained, float]:
        """Return what the clients received, and the processor time of the peer until it was idle."""
        before = processor_time(peer.pid)
        drained = drain(peer.blob(digests[number]), clients)
        wait_until_idle(peer.pid)
        used = processor_time(peer.pid) - before
        if not number and peer.url.startswith("http:"):
            verify(peer.blob(digests[number]), digests[number])
        self._empty()
        return drained, used

    def _empty(self) -> None:
        """Free the pages that the next mirror's files will use."""
        for parent, _, names in os.walk(
            self.directory
        ):  # which passes over directories that the mirror removes
            files = [] if self.upstream.blobs in (Path(parent), *Path(parent).parents) else names
            for path in (Path(parent, name) for name in files):
                with suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_size > _LARGE:
                        path.unlink()


@contextmanager
def fetching(tls: bool = False, rate: int = 0) -> Iterator[Fetching]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory, tls, rate))
        trusted: dict[str, Any] = {"ca_file": str(upstream.trusted)} if upstream.trusted else {}
        peers = [
            stack.enter_context(mirrored(upstream.url, f"--cache={directory}/mirror", **trusted)),
            stack.enter_context(distribution.pull_through(directory, upstream.url, upstream.trusted)),
            stack.enter_context(nginx.proxy_cache(directory, upstream.url, upstream.trusted)),
            upstream.peer,
        ]
        yield Fetching(upstream, peers, directory)
