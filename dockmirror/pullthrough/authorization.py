"""The authorizer: whether a client may be served from the cache, by the consent that is remembered.

Only the upstream decides who may pull.  ``authorize`` applies these rules in order; the first that matches
decides.

Before the upstream is asked:

1. ASK if the content is not held for the repository, or if a write through the mirror has deleted or changed
   it, or may have.
2. ALLOW content of a public repository that is named by a digest, or still fresh: a tag also while somebody
   asks the upstream about it again, if the settings allow that.
3. ALLOW content that is named by a digest to credentials with a grant.  A tag or a list may have changed, or
   differ between clients, so the upstream is asked.
4. ASK in all other cases.

With the upstream's outcome:

5. ALLOW after consent; ``oci/consent.py`` defines it.
6. DENY after a refusal, a 404, or an answer that proves nothing, whatever is remembered.  If deleted content
   is to be kept, a 404 counts as an outage in which content never expires.
7. DENY in an outage if the content is not held, or was confirmed too long ago.
8. STALE in an outage for credentials with a grant, and for public repositories.
9. STALE in an outage also if the repository was public in the last week, or if the operator has imported the
   content: for a client without credentials, and for one with credentials unless the upstream answers the
   mirror's own anonymous request without consenting.
10. DENY in all other cases.

Consent is remembered for a while.  Stored content alone authorizes nobody: a client may pull from a
repository if the upstream gave content of it to the same credentials, or to the mirror's own anonymous
request.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import IDocumentStore
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Blob, Manifest, Repository, Target
from ..oci.token import Credentials
from .error_tolerant_store import ErrorTolerantDocumentStore

MAX_STALE = 7 * 24 * 3600.0
"""Seconds since its confirmation after which content is not served stale any more."""
GRANT_TTL = 300.0
"""Seconds for which the upstream's consent to some credentials counts, at most."""
PUBLIC_TTL = 24 * 3600.0
"""Seconds for which a repository counts as public."""
PUBLIC_STALE_TTL = 7 * 24 * 3600.0
"""Seconds for which it counts as public while the upstream is down."""
REREAD_AFTER = 60.0
"""Seconds after which a process rereads which repositories are public."""
_REWRITE_AFTER = 3600.0
_MOST = 100_000
_MOST_BLOBS = 10_000


class Decision(Enum):
    """The answer of the authorizer."""

    ALLOW = "serve the held content"
    ASK = "ask the upstream"
    STALE = "serve the held content, as the upstream does not answer"
    DENY = "serve no held content"


class Outcome(Enum):
    """The kind of the upstream's answer."""

    CONSENT = "it gives the content"
    UNPROVEN = "it answered, and proved nothing"
    REFUSED = "it does not give the content"
    NOT_FOUND = "it does not have the content"
    OUTAGE = "it could not answer"

    @classmethod
    def of(cls, error: RegistryError) -> Outcome:
        """Return the outcome that an error means."""
        if is_outage(error):
            return cls.OUTAGE
        return cls.NOT_FOUND if error.status == 404 else cls.REFUSED


@frozen
class Facts:
    """The facts about a request for stored content.

    :ivar anonymous: True if the client has no credentials.
    :ivar granted: True if the upstream has consented to its credentials for the repository lately.
    :ivar public: True if the upstream has consented to anybody in the last day.
    :ivar was_public: the same for the last week.
    :ivar imported: True if the operator has imported the content into the repository.
    :ivar mutable: True if it is a list, or named by a tag.
    :ivar held: True if it is held for the repository, and acceptable to the client.
    :ivar in_doubt: True if a write through the mirror has deleted or changed it since, or may have.
    :ivar fresh: True if it needs no confirmation.
    :ivar expired: True if it was confirmed too long ago to be served in an outage.
    :ivar keep_deleted: True if content that the upstream has deleted is still served.
    :ivar outcome: the upstream's answer; None before it is asked.
    :ivar anonymous_outcome: its answer to the mirror's own anonymous request; None if it was not asked.
    """

    anonymous: bool
    granted: bool = False
    public: bool = False
    was_public: bool = False
    imported: bool = False
    mutable: bool = False
    held: bool = True
    in_doubt: bool = False
    fresh: bool = True
    expired: bool = False
    keep_deleted: bool = False
    outcome: Outcome | None = None
    anonymous_outcome: Outcome | None = None

    @property
    def is_authorized(self) -> bool:
        """Return whether a grant, or a public repository, lets the client pull."""
        return self.granted or self.public

    @property
    def is_for_everybody(self) -> bool:
        """Return whether the answer may be given to every client."""
        return self.anonymous and self.public

    @property
    def have_stale(self) -> bool:
        """Return whether stored content could be served if the upstream did not answer."""
        down = evolve(self, outcome=Outcome.OUTAGE, anonymous_outcome=Outcome.OUTAGE)
        return authorize(down) is Decision.STALE


def authorize(facts: Facts) -> Decision:
    """Decide by the rules above; never ``ASK`` if the upstream's outcome is among the facts."""
    if facts.outcome is None:
        allowed = facts.public or (facts.granted and not facts.mutable)
        usable = facts.held and facts.fresh and not facts.in_doubt
        return Decision.ALLOW if usable and allowed else Decision.ASK
    if facts.outcome is Outcome.CONSENT:
        return Decision.ALLOW
    if not _is_outage(facts, facts.outcome) or not facts.held:
        return Decision.DENY
    if facts.expired and facts.outcome is Outcome.OUTAGE:
        return Decision.DENY
    return Decision.STALE if facts.is_authorized or _was_for_everybody(facts) else Decision.DENY


def _is_outage(facts: Facts, outcome: Outcome | None) -> bool:
    """Return whether stored content may be served in place of such an answer."""
    return outcome is Outcome.OUTAGE or (facts.keep_deleted and outcome is Outcome.NOT_FOUND)


def _was_for_everybody(facts: Facts) -> bool:
    """Return whether rule 9 applies."""
    if not (facts.was_public or facts.imported):
        return False
    anonymous = facts.anonymous_outcome
    return facts.anonymous or anonymous is Outcome.CONSENT or _is_outage(facts, anonymous)


class Extent(Enum):
    """The part of a repository that consent covers; consent to contents also covers the lists."""

    CONTENTS = "contents"
    LISTS = "lists"

    @classmethod
    def of(cls, target: Target) -> Extent:
        """Return the part that a request is for."""
        return cls.CONTENTS if isinstance(target, Manifest | Blob) else cls.LISTS

    @property
    def covering(self) -> tuple[Extent, ...]:
        """The extents whose consent includes this one."""
        return (Extent.CONTENTS,) if self is Extent.CONTENTS else (Extent.CONTENTS, Extent.LISTS)


class GrantCache:
    """The credentials that the upstream has consented to; the keys hold hashes, never the credentials.

    The entry of a blob includes the generation of its repository, so that a write invalidates it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._granted: TTLCache[tuple[Repository, Extent, str], bool] = TTLCache(clock, _MOST)
        self._ends: TTLCache[str, float] = TTLCache(clock, _MOST)
        self._consents: TTLCache[tuple[Blob, bytes], bool] = TTLCache(clock, _MOST_BLOBS)
        self._started: TTLCache[tuple[Blob, bytes, str | None], int] = TTLCache(clock, _MOST_BLOBS)
        self._refused: TTLCache[tuple[Repository, str], bool] = TTLCache(clock, _MOST)

    def is_granted(self, repository: Repository, credentials: Credentials, extent: Extent) -> bool:
        """Return whether the upstream has consented to them for that repository recently."""
        keys = ((repository, each, credentials.fingerprint()) for each in extent.covering)
        return any(self._granted.get(key) for key in keys)

    def grant(self, repository: Repository, credentials: Credentials, extent: Extent) -> None:
        """Record consent, which expires with the token at the latest."""
        fingerprint, now = credentials.fingerprint(), self._clock.seconds()
        ends = self._ends.get(fingerprint)
        ttl = GRANT_TTL if ends is None else min(GRANT_TTL, ends - now)
        self._granted.put((repository, extent, fingerprint), True, ttl)

    def revoke(self, repository: Repository, credentials: Credentials | None) -> None:
        """Record that the upstream has refused them, or, with None, an anonymous request."""
        for extent in Extent:
            self._granted.drop((repository, extent, _key_of(credentials)))
        self._refused.put((repository, _key_of(credentials)), True, GRANT_TTL)

    def set_lifetime(self, credentials: Credentials, seconds: float) -> None:
        """Record the lifetime of a token."""
        self._ends.put(credentials.fingerprint(), self._clock.seconds() + seconds, seconds + PUBLIC_TTL)

    def has_consented(self, blob: Blob, generation: bytes, size: int | None = None) -> bool:
        """Return whether the upstream has given the blob to any client.

        :param size: if a download that has begun is enough, the size of what is being downloaded.
        """
        key = blob, generation
        return bool(self._consents.get(key)) or self._has_begun((*key, None), size)

    def has_begun(
        self, blob: Blob, generation: bytes, credentials: Credentials | None, size: int | None
    ) -> bool:
        """Return whether these credentials have begun to receive the blob, and were not refused since.

        :param size: of what is being downloaded; None if it is unknown, and proves nothing then.
        """
        key = _key_of(credentials)
        is_refused = self._refused.get((blob.repository, key))
        return not is_refused and self._has_begun((blob, generation, key), size)

    def _has_begun(self, key: tuple[Blob, bytes, str | None], size: int | None) -> bool:
        return size is not None and self._started.get(key) == size

    def record_consent(self, blob: Blob, generation: bytes) -> None:
        """Record that the upstream has given the blob."""
        self._consents.put((blob, generation), True, GRANT_TTL)

    def record_begin(self, blob: Blob, generation: bytes, credentials: Credentials | None, size: int) -> None:
        """Record that the upstream has begun to send these credentials the blob, or a page in its place.

        :param size: the size that it states, which a page does not share with the blob.
        """
        self._refused.drop((blob.repository, _key_of(credentials)))
        for key in (_key_of(credentials), None):
            self._started.put((blob, generation, key), size, GRANT_TTL)


class PublicRepositories:
    """The repositories that the upstream gives to everybody, stored across restarts.

    :param partition: returns the cache partition of a repository; another upstream of the same registry, and
        another account of the mirror, may be given other content.
    :param may_mark_public: returns whether an anonymous answer proves that content of a repository is public;
        False where the upstream may trust the mirror's own address.
    """

    def __init__(
        self,
        partition: Callable[[Repository], str],
        documents: IDocumentStore,
        clock: IReactorTime,
        may_mark_public: Callable[[Repository], bool],
    ) -> None:
        self._partition = partition
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self.may_mark_public = may_mark_public
        self._since: TTLCache[tuple[Repository, Extent], float] = TTLCache(clock, _MOST)
        self._imported: TTLCache[str, bool] = TTLCache(clock, _MOST)

    async def is_imported(self, repository: Repository, digest: Digest | None = None) -> bool:
        """Return whether the operator has imported that content, which all clients may then pull.

        Other content of the repository may have been fetched for one client alone.

        :param digest: the content; None for any content of the repository.
        """
        name = imported_document(self._partition(repository), repository, digest)
        is_known = self._imported.get(name)
        if is_known is None:
            is_known = await self._documents.read(name) is not None
            self._imported.put(name, is_known, REREAD_AFTER)
        return is_known

    async def age(self, repository: Repository, extent: Extent = Extent.CONTENTS) -> float:
        """Return the seconds since it was confirmed to be public; infinite if it is not."""
        since = max([await self._confirmed_at(repository, each) for each in extent.covering])
        age = self._clock.seconds() - since
        return age if self.may_mark_public(repository) and since and age >= 0 else inf

    async def confirm(self, repository: Repository, extent: Extent) -> None:
        """Record that the upstream has consented to the mirror's own anonymous request."""
        now = self._clock.seconds()
        if (
            not self.may_mark_public(repository)
            or 0 <= now - await self._confirmed_at(repository, extent) < _REWRITE_AFTER
        ):
            return
        self._since.put((repository, extent), now, REREAD_AFTER)
        await self._documents.write(self._name(repository, extent), str(now).encode())

    async def refuse(self, repository: Repository) -> None:
        """Record that the upstream has refused the mirror's own anonymous request."""
        for extent in Extent:
            if await self._confirmed_at(repository, extent):
                self._since.put((repository, extent), 0.0, PUBLIC_TTL)
                await self._documents.write(self._name(repository, extent), b"0")

    async def _confirmed_at(self, repository: Repository, extent: Extent) -> float:
        """Return the time of the last confirmation; 0 if there was none, or a refusal since."""
        key = repository, extent
        since = self._since.get(key)
        if since is None:
            read = _parse_seconds(await self._documents.read(self._name(repository, extent)))
            since = self._since.get(key)  # it may have been refused meanwhile
        if since is None:
            self._since.put(key, read, REREAD_AFTER)
            since = read
        return since

    def _name(self, repository: Repository, extent: Extent) -> str:
        folder = "public" if extent is Extent.CONTENTS else "public-lists"
        return f"{folder}/{self._partition(repository)}/{repository}"


def imported_document(partition: str, repository: Repository, digest: Digest | None = None) -> str:
    """Return the name of the document that marks a content, or any of a repository, as imported."""
    return f"imported/{partition}/{repository}{'' if digest is None else f'@{digest}'}"


def _key_of(credentials: Credentials | None) -> str:
    return credentials.fingerprint() if credentials else "anonymous"


def _parse_seconds(document: bytes | None) -> float:
    try:
        return float(document or b"0")
    except ValueError:
        return 0.0
