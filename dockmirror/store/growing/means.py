"""What every fetch works with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...interfaces import IContents
from ..threads import InThread


class Trouble:
    """Says once that the disk takes nothing, until it does again."""

    _log = Logger()

    def __init__(self) -> None:
        self._noted = False

    def note(self, error: OSError) -> None:
        """Something could not be kept."""
        if not self._noted:
            self._noted = True
            self._log.error("the store takes nothing, blobs are only relayed: {error}", error=str(error))

    def end(self) -> None:
        """Something was kept."""
        self._noted = False


@frozen
class Means:
    """Collaborators and limits.

    :ivar root: under which everything lies.
    :ivar grown: is told how many bytes were written.
    :ivar finish: see ``Growths``.
    """

    root: Path
    contents: IContents
    clock: IReactorTime
    in_thread: InThread
    trouble: Trouble
    grown: Callable[[int], None]
    finish: int
