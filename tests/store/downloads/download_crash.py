"""Kills a process at every step of a download; ``test_download_crash.py`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet.task import Clock

from dockmirror.oci.descriptor import Descriptor
from dockmirror.store import layout
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import Downloads

from ...answering import now
from ..contract import HERE
from ..crashing import NEW, NEW_DATA, NEW_DIGEST, PART, WORKS, Work, main, serves
from ..stocked import Stocked
from ..threads import inline
from .upstream import REGISTRY, Client, Source, Upstream

METADATA = layout.growing_size(REGISTRY, NEW_DIGEST)


def download(store: Stocked) -> None:
    """Read a blob whose upstream breaks off once; nothing that is there is fetched again."""
    upstream, clock = Upstream(NEW), Clock()
    there = [path.stat().st_size for path in (store.root / PART, store.root / NEW_DATA) if path.exists()]
    downloads = Downloads(DownloadContext(store.root, store.contents, clock, inline))
    reader = now(downloads.join(REGISTRY, HERE, NEW_DIGEST, Source(upstream)))
    client = Client().read(reader, Descriptor(size=len(NEW)))
    if upstream.running:
        upstream.running.send(100).break_off()
        clock.advance(0)
    if upstream.running:
        upstream.running.finish()
    assert (client.received, client.outcome) == (NEW, True)
    assert upstream.sent == len(NEW) - max(there, default=0)


def is_held(store: Stocked) -> bool:
    """Tell whether the blob is served, and nothing is left over."""
    return serves(store, NEW) and not [path for path in (PART, METADATA) if (store.root / path).exists()]


def nothing(store: Stocked) -> None:
    """Leave the store as it is."""


if __name__ == "__main__":
    WORKS["download"] = Work(nothing, download, is_held)
    sys.stdout.write(str(main("download", Path(sys.argv[1]))))
