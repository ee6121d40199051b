"""The upstream's consent, remembered for a while.

That something lies in the store entitles nobody.  Credentials may have of a repository what the upstream
gave to them; everybody may have what it gave to the mirror's own anonymous request.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

from twisted.internet.interfaces import IReactorTime

from ..concurrency.caching import TTLCache
from ..interfaces import IDocumentStore
from ..oci.credentials import Credentials
from ..oci.digest import Digest
from ..oci.reference import Repository
from ..oci.request import Blob, Manifest, Target
from .error_tolerant_store import ErrorTolerantDocumentStore

GRANTED = 300.0
"""Seconds for which the upstream's consent to some credentials holds, at most."""
PUBLIC = 24 * 3600.0
"""Seconds for which a repository counts as public."""
PUBLIC_IN_OUTAGE = 7 * 24 * 3600.0
"""The same while the upstream cannot be asked."""
READ_AGAIN = 60.0
"""Seconds after which a process sees what another one has learnt of public repositories."""
_NOTED_ANEW = 3600.0
_MOST = 100_000
_MOST_BLOBS = 10_000


class Extent(Enum):
    """The part of a repository that consent was given to; consent to contents covers the lists, too."""

    CONTENTS = "contents"
    LISTS = "lists"

    @classmethod
    def of(cls, target: Target) -> Extent:
        """The part that a request is for."""
        return cls.CONTENTS if isinstance(target, Manifest | Blob) else cls.LISTS

    @property
    def covering(self) -> tuple[Extent, ...]:
        """The extents of which consent is consent to this."""
        return (Extent.CONTENTS,) if self is Extent.CONTENTS else (Extent.CONTENTS, Extent.LISTS)


class GrantCache:
    """The credentials that the upstream has consented to; the keys hold hashes, never the credentials.

    A blob is noted with the mark of its repository at the time, so that a change of that voids the note.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._granted: TTLCache[tuple[Repository, Extent, str], bool] = TTLCache(clock, _MOST)
        self._ends: TTLCache[str, float] = TTLCache(clock, _MOST)
        self._given: TTLCache[tuple[Blob, bytes], bool] = TTLCache(clock, _MOST_BLOBS)
        self._begun: TTLCache[tuple[Blob, bytes, str | None], bool] = TTLCache(clock, _MOST_BLOBS)
        self._refused: TTLCache[tuple[Repository, str], bool] = TTLCache(clock, _MOST)

    def granted(self, repository: Repository, credentials: Credentials, extent: Extent) -> bool:
        """Return whether the upstream has consented to them for that repository a short while ago."""
        keys = ((repository, each, credentials.fingerprint()) for each in extent.covering)
        return any(self._granted.get(key) for key in keys)

    def grant(self, repository: Repository, credentials: Credentials, extent: Extent) -> None:
        """Note that it has done so just now; that holds no longer than the token itself."""
        fingerprint, now = credentials.fingerprint(), self._clock.seconds()
        ends = self._ends.get(fingerprint)
        holds = GRANTED if ends is None else min(GRANTED, ends - now)
        self._granted.put((repository, extent, fingerprint), True, holds)

    def revoke(self, repository: Repository, credentials: Credentials | None) -> None:
        """Note that the upstream has refused them, or a request without any."""
        for extent in Extent:
            self._granted.drop((repository, extent, _key_of(credentials)))
        self._refused.put((repository, _key_of(credentials)), True, GRANTED)

    def expire(self, credentials: Credentials, seconds: float) -> None:
        """Note that a token was given that lives so long."""
        self._ends.put(credentials.fingerprint(), self._clock.seconds() + seconds, seconds + PUBLIC)

    def gave(self, blob: Blob, mark: bytes, or_began: bool = False) -> bool:
        """Return whether the upstream has consented to the blob, to anybody.

        :param or_began: whether it is enough that it has begun to give it.
        """
        key = blob, mark
        return bool(self._given.get(key) or (or_began and self._begun.get((*key, None))))

    def began(self, blob: Blob, mark: bytes, credentials: Credentials | None) -> bool:
        """Return whether it has begun to give it to these credentials, and not refused them since."""
        key = _key_of(credentials)
        return bool(self._begun.get((blob, mark, key))) and not self._refused.get((blob.repository, key))

    def give(self, blob: Blob, mark: bytes) -> None:
        """Note that it has consented to the blob."""
        self._given.put((blob, mark), True, GRANTED)

    def begin(self, blob: Blob, mark: bytes, credentials: Credentials | None) -> None:
        """Note that it has begun to give the blob to these credentials."""
        self._refused.drop((blob.repository, _key_of(credentials)))
        for key in (_key_of(credentials), None):
            self._begun.put((blob, mark, key), True, GRANTED)


class PublicRepositories:
    """The repositories that the upstream gives to everybody, kept over a restart.

    :param entry: the upstream's name: what one gives says nothing of another of the same registry.
    :param learns: returns whether what the upstream gives the mirror it gives to everybody; not so where it
        may be the mirror's own address that it trusts.
    """

    def __init__(
        self, entry: str, documents: IDocumentStore, clock: IReactorTime, learns: Callable[[], bool]
    ) -> None:
        self._entry = entry
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self.learns = learns
        self._since: TTLCache[tuple[Repository, Extent], float] = TTLCache(clock, _MOST)
        self._imported: TTLCache[str, bool] = TTLCache(clock, _MOST)

    async def imported(self, repository: Repository, digest: Digest | None = None) -> bool:
        """Return whether the operator has imported that content, for everybody, for as long as it is held.

        Other content of the repository is not meant: it may have come here for somebody alone.

        :param digest: None for any content of it.
        """
        name = imported_document(self._entry, repository, digest)
        known = self._imported.get(name)
        if known is None:
            known = await self._documents.read(name) is not None
            self._imported.put(name, known, READ_AGAIN)
        return known

    async def age(self, repository: Repository, extent: Extent = Extent.CONTENTS) -> float:
        """Return how many seconds ago it was confirmed to be public; infinite where it is not."""
        since = max([await self._confirmed(repository, each) for each in extent.covering])
        age = self._clock.seconds() - since
        return age if self.learns() and since and age >= 0 else inf

    async def confirm(self, repository: Repository, extent: Extent) -> None:
        """Note that the upstream has consented to the mirror's own anonymous request."""
        now = self._clock.seconds()
        if not self.learns() or 0 <= now - await self._confirmed(repository, extent) < _NOTED_ANEW:
            return
        self._since.put((repository, extent), now, READ_AGAIN)
        await self._documents.write(self._name(repository, extent), str(now).encode())

    async def refuse(self, repository: Repository) -> None:
        """Note that the upstream has refused the mirror's own anonymous request."""
        for extent in Extent:
            if await self._confirmed(repository, extent):
                self._since.put((repository, extent), 0.0, PUBLIC)
                await self._documents.write(self._name(repository, extent), b"0")

    async def _confirmed(self, repository: Repository, extent: Extent) -> float:
        """When it was last confirmed; 0 where it was not, or was refused since."""
        key = repository, extent
        since = self._since.get(key)
        if since is None:
            read = _seconds(await self._documents.read(self._name(repository, extent)))
            since = self._since.get(key)  # it may have been refused meanwhile
        if since is None:
            self._since.put(key, read, READ_AGAIN)
            since = read
        return since

    def _name(self, repository: Repository, extent: Extent) -> str:
        folder = "public" if extent is Extent.CONTENTS else "public-lists"
        return f"{folder}/{self._entry}/{repository}"


def imported_document(entry: str, repository: Repository, digest: Digest | None = None) -> str:
    """The name of the document that says so of a content, or of any: whatever is in it, it is there."""
    return f"imported/{entry}/{repository}{'' if digest is None else f'@{digest}'}"


def _key_of(credentials: Credentials | None) -> str:
    return credentials.fingerprint() if credentials else "anonymous"


def _seconds(document: bytes | None) -> float:
    try:
        return float(document or b"0")
    except ValueError:
        return 0.0
