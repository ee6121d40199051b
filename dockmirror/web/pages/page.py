"""The parts that all pages share: languages, negotiation, headers, the HTML frame, the page of an error."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Tag, flattenString, tags

from ...client_config.snippet import Snippet
from ...http.server_request import ServerRequest, parse_query
from ...oci.errors import RegistryError
from ...system.networks import ClientAddress

ENGLISH = "en"
_NO_QUERY: Mapping[str, str] = {}
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%230b6b72'%3E"
    "%3Cpath d='M2 2h5v12H2z'/%3E%3Cpath fill-opacity='.45' d='M9 2h5v12H9z'/%3E%3C/svg%3E"
)
HTML, JSON, TEXT = "text/html", "application/json", "text/plain"


@frozen
class Language:
    """The phrases of the pages in one language.

    :ivar code: the language tag (RFC 5646).
    """

    code: str
    words: Mapping[str, str] = field(repr=False)

    def __call__(self, key: str, **values: object) -> str:
        """Return a phrase with these values filled in."""
        return self.words[key].format(**values)

    @property
    def name(self) -> str:
        """The language's own name for itself."""
        return self.words["language"]


def _read() -> dict[str, Language]:
    found = (
        file for file in files(__package__).joinpath("languages").iterdir() if file.name.endswith(".json")
    )
    codes = {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in found}
    order = sorted(codes, key=lambda code: (code != ENGLISH, code))
    return {code: Language(code, codes[code]) for code in order}


LANGUAGES: Mapping[str, Language] = _read()
"""Languages by code, English first."""


def read_asset(package: str, name: str) -> str:
    """Read a file of the package that is embedded into a page.

    :raises ValueError: when it contains characters that would be escaped, which would change its hash.
    """
    content = files(package).joinpath(name).read_text("utf-8")
    if re.search("[<>&]", content):
        raise ValueError(f"{name} cannot stand in a document as it is")
    return content


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


@frozen
class PageAssets:
    """The style and the script that are embedded into a page.

    :ivar may_connect: True if the script may request more from the page's host.
    """

    style: str = field(repr=False)
    script: str = field(repr=False)
    may_connect: bool = False

    @property
    def policy(self) -> str:
        """The ``Content-Security-Policy``: only the embedded style and script are allowed."""
        sources = "'self'" if self.may_connect else "'none'"
        return (
            f"default-src 'none'; style-src {_hash(self.style)}; script-src {_hash(self.script)};"
            f" img-src data:; connect-src {sources};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


PAGE = PageAssets(read_asset(__package__, "page.css"), read_asset(__package__, "page.js"))


def render_page(
    title: str, say: Language, *content: Tag, look: PageAssets = PAGE, query: Mapping[str, str] = _NO_QUERY
) -> Tag:
    """Return a whole document with this content.

    :param query: the parameters that the links to the same page in other languages keep.
    """
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(name="color-scheme", content="light dark"),
        tags.title(title),
        tags.link(rel="icon", href=_ICON),
        tags.style(look.style),
    )
    return tags.html(head, tags.body(*content, _footer(say, query), tags.script(look.script)), lang=say.code)


def _footer(say: Language, query: Mapping[str, str]) -> Tag:
    links = (
        tags.a(other.name, href=f"?{urlencode({**query, 'lang': code})}", lang=code, hreflang=code)
        for code, other in LANGUAGES.items() if code != say.code
    )  # fmt: skip
    return tags.footer(tags.span("dockmirror"), [[" · ", link] for link in links])


def section(name: str, title: str) -> Tag:
    """Return a section that can be linked to."""
    return tags.section(tags.h2(title), id=name)


def table(names: Iterable[str], rows: Iterable[Tag], kind: str) -> Tag:
    """Return a table that scrolls if it is wider than the window."""
    head = tags.thead(tags.tr(tags.th(name, scope="col") for name in names))
    return tags.div(tags.table(head, tags.tbody([*rows]), class_=kind), class_="wide")


def snippet_figure(snippet: Snippet, say: Language) -> Tag:
    """Return a snippet with a button that copies it."""
    button = tags.button(
        say("copy"), type="button", class_="copy", hidden="", **{"data-copied": say("copied")}
    )
    caption = tags.figcaption(tags.span(snippet.path), button)
    return tags.figure(caption, tags.pre(tags.code(snippet.text.rstrip("\n")), tabindex="0"))


def inline_code(text: str) -> list[Tag | str]:
    """Split text at backquotes, and mark up what is between them as code."""
    return [tags.code(part) if number % 2 else part for number, part in enumerate(text.split("`"))]


def requesting_client(request: ServerRequest) -> ClientAddress:
    assert request.admitted_client is not None, "the gate lies before every host"
    return request.admitted_client


def language_for(request: ServerRequest) -> Language:
    """Return the language that the query names, or else the one that the browser prefers.

    :raises RegistryError: when the query cannot be parsed.
    """
    requested = dict(parse_query(request)).get("lang", "")
    preferred = negotiate_language(request.fields.get("accept-language", ()), *LANGUAGES)
    return LANGUAGES.get(requested) or LANGUAGES.get(preferred) or LANGUAGES[ENGLISH]


def send(body: bytes, request: ServerRequest, kind: str = TEXT) -> int:
    """Send a complete body that is not to be cached."""
    request.setHeader("Content-Type", kind if kind == JSON else f"{kind}; charset=utf-8")
    request.setHeader("Content-Length", str(len(body)))
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Referrer-Policy", "no-referrer")
    request.write(body)
    request.finish()
    return NOT_DONE_YET


async def flatten(part: Tag) -> str:
    """Return the HTML of a part of a page."""
    html: bytes = await flattenString(None, part)
    return html.decode()


def send_document(document: Tag, request: ServerRequest, policy: str = PAGE.policy) -> int:
    """Send an HTML document with a content security policy."""
    request.setHeader("Content-Security-Policy", policy)
    flattening: Deferred[Any] = flattenString(request, document)
    flattening.addCallback(lambda body: send(b"<!DOCTYPE html>\n" + body, request, HTML))
    flattening.addErrback(request.processingFailed)
    flattening.addErrback(lambda _: None)
    return NOT_DONE_YET


def negotiate_media_type(accept: Sequence[str], default: str, *others: str) -> str:
    """Return the best media type for an ``Accept`` field (RFC 9110, 12.5).

    :param accept: the lines of ``Accept``.
    :param default: for clients without a preference; a type named explicitly wins over a range.
    """
    weights = dict(_parse_weights(accept))
    offered = {each: weights[each] for each in (default, *others) if weights.get(each)}
    return max(offered, key=lambda each: offered[each], default=default)


def negotiate_language(accept: Sequence[str], default: str, *others: str) -> str:
    """Return the best language for an ``Accept-Language`` field: ``zh-Hans-CN`` matches ``zh``.

    :param accept: the lines of ``Accept-Language``.
    """
    weights: dict[str, float] = {}
    for tag, weight in _parse_weights(accept):
        primary = tag.partition("-")[0]
        weights[primary] = max(weight, weights.get(primary, 0.0))
    offered = {each: weights[each] for each in (default, *others) if weights.get(each)}
    return max(offered, key=lambda each: offered[each], default=default)


def _parse_weights(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    for each in (each for line in lines for each in line.split(",")):
        value, *parameters = (part.strip().lower() for part in each.split(";"))
        weight = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            yield value, min(max(float(weight), 0.0), 1.0)
        except ValueError:
            yield value, 0.0


def format_age(seconds: float, say: Language) -> str:
    """Format a duration in seconds."""
    if seconds < 100:
        return say("duration.seconds", count=f"{seconds:.0f}")
    if seconds < 6000:
        return say("duration.minutes", count=f"{seconds / 60:.0f}")
    return say("duration.hours", count=f"{seconds / 3600:.0f}")


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines of aligned columns."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"    {_aligned_row(row, widths)}" for row in rows]


def _aligned_row(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def refuse_with_page(request: ServerRequest, error: RegistryError) -> None:
    """Write an error as a page, or in JSON for a client that prefers it."""
    if negotiate_media_type(request.fields.get("accept", ()), JSON, HTML) == JSON:
        request.refuse(error)
        return
    try:
        say = language_for(request)
    except RegistryError:  # this may be the error: a query that cannot be parsed
        say = LANGUAGES[ENGLISH]
    request.setHeader("Vary", "Accept, Accept-Language")
    request.setHeader("Content-Security-Policy", PAGE.policy)
    request.setHeader("Cache-Control", "no-store")
    document = flattenString(None, _render(error, say))
    document.addCallback(lambda body: request.refuse(error, b"<!DOCTYPE html>\n" + body))
    document.addErrback(request.processingFailed)
    document.addErrback(lambda _: None)


def _render(error: RegistryError, say: Language) -> Tag:
    key = f"error.{error.status}"
    title = say(key if key in say.words else "error")
    home = tags.p(tags.a(say("home"), href="/"))
    main = Tag("main")(tags.p(str(error), class_="lead"), home)
    return render_page(title, say, tags.header(tags.h1(title)), main)
