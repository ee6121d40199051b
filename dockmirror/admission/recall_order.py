"""Recall a digest or lift its recall, from a command or the API; all calls block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import evolve, frozen

from ..oci.digest import Digest
from ..store import layout
from ..store.bucket.blocking_bucket import BucketAddress, open_for_small_objects
from ..store.held_images import HeldImages
from . import recall_files
from .recall_enforcement import new_generation
from .recall_files import Generation, RecallScope
from .recalls import EMPTY_BLOBS, Recall


class NotRecallable(Exception):
    """The digest cannot be recalled, or was not; the message is a sentence for the operator."""


class BucketNotReached(Exception):
    """A statement is in force here and not in the bucket yet; the running mirror brings it there."""


@frozen
class RecallOrder:
    """Makes statements about recalls in a store, and in the bucket that it shares with others.

    :ivar bucket: None if there is none.
    :ivar now: returns the time in seconds since the epoch.
    """

    root: Path
    bucket: BucketAddress | None
    now: Callable[[], float]

    def begin(self, digest: Digest, reason: str) -> RecallScope:
        """Return what a recall concerns; a manifest is recalled before the search, which may take long.

        :raises NotRecallable: for a blob that holds nothing: images of every origin share it.
        """
        if digest in EMPTY_BLOBS:
            raise NotRecallable(f"{digest} is an empty blob, which many images share, and is never recalled")
        if self._is_manifest(digest):
            recall = self._recall(digest, reason)
            with suppress(BucketNotReached):
                self.publish(recall)
        return recall_files.find_scope(self.root, digest)

    def complete(self, digest: Digest, reason: str, scope: RecallScope) -> Recall:
        """Put the recall into force in this store, with the layers that only its image needs."""
        recall = self._recall(digest, reason)
        if not scope.layers or scope.layers == recall.layers:
            return recall
        return self._state(evolve(recall, layers=scope.layers, changed=recall.changed + 0.001))

    def _is_manifest(self, digest: Digest) -> bool:
        """Return whether some repository has the digest as a manifest, without reading any."""
        images = HeldImages(self.root)
        return any(digest in images.list_manifests(each) for each in images.list_repositories())

    def _recall(self, digest: Digest, reason: str) -> Recall:
        """Put a recall into force in this store; the workers notice it with the next request."""
        previous = recall_files.read_statements(self.root).get(digest)
        now = self.now()
        is_new = previous is None or previous.is_lifted
        since = now if is_new or previous is None else previous.since
        layers = previous.layers if previous is not None else ()
        changed = now if previous is None else max(now, previous.changed + 1)
        return self._state(Recall(digest, reason, since, changed, layers=layers))

    def lift(self, digest: Digest) -> Recall:
        """End a recall.

        :raises NotRecallable: when there is none in force.
        """
        previous = recall_files.read_statements(self.root).get(digest)
        if previous is None or previous.is_lifted:
            raise NotRecallable(f"{digest} is not recalled")
        return self._state(previous.lift(self.now()))

    def publish(self, recall: Recall) -> bool:
        """Put a statement into the bucket, and delete the bytes of what it recalls from there.

        :returns: False if there is no bucket.
        :raises BucketNotReached: when the bucket fails.
        """
        if self.bucket is None:
            return False
        from obstore.exceptions import BaseError

        bucket = open_for_small_objects(self.bucket)
        try:
            bucket.put(str(layout.recall(recall.digest)), bytes(recall), {})
            bucket.put(str(layout.RECALLS_GENERATION), new_generation(), {})
            if not recall.is_lifted:
                bucket.delete([str(layout.data(recall.digest))])
        except (BaseError, OSError) as error:
            raise BucketNotReached(f"{self.bucket} cannot be written: {type(error).__name__}") from error
        return True

    def _state(self, recall: Recall) -> Recall:
        recall_files.write_statement(self.root, recall)
        Generation(self.root).advance(self.now())
        return recall
