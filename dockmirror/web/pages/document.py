"""The page for people, in one document: nothing is fetched, and it can be read without its script."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files

from twisted.web.template import Tag, tags

from ...clients.client import Client, Snippet
from ...clients.table import CLIENTS
from ..recent import Seen
from .languages import LANGUAGES, Language
from .shown import Shown, age, is_bad, size, source

_DIGEST = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")


def _inline(name: str) -> str:
    """A file of the page's, as it stands in the document.

    :raises ValueError: when it has what is escaped there, and would no longer have its hash.
    """
    content = files(__package__).joinpath(name).read_text("utf-8")
    if re.search("[<>&]", content):
        raise ValueError(f"{name} cannot stand in a document as it is")
    return content


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _inline("page.css"), _inline("page.js")
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%230b6b72'%3E"
    "%3Cpath d='M2 2h5v12H2z'/%3E%3Cpath fill-opacity='.45' d='M9 2h5v12H9z'/%3E%3C/svg%3E"
)
POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may do with it (``Content-Security-Policy``): what came with it, and nothing else."""


def document(shown: Shown, say: Language) -> Tag:
    """The whole of it, in a language."""
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(name="color-scheme", content="light dark"),
        tags.title(f"{shown.host}: {_what(shown, say)}"),
        tags.link(rel="icon", href=_ICON),
        tags.style(_STYLE),
    )
    main = Tag("main")(_requests(shown, say), _registries(shown, say), _clients(shown, say))
    body = tags.body(_header(shown, say), _contents(say), main, _footer(say), tags.script(_SCRIPT))
    return tags.html(head, body, lang=say.code)


def _what(shown: Shown, say: Language) -> str:
    return say("title.own") if shown.registry is None else say("title.one", registry=shown.registry.name)


def _header(shown: Shown, say: Language) -> Tag:
    mirror = shown.mirror
    lead = (
        say("lead.own", count=len(mirror.registries)) if shown.registry is None
        else say("lead.one", registry=shown.registry.name, mirror=mirror.host)
    )  # fmt: skip
    notes = []
    if mirror.loopback:
        notes.append(say("note.loopback", host=mirror.name))
    if mirror.plain:
        notes.append(say("note.plain"))
    return tags.header(
        tags.p(_what(shown, say), class_="what"),
        tags.h1(shown.host),
        tags.p(_prose(lead), class_="lead"),
        _figure(Snippet(shown.example + "\n"), say),
        [tags.p(_prose(note), class_="note") for note in notes],
    )


def _contents(say: Language) -> Tag:
    inner = tags.ul(_item(f"#{client.name}", client.title) for client in CLIENTS.values())
    return tags.nav(
        tags.ul(
            _item("#requests", say("requests")),
            _item("#registries", say("registries")),
            _item("#clients", say("clients"))(inner),
        ),
        **{"aria-label": say("contents")},
    )


def _item(target: str, text: str) -> Tag:
    return tags.li(tags.a(text, href=target))


def _requests(shown: Shown, say: Language) -> Tag:
    section = _section("requests", say("requests"))
    address = shown.client.address
    if address is None:
        return section(tags.p(say("requests.nobody")))
    section(tags.p(_prose(say("requests.what", address=address))))
    if not shown.seen:
        return section(tags.p(say("requests.none"), class_="none"))
    rows = (_row(each, shown, say) for each in shown.seen)
    names = ("requests.age", "requests.request", "requests.status", "requests.size", "requests.source")
    return section(_table((say(name) for name in names), rows, "requests"))


def _row(seen: Seen, shown: Shown, say: Language) -> Tag:
    time = datetime.fromtimestamp(seen.time, UTC).isoformat(timespec="seconds")
    path = _DIGEST.sub(r"\1…", seen.path)
    return tags.tr(
        tags.td(tags.time(age(shown.now - seen.time), datetime=time, title=time)),
        tags.td(tags.code(f"{seen.method} {path}", title=f"{seen.host}{seen.path}")),
        tags.td(str(seen.status)),
        tags.td(size(seen.size)),
        tags.td(say(source(seen))),
        class_="bad" if is_bad(seen) else "",
    )


def _registries(shown: Shown, say: Language) -> Tag:
    """With a host for each where there are such hosts: of the paths an example says enough then."""
    mirror = shown.mirror
    example = f"{mirror.by_path(mirror.other)}/{mirror.other.placeholder}"
    section = _section("registries", say("registries"))
    section(tags.p(_prose(say("registries.what", example=example))))
    by_name = any(each.host for each in mirror.registries)
    if by_name:
        section(tags.p(_prose(say("registries.login"))))
    rows = (
        tags.tr(
            tags.th(each.path, scope="row"),
            tags.td(tags.code(each.host if by_name else f"{mirror.by_path(each)}/…")),
        )
        for each in mirror.registries
    )
    names = ("registries.name", "registries.host" if by_name else "registries.path")
    return section(_table((say(name) for name in names), rows, "registries"))


def _table(names: Iterable[str], rows: Iterable[Tag], kind: str) -> Tag:
    head = tags.thead(tags.tr(tags.th(name, scope="col") for name in names))
    return tags.div(tags.table(head, tags.tbody([*rows]), class_=kind), class_="wide")


def _clients(shown: Shown, say: Language) -> Tag:
    section = _section("clients", say("clients"))
    section(tags.p(_prose(say("clients.what", url=shown.mirror.url))))
    return section([_client(client, shown, say) for client in CLIENTS.values()])


def _client(client: Client, shown: Shown, say: Language) -> Tag:
    first, *others = client.snippets(shown.mirror)
    part = tags.section(tags.h3(client.title), id=client.name)
    part(tags.p(_prose(say(client.name, host=shown.mirror.host))), _figure(first, say))
    if client.after:
        part(tags.p(say("clients.after"), " ", tags.code(client.after), class_="after"))
    for snippet in others:
        part(tags.p(_prose(say(f"{client.name}.{snippet.name}"))), _figure(snippet, say))
    return part


def _section(name: str, title: str) -> Tag:
    return tags.section(tags.h2(title), id=name)


def _figure(snippet: Snippet, say: Language) -> Tag:
    button = tags.button(
        say("copy"), type="button", class_="copy", hidden="", **{"data-copied": say("copied")}
    )
    caption = tags.figcaption(tags.span(snippet.path), button)
    return tags.figure(caption, tags.pre(tags.code(snippet.text.rstrip("\n")), tabindex="0"))


def _footer(say: Language) -> Tag:
    links = (
        tags.a(other.name, href=f"?lang={code}", lang=code, hreflang=code)
        for code, other in LANGUAGES.items() if code != say.code
    )  # fmt: skip
    return tags.footer(tags.span("dockmirror"), [[" · ", link] for link in links])


def _prose(text: str) -> list[Tag | str]:
    """Text in which what stands in backquotes is code."""
    return [tags.code(part) if number % 2 else part for number, part in enumerate(text.split("`"))]
