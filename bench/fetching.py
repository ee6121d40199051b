"""Those that fetch blobs which they do not hold, in front of one upstream."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from .blobs import make_blob, verify
from .clients.drain import Drained, drain
from .peers import distribution, nginx
from .peers.mirror import mirrored
from .peers.origin import Origin, origin
from .peers.peer import Peer
from .process import wait_until_idle
from .rounds import in_turn

_MEBIBYTE = 1024 * 1024
_LARGE = 4 * _MEBIBYTE


@frozen
class Pulls:
    """Blobs that were pulled, one in each round.

    :ivar drained: by the names of the peers.
    :ivar fetched: how much of it came from the upstream, in blobs.
    """

    drained: Mapping[str, Sequence[Drained]]
    fetched: Mapping[str, Sequence[float]]

    @property
    def rates(self) -> dict[str, list[float]]:
        """Megabytes a second, of all clients together."""
        return {name: [each.rate for each in drained] for name, drained in self.drained.items()}

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Until the last client was done."""
        return {name: [each.seconds for each in drained] for name, drained in self.drained.items()}

    @property
    def first_bytes(self) -> dict[str, list[float]]:
        """Milliseconds until the last client had its first byte."""
        return {name: [each.first_bytes[-1] * 1e3 for each in d] for name, d in self.drained.items()}


@frozen
class Fetching:
    """An upstream, and those in front of it, the mirror first; the upstream itself is the last of them.

    :ivar directory: where all of them keep their files.
    """

    upstream: Origin
    peers: Sequence[Peer]
    directory: Path

    def pull(self, rounds: int, mebibytes: int, clients: int) -> Pulls:
        """A new blob in each round, to so many clients at once; the bytes of the first round are verified."""
        seeds = range(mebibytes * 1000 + clients, mebibytes * 1000 + clients + rounds + 1)
        size = mebibytes * _MEBIBYTE
        digests = [make_blob(self.upstream.blobs, mebibytes, seed) for seed in seeds]
        drained = in_turn(
            rounds, {peer.name: partial(self._drain, peer, digests, clients) for peer in self.peers}
        )
        fetched = {
            peer.name: [self.upstream.sent(peer.name, digest) / size for digest in digests[1:]]
            for peer in self.peers
        }
        for digest in digests:
            (self.upstream.blobs / digest).unlink()
        return Pulls(drained, fetched)

    def _drain(self, peer: Peer, digests: Sequence[str], clients: int, number: int) -> Drained:
        drained = drain(peer.blob(digests[number]), clients)
        wait_until_idle(peer.pid)
        if not number and peer.url.startswith("http:"):
            verify(peer.blob(digests[number]), digests[number])
        self._empty()
        return drained

    def _empty(self) -> None:
        """Frees the pages that the next one's files will have.

        A virtual machine gets memory that it has not used yet from its host, at a fraction of the speed of
        writing to what it has: whoever is measured later would be measured slower.
        """
        for path in self.directory.rglob("*"):
            if self.upstream.blobs not in path.parents and path.is_file() and path.stat().st_size > _LARGE:
                path.unlink()


@contextmanager
def fetching(tls: bool = False, rate: int = 0) -> Iterator[Fetching]:
    """See ``origin``."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(origin(directory, tls, rate))
        trusted = {"ca_file": str(upstream.trusted)} if upstream.trusted else {}
        peers = [
            stack.enter_context(mirrored(upstream.url, f"--cache={directory}/mirror", **trusted)),
            stack.enter_context(distribution.pull_through(directory, upstream.url, upstream.trusted)),
            stack.enter_context(nginx.proxy_cache(directory, upstream.url, upstream.trusted)),
            upstream.peer,
        ]
        yield Fetching(upstream, peers, directory)
