"""The rules that keep images in sync: their images, and the turns of mirrors that share a bucket."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from ..config.image_rules import SyncSettings
from ..config.notation import format_duration
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry
from ..oci.errors import RegistryError
from ..oci.manifest import Platform
from ..oci.media import parse_artifact_tag
from ..oci.pull_rule import PullRule, Version, VersionRange, has_wildcards
from ..oci.request import Catalog, Manifest, RegistryRequest, Repository, Tag, Tags
from ..pull import read_names
from ..store import layout
from ..store.pins import Pin
from ..store.sync_states import SyncState, read_states
from ..system.times import CronSchedule, Interval, Schedule, parse_seconds
from .naming import name_at_upstream

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket

_SIX_HOURS = Interval(6 * 3600.0)
LEASE = 3600.0
"""Seconds after which another mirror takes over a turn that its owner has neither renewed nor completed."""
RENEWAL = 300.0
"""Seconds between two renewals of a turn."""


@frozen
class SyncRule:
    """A rule that keeps images of one upstream in sync.

    :ivar key: identifies the rule; a rule that is changed is another one.
    :ivar name: describes it.
    :ivar upstream: the upstream's name in the settings; ``registry``, its registry's name in the store.
    :ivar repositories: names or patterns of repositories at the upstream.
    :ivar tags: patterns of tags; all of them if there are none.
    :ivar newest: how many of the newest versions are wanted; None for all.
    :ivar is_offline: True while nothing is asked of the upstream; the rule is not run, and its pins stay.
    """

    key: str
    name: str
    upstream: str
    registry: str
    repositories: tuple[str, ...]
    tags: tuple[str, ...] = ()
    versions: VersionRange | None = None
    newest: int | None = None
    platforms: tuple[Platform, ...] = ()
    referrers: bool = True
    schedule: Schedule = _SIX_HOURS
    is_offline: bool = False
    _tag_rules: tuple[PullRule, ...] = field(init=False, eq=False, repr=False)

    @_tag_rules.default
    def _compile_tags(self) -> tuple[PullRule, ...]:
        return tuple(PullRule.parse(f"**:{each}") for each in self.tags or ("*",))

    def select_tags(self, repository: Repository, names: Iterable[str]) -> list[Tag]:
        """Return the tags of a repository that match, the newest version first, or else by name.

        Tags of artifacts do not match if referrers are wanted: they come with their images.
        Where versions are compared, a tag with a suffix, such as 1.27.3-alpine, counts only if ``tags`` are
        given: a suffix may stand for another image.
        """
        matching = sorted(name for name in set(names) if self._matches(repository, name))
        if self.versions is None and self.newest is None:
            return list(map(Tag, matching))
        found = [(version, name) for name in matching if (version := self._version(name))]
        found.sort(key=lambda each: each[0].order, reverse=True)
        return [Tag(name) for _, name in found[: self.newest]]

    def _matches(self, repository: Repository, name: str) -> bool:
        if self.referrers and parse_artifact_tag(name) is not None:
            return False
        try:
            target = Manifest(repository, Tag.parse(name))
        except RegistryError:
            return False
        return any(rule.covers(target) for rule in self._tag_rules)

    def _version(self, name: str) -> Version | None:
        version = Version.parse(name)
        if version is None or (version.suffix and not self.tags):
            return None
        return version if self.versions is None or self.versions.contains(version) else None

    def select_repositories(self, names: Iterable[str]) -> list[Repository]:
        """Return the repositories of a catalog that a pattern matches, and those that are named."""
        rules = [PullRule.parse(each) for each in self.patterns]
        listed = [_parse_repository(name) for name in names]
        matching = [each for each in listed if each and any(r.matches_repository(Tags(each)) for r in rules)]
        named = [Repository.parse(each) for each in self.repositories if each not in self.patterns]
        return sorted({*named, *matching}, key=str)

    @property
    def patterns(self) -> list[str]:
        """The patterns of repositories, for which the upstream's catalog is needed."""
        return [each for each in self.repositories if has_wildcards(each)]


def make_sync_rules(settings: Settings) -> list[SyncRule]:
    """Return the rules in their order."""
    return [_make_rule(each, settings) for each in settings.sync]


def list_states(rules: Iterable[SyncRule], root: Path) -> list[SyncState]:
    """Return the state of each rule, in their order; it blocks."""
    states = read_states(root)
    return [state_of(rule, states) for rule in rules]


def state_of(rule: SyncRule, states: Mapping[str, SyncState]) -> SyncState:
    """Return the state of a rule, which may not have run yet."""
    return states.get(rule.key) or SyncState(rule.key, rule.name)


def _make_rule(rule: SyncSettings, settings: Settings) -> SyncRule:
    schedule, times = _make_schedule(rule)
    upstream = settings.upstreams[rule.upstream]
    return SyncRule(
        key=_make_key(rule),
        name=f"{_describe_images(rule)}, {times}",
        upstream=rule.upstream,
        registry=upstream.canonical,
        repositories=tuple(_name_at_upstream(upstream, each) for each in rule.repositories),
        tags=rule.tags,
        versions=None if rule.semver is None else VersionRange.parse(rule.semver),
        newest=rule.newest,
        platforms=rule.platforms,
        referrers=rule.referrers,
        schedule=schedule,
        is_offline=settings.is_offline(upstream),
    )


def _name_at_upstream(upstream: UpstreamSettings, text: str) -> str:
    """Return the upstream's name of a repository that a rule names; a pattern matches such names."""
    return text if has_wildcards(text) else str(name_at_upstream(upstream, Repository.parse(text)))


def _make_key(rule: SyncSettings) -> str:
    """Return the key of a rule: the same in all versions that know the settings that it has."""
    return sha256(rule.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]


def _make_schedule(rule: SyncSettings) -> tuple[Schedule, str]:
    """Return the schedule of a rule, and a description of it."""
    if rule.schedule is not None:
        return CronSchedule(rule.schedule, rule.jitter), f"at {rule.schedule} UTC"
    every = rule.every or _SIX_HOURS.every
    return Interval(every, rule.jitter), f"every {format_duration(every)}"


def _describe_images(rule: SyncSettings) -> str:
    tags = [*rule.tags, *([rule.semver] if rule.semver else [])]
    newest = [f"newest {rule.newest}"] if rule.newest else []
    which = ", ".join([*tags, *newest]) or "all tags"
    return f"{rule.upstream}: {' '.join(rule.repositories)} ({which})"


def _parse_repository(name: str) -> Repository | None:
    try:
        return Repository.parse(name)
    except RegistryError:
        return None


@frozen
class MatchingImages:
    """The images that match a rule, as pins with the platforms that it wants.

    :ivar artifact_tags: the tags of signatures and other artifacts in each repository.
    :ivar unlisted: the repositories that the upstream lacks or refuses to list, each with a sentence.
    """

    pins: Sequence[Pin]
    artifact_tags: Mapping[Repository, Collection[str]]
    unlisted: Mapping[Repository, str]

    def complete(self, known: Iterable[Pin]) -> list[Pin]:
        """Return the images, with those that are known of repositories that were not listed."""
        return [*self.pins, *(each for each in known if each.repository in self.unlisted)]

    @property
    def problem(self) -> str:
        """The first sentence about a repository that was not listed; empty if all were."""
        return next(iter(self.unlisted.values()), "")


async def find_images(registry: IRegistry, rule: SyncRule) -> MatchingImages:
    """Return the images that match a rule now.

    :param registry: the registry of a mirror's own host, asked by the names in the store.
    :raises RegistryError: when the upstream fails, or lists none of the repositories.
    """
    catalog: Sequence[str] = ()
    if rule.patterns:
        request = RegistryRequest(Catalog(), namespace=rule.registry, revalidate=True)
        catalog = await read_names(registry, request, "repositories")
    found, artifacts, unlisted = list[Pin](), dict[Repository, Collection[str]](), dict[Repository, str]()
    for repository in rule.select_repositories(catalog):
        place = Repository(f"{rule.registry}/{repository}")
        try:
            names = await read_names(registry, RegistryRequest(Tags(place), revalidate=True), "tags")
        except RegistryError as error:
            if error.status not in (401, 403, 404):
                raise
            unlisted[place] = f"{place}: {error.summary}"
            continue
        found += [Pin(place, tag, rule.platforms) for tag in rule.select_tags(repository, names)]
        artifacts[place] = {name for name in names if parse_artifact_tag(name) is not None}
    if unlisted and not artifacts:
        raise RegistryError("; ".join(unlisted.values()), status=404)
    return MatchingImages(found, artifacts, unlisted)


@frozen
class SyncTurn:
    """The turn to run a rule in one period of its schedule.

    :ivar path: the path of its object in the bucket.
    :ivar owner: identifies the mirror that has it.
    :ivar until: when another mirror may take over, in seconds since the epoch.
    :ivar images: the images that match the rule, once the run is complete; None before.
    :ivar period: of a complete run, the number of the period in which it ended.
    """

    path: PurePosixPath
    owner: str
    until: float
    images: tuple[str, ...] | None = None
    period: int = 0

    @classmethod
    def parse(cls, path: PurePosixPath, data: bytes) -> SyncTurn:
        """Parse an object; a malformed one has no owner, and can be taken over."""
        try:
            fields = json.loads(data)
            images = fields["images"]
            named = None if images is None else tuple(map(str, images))
            until, period = parse_seconds(fields["until"]), int(fields.get("period", 0))
            return cls(path, str(fields["owner"]), until, named, period)
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls(path, "", 0.0)

    def __bytes__(self) -> bytes:
        fields = {"owner": self.owner, "until": self.until, "images": self.images, "period": self.period}
        return json.dumps(fields).encode()

    def is_running(self, now: float) -> bool:
        """Return whether no other mirror may run the rule yet."""
        return self.images is None and now < self.until


class SyncTurns:
    """Gives the turn to run a rule to one of the mirrors that share a bucket.

    An object states who has the turn.  Its owner renews it while it runs the rule, and adds the images that
    match when the run is complete.  A run that outlasts its period keeps the turn, and counts for the period
    in which it ends.  If the owner stops, another mirror takes over: it makes the object of the next attempt,
    or of the next period, which only one of them can.

    :param bucket: the bucket; None if the cache is on the local disk only.
    """

    def __init__(self, bucket: Bucket | None, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def claim(self, key: str, period: int, owner: str) -> SyncTurn:
        """Return the turn of a rule in a period: the mirror's own, or that of another one.

        :raises OSError: when the bucket fails.
        """
        bucket, now = self._bucket, self._clock.seconds()
        if bucket is None:
            return SyncTurn(PurePosixPath(), owner, now + LEASE)
        listed = await self._list(bucket, key)
        last = await self._read(bucket, listed[-1].path) if listed else None
        place, until = _Place(key, period, 0), now + LEASE
        if last is not None:
            if max(last.period, listed[-1].period) >= period:
                if last.owner == owner or last.images is not None or last.is_running(now):
                    return last
                place = evolve(listed[-1], attempt=listed[-1].attempt + 1)
            elif last.is_running(now):
                if last.owner != owner:
                    return last
                until = last.until  # a run that always fails is left to another mirror at last
        turn = SyncTurn(place.path, owner, until)
        if not await bucket.put_new(turn.path, bytes(turn)):
            return await self._read(bucket, turn.path) or SyncTurn(turn.path, "", 0.0)
        await self._delete(bucket, listed, owner)
        return turn

    async def delete(self, key: str, owner: str) -> None:
        """Delete the turns of a removed rule, but not one that another mirror still has."""
        if self._bucket is not None:
            with suppress(OSError):  # logged by the bucket; what is left does no harm
                await self._delete(self._bucket, await self._list(self._bucket, key), owner)

    async def _list(self, bucket: Bucket, key: str) -> list[_Place]:
        """Return the turns of a rule, the latest one last."""
        listed = [_Place.parse(PurePosixPath(each.key).name) for each in await bucket.list(layout.SYNC_TURNS)]
        return sorted(each for each in listed if each is not None and each.key == key)

    async def _read(self, bucket: Bucket, path: PurePosixPath) -> SyncTurn | None:
        """Return a turn; None if its object was deleted a moment ago, since there is a later one."""
        found = await bucket.read(path)
        return SyncTurn.parse(path, found[0]) if found else None

    async def _delete(self, bucket: Bucket, places: Iterable[_Place], owner: str) -> None:
        """Delete turns, but not one that another mirror has."""
        now = self._clock.seconds()
        with suppress(OSError):  # logged by the bucket; the next turn deletes what is left
            found = [await self._read(bucket, each.path) for each in places]
            ended = [each for each in found if each and (each.owner == owner or not each.is_running(now))]
            await bucket.delete([str(each.path) for each in ended])

    async def extend(self, turn: SyncTurn, until: float) -> SyncTurn:
        """Keep the mirror's own turn until a time."""
        return await self._put(evolve(turn, until=until))

    async def complete(self, turn: SyncTurn, images: Collection[str], period: int) -> SyncTurn:
        """Tell the other mirrors which images match.

        :param period: the period that it is now.
        """
        return await self._put(evolve(turn, images=tuple(images), period=period))

    async def _put(self, turn: SyncTurn) -> SyncTurn:
        if self._bucket is not None:
            with suppress(OSError):  # logged by the bucket; at worst another mirror runs the rule, too
                await self._bucket.put(turn.path, bytes(turn))
        return turn


@frozen(order=True)
class _Place:
    """The place of a turn's object: later periods and attempts are greater."""

    key: str
    period: int
    attempt: int

    @classmethod
    def parse(cls, name: str) -> _Place | None:
        key, *numbers = name.rsplit("-", 2)
        if len(numbers) != 2 or not all(each.isdecimal() for each in numbers):
            return None
        return cls(key, int(numbers[0]), int(numbers[1]))

    @property
    def path(self) -> PurePosixPath:
        return layout.SYNC_TURNS / f"{self.key}-{self.period}-{self.attempt}"
