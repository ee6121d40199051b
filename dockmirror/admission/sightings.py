"""Records of which digests an upstream's tags name: from each of its answers, and by polling."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.coroutines import TTLCache, gather
from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import Answer, IBody, IRegistry, ITagHistory, IUpstream, IWritableRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError
from ..oci.media import DOCKER_LIST, DOCKER_MANIFEST, EVERYTHING, OCI_INDEX, OCI_MANIFEST, accepts
from ..oci.request import Manifest, RegistryRequest, Repository, Tag
from ..oci.token import TokenRequest
from ..oci.write import Write, WriteResult
from ..pullthrough.write_through import tags_set
from .admit import Subject

if TYPE_CHECKING:
    from .policies import Policies
    from .tag_facts import CoolDownSource

CHECK_INTERVAL = 600.0
"""Seconds between two searches for tags that are due."""
PULLED_SECONDS = 30 * 86_400.0
"""Seconds since its last pull for which a tag is polled."""
SHORTEST, LONGEST = 3600.0, 12 * 3600.0
"""Seconds between two polls of a tag, at least and at most."""
PAUSE = 1.0
"""Seconds between two requests to the same upstream."""
LIMITED_SECONDS = 6 * 3600.0
"""Seconds for which an upstream is not polled after a 429."""
_POLLS_PER_AGE = 14
_KINDS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
_log = Logger()


@frozen
class TagRecorder:
    """Records sightings of one upstream's tags.

    :ivar upstream: its name in the settings.
    """

    upstream: str
    history: ITagHistory
    clock: IReactorTime

    async def record(self, repository: Repository, tag: Tag, digest: Digest, date: str | None = None) -> None:
        """Record a sighting; one that cannot be written admits nothing.

        :param date: the upstream's ``Date``: a clock of ours that is ahead makes nothing older.
        """
        seen = min(self.clock.seconds(), parse_date(date))
        try:
            await self.history.record(self.upstream, repository, tag, digest, seen)
        except OSError as error:
            _log.error(
                "{repository}:{tag}: cannot record what the tag names: {error}",
                repository=str(repository), tag=str(tag), error=str(error),
            )  # fmt: skip


@implementer(IRegistry)
class SightingRegistry:
    """Records what the registry's answers say about tags."""

    def __init__(self, registry: IRegistry, recorder: TagRecorder) -> None:
        self._registry = registry
        self._recorder = recorder

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        target = request.target
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            digest = find_sighted_digest(request, answer)
            if digest is not None:
                await self._recorder.record(target.repository, target.reference, digest, answer.date)
        return answer


@implementer(IUpstream)
class SightingUpstream(SightingRegistry):
    """The same for a registry with a token service."""

    def __init__(self, upstream: IUpstream, recorder: TagRecorder) -> None:
        super().__init__(upstream, recorder)
        self._upstream = upstream

    async def token(self, request: TokenRequest) -> Answer:
        return await self._upstream.token(request)


@implementer(IWritableRegistry)
class PushSightings:
    """Records the tags that are pushed through the mirror."""

    def __init__(self, writes: IWritableRegistry, recorder: TagRecorder) -> None:
        self._writes = writes
        self._recorder = recorder

    async def write(self, write: Write, body: IBody) -> WriteResult:
        result = await self._writes.write(write, body)
        target = write.target
        if write.method == "PUT" and isinstance(target, Manifest) and result.status == 201:
            digest = target.digest or _parse_digest(dict(result.headers).get("Docker-Content-Digest"))
            if digest is not None:
                for tag in tags_set(write, result):
                    await self._recorder.record(target.repository, tag, digest)
        return result


def find_sighted_digest(request: RegistryRequest, answer: Answer) -> Digest | None:
    """Return the digest that an answer of the upstream proves a tag to name, or None.

    Clients that do not accept all kinds of manifests may be given another one than the tag names.
    """
    is_complete = all(accepts(request.accept, kind) for kind in _KINDS)
    if answer.from_other_host or not answer.consents or not is_complete or not request.accept:
        return None
    if answer.body.descriptor.digest is not None or answer.status != 304:
        return answer.body.descriptor.digest
    return _parse_digest((request.if_none_match or "").removeprefix("W/").strip('"'))


def parse_date(text: str | None) -> float:
    """Return a ``Date`` in seconds since the epoch; infinite if there is none, or it is malformed."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else float("inf")
    except (ValueError, OverflowError):
        return float("inf")


def _parse_digest(text: str | None) -> Digest | None:
    try:
        return Digest.parse(text or "")
    except DigestInvalid:
        return None


def poll_interval(min_age: float) -> float:
    """Return the seconds after which a tag is polled again, by the age that its digests must have."""
    return min(LONGEST, max(SHORTEST, min_age / _POLLS_PER_AGE))


@frozen
class PolledUpstream:
    """An upstream whose tags are polled.

    :ivar registry: asks it without credentials, and records its answers.
    :ivar is_public: returns whether the upstream gives the repository to everybody.
    :ivar account_of: returns the name of the mirror's account for a repository.
    """

    policies: Policies
    source: CoolDownSource
    registry: IRegistry
    is_public: Callable[[Repository], Awaitable[bool]]
    account_of: Callable[[Repository], str]


class TagPolling(PeriodicTask):
    """Polls the tags under a cool-down that clients have pulled lately; one process of one machine does it.

    :ivar upstreams: what is polled, by the upstreams' names in the settings; a reload replaces it.
    :param claim: returns a function that ends the turn of this process, or None if another one polls.
    """

    def __init__(
        self,
        upstreams: Callable[[], Mapping[str, PolledUpstream]],
        history: ITagHistory,
        claim: Callable[[], Awaitable[Callable[[], None] | None]],
        clock: IReactorTime,
    ) -> None:
        super().__init__(self.poll, CHECK_INTERVAL, clock, "cannot poll the tags of upstreams")
        self._upstreams = upstreams
        self._history = history
        self._claim = claim
        self._clock = clock
        self._limited: TTLCache[tuple[str, str], bool] = TTLCache(clock, 1000)

    async def poll(self) -> None:
        """Ask about all tags that are due."""
        polled = {name: each for name, each in self._upstreams().items() if each.policies.sets("min_age")}
        release = await self._claim() if polled else None
        if release is None:
            return
        try:
            await gather(self._try_to_poll(name, each) for name, each in polled.items())
        finally:
            release()

    async def _try_to_poll(self, name: str, upstream: PolledUpstream) -> None:
        """Poll an upstream; records that cannot be read or written leave the other upstreams alone."""
        try:
            await self._poll(name, upstream)
        except OSError as error:
            _log.error("cannot poll the tags of {upstream}: {error}", upstream=name, error=str(error))

    async def _poll(self, name: str, upstream: PolledUpstream) -> None:
        for repository, tag in await self._history.tags(name):
            if self._limited.get((name, upstream.account_of(repository))):
                continue
            subject = Subject(name, repository, tag)
            if await self._is_due(subject, tag, upstream):
                await self._ask(subject, tag, upstream)
                await deferLater(self._clock, PAUSE)

    async def _is_due(self, subject: Subject, tag: Tag, upstream: PolledUpstream) -> bool:
        policy = upstream.policies.find(subject, "min_age")
        if policy is None or policy.mode == "off" or not policy.min_age:
            return False
        key, now = (subject.upstream, subject.repository, tag), self._clock.seconds()
        if now - await self._history.last_pull(*key) > PULLED_SECONDS:
            return False
        sightings = await self._history.sightings(*key)
        if sightings and now - sightings[-1].last < poll_interval(policy.min_age):
            return False
        return await upstream.is_public(subject.repository)

    async def _ask(self, subject: Subject, tag: Tag, upstream: PolledUpstream) -> None:
        request = RegistryRequest(Manifest(subject.repository, tag), head=True, accept=EVERYTHING)
        try:
            (await upstream.registry.fetch(request)).body.discard()
        except RegistryError as error:
            if error.status == 429:
                account = upstream.account_of(subject.repository)
                self._limited.put((subject.upstream, account), True, LIMITED_SECONDS)
            _log.info("{tag} was not polled: {error}", tag=str(subject), error=error.summary)
            return
        await upstream.source.keep_current(subject)
