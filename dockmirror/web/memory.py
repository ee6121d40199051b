"""Memory that processes share which serve as one."""

from __future__ import annotations

import mmap
import os
from itertools import accumulate

from ..status import popular, series
from ..system import digests
from . import guesses, ledger, recent

_PARTS = (ledger.SIZE, recent.SIZE, series.SIZE, popular.SIZE, guesses.SIZE, digests.SIZE)
SIZE = sum(_PARTS)


class Memory:
    """Some of it for each who keeps something in it.

    :ivar ledger: see ``Ledger``.
    :ivar recent: see ``Recent``.
    :ivar series: see ``Series``.
    :ivar popular: see ``Popular``.
    :ivar guesses: see ``Guesses``.
    :ivar verified: see ``Htpasswd``.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        whole = memoryview(mapped)
        ends = accumulate(_PARTS)
        self.ledger, self.recent, self.series, self.popular, self.guesses, self.verified = (
            whole[end - size : end] for size, end in zip(_PARTS, ends, strict=True)
        )

    @classmethod
    def alone(cls) -> Memory:
        """Of a process that shares it with nobody."""
        return cls(mmap.mmap(-1, SIZE))

    @classmethod
    def of(cls, descriptor: int) -> Memory:
        """That which another process has made."""
        return cls(mmap.mmap(descriptor, SIZE))


def shared() -> int:
    """The descriptor of memory that may be given to other processes."""
    descriptor = os.memfd_create("dockmirror")
    os.ftruncate(descriptor, SIZE)
    return descriptor
