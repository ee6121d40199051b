"""Exchanges recalls with the other mirrors that share a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from twisted.internet.interfaces import IReactorTime

from ..oci.digest import Digest
from ..store import layout
from ..store.bucket.bucket import Bucket, BucketUnavailable
from ..store.threads import RunInThread
from . import recall_files
from .generation import Generation
from .recalls import Recall, Recalls

FULL_PERIOD = 600.0
"""Seconds after which the recalls in the bucket are listed even if none seems to have changed."""


class RecallExchange:
    """Brings the statements of a directory and of a bucket to the same state; the later of two counts.

    An object in the bucket, the generation, differs after each change; so a mirror makes one small request
    as long as nothing has changed.  The bytes of recalled contents are deleted from the bucket.
    """

    def __init__(self, root: Path, bucket: Bucket, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._bucket = bucket
        self._clock = clock
        self._in_thread = in_thread
        self._seen: tuple[bytes, Mapping[Digest, Recall]] | None = None
        self._listed = 0.0

    async def run(self) -> None:
        """Exchange them, unless the bucket fails, which it logs itself.

        :raises OSError: if the disk fails.
        """
        with suppress(BucketUnavailable):
            await self._run()

    async def _run(self) -> None:
        found = await self._bucket.read(layout.RECALLS_GENERATION)
        local = await self._in_thread(partial(recall_files.read_statements, self._root))
        seen, now = (found[0] if found else b"", local), self._clock.seconds()
        if seen == self._seen and 0 <= now - self._listed < FULL_PERIOD:
            return
        statements = await self._merge(local)
        recalled = Recalls.of(statements.values()).by_digest
        await self._bucket.delete([str(layout.data(each)) for each in recalled])
        self._seen, self._listed = (seen[0], statements), now

    async def _merge(self, local: Mapping[Digest, Recall]) -> Mapping[Digest, Recall]:
        remote = await self._read_all()
        newer = [each for each in remote.values() if each.supersedes(local.get(each.digest))]
        for each in newer:
            await self._in_thread(partial(recall_files.write_statement, self._root, each))
        if newer:
            now = self._clock.seconds()
            await self._in_thread(partial(Generation(self._root).advance, now))
        statements = {**local, **{each.digest: each for each in newer}}
        missing = [each for each in statements.values() if each.supersedes(remote.get(each.digest))]
        for each in missing:
            await self._bucket.put(layout.recall(each.digest), bytes(each))
        if missing:
            await self._bucket.put(layout.RECALLS_GENERATION, new_generation())
        return statements

    async def _read_all(self) -> Mapping[Digest, Recall]:
        found: dict[Digest, Recall] = {}
        for listed in await self._bucket.list(layout.RECALLS):
            data = await self._bucket.read(layout.RECALLS / listed.key.rpartition("/")[2])
            recall = Recall.parse(data[0]) if data else None
            if recall is not None:
                found[recall.digest] = recall
        return found


def new_generation() -> bytes:
    """Return a value for the generation that it never had before."""
    return token_hex(8).encode()
