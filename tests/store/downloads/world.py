"""Processes that share a directory, and readers that come and go; a property test takes its steps here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from dockmirror.store.downloads.downloads import POLL

from ...answering import Feed
from .upstream import Client, Mirror

BREAKS = 4
"""Times that the upstreams may break off before a download fails."""


class SendingUpstream(Protocol):
    """An upstream that counts the bytes that left it."""

    @property
    def sent(self) -> int: ...


class ReaderOfMirror(Protocol):
    """A reader in one of the processes."""

    @property
    def mirror(self) -> Mirror: ...

    @property
    def client(self) -> Client: ...

    def leave(self) -> None: ...


M = TypeVar("M", bound=Mirror)
U = TypeVar("U", bound=SendingUpstream)
R = TypeVar("R", bound=ReaderOfMirror)


class World(ABC, Generic[M, U, R]):
    """Two processes on one directory, each with connections of its own to the upstream.

    :ivar cut: the upstreams of killed processes.
    :ivar gone: the readers that left, and those whose process was killed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: dict[int, Mirror] = {}
        self.mirrors: list[M] = []
        self.upstreams: list[U] = []
        self.cut: list[U] = []
        self.readers: list[R] = []
        self.gone: list[R] = []
        self._breaks = 0
        for process in range(2):
            self._start(process)

    @abstractmethod
    def make(self) -> tuple[U, M]:
        """Return a process and its upstream."""

    @abstractmethod
    def running(self) -> Sequence[Feed]:
        """Return the bodies that can go on."""

    def leave(self, which: int) -> None:
        if self.readers:
            self.gone.append(self.readers.pop(which % len(self.readers)))
            self.gone[-1].leave()

    def pause(self, which: int) -> None:
        if self.readers:
            self.readers[which % len(self.readers)].client.pause()

    def resume(self, which: int) -> None:
        if self.readers:
            self.readers[which % len(self.readers)].client.resume()

    def break_off(self) -> None:
        for body in self.running():
            if self._breaks < BREAKS:
                self._breaks += 1
                body.break_off()

    def turn(self, process: int) -> None:
        self.mirrors[process].turn(POLL)

    def kill(self, process: int) -> None:
        """A process dies, and another takes its place; its readers are cut off by that."""
        killed = self.mirrors.pop(process)
        killed.kill()
        self.cut.append(self.upstreams.pop(process))
        self.gone += [reader for reader in self.readers if reader.mirror is killed]
        self.readers = [reader for reader in self.readers if reader.mirror is not killed]
        self._start(process)

    @property
    def sent(self) -> int:
        """The number of bytes that left the upstream."""
        return sum(upstream.sent for upstream in self.upstreams + self.cut)

    def _start(self, process: int) -> None:
        upstream, mirror = self.make()
        self.upstreams.insert(process, upstream)
        self.mirrors.insert(process, mirror)
