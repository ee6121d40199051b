"""Rules for how long images are kept: by the age of their last pull, the number of tags, and quotas.

The order in which something is deleted:

1. Pinned images, and images that policies need, are never deleted.
2. An image that a rule no longer keeps is deleted, however much room there is.
3. While the budget is exceeded, the least recently used content is evicted; see ``StoreScan``.

``plan_retention`` decides without I/O.  The first rule that matches an image holds for it.  Signatures and
other artifacts stay with the image that they belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from ...oci.digest import Digest
from ...oci.media import Referrer, parse_artifact_tag
from ...oci.pull_rule import PullRule
from ...oci.request import Manifest, Repository, Tag, Tags, image_name
from ...system.times import ClockHistory
from .. import pins
from ..held_images import HeldImages, ListedImage, list_images
from .removal import DeletionPlan, delete_planned, plan_manifest_deletion, plan_tag_deletion

INTERVAL = 3600.0
"""Seconds after which the rules are applied again."""
_IN_USE = 120.0
"""Seconds for which a pulled image stays, whatever the rules say."""
_DAY = 86_400.0


@frozen
class RetentionRule:
    """A rule for the images that a pattern matches; None sets no limit.

    :ivar name: its place in the settings, for messages.
    :ivar pattern: of repositories, whose names begin with the registry, and of their tags.
    :ivar unused: the seconds since the last pull for which an image is kept.
    :ivar tags: how many tags of each repository are kept, the most recently pulled ones.
    :ivar quota: the bytes that all these images together may take.
    :ivar repository_quota: the bytes that those of each repository may take.
    """

    name: str
    pattern: PullRule
    unused: float | None = None
    tags: int | None = None
    quota: int | None = None
    repository_quota: int | None = None


@frozen
class RetainedImage:
    """An image as the rules see it.

    :ivar used: when it was last pulled, by the clock as it is set now.
    :ivar sizes: the bytes of each of its contents.
    :ivar is_needed: True if it is pinned, or a policy needs it.
    """

    repository: Repository
    tag: Tag | None
    digest: Digest
    used: float
    sizes: Mapping[Digest, int] = field(factory=dict)
    is_needed: bool = False

    def __str__(self) -> str:
        return image_name(self.repository, self.tag or self.digest)


@frozen
class ExpiredImage:
    """An image that a rule no longer keeps, and the reason."""

    image: RetainedImage
    reason: str

    def fields(self) -> dict[str, str]:
        """Return the image as JSON has it."""
        return {"image": str(self.image), "reason": self.reason}


def plan_retention(
    images: Sequence[RetainedImage], rules: Sequence[RetentionRule], now: float
) -> list[ExpiredImage]:
    """Return the images that the rules no longer keep, those that were pulled longest ago first."""
    matched: defaultdict[int, list[RetainedImage]] = defaultdict(list)
    for image in images:
        number = next((n for n, rule in enumerate(rules) if _covers(rule, image)), None)
        if number is not None:
            matched[number].append(image)
    expired = [each for number, group in matched.items() for each in _apply(rules[number], group, now)]
    return sorted(expired, key=lambda each: (each.image.used, str(each.image)))


def _covers(rule: RetentionRule, image: RetainedImage) -> bool:
    return rule.pattern.covers(Manifest(image.repository, image.tag or image.digest))


def _apply(rule: RetentionRule, images: Sequence[RetainedImage], now: float) -> Iterator[ExpiredImage]:
    """Yield the expired images of one rule: first by age, then by number, then by quotas."""
    by_age = sorted(images, key=lambda each: (each.used, str(each)))
    repositories: defaultdict[Repository, list[RetainedImage]] = defaultdict(list)
    for image in by_age:
        if rule.unused is not None and now - image.used > rule.unused and _may_go(image, now):
            days = int((now - image.used) / _DAY)
            yield ExpiredImage(image, f"{rule.name}, unused: not pulled for {days} days")
        else:
            repositories[image.repository].append(image)
    left: list[RetainedImage] = []
    for kept in repositories.values():
        if rule.tags is not None:
            surplus = [each for each in kept if each.tag][: -rule.tags]
            gone = [each for each in surplus if _may_go(each, now)]
            yield from (ExpiredImage(each, f"{rule.name}, tags: more than {rule.tags}") for each in gone)
            kept = [each for each in kept if each not in gone]
        over = list(_over_quota(kept, rule.repository_quota, now))
        yield from (ExpiredImage(each, f"{rule.name}, repository_quota: exceeded") for each in over)
        left += [each for each in kept if each not in over]
    left.sort(key=lambda each: (each.used, str(each)))
    for image in _over_quota(left, rule.quota, now):
        yield ExpiredImage(image, f"{rule.name}, quota: exceeded")


def _over_quota(images: Sequence[RetainedImage], quota: int | None, now: float) -> Iterator[RetainedImage]:
    """Yield images, the first ones first, until the contents of the others fit."""
    if quota is None:
        return
    users: dict[Digest, int] = defaultdict(int)
    sizes = {digest: size for each in images for digest, size in each.sizes.items()}
    for each in images:
        for digest in each.sizes:
            users[digest] += 1
    total = sum(sizes.values())
    for each in images:
        if total <= quota:
            return
        if not _may_go(each, now):
            continue
        for digest in each.sizes:
            users[digest] -= 1
            total -= 0 if users[digest] else sizes[digest]
        yield each


def _may_go(image: RetainedImage, now: float) -> bool:
    return not image.is_needed and abs(now - image.used) >= _IN_USE


@frozen
class Retention:
    """The rules of the settings, and what policies need.

    :ivar needed: returns the digests that policies need, such as those of lock files; it blocks.
    """

    rules: Sequence[RetentionRule] = ()
    needed: Callable[[], Collection[Digest]] = tuple

    def plan(self, root: Path, clock: ClockHistory, check: Callable[[], None]) -> list[ExpiredImage]:
        """Return the images that are to be deleted; blocks.

        :param check: called often; it may raise an exception to stop.
        :raises OSError: when it is not known what policies need.
        """
        if not self.rules:
            return []
        held = HeldImages(root)
        pinned = {digest for _, digest in pins.iter_pinned_manifests(root)}
        needed = {*pinned, *pins.iter_held_manifests(root, clock), *self.needed()}
        images: list[RetainedImage] = []
        for repository in held.list_repositories():
            check()
            if any(rule.pattern.matches_repository(Tags(repository)) for rule in self.rules):
                images += _read_repository(held, repository, needed, clock)
        return plan_retention(images, self.rules, clock.now)

    def apply(self, root: Path, expired: Sequence[ExpiredImage]) -> int:
        """Delete images; return the bytes freed.  The caller has locked the usage counter."""
        return delete_planned(root, (_plan_deletion(root, each.image) for each in expired))


def _plan_deletion(root: Path, image: RetainedImage) -> DeletionPlan | None:
    if image.tag is not None:
        return plan_tag_deletion(root, image.repository, image.tag)
    return plan_manifest_deletion(root, image.repository, image.digest)


def _read_repository(
    held: HeldImages, repository: Repository, needed: Collection[Digest], clock: ClockHistory
) -> Iterator[RetainedImage]:
    """Yield the images of a repository, without the artifacts that belong to held images."""
    manifests = set(held.list_manifests(repository))
    for listed in list_images(held, repository):
        if _find_subject(listed) not in manifests:
            image = listed.image
            yield RetainedImage(
                repository,
                listed.tag,
                image.digest,
                clock.correct(max(each.used for each in image.walk())),
                image.content_sizes(),
                any(each.digest in needed for each in image.walk()),
            )


def _find_subject(listed: ListedImage) -> Digest | None:
    """Return the manifest that an artifact belongs to; None for an image."""
    if listed.tag is not None and (subject := parse_artifact_tag(listed.tag.name)) is not None:
        return subject
    referrer = Referrer.parse(listed.image.digest, listed.image.data or b"")
    return referrer.subject if referrer else None
