"""The page of the history: a form, and the answer in a sentence, two tables of sums, and a list of pulls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...history.pulls import OTHERS, Pull, PullFilter, PullSums, add_sums
from ..images.blocks import ASSETS as IMAGES_ASSETS
from ..images.blocks import Content, moment, page, rows
from ..pages.own_pulls import explain_failure, name_image
from ..pages.page import Language, PageAssets, inline_code, read_asset
from ..status.status_text import SUM_COLUMNS, format_percent, format_sums, format_waiting
from .history_form import MAX_LENGTH, OUTCOMES, TIMES, HistoryForm

ASSETS = PageAssets(IMAGES_ASSETS.style + read_asset(__package__, "history.css"), "")
POLICY = ASSETS.policy.replace("form-action 'none'", "form-action 'self'")
"""The ``Content-Security-Policy``: no script, and a form that leads here."""
SHOWN_PULLS = 100
SHOWN_SUMS = 20
_CHOICES: Mapping[str, Sequence[str]] = {"outcome": ("", *OUTCOMES), "time": tuple(TIMES)}
_SUM_COLUMNS = (*SUM_COLUMNS, "limited", "waiting")
_PULL_COLUMNS = ("time", "clients", "outcome", "sent", "share", "duration")


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
