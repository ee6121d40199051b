"""``/history``: the history of pulls for operators, asked with a form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from ...concurrency.coroutines import RunInThread, gather
from ...history.pulls import HistoryError, HistoryReader, Pull, PullFilter, PullSums, SumKey
from ...http.server_request import ServerRequest, parse_query
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unsupported
from ...oci.request import Repository
from ...store.held_images import HeldImages
from ..images.blocks import image_path
from ..pages.page import language_for, send_document
from ..respond import render_or_refuse
from .history_form import FormReader, HistoryForm, InvalidForm
from .history_page import POLICY, SHOWN_PULLS, SHOWN_SUMS, HistoryAnswer, HistoryView, render_history

_MOST = 1_000_000
"""The most repositories or clients that a page sums up."""
_MOST_BYTES = 110_000
"""The part of a page that the pulls may take up."""


@frozen
class HistoryContext:
    """The parts that the page is made from.

    :ivar reader: None if the mirror keeps no history.
    :ivar images: the images of the cache; None without one.
    """

    reader: HistoryReader | None
    in_thread: RunInThread
    clock: IReactorTime
    form_reader: FormReader
    images: HeldImages | None


class HistoryResource(Resource):
    """Sends the page: 400 if the form has mistakes, 503 if the history cannot be read."""

    isLeaf = True

    def __init__(self, context: HistoryContext) -> None:
        super().__init__()
        self._context = context

    def render(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._respond(request))

    async def _respond(self, request: ServerRequest) -> None:
        if request.path != b"/history":
            raise Unsupported("not found; try /history", status=404)
        if request.method not in (b"GET", b"HEAD"):
            raise Unsupported()
        say, form = language_for(request), HistoryForm.parse(parse_query(request))
        view = await self._view(form, say("status.no_history"))
        if view.details:
            request.setResponseCode(400)
        elif view.problem and self._context.reader is not None:
            request.setResponseCode(503)
        request.setHeader("Vary", "Accept-Language")
        send_document(render_history(view, say), request, POLICY)

    async def _view(self, form: HistoryForm, off: str) -> HistoryView:
        """:param off: the sentence that says that there is no history."""
        context = self._context
        try:
            filter, after = context.form_reader.read(form, context.clock.seconds())
        except InvalidForm as error:
            return HistoryView(form, error.details)
        if context.reader is None:
            return HistoryView(form, {}, problem=off)
        notes: dict[str, Mapping[str, object]] = {"terms": {}}
        if context.form_reader.addresses != "full":
            notes[context.form_reader.addresses] = {}
        if context.form_reader.reaches_back(form):
            notes["kept"] = {"days": context.form_reader.days}
        try:
            answer = await self._read(context.reader, filter, after, len(form.link()))
        except HistoryError as error:
            return HistoryView(form, {}, problem=str(error))
        return HistoryView(form, {}, answer, notes=notes)

    async def _read(self, reader: HistoryReader, filter: PullFilter, after: int, link: int) -> HistoryAnswer:
        """Read the answer; both sums are added up at once, since each takes a while.

        :param link: the length of the links on the page.
        """
        in_thread, images = self._context.in_thread, self._context.images

        async def sums(by: SumKey) -> Sequence[PullSums]:
            return () if after else await in_thread(partial(reader.sums, by, filter, _MOST))

        found = await in_thread(partial(reader.pulls, filter, SHOWN_PULLS + 1, after))
        by_image, by_client = await gather([sums("repository"), sums("client")])
        pulls = found[: _count_fitting(found, link)]
        names = {(each.key, "") for each in by_image[:SHOWN_SUMS]}
        names |= {(f"{each.registry}/{each.repository}", each.digest) for each in pulls if each.digest}
        pages = await in_thread(partial(_find_pages, images, names)) if images else {}
        last = pulls[-1].number if len(found) > len(pulls) else 0
        return HistoryAnswer(filter, by_image, by_client, pulls, last, pages)


def _count_fitting(pulls: Sequence[Pull], link: int) -> int:
    """Return how many pulls a page shows: fewer if their names are so long that it would be too large."""
    sizes = (450 + 3 * link + 4 * len(each.image) + 4 * len(each.user) + len(each.reason) for each in pulls)
    return sum(size < _MOST_BYTES for size in islice(accumulate(sizes), SHOWN_PULLS))


def _find_pages(images: HeldImages, names: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
    return {each: _find_page(images, *each) for each in names}


def _find_page(images: HeldImages, name: str, digest: str) -> str:
    """Return the path of the page of a manifest, or without a digest of a repository; empty if not held."""
    try:
        repository, manifest = Repository.parse(name), Digest.parse(digest) if digest else None
    except RegistryError:
        return ""
    manifests = [manifest] if manifest else images.list_manifests(repository)
    is_held = any(images.has_manifest(repository, each) for each in manifests)
    return image_path(repository.name, manifest or "") if is_held else ""
