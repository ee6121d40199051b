"""The home page as an HTML document that works without its script, as text, and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from ...client_config.clients import CLIENTS, download_archive
from ...client_config.snippet import ClientConfig, MirrorAddress, MirroredRegistry, Snippet
from ...config.notation import format_size
from ...http.access import ClientAddress
from ...system.timestamps import format_timestamp
from ..recent_requests import RequestRecord
from .page import (
    Language,
    align_columns,
    format_age,
    inline_code,
    render_page,
    section,
    snippet_figure,
    table,
)


@frozen
class HomePageView:
    """The mirror as one client sees it.

    :ivar registry: the registry of the requested virtual host; None on the mirror's own host.
    :ivar requests: the client's recent requests, newest first.
    :ivar now: in seconds since the epoch.
    """

    mirror: MirrorAddress
    registry: MirroredRegistry | None
    client: ClientAddress
    requests: Sequence[RequestRecord]
    now: float

    @property
    def host(self) -> str:
        """The requested host."""
        return self.client.host if self.registry is None else self.registry.host

    @property
    def example(self) -> str:
        """A pull command that works."""
        if self.registry is not None:
            return f"docker pull {self.registry.host}/{self.registry.placeholder}"
        first = self.mirror.registries[0]
        return f"docker pull {self.mirror.by_path(first)}/library/busybox"


def has_failed(record: RequestRecord) -> bool:
    """Return whether the client did not get its content; a challenge is part of most pulls."""
    return record.cut_off or (record.status >= 400 and record.status != 401)


def source_phrase(record: RequestRecord) -> str:
    """Return the key of the phrase that says where an answer came from."""
    if record.cut_off:
        return "requests.cut_off"
    if record.status == 401:
        return "requests.challenged"
    if record.status >= 400:
        return "requests.failed" if record.status >= 500 else "requests.refused"
    return "requests.held" if record.upstream is None else "requests.upstream"


def describe_source(record: RequestRecord, say: Language) -> str:
    """Say where an answer came from, or why there was none."""
    source = say(source_phrase(record))
    return f"{source}: {record.reason}" if record.reason else source


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


def _row(record: RequestRecord, view: HomePageView, say: Language) -> Tag:
    time = format_timestamp(record.time)
    path = _DIGEST.sub(r"\1…", record.path)
    return tags.tr(
        tags.td(tags.time(format_age(view.now - record.time), datetime=time, title=time)),
        tags.td(tags.code(f"{record.method} {path}", title=f"{record.host}{record.path}")),
        tags.td(str(record.status)),
        tags.td(format_size(record.size)),
        tags.td(describe_source(record, say)),
        class_="bad" if has_failed(record) else "",
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


def render_text(view: HomePageView, say: Language) -> str:
    """Return an overview for a terminal."""
    mirror = view.mirror
    parts = [
        [_title(view, say)],
        [f"    {view.example}"],
        align_columns([[each.name, f"{mirror.by_path(each)}/…", each.host] for each in mirror.registries]),
        [say("text.clients")],
        align_columns(
            [[f"curl {mirror.url}/client/{c.name}", c.snippets(mirror)[0].path] for c in CLIENTS.values()]
        ),
        [say("text.archives")] if mirror.archives else [],
        [f"    {line}" for line in download_archive(mirror).text.splitlines()] if mirror.archives else [],
        [say("requests.of", address=view.client.address)] if view.client.address else [],
        [*_requests_text(view, say)] or [f"    {say('requests.none')}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _requests_text(view: HomePageView, say: Language) -> Iterator[str]:
    rows = [
        [
            format_age(view.now - each.time),
            f"{each.method} {each.path}",
            str(each.status),
            format_size(each.size),
            describe_source(each, say),
        ]
        for each in view.requests
    ]
    return iter(align_columns(rows))


def render_json(view: HomePageView) -> str:
    mirror = view.mirror
    return json.dumps(
        {
            "mirror": mirror.url,
            "registries": [
                {"name": each.name, "path": mirror.by_path(each), "host": each.host or None}
                for each in mirror.registries
            ],
            "clients": {name: f"{mirror.url}/client/{name}" for name in CLIENTS},
            "export": f"{mirror.url}/export" if mirror.archives else None,
            "requests": [
                {
                    "time": format_timestamp(each.time),
                    "host": each.host, "method": each.method, "path": each.path, "status": each.status,
                    "bytes": each.size, "upstream": each.upstream, "cut_off": each.cut_off,
                    "reason": each.reason,
                }
                for each in view.requests
            ],
        },
        indent=2,
    )  # fmt: skip
