"""The downloads of a store: each blob is fetched once from each registry, for all who ask meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from zope.interface import implementer

from ...body.verified import CorruptContent
from ...concurrency.caching import TTLCache
from ...interfaces import IDownloadReader, IDownloads, ISource
from ...oci.consent import HeldBlob
from ...oci.digest import Digest
from ...oci.reference import Repository
from ...status.status_values import DownloadStatus
from .context import DownloadContext
from .continuation import Rejected
from .download import Download, DownloadState
from .partial_file import PartialPaths, is_locked
from .progress import DownloadReader

MAX_WITHOUT_READERS = 4
"""The number of downloads that go on at once although nobody reads them."""
CORRUPT_TTL = 60.0
"""Seconds for which a blob is not asked for again that came wrong from where nobody notes that."""
_MAX_CORRUPT = 10_000

_Key = tuple[str, Digest]


@implementer(IDownloads)
class Downloads:
    """Downloads to a local disk, shared with every other process on the same directory."""

    def __init__(self, context: DownloadContext) -> None:
        self._context = context
        self._downloads: dict[_Key, Download] = {}
        self._corrupt: TTLCache[_Key, bool] = TTLCache(context.clock, _MAX_CORRUPT)

    def is_downloading(self, registry: str, digest: Digest) -> bool:
        paths = PartialPaths.of(self._context.root, registry, digest)
        return (registry, digest) in self._downloads or is_locked(paths)

    def active(self) -> Sequence[DownloadStatus]:
        """Return those of this process to which the upstream has answered."""
        active = []
        for (registry, digest), download in self._downloads.items():
            it = download.progress
            names = tuple(sorted(str(each) for each in it.repositories))
            if it.has_answer:
                active.append(DownloadStatus(registry, str(digest), names, it.length, it.size, it.pace))
        return active

    async def join(
        self, registry: str, repository: Repository, digest: Digest, source: ISource
    ) -> IDownloadReader:
        """Join; a reader whose own source begins the download is given the blob, and needs no check."""
        key = registry, digest
        if self._corrupt.get(key):
            raise CorruptContent(f"{registry} has sent wrong bytes for {digest} a moment ago")
        joined = key in self._downloads
        download = self._downloads[key] if joined else self._new(key)
        reader = DownloadReader(download.progress, repository, source, joined)
        download.progress.add(reader)
        if not joined:
            download.begin()
        try:
            await self._admit(reader, download)
        except BaseException:
            reader.leave()
            raise
        return reader

    async def _admit(self, reader: DownloadReader, download: Download) -> None:
        reader.check()
        while not download.progress.has_answer:
            await reader.change()
        if not reader.is_granted:
            reader.joined = reader.joined or download.state is not DownloadState.FETCHING
            await reader.source.check(HeldBlob(download.progress.size, reader.sample))
            reader.check()
            reader.grant()
        reader.size = download.progress.size
        if download.state is DownloadState.ENDED:
            await download.link()

    def _new(self, key: _Key) -> Download:
        download = Download(*key, self._context, self._may_continue, partial(self._ended, key))
        self._downloads[key] = download
        return download

    def _may_continue(self) -> bool:
        """The one that asks is counted already."""
        without_readers = sum(each.is_without_readers for each in self._downloads.values())
        return without_readers <= MAX_WITHOUT_READERS

    def _ended(self, key: _Key, error: Exception | None) -> None:
        del self._downloads[key]
        if isinstance(error, CorruptContent) and not isinstance(error, Rejected):
            self._corrupt.put(key, True, CORRUPT_TTL)
