"""The work behind the API and the operators' pages: pins, removals, warm-ups, verification, recalls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..admission.recall_enforcement import BucketNotReached, NotRecallable, RecallOrder, remove_recalled
from ..admission.recalls import Recall, read_statements
from ..archive.archive_plan import ArchivePlan, plan_archive
from ..concurrency.coroutines import RunInThread, shield
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, ManifestUnknown, NameUnknown, RegistryError, Unavailable
from ..oci.manifest import Platform
from ..oci.request import Reference, Repository
from ..store import pins, warm_ups
from ..store.eviction.removal import (
    CorruptFile,
    DeletableImage,
    DeletionPlan,
    count_freed,
    delete_images,
    find_corrupt,
    find_pinned,
    plan_deletions,
)
from ..store.held_images import HeldImages
from ..store.packed_images import ExportGate, ImageNotHeld, pack_image
from ..store.pins import Pin
from ..store.warm_ups import WarmUp
from ..system.times import format_timestamp

if TYPE_CHECKING:
    from .auth import Actor

T = TypeVar("T")
ParseImage = Callable[[str], tuple[Repository, Reference]]
"""Parses an image's name, or raises ValueError."""
MakeExportGate = Callable[[Repository, Reference], ExportGate]


@frozen
class ImageNames:
    """The names of images that the settings in force allow.

    :ivar registries: returns the registries that are mirrored, as the store names them.
    """

    parse: ParseImage
    registries: Callable[[], Collection[str]]


@frozen
class Removal:
    """A deletion, done or planned.

    :ivar pinned: pins because of which the mirror fetches some of it again.
    :ivar freed: the bytes that it has freed, or would free.
    """

    plans: Sequence[DeletionPlan]
    pinned: Sequence[Pin]
    freed: int

    def fields(self) -> dict[str, Any]:
        """Return the removal as JSON has it."""
        return {
            "deleted": [each.fields() for each in self.plans],
            "pinned": list(map(str, self.pinned)),
            "freed": self.freed,
        }


@frozen
class Verification:
    """The outcome of a check of an image's contents against their digests."""

    contents: int
    bytes: int
    corrupt: Sequence[CorruptFile]


class ImageActions:
    """Runs actions on the cache's images in threads, and records each one that changes something.

    An action continues when its client leaves.

    :param audit: writes a line of the audit log.
    :param gate: returns what decides on the export of an image.
    """

    def __init__(
        self,
        root: Path,
        names: ImageNames,
        in_thread: RunInThread,
        clock: IReactorTime,
        audit: Callable[[str], None],
        gate: MakeExportGate,
    ) -> None:
        self.root = root
        self._names = names
        self.in_thread = in_thread
        self._clock = clock
        self._audit = audit
        self._gate = gate

    def parse(self, image: str) -> tuple[Repository, Reference]:
        """:raises RegistryError: with status 400 for a text that names no image."""
        try:
            return self._names.parse(image)
        except ValueError as error:
            raise RegistryError(
                f"{error}; expected a name such as docker.io/library/nginx:1.27", status=400
            ) from None

    async def pins(self) -> Sequence[tuple[Pin, float]]:
        """Return the pins, each with the time of its last refresh, or 0."""
        return await self.in_thread(lambda: list(pins.iter_pins(self.root)))

    async def pin(self, actor: Actor, image: str, platforms: Sequence[Platform] = ()) -> Pin:
        """Pin an image.

        :raises NameUnknown: for one of a registry that is not mirrored.
        """
        pin = Pin(*self.parse(image), tuple(platforms))
        if pin.repository.first not in self._names.registries():
            raise NameUnknown(
                f"{pin}: this mirror has no registry {pin.repository.first}, so no client could pull it",
                status=404,
            )
        await self.act(actor, "pin", str(pin), lambda: pins.add_pin(self.root, pin))
        return pin

    async def unpin(self, actor: Actor, image: str) -> None:
        """:raises ManifestUnknown: when the image is not pinned."""
        pin = Pin(*self.parse(image))

        def unpin() -> None:
            if not pins.remove_pin(self.root, pin):
                raise ManifestUnknown(f"{pin} is not pinned")

        await self.act(actor, "unpin", str(pin), unpin)

    async def plan_removal(self, image: str) -> Removal:
        """Return what would be deleted.

        :raises ManifestUnknown: when the cache does not hold the image.
        """
        return await self.in_thread(partial(self._plan_removal, image, self._parse_deletable(image)))

    async def remove(self, actor: Actor, image: str) -> Removal:
        """Delete an image as ``dockmirror rm`` does.

        :raises ManifestUnknown: when the cache does not hold it.
        """
        deletable = self._parse_deletable(image)

        def remove() -> Removal:
            planned = self._plan_removal(image, deletable)
            return Removal(planned.plans, planned.pinned, delete_images(self.root, [deletable]))

        return await self.act(actor, "remove", image, remove)

    def _parse_deletable(self, image: str) -> DeletableImage:
        try:
            return DeletableImage(None, Digest.parse(image))
        except DigestInvalid:
            return DeletableImage(*self.parse(image))

    def _plan_removal(self, image: str, deletable: DeletableImage) -> Removal:
        plans = plan_deletions(self.root, deletable)
        if not plans:
            raise ManifestUnknown(f"{image} is not in the cache")
        return Removal(plans, find_pinned(self.root, plans), count_freed(self.root, plans))

    async def warm(
        self,
        actor: Actor,
        image: str,
        platforms: Sequence[Platform] = (),
        referrers: bool = False,
        refresh: bool = False,
    ) -> WarmUp:
        """Have the mirror pull an image into its cache.

        :param refresh: True to ask the upstream first what the tag names.
        """
        repository, reference = self.parse(image)
        now = self._clock.seconds()
        wanted = WarmUp("", repository, reference, now, tuple(platforms), referrers, refresh)
        action = "refresh" if refresh else "warm"
        return await self.act(actor, action, wanted.image, lambda: warm_ups.add_warm_up(self.root, wanted))

    async def refresh_tag(self, actor: Actor, image: str) -> WarmUp:
        """Have the upstream asked what a tag names now; nothing but its manifest is pulled."""
        repository, reference = self.parse(image)
        wanted = WarmUp("", repository, reference, self._clock.seconds(), refresh=True, tag_only=True)
        return await self.act(actor, "refresh", wanted.image, lambda: warm_ups.add_warm_up(self.root, wanted))

    async def warm_ups(self) -> Sequence[WarmUp]:
        """Return the warm-ups of a day, and the tags refreshed in the last minutes, the oldest first."""
        return await self.in_thread(lambda: list(warm_ups.iter_warm_ups(self.root)))

    async def warm_up(self, identifier: str) -> WarmUp:
        """:raises ManifestUnknown: when there is none of that identifier."""
        found = await self.in_thread(partial(warm_ups.read_warm_up, self.root, identifier))
        if found is None:
            raise ManifestUnknown(f"there is no warm-up {identifier}")
        return found

    async def verify(self, actor: Actor, image: str) -> Verification:
        """Check the contents of an image that are held against their digests.

        :raises ManifestUnknown: when the cache does not hold it.
        """
        repository, reference = self.parse(image)

        def verify() -> Verification:
            images = HeldImages(self.root)
            digest = images.find_digest(repository, reference)
            held = images.read_image(repository, digest) if digest else None
            if held is None or held.data is None:
                raise ManifestUnknown(f"{image} is not in the cache, or its manifest is corrupt")
            sizes = held.content_sizes()
            corrupt = find_corrupt(self.root, list(sizes), lambda _: None)
            return Verification(len(sizes), sum(sizes.values()), corrupt)

        return await self.act(actor, "verify", image, verify)

    async def export(self, actor: Actor, image: str, platform: Platform | None) -> ArchivePlan:
        """Return the plan of an image's archive.

        :raises ManifestUnknown: when the cache does not hold it completely.
        :raises Denied: when a policy or a recall refuses it.
        """
        repository, reference = self.parse(image)

        def plan() -> ArchivePlan:
            try:
                gate = self._gate(repository, reference)
                packed = pack_image(HeldImages(self.root), image, repository, reference, platform, gate)
            except ImageNotHeld as error:
                raise ManifestUnknown(str(error)) from None
            return plan_archive([packed])

        return await self.act(actor, "export", image, plan)

    async def record_refusal(self, actor: Actor, request: str, reason: str) -> None:
        """Write the line of a change that was refused for its token.

        :param request: the method and the path.
        """
        line = _audit_line(actor, request, None, reason, self._clock.seconds())
        await self.in_thread(partial(self._audit, line))

    async def act(self, actor: Actor, action: str, image: str, work: Callable[[], T]) -> T:
        """Do the work and write the line of the audit log in one thread call, which nothing interrupts."""

        def run() -> T:
            result = "failed"
            try:
                done = work()
                result = "done"
                return done
            except RegistryError as error:
                result = str(error)
                raise
            except OSError as error:
                result = error.strerror or "failed"
                raise Unavailable(f"the cache cannot be changed: {result}", status=503) from error
            finally:
                self._audit(_audit_line(actor, action, image, result, self._clock.seconds()))

        return await shield(self.in_thread(run))


def _audit_line(actor: Actor, action: str, image: str | None, result: str, now: float) -> str:
    fields = {"time": format_timestamp(now), "client": actor.client, "token": actor.token or None}
    return json.dumps({**fields, "action": action, "image": image, "result": result})


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
