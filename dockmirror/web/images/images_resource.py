"""``/images/``: what the mirror holds, for clients of its own host and for operators.

``/images/?q=nginx`` lists repositories, ``/images/docker.io/library/nginx`` is a repository, and the same
with ``:TAG`` or ``@DIGEST`` an image.

A page shows nothing that the mirror would not give to the viewer without asking the upstream:

- to everybody, what the upstream has given to an anonymous request in the last day, and what the operator has
  imported;
- to users of the mirror, also what its own accounts were given in the last day;
- none of it, if the operator's rules deny it.

A repository that a client has pulled with credentials of its own is neither.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.template import Tag as Html

from ...concurrency.coroutines import RunInThread, TTLCache, filter_in_turns
from ...http.server_request import ServerRequest, parse_query
from ...interfaces import ITagHistory, Sighting
from ...oci.digest import Digest
from ...oci.errors import Denied, NameInvalid, NameUnknown, RegistryError, Unsupported
from ...oci.request import (
    InRepository,
    Manifest,
    Reference,
    Repository,
    Tag,
    Tags,
    decode_segments,
    parse_reference,
)
from ...pullthrough.authorization import PUBLIC_TTL, PublicRepositories
from ...store.store_index import StoreSnapshot
from ..pages.page import Language, send_document
from ..respond import render_or_refuse
from .blocks import POLICY, image_path, words_for
from .catalog import HeldDetails, ImageCatalog, PullFigure, PullFigures
from .image_pages import (
    PAGE_SIZE,
    TAGS_SIZE,
    DetailsView,
    IndexView,
    RepositoryRow,
    RepositoryView,
    render_details,
    render_index,
    render_repository,
)
from .operator_pages import OperatorPages

SNAPSHOT_TTL = 1.0
"""Seconds for which pages are made from the same view of the store."""
HIDDEN_TTL = 10.0
"""Seconds for which lists leave out a repository that a viewer may not see, without another check."""
_MAX_SHARING = 20


class Rules(Protocol):
    """The operator's rules for an upstream; see ``PullRules``."""

    def check(self, target: InRepository) -> None:
        """:raises Denied: when the rules do not allow the target."""

    def check_denied(self, target: InRepository) -> None:
        """:raises Denied: when the rules deny just this target."""


class Viewer(Protocol):
    """A client that looks at the pages.

    :ivar is_user: True for a user of the mirror; all users see the same, and so do all others.
    """

    @property
    def is_user(self) -> bool: ...

    async def sources(self, name: str) -> Sequence[str]:
        """Return the upstreams that give a repository to it, whose name begins with the registry.

        The names are those in the settings.  Without any, the viewer may not see the repository.
        """

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        """Return whether it may see an image of a repository."""


class OperatorViewer:
    """A client of the operations endpoint, which shows everything.

    :param upstreams: returns the upstreams of a registry.
    """

    is_user = True

    def __init__(self, upstreams: Callable[[str], Sequence[str]]) -> None:
        self._upstreams = upstreams

    async def sources(self, name: str) -> Sequence[str]:
        return self._upstreams(name.partition("/")[0]) or ("",)

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        return True


@frozen
class VisibleUpstream:
    """An upstream, as far as it decides who may see what.

    :ivar name: its name in the settings.
    :ivar registry: the first part of its repositories' names in the store.
    :ivar has_account: returns True if ``public`` tells what an account of the mirror's own was given.
    """

    name: str
    registry: str
    public: PublicRepositories
    has_account: Callable[[Repository], bool]
    rules: Rules


class ClientViewer:
    """A client of the mirror's own host.

    :param is_user: True if the mirror knows its name, and its password.
    """

    def __init__(self, upstreams: Sequence[VisibleUpstream], is_user: bool) -> None:
        self._upstreams = upstreams
        self.is_user = is_user

    async def sources(self, name: str) -> Sequence[str]:
        return [
            upstream.name
            for upstream, repository in self._upstreams_of(name)
            if _allows(upstream.rules, Tags(repository)) and await _is_given(upstream, repository, None)
        ]

    async def may_see_image(self, name: str, tag: Tag | None, digest: Digest) -> bool:
        for upstream, repository in self._upstreams_of(name):
            target = Manifest(repository, tag or digest)
            if (
                _allows(upstream.rules, target)
                and not _denies(upstream.rules, Manifest(repository, digest))
                and await _is_given(upstream, repository, digest)
            ):
                return True
        return False

    def _upstreams_of(self, name: str) -> list[tuple[VisibleUpstream, Repository]]:
        registry, _, rest = name.partition("/")
        try:
            repository = Repository.parse(rest)
        except NameInvalid:
            return []
        return [
            (each, repository)
            for each in self._upstreams
            if each.registry == registry and (self.is_user or not each.has_account(repository))
        ]


async def _is_given(upstream: VisibleUpstream, repository: Repository, digest: Digest | None) -> bool:
    if await upstream.public.age(repository) < PUBLIC_TTL:
        return True
    return await upstream.public.is_imported(repository, digest)


def _allows(rules: Rules, target: InRepository) -> bool:
    try:
        rules.check(target)
    except Denied:
        return False
    return True


def _denies(rules: Rules, target: InRepository) -> bool:
    try:
        rules.check_denied(target)
    except Denied:
        return True
    return False


@frozen
class ImagesContext:
    """The parts that the pages are made from.

    :ivar find_viewer: returns what the client of a request may see.
    :ivar find_pull: returns the name by which the client pulls an image, given the store's name of it.
    """

    catalog: ImageCatalog
    figures: PullFigures
    tag_history: ITagHistory
    in_thread: RunInThread
    clock: IReactorTime
    find_viewer: Callable[[ServerRequest], Viewer]
    find_pull: Callable[[ServerRequest, str], str]


class ImagesResource(Resource):
    """Sends the pages.

    :param operator: confirms and runs the actions of operators; None on the mirror's own host.
    """

    isLeaf = True

    def __init__(self, context: ImagesContext, operator: OperatorPages | None = None) -> None:
        super().__init__()
        self._context = context
        self._operator = operator
        self._snapshots: TTLCache[None, StoreSnapshot] = TTLCache(context.clock, 1)
        self._hidden: TTLCache[bool, set[str]] = TTLCache(context.clock, 2)

    def render(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        say, query = words_for(request), dict(parse_query(request))
        path = "/".join(decode_segments(request.path)[2:])
        request.setHeader("Vary", "Accept-Language")
        if request.path == b"/images":
            request.setResponseCode(301)
            request.setHeader("Location", "/images/")
            request.finish()
        elif request.method == b"POST" and self._operator is not None and not path:
            await self._act(request, self._operator, say)
        elif request.method not in (b"GET", b"HEAD"):
            raise Unsupported()
        elif "action" in query and self._operator is not None:
            image = query.get("image") or path
            target = image_path(path) if not path else f"/images/{path}"
            document = await self._operator.confirmation(request, query["action"], image, target, say)
            send_document(document, request, POLICY)
        else:
            send_document(await self._page(request, path, query, say), request, POLICY)

    async def _page(self, request: ServerRequest, path: str, query: Mapping[str, str], say: Language) -> Html:
        viewer = self._context.find_viewer(request)
        held = await self._snapshot()
        if not path:
            return render_index(await self._index(viewer, held, query), say)
        name, reference = _parse_path(path)
        sources = await viewer.sources(name)  # also of what is not held: the time tells nothing then
        if not sources or name not in held.repositories:
            raise _unknown()
        if reference is None:
            view = await self._repository(viewer, held, name, sources, query.get("after", ""))
            return render_repository(view, say)
        return render_details(await self._details(request, viewer, held, name, reference), say)

    async def _snapshot(self) -> StoreSnapshot:
        known = self._snapshots.get(None)
        if known is None:
            known = await self._context.in_thread(self._context.catalog.snapshot)
            self._snapshots.put(None, known, SNAPSHOT_TTL)
        return known

    async def _index(self, viewer: Viewer, held: StoreSnapshot, query: Mapping[str, str]) -> IndexView:
        text, after = query.get("q", "").strip().lower(), query.get("after", "")
        by_registry = await self._context.in_thread(lambda: held.names_by_registry)
        following = held.names[bisect_right(held.names, after) :]
        found = await self._visible(viewer, (each for each in following if text in each), PAGE_SIZE + 1)
        shown = found[:PAGE_SIZE]
        is_operator = self._operator is not None
        sums = await self._context.in_thread(lambda: held.by_registry) if is_operator else {}
        registries = [
            (registry, sums[registry].bytes if is_operator else None)
            for registry, names in by_registry.items()
            if await self._visible(viewer, names, 1)
        ]
        rows = await self._context.in_thread(partial(self._rows, held, shown))
        return IndexView(text, registries, rows, shown[-1] if len(found) > PAGE_SIZE else "", is_operator)

    async def _visible(self, viewer: Viewer, names: Iterable[str], most: int) -> list[str]:
        """Return the first of the repositories that the viewer may see."""
        if (hidden := self._hidden.get(viewer.is_user)) is None:
            self._hidden.put(viewer.is_user, hidden := set(), HIDDEN_TTL)

        async def is_visible(name: str) -> bool:
            if not await viewer.sources(name):
                hidden.add(name)
            return name not in hidden

        unchecked = (name for name in names if name not in hidden)
        return await filter_in_turns(unchecked, is_visible, self._context.clock, most)

    def _rows(self, held: StoreSnapshot, names: Sequence[str]) -> Sequence[RepositoryRow]:
        figures = self._context.figures.of_repositories()
        return [
            RepositoryRow(
                name,
                self._context.catalog.count_tags(name),
                held.bytes_of(name),
                None if figures is None else figures.get(name, PullFigure()),
            )
            for name in names
        ]

    async def _repository(
        self, viewer: Viewer, held: StoreSnapshot, name: str, sources: Sequence[str], after: str
    ) -> RepositoryView:
        catalog = self._context.catalog
        entries = await self._context.in_thread(partial(catalog.list_tags, name))

        async def is_visible(tag: Tag) -> bool:
            return await viewer.may_see_image(name, tag, entries[tag].digest)

        tags = {tag: entries[tag] for tag in await filter_in_turns(entries, is_visible, self._context.clock)}
        found = await self._context.in_thread(partial(catalog.repository, held, name, tags, after, TAGS_SIZE))
        untagged = [each for each in found.untagged if await viewer.may_see_image(name, None, each.digest)]
        since: dict[str, float] = {}
        for each in found.page:
            if each.listed.tag is not None:
                sightings = await self._sightings(sources, name, each.listed.tag)
                since[each.listed.tag.name] = next(
                    (s.first for s in sightings if s.digest == each.digest), 0.0
                )
        figures = await self._context.in_thread(partial(self._context.figures.of_tags, name))
        found = evolve(found, untagged=untagged)
        return RepositoryView(found, figures, since, after, self._operator is not None)

    async def _details(
        self, request: ServerRequest, viewer: Viewer, held: StoreSnapshot, name: str, reference: Reference
    ) -> DetailsView:
        tag = reference if isinstance(reference, Tag) else None
        details = await self._context.in_thread(partial(self._context.catalog.details, held, name, reference))
        if details is None or not await viewer.may_see_image(name, tag, details.tag.digest):
            raise _unknown()
        image = f"{name}{':' if tag else '@'}{reference}"
        sightings = await self._sightings(await viewer.sources(name), name, tag) if tag else []
        repository = Repository(name)
        return DetailsView(
            name,
            details,
            self._context.find_pull(request, image),
            await self._context.in_thread(partial(self._context.figures.of_image, name, reference)),
            [each for each in sightings if await viewer.may_see_image(name, tag, each.digest)],
            await self._visible_sharing(viewer, details),
            self._operator is not None,
            self._operator is not None and await self._operator.is_pinned(repository, reference),
        )

    async def _visible_sharing(self, viewer: Viewer, details: HeldDetails) -> Mapping[Digest, Sequence[str]]:
        """Return which of the repositories that have a layer, too, the viewer may see."""
        return {
            layer.digest: await self._visible(viewer, layer.sharing, _MAX_SHARING)
            for platform in details.platforms
            for layer in platform.layers
        }

    async def _sightings(self, sources: Sequence[str], name: str, tag: Tag) -> list[Sighting]:
        """Return the digests that the viewer's upstreams have named, newest first."""
        repository = Repository(name.partition("/")[2])
        found: list[Sighting] = []
        for upstream in filter(None, sources):
            try:
                found += await self._context.tag_history.sightings(upstream, repository, tag)
            except OSError:  # the history of a tag is malformed, or cannot be read
                continue
        return sorted(found, key=lambda each: -each.first)

    async def _act(self, request: ServerRequest, operator: OperatorPages, say: Language) -> None:
        action, image, outcome = await operator.run(request, say)
        if outcome.archive is not None:
            await operator.send_archive(request, image, outcome.archive)
            return
        self._snapshots.drop(None)
        send_document(operator.outcome_page(action, image, outcome, say), request, POLICY)


def _parse_path(path: str) -> tuple[str, Reference | None]:
    """Parse the part of a path after ``/images/``.

    :raises NameUnknown: as for an image that is not held.
    """
    named, _, digest = path.partition("@")
    name, _, tag = named.partition(":")
    try:
        reference = parse_reference(digest or tag) if digest or tag else None
        return Repository.parse(name).name, reference
    except RegistryError:
        raise _unknown() from None


def _unknown() -> NameUnknown:
    """Return the same error for what is not held, and for what the client may not see."""
    return NameUnknown("the mirror holds no such image, or not for you", status=404)
