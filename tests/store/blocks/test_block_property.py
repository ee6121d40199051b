"""Any readers of parts, in any process, whatever the upstream and the processes do meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from dockmirror.interfaces import IDownloadReader
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.header_fields import ContentRange
from dockmirror.store.downloads.block_waiter import POLL
from dockmirror.store.downloads.context import LINGER, MAX_WAIT

from ..downloads.upstream import Client, FileClient, all_closed, open_files
from ..downloads.world import BREAKS, World
from .parts import MEBIBYTE, BlobRead, PartBody, PartMirror, PartSource, PartUpstream

SIZE = 3 * MEBIBYTE + MEBIBYTE // 2
DATA, CHANGED = os.urandom(SIZE), os.urandom(SIZE)
WRONG = DATA[: 2 * MEBIBYTE] + os.urandom(SIZE - 2 * MEBIBYTE)
VERSIONS = {
    "as at first": (DATA, '"one"'),
    "changed": (CHANGED, '"two"'),
    "wrong": (WRONG, '"one"'),
    "without an entity tag": (DATA, None),
}
DESCRIPTOR = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)
_SAMPLE = 1024


class WholeRead(BlobRead):
    """One reader of the whole blob."""

    def __init__(self, mirror: PartMirror, source: PartSource, client: Client) -> None:
        super().__init__(mirror, client)
        self._joining = mirror.join(source)
        self.cancel = self._joining.cancel
        self._joining.once(self._read)

    @property
    def error(self) -> BaseException | None:
        return self._joining.error

    def _read(self, reader: IDownloadReader) -> None:
        self.part = ContentRange(0, SIZE - 1, SIZE)
        self.client.read(reader, DESCRIPTOR)


@frozen
class Reader:
    """A reader, and where its part begins."""

    mirror: PartMirror
    read: BlobRead
    first: int

    @property
    def client(self) -> Client:
        return self.read.client

    @property
    def has_ended(self) -> bool:
        return self.read.is_relayed or self.read.error is not None or self.read.outcome is not None

    def leave(self) -> None:
        self.read.leave()

    @property
    def is_whole(self) -> bool:
        return self.first == 0 and self.read.part is not None and self.read.part.length == SIZE

    def is_right(self, data: bytes) -> bool:
        """Return whether it has been given a beginning of its part of this blob."""
        received = self.read.data
        return data[self.first : self.first + len(received)] == received


class PartWorld(World[PartMirror, PartUpstream, Reader]):
    """Readers of parts of one blob, which may change."""

    def __init__(self, root: Path) -> None:
        self._data, self._etag = VERSIONS["as at first"]
        super().__init__(root)

    def make(self) -> tuple[PartUpstream, PartMirror]:
        upstream = PartUpstream(self._data)
        upstream.etag = self._etag
        return upstream, PartMirror(self.root, DATA, opened=self.opened)

    def running(self) -> list[PartBody]:
        return [body for upstream in self.upstreams for body in upstream.running]

    def read(self, process: int, first: int, length: int, kind: Callable[[], Client]) -> None:
        mirror = self.mirrors[process]
        last = None if length == SIZE else min(SIZE, first + length) - 1
        read = mirror.read_part(PartSource(self.upstreams[process]), first, last, kind=kind)
        self.readers.append(Reader(mirror, read, first))

    def download(self, process: int, kind: Callable[[], Client]) -> None:
        mirror = self.mirrors[process]
        read = WholeRead(mirror, PartSource(self.upstreams[process]), kind())
        self.readers.append(Reader(mirror, read, 0))

    def pause(self, which: int) -> None:
        """A client pauses, once its part is delivered to it."""
        if self.readers and self.readers[which % len(self.readers)].client.producer is not None:
            super().pause(which)

    def send(self, count: int) -> None:
        for body in self.running():
            body.advance(count)
            if body.position > body.last:
                body.end()

    def wait(self, process: int) -> None:
        """Let so much time pass that nothing waits any longer."""
        self.mirrors[process].turn(MAX_WAIT)

    def change(self, version: str) -> None:
        """The upstream has other bytes from now on, or calls them otherwise."""
        self._data, self._etag = VERSIONS[version]
        for upstream in self.upstreams:
            upstream.data, upstream.etag = self._data, self._etag

    def settle(self) -> None:
        """Send everything, and have all readers take it, until they have ended: pauses may add up."""
        for turn in range(200):
            if turn >= 60 and all(reader.has_ended for reader in self.readers):
                break
            self.send(SIZE)
            for process in range(2):
                self.mirrors[process].turn(POLL if turn < 40 else 1.0)
            for reader in self.readers:
                reader.client.resume()

    def bury(self) -> None:
        """Give back everything that killed processes have left in this one."""
        for reader in self.gone:
            reader.read.leave()
        mirrors = {reader.mirror for reader in self.gone} | set(self.mirrors)
        for _ in range(10 * BREAKS):
            if not open_files(self.root):
                break
            for upstream in self.cut:
                for body in upstream.running:
                    body.break_off()
            for mirror in mirrors:
                mirror.turn(LINGER)


processes = st.integers(0, 1)
readers = st.integers(0, 5)
offsets = st.one_of(
    st.just(0), st.integers(0, SIZE - 1), st.sampled_from([MEBIBYTE - 1, MEBIBYTE, 3 * MEBIBYTE])
)
counts = st.one_of(st.integers(1, 100), st.integers(1, SIZE - 1), st.just(SIZE))
kinds = st.sampled_from([Client, FileClient])
quiet = (
    st.tuples(st.just(PartWorld.read), processes, offsets, counts, kinds),
    st.tuples(st.sampled_from([PartWorld.leave, PartWorld.pause, PartWorld.resume]), readers),
    st.tuples(st.just(PartWorld.send), counts),
    st.tuples(st.just(PartWorld.turn), processes),
)
whole = st.tuples(st.just(PartWorld.download), processes, kinds)
breaks = st.tuples(st.just(PartWorld.break_off)), st.tuples(st.just(PartWorld.kill), processes)
troubles = (*breaks, st.tuples(st.just(PartWorld.wait), processes))
Steps = list[tuple[Callable[..., None], *tuple[object, ...]]]


def run(world: PartWorld, taken: Steps, *blobs: bytes) -> None:
    """Take the steps; readers are given bytes of one of these blobs only."""
    for step, *arguments in taken:
        step(world, *arguments)
        for reader in world.readers + world.gone:
            assert any(reader.is_right(blob) for blob in blobs)
    world.settle()
    for reader in world.readers:
        assert any(reader.is_right(blob) for blob in blobs)
        assert reader.client.written_while_paused == 0
    event(f"{len(world.readers)} stayed")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.one_of(*quiet), max_size=30))
def test_each_block_is_fetched_once(taken: Steps) -> None:
    """When nothing fails, all readers get their parts, and no block leaves the upstream twice."""
    with TemporaryDirectory() as directory, all_closed(Path(directory)):
        world = PartWorld(Path(directory))
        run(world, taken, DATA)
        for reader in world.readers:
            assert not reader.read.is_relayed
            assert (reader.read.outcome, reader.read.data == reader.read.wanted) == (True, True)
        blob = world.mirrors[0].blob
        assert world.sent == SIZE if blob.exists() else world.sent <= SIZE
        assert not blob.exists() or blob.read_bytes() == DATA
        world.bury()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.one_of(*quiet, whole, *troubles), max_size=30))
def test_any_readers_get_the_right_bytes(taken: Steps) -> None:
    """Readers get their parts, whether the upstream breaks off, is slow, or a process dies."""
    with TemporaryDirectory() as directory, all_closed(Path(directory)):
        world = PartWorld(Path(directory))
        run(world, taken, DATA)
        for reader in world.readers:
            read = reader.read
            assert read.error is None
            assert read.is_relayed or (read.outcome, read.data == read.wanted) == (True, True)
        blob = world.mirrors[0].blob
        assert not blob.exists() or blob.read_bytes() == DATA
        world.bury()


changes = st.tuples(st.just(PartWorld.change), st.sampled_from(sorted(VERSIONS)))
dropped_blocks: Steps = [
    (PartWorld.read, 0, 3 * MEBIBYTE, MEBIBYTE // 2 - 1, Client),
    (PartWorld.turn, 0),
    (PartWorld.read, 1, 0, SIZE, Client),
    (PartWorld.send, MEBIBYTE // 2 - 1),
    (PartWorld.turn, 1),
    (PartWorld.change, "changed"),
    (PartWorld.break_off,),
    *[(PartWorld.turn, 0)] * 40,
    (PartWorld.change, "wrong"),
]
"""A reader relays the rest of its part, because another process has met another version meanwhile."""


@settings(deadline=None, max_examples=25)
@example(dropped_blocks)
@given(
    st.lists(
        st.one_of(*quiet, whole, *breaks, changes),
        max_size=30,
    )
)
def test_no_whole_reader_gets_wrong_bytes(taken: Steps) -> None:
    """Whatever the upstream sends, nothing wrong is held, and parts never mix versions that it tells apart.

    Readers of a download of the whole blob get its end only if the digest is right.  Readers of parts that
    join it, or whose blocks it has found wrong, may be given what the upstream sends, as by a relay; so may
    those whose blocks were dropped for another version, and those who have waited for long, which nobody
    does here.
    """
    with TemporaryDirectory() as directory, all_closed(Path(directory)):
        world = PartWorld(Path(directory))
        for step, *arguments in taken:
            step(world, *arguments)
        world.settle()
        readers = world.readers + world.gone
        has_download = any(isinstance(reader.read, WholeRead) for reader in readers)
        may_be_dropped = (PartWorld.change, "changed") in taken
        for reader in readers:
            has_changed = reader.is_right(CHANGED) and len(reader.read.data) > 0
            is_complete = reader.is_whole and reader.read.outcome is True
            if isinstance(reader.read, WholeRead):
                assert not is_complete or reader.read.data == DATA
            elif not has_download:
                assert has_changed or not _has_some(reader, CHANGED)
                assert may_be_dropped or not is_complete or reader.read.data == DATA
        blob = world.mirrors[0].blob
        assert not blob.exists() or blob.read_bytes() == DATA
        world.bury()


def _has_some(reader: Reader, blob: bytes) -> bool:
    """Return whether the reader was given bytes of that blob."""
    received, first = reader.read.data, reader.first
    offsets = range(0, len(received) - _SAMPLE, _SAMPLE)
    samples = ((received[each : each + _SAMPLE], first + each) for each in offsets)
    return any(sample == blob[offset : offset + _SAMPLE] for sample, offset in samples)
