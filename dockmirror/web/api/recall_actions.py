"""Recalls through the API: what ``dockmirror recall`` does, with a token and a line of the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from ...admission.recall_files import (
    BucketNotReached,
    NotRecallable,
    RecallOrder,
    read_statements,
    remove_recalled,
)
from ...admission.recalls import Recall
from ...oci.digest import Digest
from ...oci.errors import ManifestUnknown, RegistryError
from ..image_actions import Actor, ImageActions


@frozen
class RecallResult:
    """A recall that was made.

    :ivar images: how many images it refuses.
    :ivar in_bucket: False if there is none, or the running mirror has yet to bring it there.
    """

    recall: Recall
    images: int
    freed: int
    in_bucket: bool


class RecallActions:
    """Makes, lists and lifts recalls.

    :param order: returns what makes statements, by the settings in force.
    """

    def __init__(self, actions: ImageActions, order: Callable[[], RecallOrder]) -> None:
        self._actions = actions
        self._order = order

    async def list(self) -> Sequence[Recall]:
        """Return the recalls in force, the oldest first."""
        statements = await self._actions.in_thread(lambda: read_statements(self._actions.root))
        return sorted(
            (each for each in statements.values() if not each.is_lifted), key=lambda each: each.since
        )

    async def recall(self, actor: Actor, digest: Digest, reason: str, is_shared: bool) -> RecallResult:
        """Recall a digest.

        :param is_shared: True to recall a layer though other images have it, too.
        :raises RegistryError: with status 400 when it is never recalled, or shared and not said to be.
        """

        def recall() -> RecallResult:
            order = self._order()
            try:
                scope = order.begin(digest, reason)
                if not scope.is_manifest and scope.sharing and not is_shared:
                    raise RegistryError(
                        f"{digest} is a part of {scope.sharing} images, which would all be refused: say"
                        " 'shared' to recall it",
                        status=400,
                    )
                made = order.complete(digest, reason, scope)
            except NotRecallable as error:
                raise RegistryError(str(error), status=400) from None
            in_bucket = _publish(order, made)
            freed = remove_recalled(order.root, [digest])
            return RecallResult(made, scope.sharing + scope.is_manifest, freed, in_bucket)

        return await self._actions.act(actor, "recall", str(digest), recall)

    async def lift(self, actor: Actor, digest: Digest) -> None:
        """:raises ManifestUnknown: when no recall of the digest is in force."""

        def lift() -> None:
            order = self._order()
            try:
                _publish(order, order.lift(digest))
            except NotRecallable as error:
                raise ManifestUnknown(str(error)) from None

        await self._actions.act(actor, "lift", str(digest), lift)


def _publish(order: RecallOrder, recall: Recall) -> bool:
    """Put a statement into the bucket; return whether it is there."""
    try:
        return order.publish(recall)
    except BucketNotReached:
        return False
