"""``/history``: the history of pulls for operators, asked with a form, and answered with sums and pulls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.template import Tag, tags

from ...concurrency.coroutines import RunInThread, gather
from ...config.notation import format_size
from ...history.pulls import OTHERS, HistoryError, HistoryReader, Pull, PullFilter, PullSums, SumKey, add_sums
from ...http.server_request import ServerRequest, parse_query
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unsupported
from ...oci.request import Repository
from ...store.held_images import HeldImages
from ..images.blocks import ASSETS as IMAGES_ASSETS
from ..images.blocks import Content, image_path, moment, page, rows
from ..respond import render_or_refuse
from ..status.status_text import SUM_COLUMNS, format_percent, format_sums, format_waiting
from .history_form import MAX_LENGTH, OUTCOMES, TIMES, FormReader, HistoryForm, InvalidForm
from .own_pulls import explain_failure, name_image
from .page import Language, PageAssets, inline_code, language_for, read_asset, send_document

ASSETS = PageAssets(IMAGES_ASSETS.style + read_asset(__package__, "history.css"), "")
POLICY = ASSETS.policy.replace("form-action 'none'", "form-action 'self'")
"""The ``Content-Security-Policy``: no script, and a form that leads here."""
SHOWN_PULLS = 50
"""The rows of pulls take up most of a page's time, which the reactor spends on nothing else."""
SHOWN_SUMS = 20
_CHOICES: Mapping[str, Sequence[str]] = {"outcome": ("", *OUTCOMES), "time": tuple(TIMES)}
_SUM_COLUMNS = (*SUM_COLUMNS, "limited", "waiting")
_PULL_COLUMNS = ("time", "clients", "outcome", "sent", "share", "duration")
_MOST = 1_000_000
"""The most repositories or clients that a page sums up."""
_MOST_BYTES = 110_000
"""The part of a page that the pulls may take up."""


@frozen
class HistoryAnswer:
    """The pulls that meet a filter.

    :ivar images: the sums of all repositories, largest first; ``clients`` has those of the clients.  Both are
        empty on further pages.
    :ivar next: the number of the pull after which the next page begins; 0 on the last one.
    :ivar pages: the paths of the pages of the images that are held, by the names of their repositories and
        the digests of their manifests; with an empty digest, those of repositories.
    """

    filter: PullFilter
    images: Sequence[PullSums]
    clients: Sequence[PullSums]
    pulls: Sequence[Pull]
    next: int
    pages: Mapping[tuple[str, str], str]


@frozen
class HistoryView:
    """A form with its answer.

    :ivar details: what is wrong in fields of the form; see ``InvalidForm``.
    :ivar answer: None if there is none.
    :ivar problem: a sentence that says why the history cannot be read.
    :ivar notes: the keys of sentences about what the history keeps, with their values.
    """

    form: HistoryForm
    details: Mapping[str, str]
    answer: HistoryAnswer | None = None
    problem: str = ""
    notes: Mapping[str, Mapping[str, object]] = {}


def render_history(view: HistoryView, say: Language) -> Tag:
    """Return the whole document."""
    content: list[Content] = [_form(view, say)]
    if view.problem:
        content.append(tags.p(inline_code(view.problem), class_="notice failed", role="status"))
    if view.answer is not None:
        content += _answer(view.form, view.answer, say)
    notes = [say(f"history.note.{key}", **values) for key, values in view.notes.items()]
    content += [tags.p(inline_code(each), class_="note") for each in notes]
    query = view.form.query(after=view.form.after)
    return page(say, say("history"), (), *content, look=ASSETS, query=query)


def _form(view: HistoryView, say: Language) -> Tag:
    form, wrong = view.form, list(view.details)
    fields = [_text(name, view, say, wrong[:1] == [name]) for name in ("client", "user", "image")]
    fields += [_choice(name, view, say) for name in _CHOICES]
    chosen = tags.input(type="hidden", name="lang", value=form.lang) if form.lang else ""
    if "after" in view.details:
        fields.append(tags.p(say("history.invalid.after"), class_="wrong"))
    return tags.form(
        chosen, fields, tags.button(say("history.show"), class_="act"),
        method="get", action="/history", class_="search history", role="search",
    )  # fmt: skip


def _text(name: str, view: HistoryView, say: Language, is_first_wrong: bool) -> Tag:
    value = getattr(view.form, name)
    box = tags.input(type="text", id=name, name=name, value=value, maxlength=str(MAX_LENGTH))
    box(autocapitalize="none", spellcheck="false", placeholder=say(f"history.example.{name}"))
    return _field(name, box(autofocus="") if is_first_wrong else box, view, say)


def _choice(name: str, view: HistoryView, say: Language) -> Tag:
    chosen = getattr(view.form, name)
    box = tags.select(id=name, name=name)
    for each in _CHOICES[name]:
        option = tags.option(say(f"history.{name}.{each or 'any'}"), value=each)
        box(option(selected="selected") if each == chosen else option)
    return _field(name, box, view, say)


def _field(name: str, box: Tag, view: HistoryView, say: Language) -> Tag:
    part = tags.div(tags.label(say(f"history.{name}"), for_=name), class_=f"field {name}")
    if name not in view.details:
        return part(box)
    sentence = say(f"history.invalid.{name}", detail=view.details[name])
    box(**{"aria-invalid": "true", "aria-describedby": f"{name}-wrong"})
    return part(box, tags.p(sentence, class_="wrong", id=f"{name}-wrong"))


def _answer(form: HistoryForm, answer: HistoryAnswer, say: Language) -> list[Content]:
    """Return the parts of the answer; failed pulls come first, since their reasons are what is asked for."""
    pulls = _pulls(form, answer, say)
    if form.after:
        return [pulls]
    sums = [
        _sums("images", answer.images, form, answer, say),
        _sums("clients", answer.clients, form, answer, say),
    ]
    headline = tags.p(describe_answer(form, answer, say), class_="lead answer")
    return [headline, pulls, *sums] if form.outcome == "failed" else [headline, *sums, pulls]


def describe_answer(form: HistoryForm, answer: HistoryAnswer, say: Language) -> str:
    """Say in a sentence how many pulls there were, what they got, and what that saved."""
    total, filter = add_sums("", answer.images), answer.filter
    image = "@".join(each for each in (filter.image, filter.digest) if each)
    parts = {"image": image, "client": filter.client, "user": filter.user}
    subject = "".join(say(f"history.of.{name}", value=text) for name, text in parts.items() if text)
    where = {"subject": subject, "time": say(f"history.time.{form.time}")}
    if not total.pulls:
        return say("history.none", kind=say(f"history.kind.{form.outcome or 'any'}"), **where)
    failed = say("history.failed", count=f"{total.failed:,}") if total.failed and not form.outcome else ""
    sent = total.cached_bytes + total.upstream_bytes
    return say(
        "history.answer" if sent else "history.answer.nothing",
        pulls=_count("pulls", total.pulls, say, kind=say(f"history.kind.{form.outcome or 'any'}")),
        failed=failed,
        sent=_unbroken(format_size(sent)),
        cached=_unbroken(format_size(total.cached_bytes)),
        share=_unbroken(format_percent(total.cached_bytes, sent)),
        limited=_count("limited", total.saved_pulls, say),
        waiting=_unbroken(format_waiting(total.saved_seconds, say)),
        **where,
    )


def _unbroken(amount: str) -> str:
    """Return an amount that is not parted from its unit at the end of a line."""
    return amount.replace(" ", "\N{NO-BREAK SPACE}")


def _count(key: str, count: int, say: Language, **values: object) -> str:
    return say(f"history.{key}.one" if count == 1 else f"history.{key}", count=f"{count:,}", **values)


def _sums(
    name: str, sums: Sequence[PullSums], form: HistoryForm, answer: HistoryAnswer, say: Language
) -> Content:
    if not sums:
        return ""
    link = _image if name == "images" else _client
    cells = (
        [link(each.key, form, answer, say), *format_sums(each), f"{each.saved_pulls:,}",
         format_waiting(each.saved_seconds, say)]
        for each in sums[:SHOWN_SUMS]
    )  # fmt: skip
    title = say(f"history.{name}")
    part = tags.section(
        tags.h2(title), rows(_columns(name, _SUM_COLUMNS, say), cells, title), id=name, class_="sums"
    )
    hidden = len(sums) - SHOWN_SUMS
    return (
        part(tags.p(say(f"history.more.{name}", count=f"{hidden:,}"), class_="note")) if hidden > 0 else part
    )


def _columns(first: str, others: Iterable[str], say: Language) -> list[str]:
    return [say(f"status.column.{name}") for name in (first, *others)]


def _pulls(form: HistoryForm, answer: HistoryAnswer, say: Language) -> Content:
    if not answer.pulls:
        return tags.p(say("history.no_more"), class_="none") if form.after else ""
    title = say("history.older" if form.after else "history.newest")
    cells = (_pull(each, form, answer, say) for each in answer.pulls)
    part = tags.section(
        tags.h2(title), rows(_columns("images", _PULL_COLUMNS, say), cells, title), class_="pulls"
    )
    links = []
    if form.after:
        links.append(tags.a(say("history.to_newest"), href=form.link()))
    if answer.next:
        links.append(tags.a(say("history.to_older"), href=form.link(after=str(answer.next)), rel="next"))
    return part(tags.p([[each, "  "] for each in links])) if links else part


def _pull(pull: Pull, form: HistoryForm, answer: HistoryAnswer, say: Language) -> list[Content]:
    sent = pull.cached_bytes + pull.upstream_bytes
    return [
        _pulled_image(pull, form, answer, say),
        moment(pull.began, say),
        _user_and_client(pull, form, answer, say),
        tags.span(_outcome(pull, say), class_=f"outcome {pull.outcome}"),
        format_size(sent),
        format_percent(pull.cached_bytes, sent),
        say("duration.seconds", count=f"{pull.seconds:.1f}"),
    ]


def _outcome(pull: Pull, say: Language) -> str:
    if pull.outcome == "failed":
        return say("pulls.failed", why=explain_failure(pull, say))
    return say(f"history.outcome.{pull.outcome}")


def _image(name: str, form: HistoryForm, answer: HistoryAnswer, say: Language) -> Content:
    """Return a repository that leads to its pulls, and to its page if it is held."""
    if not name:
        return say("status.unnamed")
    if name == OTHERS:
        return name
    tag = answer.filter.image.rpartition("/")[2].partition(":")[2]
    wanted = f"{name}:{tag}" if tag else name
    shown: Content = name if wanted == answer.filter.image else tags.a(name, href=form.link(image=wanted))
    return [shown, *_held(name, "", answer, say)]


def _pulled_image(pull: Pull, form: HistoryForm, answer: HistoryAnswer, say: Language) -> Content:
    name = f"{pull.registry}/{pull.repository}"
    wanted = name if ":" in pull.reference else f"{name}:{pull.reference}"
    shown: Content = name_image(pull)
    if wanted != answer.filter.image:
        shown = tags.a(shown, href=form.link(image=wanted))
    return [shown, *_held(name, pull.digest, answer, say)] if pull.digest else [shown]


def _held(name: str, digest: str, answer: HistoryAnswer, say: Language) -> list[Content]:
    path, words = answer.pages.get((name, digest)), say("history.held")
    return (
        [" ", tags.a(words, href=path, class_="badge", **{"aria-label": f"{name}: {words}"})] if path else []
    )


def _client(name: str, form: HistoryForm, answer: HistoryAnswer, say: Language) -> Content:
    if not name:
        return say("status.unnamed")
    return name if name in (answer.filter.client, OTHERS) else tags.a(name, href=form.link(client=name))


def _user_and_client(pull: Pull, form: HistoryForm, answer: HistoryAnswer, say: Language) -> Content:
    client = _client(pull.client, form, answer, say)
    if not pull.user:
        return client
    user: Content = pull.user
    if pull.user != answer.filter.user:
        user = tags.a(pull.user, href=form.link(user=pull.user))
    return [user, "@", client] if pull.client else user


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
