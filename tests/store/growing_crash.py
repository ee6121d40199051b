"""Kills a process at every step of a fetch; ``test_growing_crash.py`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet.task import Clock

from dockmirror.oci.descriptor import Descriptor
from dockmirror.store import layout
from dockmirror.store.growing.growths import Growths

from ..answering import now
from .contract import HERE
from .crashing import NEW, NEW_DATA, NEW_DIGEST, PART, WORKS, Work, main, serves
from .stocked import Stocked
from .threads import inline
from .upstream import REGISTRY, Client, Source, Upstream

TOLD = layout.growing_size(REGISTRY, NEW_DIGEST)


def fetch(store: Stocked) -> None:
    """A reader reads a blob whose upstream breaks off once; nothing that is there is fetched again."""
    upstream, clock = Upstream(NEW), Clock()
    there = [path.stat().st_size for path in (store.root / PART, store.root / NEW_DATA) if path.exists()]
    growths = Growths(store.root, store.contents, clock, inline)
    growth = now(growths.join(REGISTRY, HERE, NEW_DIGEST, Source(upstream)))
    client = Client().read(growth, Descriptor(size=len(NEW)))
    if upstream.running:
        upstream.running.send(100).break_off()
        clock.advance(0)
    if upstream.running:
        upstream.running.finish()
    assert (client.received, client.outcome) == (NEW, True)
    assert upstream.sent == len(NEW) - max(there, default=0)


def is_held(store: Stocked) -> bool:
    """Whether it is served, and nothing is left over."""
    return serves(store, NEW) and not [path for path in (PART, TOLD) if (store.root / path).exists()]


def nothing(store: Stocked) -> None:
    """There is nothing before."""


if __name__ == "__main__":
    WORKS["fetch"] = Work(nothing, fetch, is_held)
    sys.stdout.write(str(main("fetch", Path(sys.argv[1]))))
