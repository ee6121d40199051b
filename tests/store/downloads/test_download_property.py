"""Any readers of a download, in any process, whatever the upstream and the processes do meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dockmirror.oci.header_fields import ContentRange

from .upstream import Body, Client, FileClient, Joining, Mirror, Source, Upstream, all_closed
from .world import World

DATA = os.urandom(700_000)
SIZE = len(DATA)


@frozen
class Reader:
    """A reader who came, and the part that it wants."""

    mirror: Mirror
    joining: Joining
    client: Client
    part: ContentRange | None

    @property
    def wanted(self) -> bytes:
        """The bytes that it must be given."""
        return DATA[self.part.first : self.part.last + 1] if self.part else DATA

    def leave(self) -> None:
        self.client.leave() if self.joining.is_admitted else self.joining.cancel()


class DownloadWorld(World[Mirror, Upstream, Reader]):
    """Readers of one download, or of a part of it."""

    def __init__(self, root: Path, has_size: bool) -> None:
        self._has_size = has_size
        super().__init__(root)

    def make(self) -> tuple[Upstream, Mirror]:
        upstream = Upstream(DATA)
        upstream.size = SIZE if self._has_size else None
        return upstream, Mirror(self.root, DATA, opened=self.opened)

    def running(self) -> list[Body]:
        return [upstream.running for upstream in self.upstreams if upstream.running]

    def join(self, process: int, first: int, length: int, kind: Callable[[], Client]) -> None:
        part = ContentRange(first, min(SIZE, first + length) - 1, SIZE) if first else None
        mirror, client = self.mirrors[process], kind()
        joining = mirror.join(Source(self.upstreams[process]))
        self.readers.append(Reader(mirror, joining, client, part))
        joining.once(lambda reader: client.read(reader, mirror.descriptor, part))

    def send(self, count: int) -> None:
        """The upstream sends something to whoever fetches."""
        for body in self.running():
            body.advance(count)

    def finish(self) -> None:
        for body in self.running():
            body.finish()

    def settle(self) -> None:
        """Send everything, and have all readers take it."""
        for _ in range(30):
            self.finish()
            for process in range(2):
                self.turn(process)
            for reader in self.readers:
                reader.client.resume()

    def bury(self) -> None:
        """Give back everything that killed processes have left in this one."""
        for reader in self.gone:
            reader.leave()
        for upstream in self.cut:
            if upstream.running:
                upstream.running.break_off()


processes = st.integers(0, 1)
readers = st.integers(0, 5)
counts = st.one_of(st.integers(1, 100), st.integers(1, SIZE), st.just(65536))
kinds = st.sampled_from([Client, partial(Client, picky=True), FileClient])
steps = st.one_of(
    st.tuples(st.just(DownloadWorld.join), processes, st.integers(0, SIZE - 1), counts, kinds),
    st.tuples(st.just(DownloadWorld.join), processes, st.just(0), counts, kinds),
    st.tuples(st.sampled_from([DownloadWorld.leave, DownloadWorld.pause, DownloadWorld.resume]), readers),
    st.tuples(st.just(DownloadWorld.send), counts),
    st.tuples(st.sampled_from([DownloadWorld.finish, DownloadWorld.break_off])),
    st.tuples(st.just(DownloadWorld.turn), processes),
    st.tuples(st.just(DownloadWorld.kill), processes),
)


@settings(deadline=None, max_examples=100)
@given(st.booleans(), st.lists(steps, max_size=40))
def test_any_readers_get_the_right_bytes(
    has_size: bool, taken: list[tuple[Callable[..., None], *tuple[object, ...]]]
) -> None:
    """Every reader who stays gets the right bytes, and each byte leaves the upstream once."""
    with TemporaryDirectory() as directory, all_closed(Path(directory)):
        world = DownloadWorld(Path(directory), has_size)
        for step, *arguments in taken:
            step(world, *arguments)
            for reader in world.readers + world.gone:
                assert reader.wanted.startswith(reader.client.data)
        world.settle()
        for reader in world.readers:
            assert (reader.client.outcome, reader.client.data == reader.wanted) == (True, True)
            assert reader.client.written_while_paused == 0
        blob = world.mirrors[0].blob
        assert world.sent == SIZE if blob.exists() else world.sent <= SIZE
        assert not blob.exists() or blob.read_bytes() == DATA
        event(f"{len(world.readers)} stayed")
        world.bury()
