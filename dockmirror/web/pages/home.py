"""The home page as one HTML document that loads nothing else and works without its script."""

from __future__ import annotations

import re

from twisted.web.template import Tag, tags

from ...client_config.clients import CLIENTS, download_archive
from ...client_config.snippet import ClientConfig, Snippet
from ...system.timestamps import format_timestamp
from ..recent_requests import RequestRecord
from .home_view import HomePageView, describe_source, format_age, format_size, has_failed
from .languages import Language
from .page import inline_code, render_page, section, snippet_figure, table

_DIGEST = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")


def render_home(view: HomePageView, say: Language) -> Tag:
    """Return the whole document."""
    main = Tag("main")(_requests(view, say), _registries(view, say), _clients(view, say))
    if view.mirror.archives:
        main(_archives(view, say))
    return render_page(
        f"{view.host}: {_title(view, say)}", say, _header(view, say), _contents(view, say), main
    )


def _title(view: HomePageView, say: Language) -> str:
    return say("title.own") if view.registry is None else say("title.one", registry=view.registry.name)


def _header(view: HomePageView, say: Language) -> Tag:
    mirror = view.mirror
    lead = (
        say("lead.own", count=len(mirror.registries)) if view.registry is None
        else say("lead.one", registry=view.registry.name, mirror=mirror.host)
    )  # fmt: skip
    notes = []
    if mirror.is_loopback:
        notes.append(say("note.loopback", host=mirror.name))
    if mirror.is_plain:
        notes.append(say("note.plain"))
    return tags.header(
        tags.p(_title(view, say), class_="what"),
        tags.h1(view.host),
        tags.p(inline_code(lead), class_="lead"),
        snippet_figure(Snippet(view.example + "\n"), say),
        [tags.p(inline_code(note), class_="note") for note in notes],
    )


def _contents(view: HomePageView, say: Language) -> Tag:
    inner = tags.ul(_item(f"#{client.name}", client.title) for client in CLIENTS.values())
    return tags.nav(
        tags.ul(
            _item("#requests", say("requests")),
            _item("#registries", say("registries")),
            _item("#clients", say("clients"))(inner),
            _item("#archives", say("archives")) if view.mirror.archives else "",
        ),
        **{"aria-label": say("contents")},
    )


def _item(target: str, text: str) -> Tag:
    return tags.li(tags.a(text, href=target))


def _requests(view: HomePageView, say: Language) -> Tag:
    part = section("requests", say("requests"))
    address = view.client.address
    if address is None:
        return part(tags.p(say("requests.nobody")))
    part(tags.p(inline_code(say("requests.what", address=address))))
    if not view.requests:
        return part(tags.p(say("requests.none"), class_="none"))
    rows = (_row(each, view, say) for each in view.requests)
    names = ("requests.age", "requests.request", "requests.status", "requests.size", "requests.source")
    return part(table((say(name) for name in names), rows, "requests"))


def _row(seen: RequestRecord, view: HomePageView, say: Language) -> Tag:
    time = format_timestamp(seen.time)
    path = _DIGEST.sub(r"\1…", seen.path)
    return tags.tr(
        tags.td(tags.time(format_age(view.now - seen.time), datetime=time, title=time)),
        tags.td(tags.code(f"{seen.method} {path}", title=f"{seen.host}{seen.path}")),
        tags.td(str(seen.status)),
        tags.td(format_size(seen.size)),
        tags.td(describe_source(seen, say)),
        class_="bad" if has_failed(seen) else "",
    )


def _registries(view: HomePageView, say: Language) -> Tag:
    """List the registries, by host where they have one; one example is enough for the paths then."""
    mirror = view.mirror
    example = f"{mirror.by_path(mirror.example)}/{mirror.example.placeholder}"
    part = section("registries", say("registries"))
    part(tags.p(inline_code(say("registries.what", example=example))))
    by_name = any(each.host for each in mirror.registries)
    if by_name:
        part(tags.p(inline_code(say("registries.login"))))
    rows = (
        tags.tr(
            tags.th(each.path, scope="row"),
            tags.td(tags.code(each.host if by_name else f"{mirror.by_path(each)}/…")),
        )
        for each in mirror.registries
    )
    names = ("registries.name", "registries.host" if by_name else "registries.path")
    return part(table((say(name) for name in names), rows, "registries"))


def _clients(view: HomePageView, say: Language) -> Tag:
    part = section("clients", say("clients"))
    part(tags.p(inline_code(say("clients.what", url=view.mirror.url))))
    return part([_client(client, view, say) for client in CLIENTS.values()])


def _client(client: ClientConfig, view: HomePageView, say: Language) -> Tag:
    first, *others = client.snippets(view.mirror)
    part = tags.section(tags.h3(client.title), id=client.name)
    part(tags.p(inline_code(say(client.name, host=view.mirror.host))), snippet_figure(first, say))
    if client.after:
        part(tags.p(say("clients.after"), " ", tags.code(client.after), class_="after"))
    for snippet in others:
        part(tags.p(inline_code(say(f"{client.name}.{snippet.name}"))), snippet_figure(snippet, say))
    return part


def _archives(view: HomePageView, say: Language) -> Tag:
    part = section("archives", say("archives"))
    return part(tags.p(inline_code(say("archives.what"))), snippet_figure(download_archive(view.mirror), say))
