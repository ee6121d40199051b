"""One request for blocks, on a disk that is slow and full."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.store.downloads.block_fetch import BlockFetch
from dockmirror.store.downloads.block_file import BlockFile
from dockmirror.store.downloads.context import BlobVersion

from ...answering import watch
from ..downloads.upstream import REGISTRY, full
from ..threads import inline
from .parts import END, PartMirror, PartSource, PartUpstream


class SlowFile(BlockFile):
    """A file on a disk that takes a second for each write."""

    clock: Clock

    def write(self, data: bytes, offset: int) -> None:
        self.clock.advance(1)
        super().write(data, offset)


def test_a_slow_disk_that_does_not_take_the_map(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The fetch fails, also while threads write."""
    file = SlowFile(mirror.root, REGISTRY, mirror.digest, inline)
    file.clock = mirror.clock
    run = file.create(BlobVersion(END), range(2))
    recorded: list[int] = []
    fetch = BlockFetch(run, PartSource(upstream), file, mirror.context, lambda: None, recorded.append)
    outcome = watch(fetch.fetch(None))
    with full(END):
        upstream.finish()
    assert isinstance(outcome[0], OSError)
    assert (recorded, upstream.bodies[0].state) == ([], "cancelled")
    assert file.claim(0)
    file.close()
