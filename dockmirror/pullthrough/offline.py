"""A registry that is not asked: its contents, lists and tokens are answered from what is held.

Held content is served to every client if it was public when the upstream last said so, if the operator has
imported it, or if the operator's setting ``public`` says that all of it is.  Everything else is a 404, as
nothing tells who may have it.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from math import inf
from typing import NoReturn, Protocol

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.bodies import BytesBody, json_body
from ..concurrency.coroutines import filter_in_turns
from ..interfaces import Answer, ContentKind, IContentStore, IDocumentStore, ITagStore, IUpstream
from ..oci.digest import Descriptor, Digest
from ..oci.errors import NameUnknown
from ..oci.header_fields import CacheStatus
from ..oci.media import BLOB_TYPE, OCI_INDEX, Referrer, accepts
from ..oci.request import (
    Blob,
    Catalog,
    InRepository,
    Manifest,
    Ping,
    Referrers,
    RegistryRequest,
    Repository,
    Tag,
    Tags,
)
from ..oci.token import MARKER_ANSWER, TokenRequest
from .authorization import Extent, PublicRepositories
from .blobs import cached_response
from .error_tolerant_store import ErrorTolerantContentStore, ErrorTolerantTagStore
from .manifest_store import ManifestStore, answer_stored

NOT_HELD = "the mirror is offline, and holds nothing of this name that all clients may have"
INCOMPLETE = "the mirror is offline, and holds only a part of this image"
_COUNT = re.compile(r"[0-9]{1,9}")
_Query = tuple[tuple[str, str], ...]


@implementer(IUpstream)
class OfflineUpstream:
    """An upstream that is never asked, and has nothing."""

    async def fetch(self, request: RegistryRequest) -> NoReturn:
        target = request.target
        raise (target.unknown if isinstance(target, InRepository) else NameUnknown)(NOT_HELD)

    async def token(self, request: TokenRequest) -> NoReturn:
        raise NameUnknown(NOT_HELD)


class LastKnownPublic(PublicRepositories):
    """The repositories that were public when the upstream was last asked.

    :param are_all: True if all repositories are public, as the operator says.
    :param may_mark_public: see ``PublicRepositories``; False if what was recorded no longer counts.
    """

    def __init__(
        self,
        partition: Callable[[Repository], str],
        documents: IDocumentStore,
        clock: IReactorTime,
        are_all: bool,
        may_mark_public: Callable[[Repository], bool],
    ) -> None:
        super().__init__(partition, documents, clock, may_mark_public)
        self._are_all = are_all

    async def age(self, repository: Repository, extent: Extent = Extent.CONTENTS) -> float:
        """Return 0 for a public repository, and infinity for any other."""
        if self._are_all or await super().age(repository, extent) < inf:
            return 0.0
        return inf


class HeldListing(Protocol):
    """Lists what a store holds; names of repositories begin with the registry."""

    async def repositories(self, registry: str) -> Sequence[Repository]:
        """Return the repositories of a registry."""

    async def tags(self, repository: Repository) -> Mapping[Tag, Digest]:
        """Return the tags whose images can be pulled."""

    async def referrers(self, repository: Repository, subject: Digest) -> Sequence[Referrer]:
        """Return the manifests that state this subject."""


@implementer(IUpstream)
class OfflineRegistry:
    """Serves what the store holds of one registry, and asks nobody.

    :param registry: its name in the store.
    """

    def __init__(
        self,
        registry: str,
        contents: IContentStore,
        tags: ITagStore,
        listing: HeldListing,
        public: PublicRepositories,
        clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._tags: ITagStore = ErrorTolerantTagStore(tags)
        self._manifests = ManifestStore(self._contents)
        self._listing = listing
        self._public = public
        self._clock = clock

    async def token(self, request: TokenRequest) -> Answer:
        """Return the token that stands for no credentials: there is nobody who could check any."""
        return Answer(json_body(MARKER_ANSWER), cache=CacheStatus())

    async def fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Ping():
                return Answer(json_body(b"{}"), cache=CacheStatus())
            case Manifest() as target:
                return await self._manifest(request, target)
            case Blob() as target:
                return await self._blob(request, target)
            case Tags() as target:
                return await self._list_tags(request, target)
            case Referrers() as target:
                return await self._list_referrers(request, target)
            case Catalog():
                return await self._list_repositories(request)

    async def _manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        place, reference = self._place(target.repository), target.reference
        status = CacheStatus()
        if isinstance(reference, Tag):
            entry = await self._tags.get(place, reference)
            if entry is None:
                raise target.unknown(NOT_HELD)
            digest, status = entry.digest, CacheStatus(age=self._clock.seconds() - entry.confirmed)
        else:
            digest = reference
            status = CacheStatus(immutable=await self._is_public(target.repository))
        may_serve = await self._may_serve(target.repository, digest)
        stored = await self._manifests.get(place, digest) if may_serve else None
        if stored is None or not accepts(request.accept, stored.media_type):
            raise target.unknown(NOT_HELD)
        if not await self._manifests.is_complete(place, stored):
            raise target.unknown(INCOMPLETE)
        return answer_stored(request, stored, status)

    async def _blob(self, request: RegistryRequest, target: Blob) -> Answer:
        """Serve a blob; the empty one is not secret, and needs no authorization."""
        stored, status = None, CacheStatus(immutable=await self._is_public(target.repository))
        if target.digest.matches(b""):
            stored = await self._contents.peek(target.digest)
        elif await self._may_serve(target.repository, target.digest):
            stored = await self._contents.open(
                self._place(target.repository), target.digest, ContentKind.BLOB
            )
        if stored is None:
            raise target.unknown(NOT_HELD)
        return cached_response(request, stored, Descriptor(BLOB_TYPE, target.digest, stored.size), status)

    async def _list_tags(self, request: RegistryRequest, target: Tags) -> Answer:
        held = await self._listing.tags(self._place(target.repository))
        digests = {tag.name: digest for tag, digest in held.items()}

        async def may_list(name: str) -> bool:
            return await self._may_serve(target.repository, digests[name])

        page, following = await self._select_page(digests, may_list, request.query)
        if not page and not await filter_in_turns(digests, may_list, self._clock, 1):
            raise target.unknown(NOT_HELD)
        return _list_answer({"name": str(target.repository), "tags": page}, following)

    async def _list_repositories(self, request: RegistryRequest) -> Answer:
        held = await self._listing.repositories(self._registry)

        async def may_list(name: str) -> bool:
            return await self._has_any(Repository(name))

        page, following = await self._select_page((each.rest for each in held), may_list, request.query)
        return _list_answer({"repositories": page}, following)

    async def _select_page(
        self, names: Iterable[str], may_list: Callable[[str], Awaitable[bool]], query: _Query
    ) -> tuple[Sequence[str], _Query | None]:
        """Return a page of the names that may be listed; others are not checked."""
        ordered = sorted(names)
        last, count = _page_bounds(query)
        following = ordered[bisect_right(ordered, last) :]
        found = await filter_in_turns(following, may_list, self._clock, None if count is None else count + 1)
        return paginate(found, query)

    async def _list_referrers(self, request: RegistryRequest, target: Referrers) -> Answer:
        """List referrers; a repository of which something is held has a list, which may be empty."""
        if not await self._has_any(target.repository):
            raise target.unknown(NOT_HELD)
        kind = dict(request.query).get("artifactType")

        async def may_list(referrer: Referrer) -> bool:
            return await self._may_serve(target.repository, referrer.digest)

        held = await self._listing.referrers(self._place(target.repository), target.digest)
        wanted = (each for each in held if kind in (None, each.artifact_type))
        descriptors = [each.descriptor() for each in await filter_in_turns(wanted, may_list, self._clock)]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        answer = _list_answer(index, None, OCI_INDEX)
        return answer if kind is None else evolve(answer, headers=(("OCI-Filters-Applied", "artifactType"),))

    async def _may_serve(self, repository: Repository, digest: Digest) -> bool:
        return await self._is_public(repository) or await self._public.is_imported(repository, digest)

    async def _has_any(self, repository: Repository) -> bool:
        """Return whether the repository is public, or has imported contents."""
        return await self._is_public(repository) or await self._public.is_imported(repository)

    async def _is_public(self, repository: Repository) -> bool:
        return await self._public.age(repository) < inf

    def _place(self, repository: Repository) -> Repository:
        return Repository(f"{self._registry}/{repository.name}")


def paginate(names: Sequence[str], query: _Query) -> tuple[Sequence[str], _Query | None]:
    """Return the page of a sorted list that ``n`` and ``last`` ask for, and the query of the next page.

    Source: OCI distribution specification, "Listing Tags".
    """
    last, count = _page_bounds(query)
    after = names[bisect_right(names, last) :]
    page = after[:count]
    has_more = page and len(page) < len(after)
    return page, (("n", str(count)), ("last", page[-1])) if has_more else None


def _page_bounds(query: _Query) -> tuple[str, int | None]:
    """Return the name after which a page begins, and the most names on it, if it is limited."""
    parameters = dict(query)
    count = parameters.get("n", "")
    return parameters.get("last", ""), int(count) if _COUNT.fullmatch(count) else None


def _list_answer(document: object, following: _Query | None, kind: str = "application/json") -> Answer:
    data = json.dumps(document).encode()
    body = BytesBody(data, Descriptor(kind, None, len(data)))
    return Answer(body, next_page=following, cache=CacheStatus())
