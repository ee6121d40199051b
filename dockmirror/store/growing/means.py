"""What every fetch works with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define, frozen
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


@define
class Tally:
    """What has come of the fetches of this process.

    :ivar kept: blobs that are held now.
    :ivar wrong: those whose bytes were not what their digest says.
    :ivar failed: those that were given up for another reason, with readers waiting.
    :ivar resumed: how often an upstream that had broken off was asked for the rest.
    """

    kept: int = 0
    wrong: int = 0
    failed: int = 0
    resumed: int = 0


@frozen
class Means:
    """Collaborators and limits.

    :ivar root: under which everything lies.
    :ivar grown: is told how many bytes were written.
    :ivar finish: see ``Growths``.
    :ivar tally: counts what comes of them.
    """

    root: Path
    contents: IContents
    clock: IReactorTime
    in_thread: InThread
    trouble: Trouble
    grown: Callable[[int], None]
    finish: int
    tally: Tally
