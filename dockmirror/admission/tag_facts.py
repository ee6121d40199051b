"""Facts from what tags have named: of the cool-down, its exceptions, and the digests that were served."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.coroutines import TTLCache
from ..config.image_rules import PolicySettings
from ..interfaces import ITagHistory
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.manifest import parse_references
from ..oci.request import Repository, Tag
from .admit import SERVE, ServeInstead, Subject, TagAges, admitted_digests, check_age, format_age, is_frozen
from .policies import FactContext, IFactSource, Policies
from .recalls import Recalls

if TYPE_CHECKING:
    from ..upstream.upstream_client import UpstreamClient
from ..interfaces import IDocumentStore
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument, Platform

HOLD_INTERVAL = 3600.0
"""Seconds after which it is recorded again that a manifest is in use."""
REPORT_INTERVAL = 86_400.0
"""Seconds after which a frozen tag, or the use of an exception, is reported again."""
HUB_API = "https://hub.docker.com"
CACHE_SECONDS = 600.0
"""Seconds after which Docker Hub's API is asked about a tag again."""
FindPush = Callable[[Repository, Tag, Digest], Awaitable[float | None]]
_ANSWER_LIMIT = 1024 * 1024
_MOST = 10_000
SERVED_TTL = 10.0
"""Seconds for which the digests that tags were served as are kept, as long as no history changes."""
CHILDREN_TTL = 3600.0
"""Seconds for which it is kept which manifests an index lists."""
_MOST_SERVED = 1000
_MOST_PARENTS = 16
"""The most indexes that are remembered for one image, the newest ones."""
_RECORDED = 3600.0
_log = Logger()


class HubPushTimes:
    """Asks the API of Docker Hub, without credentials.

    Source: Docker Hub API, "Read repository tag".  Beyond its schema, answers have the tag's ``digest`` at
    the top, which older tags lack; public code that reads them agrees on this.
    """

    def __init__(self, client: UpstreamClient, clock: IReactorTime) -> None:
        self._client = client
        self._cached: TTLCache[tuple[Repository, Tag, Digest], tuple[float | None]] = TTLCache(clock, _MOST)

    async def find(self, repository: Repository, tag: Tag, digest: Digest) -> float | None:
        """Return when the tag was pushed with that digest, or None if Docker Hub does not say so.

        :raises RegistryError: when it does not answer.
        """
        cached = self._cached.get((repository, tag, digest))
        if cached is None:
            namespace, _, name = str(repository).partition("/")
            path = f"/v2/namespaces/{namespace}/repositories/{name}/tags/{tag}"
            cached = (parse_push_time(await self._read(path), digest),)
            self._cached.put((repository, tag, digest), cached, CACHE_SECONDS)
        return cached[0]

    async def _read(self, path: str) -> bytes:
        response = await self._client.request("GET", f"{HUB_API}{path}", (("Accept", "application/json"),))
        if response.code not in (200, 404):
            self._client.release(response)
            raise Unavailable(f"the API of Docker Hub answered {response.code}")
        data = await self._client.read(response, _ANSWER_LIMIT)
        return data if response.code == 200 else b"{}"


def parse_push_time(answer: bytes, digest: Digest) -> float | None:
    """Return when a tag was pushed with that digest, or None if the answer does not say so."""
    try:
        fields = json.loads(answer)
        images = [each["digest"] for each in fields.get("images") or ()]
        named = fields.get("digest") or (images[0] if len(images) == 1 else None)
        pushed = datetime.fromisoformat(fields["tag_last_pushed"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if named != str(digest) or pushed.tzinfo is None or pushed.year == 1:  # Go's zero time
        return None
    return pushed.timestamp()


@frozen
class CoolDownContext:
    """Everything that the facts of the cool-down come from.

    :ivar find_push: returns the registry's own time of a push, or None; None if the registry tells none.
    :ivar hold: keeps the manifest that a tag is served as from eviction.
    :ivar read_manifest: returns a held manifest, or None.
    :ivar audit: records the use of an exception.
    :ivar recalls: returns the recalls in force.
    """

    history: ITagHistory
    policies: Policies
    find_push: FindPush | None
    hold: Callable[[Repository, Tag, Digest], Awaitable[None]]
    read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]]
    audit: Callable[[dict[str, str]], None]
    clock: IReactorTime
    recalls: Callable[[], Recalls] = Recalls


@implementer(IFactSource)
class CoolDownSource:
    """Gathers the ages of a tag's digests."""

    fact = "ages"
    setting = "min_age"
    is_about_tags = True

    def __init__(self, context: CoolDownContext) -> None:
        self._context = context
        self._held: TTLCache[tuple[Repository, Tag], Digest] = TTLCache(context.clock, _MOST)
        self._reported: TTLCache[Subject, bool] = TTLCache(context.clock, _MOST)

    async def gather(self, context: FactContext) -> TagAges | None:
        subject = context.subject
        if not isinstance(subject.reference, Tag):
            return None
        ages = await self.ages(subject, context.policy)
        try:
            now = self._context.clock.seconds()
            await self._context.history.record_pull(
                subject.upstream, subject.repository, subject.reference, now
            )
            await self._keep_admitted(subject, ages)
        except OSError as error:  # which admits nothing more
            _log.error("{tag}: cannot record its use: {error}", tag=str(subject), error=str(error))
        return ages

    async def keep_current(self, subject: Subject) -> None:
        """Keep what is served in place of the digest that a tag was seen with last, as ``gather`` does."""
        policy = self._context.policies.find(subject, self.setting)
        if policy is not None and isinstance(subject.reference, Tag):
            history = self._context.history
            sightings = await history.sightings(subject.upstream, subject.repository, subject.reference)
            subject = evolve(subject, digest=sightings[-1].digest if sightings else None)
            await self._keep_admitted(subject, await self.ages(subject, policy))

    async def ages(self, subject: Subject, policy: PolicySettings) -> TagAges:
        """Return the ages of a tag's digests.

        :raises OSError: when the history cannot be read; ``RegistryError`` when the registry's time of push
            is needed and it does not answer.
        """
        assert isinstance(subject.reference, Tag)
        assert policy.min_age is not None
        key = subject.upstream, subject.repository, subject.reference
        history = self._context.history
        ages = TagAges(await history.sightings(*key), policy.min_age, policy.first_pull)
        find_push, digest = self._context.find_push, subject.digest
        is_unknown = policy.first_pull == "registry" and not admitted_digests(ages)
        if is_unknown and find_push is not None and digest is not None:
            pushed = await find_push(subject.repository, subject.reference, digest)
            if pushed is not None:
                await history.record_push(*key, digest, pushed)
                ages = evolve(ages, sightings=await history.sightings(*key))
        follows = await self._is_listed(subject, ages)
        ages = evolve(ages, excepted=follows or self._is_excepted(subject, policy, ages))
        return await self._withhold_recalled(subject, ages)

    async def _withhold_recalled(self, subject: Subject, ages: TagAges) -> TagAges:
        """Withhold the replacements that are recalled, or whose held manifests refer to a recalled digest."""
        recalls = self._context.recalls()
        while recalls and isinstance(verdict := check_age(subject, ages), ServeInstead):
            manifest = await self._context.read_manifest(subject.repository, verdict.digest)
            references = None if manifest is None else parse_references(manifest)
            if recalls.find(verdict.digest, references) is None:
                break
            ages = evolve(ages, withheld=ages.withheld | {verdict.digest})
        return ages

    async def _keep_admitted(self, subject: Subject, ages: TagAges) -> None:
        """Hold the manifest that is served in place of the current one, and report a tag that is frozen."""
        verdict, tag = check_age(subject, ages), subject.reference
        if not isinstance(verdict, ServeInstead) or not isinstance(tag, Tag):
            return
        if self._held.get((subject.repository, tag)) != verdict.digest:
            await self._context.hold(subject.repository, tag, verdict.digest)
            self._held.put((subject.repository, tag), verdict.digest, HOLD_INTERVAL)
        if is_frozen(ages) and self._is_unreported(evolve(subject, digest=verdict.digest)):
            _log.warn(
                "{tag} is frozen at {digest}: it moves more often than every {age}",
                tag=str(subject), digest=str(verdict.digest), age=format_age(ages.min_age),
            )  # fmt: skip

    async def _is_listed(self, subject: Subject, ages: TagAges) -> bool:
        """Return whether the last admitted index lists a digest that the tag was never seen to name.

        Registries give it to clients that do not accept indexes.
        """
        admitted = admitted_digests(ages)
        if subject.digest is None or not admitted or check_age(subject, ages) == SERVE:
            return False
        index = await self._context.read_manifest(subject.repository, admitted[-1])
        references = parse_references(index) if index is not None else None
        return references is not None and subject.digest in references.manifests

    def _is_excepted(self, subject: Subject, policy: PolicySettings, ages: TagAges) -> bool:
        """Return whether an exception lets the digest be served which the cool-down withholds."""
        context = self._context
        if check_age(subject, ages) == SERVE:
            return False
        exception = context.policies.find_exception(subject, policy, context.clock.seconds())
        if exception is not None and self._is_unreported(subject):
            event = {"event": "exception", "image": f"{context.policies.registry}/{subject}"}
            event |= {"digest": str(subject.digest), "exception": exception.image}
            context.audit(event | {"until": exception.until.isoformat(), "reason": exception.reason})
        return exception is not None

    def _is_unreported(self, subject: Subject) -> bool:
        if self._reported.get(subject):
            return False
        self._reported.put(subject, True, REPORT_INTERVAL)
        return True


@implementer(IFactSource)
class KnownDigestSource:
    """Tells whether a tag of the repository is or was served as a digest, or as an index that lists it.

    The histories of all tags are read when one of them has changed; one ``stat`` call tells.

    :param read_manifest: returns a held manifest, or None.
    :param list_locked: returns the digests that lock files give tags of the subject's repository.
    """

    fact = "known"
    setting = "digests"
    is_about_tags = False

    def __init__(
        self,
        source: CoolDownSource,
        history: ITagHistory,
        read_manifest: Callable[[Repository, Digest], Awaitable[bytes | None]],
        list_locked: Callable[[Subject], frozenset[Digest]],
        clock: IReactorTime,
    ) -> None:
        self._source = source
        self._history = history
        self._read_manifest = read_manifest
        self._list_locked = list_locked
        self._cached: TTLCache[tuple[str, Repository, str], tuple[object, frozenset[Digest]]] = TTLCache(
            clock, _MOST_SERVED
        )
        self._children: TTLCache[tuple[Repository, Digest], frozenset[Digest]] = TTLCache(clock, _MOST_SERVED)

    async def gather(self, context: FactContext) -> bool | None:
        """Return whether a digest is known; None for tags, and for policies that allow any digest."""
        subject, policy = context.subject, context.policy
        if policy.digests == "any" or not isinstance(subject.reference, Digest):
            return None
        served = await self._served(subject, policy)
        if subject.reference in served:
            return True
        served |= self._list_locked(subject)
        return subject.reference in served or await self._is_listed(subject, served)

    async def _served(self, subject: Subject, policy: PolicySettings) -> frozenset[Digest]:
        """Return the digests that the repository's tags are, or were, served as."""
        key = subject.upstream, subject.repository, policy.images
        version = await self._history.version(subject.upstream, subject.repository)
        cached = self._cached.get(key)
        if version is not None and cached is not None and cached[0] == version:
            return cached[1]
        served = frozenset(await self._find_served(subject, policy))
        if version is not None:
            self._cached.put(key, (version, served), SERVED_TTL)
        return served

    async def _find_served(self, subject: Subject, policy: PolicySettings) -> set[Digest]:
        served: set[Digest] = set()
        for repository, tag in await self._history.tags(subject.upstream, subject.repository):
            sightings = await self._history.sightings(subject.upstream, repository, tag)
            current = sightings[-1].digest if sightings else None
            tagged = evolve(subject, reference=tag, digest=current)
            ages = await self._source.ages(tagged, policy)
            served.update(admitted_digests(ages))
            if current is not None and check_age(tagged, ages) == SERVE:
                served.add(current)
        return served

    async def _is_listed(self, subject: Subject, served: frozenset[Digest]) -> bool:
        for digest in served:
            if subject.digest in await self._list_children(subject.repository, digest):
                return True
        return False

    async def _list_children(self, repository: Repository, digest: Digest) -> frozenset[Digest]:
        """Return the manifests that an index lists; none while it is not held."""
        children = self._children.get((repository, digest))
        if children is None:
            data = await self._read_manifest(repository, digest)
            references = parse_references(data) if data is not None else None
            children = frozenset(references.manifests if references else ())
            if data is not None:
                self._children.put((repository, digest), children, CHILDREN_TTL)
        return children


@frozen
class Parent:
    """An index, and the platform for which it lists the image."""

    digest: Digest
    platform: Platform | None = None


@frozen
class KnownParents:
    """Remembers which images an index lists, for all processes of the cache and across restarts.

    :ivar registry: the registry's name in the store.
    :ivar recent: the parents of recent images, in case that no document can be written.
    """

    registry: str
    documents: IDocumentStore
    recorded: TTLCache[tuple[Repository, Digest], bool]
    recent: TTLCache[str, list[Parent]]

    async def record(self, subject: Subject, index: ManifestDocument | None) -> None:
        """Remember the images of an index, before it is served; nothing for another manifest.

        :raises OSError: when it cannot be written.
        """
        digest = subject.digest
        if index is None or digest is None or self.has_recorded(subject):
            return
        for child in index.children:
            if child.descriptor.digest is not None:
                parent = Parent(digest, child.platform)
                await self._add(self._name(subject.repository, child.descriptor.digest), parent)
        self.recorded.put((subject.repository, digest), True, _RECORDED)

    def has_recorded(self, subject: Subject) -> bool:
        """Return whether the subject's manifest was recorded within the last hour."""
        return subject.digest is not None and bool(self.recorded.get((subject.repository, subject.digest)))

    async def find(self, subject: Subject) -> list[Parent]:
        """Return the indexes that list the subject; a client that accepts none is given it by a tag, too."""
        if subject.digest is None:
            return []
        return await self._read(self._name(subject.repository, subject.digest))

    async def _add(self, name: str, parent: Parent) -> None:
        known = await self._read(name)
        if parent not in known:
            known = [*known[-_MOST_PARENTS + 1 :], parent]
            await self.documents.write(name, _write_parents(known))
        self.recent.put(name, known, _RECORDED)

    async def _read(self, name: str) -> list[Parent]:
        return _parse_parents(await self.documents.read(name)) or self.recent.get(name) or []

    def _name(self, repository: Repository, digest: Digest) -> str:
        return f"parents/{self.registry}/{repository}/{digest.algorithm}/{digest.hex}"


def _write_parents(parents: list[Parent]) -> bytes:
    return json.dumps([[str(each.digest), _write_platform(each.platform)] for each in parents]).encode()


def _parse_parents(document: bytes | None) -> list[Parent]:
    try:
        found = json.loads(document or b"[]")
        return [Parent(Digest.parse(each), _parse_platform(text)) for each, text in found]
    except (ValueError, TypeError, AttributeError, DigestInvalid):
        return []


def _write_platform(platform: Platform | None) -> str:
    """Write a platform with its empty parts, of which publishers may leave any; ``linux/amd64`` is usual."""
    parts = (platform.os, platform.architecture, platform.variant) if platform else ()
    return "/".join(parts).removesuffix("/")


def _parse_platform(text: str) -> Platform | None:
    parts = text.split("/")
    return Platform(*parts) if len(parts) in (2, 3) else None
