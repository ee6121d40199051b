"""The collaborators that all downloads share, and what one download shares with its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import Factory, define, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...body.wrappers import PAUSES
from ...interfaces import IContentStore
from ..threads import RunInThread


class LogOnce:
    """Logs that the disk fails, and no more of it until the disk works again."""

    _log = Logger()
    _is_logged = False

    def failed(self, error: OSError) -> None:
        if not self._is_logged:
            self._is_logged = True
            self._log.error("the store takes nothing, blobs are only relayed: {error}", error=str(error))

    def succeeded(self) -> None:
        self._is_logged = False


@define
class DownloadStats:
    """Counts how the downloads of this process ended."""

    kept: int = 0  # blobs that were stored
    wrong: int = 0  # blobs whose bytes did not match their digests
    failed: int = 0  # downloads that failed for another reason while somebody read them
    resumed: int = 0  # requests for the rest of a blob after the upstream had broken off


@frozen
class DownloadContext:
    """The collaborators of all downloads.

    :ivar root: the directory of the store.
    :ivar written: is called with the number of bytes that were written.
    :ivar finish_threshold: a blob of which fewer bytes are missing, or less than half, is fetched to its end
        although nobody reads it any more.
    """

    root: Path
    contents: IContentStore
    clock: IReactorTime
    in_thread: RunInThread
    written: Callable[[int], None] = lambda _: None
    finish_threshold: int = 64 * 1024 * 1024
    stats: DownloadStats = Factory(DownloadStats)
    disk_log: LogOnce = Factory(LogOnce)


@define
class Attempts:
    """The attempts that a download has left, however often it is restarted."""

    pauses: Iterator[float] = Factory(lambda: iter(PAUSES))  # seconds before each
    were_wrong: bool = False  # a file that was fetched in parts has proven wrong


class NoReaders(Exception):
    """The last reader has left."""
