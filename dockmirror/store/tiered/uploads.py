"""What is owed to the bucket, given to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import IDocuments, ITags
from ...work.repeated import Repeated
from .. import layout, owed
from ..objects.bucket import Bucket
from ..objects.calls import PART
from ..objects.contents import ObjectContents, named
from ..objects.documents import ObjectDocuments
from ..objects.health import BucketFails
from ..objects.tags import ObjectTags
from ..owed import Owed, OwedContent, OwedTag
from ..threads import InThread

LOOK = 1.0
"""Seconds between two looks at what is owed."""
ON_ITS_WAY = 60.0
"""Seconds since it was noted for which a content may still be about to be there."""
_AT_ONCE = 4
_log = Logger()


class Uploads(Repeated):
    """Gives by and by what is owed, by one process of those that share the directory at a time.

    What could not be given is kept, over a restart too, and tried again when the bucket is asked again; what
    is being given when the process ends, the next one gives.

    :ivar waiting: how much was owed at the last look.
    """

    def __init__(
        self,
        root: Path,
        bucket: Bucket,
        contents: ObjectContents,
        near_tags: ITags,
        near_documents: IDocuments,
        clock: IReactorTime,
        in_thread: InThread,
    ) -> None:
        super().__init__(self.look, LOOK, clock, "what is owed is not given")
        self.waiting = 0
        self._root = root
        self._bucket = bucket
        self._near_tags = near_tags
        self._near_documents = near_documents
        self._clock = clock
        self._contents = contents
        self._tags = ObjectTags(bucket, clock)
        self._documents = ObjectDocuments(bucket)
        self._in_thread = in_thread

    async def look(self) -> None:
        """Gives what is owed, unless another process does."""
        paths = await self._in_thread(partial(owed.waiting, self._root))
        self.waiting = len(paths)
        if not paths:
            return
        turn = await self._in_thread(partial(owed.turn, self._root))
        if turn is None:
            return
        try:
            await self._give_all(paths)
        except BucketFails:  # of which the bucket tells
            pass
        finally:
            os.close(turn)

    async def _give_all(self, paths: Sequence[Path]) -> None:
        """A few at once, of one kind: what is told of is there before."""
        for _, alike in groupby(paths, key=lambda path: path.name.partition("-")[0]):
            left = list(alike)
            while left:
                giving = [Deferred.fromCoroutine(self._give(path)) for path in left[:_AT_ONCE]]
                given = await DeferredList(giving, consumeErrors=True)
                for _, failure in given:  # once nothing is under way: it would be given a second time beside
                    if isinstance(failure, Failure):
                        failure.raiseException()
                self.waiting -= len(giving)
                del left[:_AT_ONCE]

    async def _give(self, path: Path) -> None:
        self._bucket.health.check()
        try:
            each, taken = await self._in_thread(partial(owed.take, path))
        except OSError as error:
            _log.error("{path} cannot be read: {error}", path=path, error=str(error))
            return
        given = False
        try:
            given = each is None or await self._given(each, taken)
        finally:
            if given:
                await self._in_thread(partial(owed.done, taken))
            elif each is not None:
                await self._in_thread(partial(owed.give_back, taken, each, self._root))

    async def _given(self, each: Owed, noted: Path) -> bool:
        if isinstance(each, OwedContent):
            return await self._give_content(each, noted)
        if isinstance(each, OwedTag):
            tagged = await self._near_tags.get(each.repository, each.tag)
            if tagged is not None:
                await self._tags.note(each.repository, each.tag, tagged)
        else:
            data = await self._near_documents.read(each.name)
            if data is not None:
                await self._documents.write(each.name, data)
        return True

    async def _give_content(self, each: OwedContent, noted: Path) -> bool:
        """Its bytes first, unless they are there; what was evicted meanwhile cannot be given any more."""
        key = layout.data(each.digest)
        file, metadata = self._root / key, named(each.repository, each.kind)
        try:
            size = await self._in_thread(lambda: file.stat().st_size)
            small = await self._in_thread(file.read_bytes) if size <= PART else None
        except OSError as error:
            since = await self._in_thread(lambda: noted.stat().st_mtime)
            if 0 <= self._clock.seconds() - since < ON_ITS_WAY:
                return False
            _log.warn("{digest} is not uploaded: {error}", digest=each.digest, error=str(error))
            return True
        if small is not None:
            await self._bucket.put_new(key, small, metadata)
        elif not await self._contents.is_there(each.digest):
            await self._bucket.upload(key, file, metadata)
        await self._contents.write_link(each.repository, each.digest, each.kind)
        return True
