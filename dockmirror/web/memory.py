"""Memory that processes share which serve as one."""

from __future__ import annotations

import mmap
import os

from . import ledger, recent

SIZE = ledger.SIZE + recent.SIZE


class Memory:
    """Some of it for each who keeps something in it.

    :ivar ledger: see ``Ledger``.
    :ivar recent: see ``Recent``.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        whole = memoryview(mapped)
        self.ledger, self.recent = whole[: ledger.SIZE], whole[ledger.SIZE :]

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
