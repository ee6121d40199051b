"""The parts that the pages of images share: languages, the frame, and small pieces of HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from attrs import frozen
from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...http.server_request import ServerRequest
from ...oci.digest import Digest
from ...system.times import format_timestamp
from ..pages.history_form import HistoryForm
from ..pages.page import LANGUAGES, PAGE, Language, PageAssets, language_for, read_asset, render_page

Content = Tag | str | list[Any]
_NO_QUERY: Mapping[str, str] = {}
NONE = "-"
"""Shown in place of a value that is unknown or zero."""
_WORDS = {
    code: Language(code, json.loads(files(__package__).joinpath(f"languages/{code}.json").read_text("utf-8")))
    for code in LANGUAGES
}
ASSETS = PageAssets(PAGE.style + read_asset(__package__, "images.css"), "")
POLICY = ASSETS.policy.replace("form-action 'none'", "form-action 'self'")
"""The ``Content-Security-Policy``: no script, and forms that lead here."""


def words_for(request: ServerRequest) -> Language:
    """Return the phrases in the client's language.

    :raises RegistryError: when the query cannot be parsed.
    """
    return _WORDS[language_for(request).code]


@frozen
class Crumb:
    """A link to a page above."""

    text: str
    path: str


def page(
    say: Language,
    title: str,
    crumbs: Iterable[Crumb],
    *content: Content,
    look: PageAssets = ASSETS,
    query: Mapping[str, str] = _NO_QUERY,
) -> Tag:
    """Return a document with links to the pages above it.

    :param query: the parameters that the links to the same page in other languages keep.
    """
    home = Crumb(say("home"), "/")
    path = [[tags.a(each.text, href=each.path), " / "] for each in (home, *crumbs)]
    above = tags.p(path, class_="crumbs")
    main = Tag("main")(above, tags.h1(title), [*content])
    return render_page(f"{title} · dockmirror", say, main, look=look, query=query)


def image_path(name: str, reference: object = "") -> str:
    """Return the path of a repository's page, or of an image's."""
    separator = "@" if isinstance(reference, Digest) else ":"
    return f"/images/{quote(name)}{separator + quote(str(reference), safe=':') if reference else ''}"


def pulls_link(image: str, text: str) -> Tag:
    """Return a link to an image's pulls of the last month, for operators."""
    return tags.a(text, href=HistoryForm(image=image, time="month").link())


def moment(seconds: float, say: Language) -> Content:
    """Return a time, to the minute."""
    if not seconds:
        return NONE
    written = format_timestamp(seconds)
    return tags.time(f"{written[:10]} {written[11:16]}", datetime=written)


def size(count: int | None) -> str:
    return NONE if count is None else format_size(count)


def digest_code(digest: Digest) -> Tag:
    """Return a digest, of which the beginning is shown."""
    return tags.code(f"{digest.algorithm}:{digest.hex[:12]}", title=str(digest))


def rows(names: Iterable[str], content: Iterable[Iterable[Content]], caption: str) -> Tag:
    """Return a table, whose first column names the row; on a phone each cell bears its column's name."""
    labels = list(names)
    head = tags.thead(tags.tr(tags.th(name, scope="col") for name in labels))
    body = tags.tbody(_row(labels, each) for each in content)
    return tags.div(
        tags.table(tags.caption(caption, class_="hidden"), head, body),
        class_="wide", tabindex="0", role="region", **{"aria-label": caption},
    )  # fmt: skip


def _row(labels: list[str], cells: Iterable[Content]) -> Tag:
    first, *others = cells
    return tags.tr(
        tags.th(first, scope="row"),
        (tags.td(cell, **{"data-label": name}) for name, cell in zip(labels[1:], others, strict=True)),
    )


def facts(pairs: Iterable[tuple[str, Content]]) -> Tag:
    """Return a list of names and values."""
    return tags.dl(((tags.dt(name), tags.dd(value)) for name, value in pairs), class_="facts")


def badge(text: str, is_good: bool) -> Tag:
    return tags.span(text, class_="badge" if is_good else "badge lacking")
