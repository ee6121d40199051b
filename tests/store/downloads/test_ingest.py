"""An upstream's bytes on their way into a partial file."""

from __future__ import annotations

from pathlib import Path

from dockmirror.body.verified import CorruptContent
from dockmirror.concurrency.interrupt import Interrupt
from dockmirror.oci.errors import Unavailable
from dockmirror.store.downloads.context import NoReaders
from dockmirror.store.downloads.partial_file import PartialPaths, open_partial
from dockmirror.store.downloads.progress import DownloadProgress
from dockmirror.store.downloads.upstream_fetch import MAX_BEHIND, IngestConsumer
from dockmirror.store.file_body import FileReader
from dockmirror.store.writer import HASH_STEP, BackgroundHasher

from ..threads import inline
from .upstream import DATA, PIECE, FileClient, Mirror, Source, Upstream, all_closed


def test_no_more_is_taken_than_was_announced(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that sends more is cancelled; the blob is wrong."""
    client = mirror.read(Source(upstream))
    upstream.body.send_these(DATA + b"x")
    assert isinstance(client.outcome, CorruptContent)
    assert upstream.body.cancelled


def test_nothing_is_taken_after_an_interrupt(mirror: Mirror) -> None:
    """A body that goes on although it was cancelled is not written to the file."""
    partial, _ = open_partial(PartialPaths.of(mirror.root, "docker.io", mirror.digest))
    file = FileReader(partial.descriptor, inline)
    progress, interrupt = DownloadProgress(mirror.clock, lambda: None), Interrupt()
    ingest = IngestConsumer(
        progress, partial, BackgroundHasher(mirror.digest, file), interrupt, mirror.context
    )
    ingest.write(b"taken")
    interrupt.set(NoReaders())
    ingest.write(b"not taken")
    assert mirror.part.read_bytes() == b"taken"
    file.close()


def test_the_upstream_waits_for_the_hash(tmp_path: Path) -> None:
    """An upstream that is 64 MiB ahead of the hash is paused, and resumed when that has caught up."""
    data = bytes(MAX_BEHIND + 1024 * 1024)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream), client=FileClient(len(data)))
        hashing = mirror.hold_threads()
        upstream.body.send(MAX_BEHIND - PIECE)
        assert not upstream.body.paused
        upstream.body.send(2 * PIECE)
        assert upstream.body.paused
        hashing.callback(None)
        assert not upstream.body.paused
        upstream.body.finish()
        mirror.turn(times=100)
        assert (client.outcome, client.received == data) == (True, True)


def test_a_download_ends_when_its_bytes_cannot_be_hashed(tmp_path: Path) -> None:
    """A download ends as soon as its bytes cannot be hashed: nobody would resume the upstream."""
    data = bytes(HASH_STEP + PIECE)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream))
        hashing = mirror.hold_threads()
        upstream.body.send()
        hashing.errback(OSError("input/output error"))
        assert upstream.body.cancelled
        assert isinstance(client.outcome, Unavailable)
        assert not mirror.part.exists()
