"""The status as an HTML page; it is complete without its script, which only refreshes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ...status.status_values import DownloadStatus, UpstreamStatus
from ..pages.page import (
    PAGE,
    Language,
    PageAssets,
    format_age,
    inline_code,
    read_asset,
    render_page,
    section,
    table,
)
from .cache_section import render_cache
from .overview import Status
from .status_text import (
    describe_failure,
    describe_last_request,
    describe_progress,
    describe_quota,
    display_names,
    sort_by_state,
)

ASSETS = PageAssets(
    PAGE.style + read_asset(__package__, "status.css"), read_asset(__package__, "status.js"), may_connect=True
)
_PARTS = ("fetches", "registries", "cache", "usage", "popular")


def render_status(status: Status, host: str, say: Language) -> Tag:
    """Return the whole document.

    :param host: the host name by which the page was requested.
    """
    main = Tag("main")(
        _fetches(status, say),
        _registries(status, say),
        render_cache(status, say),
        _usage(status, say),
        _popular(status, say),
    )
    stale = tags.p(say("status.stale"), id="stale", role="status", hidden="")
    return render_page(
        f"{host}: {say('status')}", say, _header(status, host, say), _contents(say), main, stale, look=ASSETS
    )


def _header(status: Status, host: str, say: Language) -> Tag:
    state = status.state
    lead = say(f"status.{state.status.replace(' ', '_')}", store=state.store)
    several = status.worker_state.processes if status.worker_state.processes > 1 else None
    return tags.header(
        tags.p(say("status"), class_="what"),
        tags.h1(host),
        tags.p(lead, class_="lead" if state.status == "ready" else "lead bad"),
        tags.p(say("status.processes", count=several), class_="note") if several else "",
    )


def _contents(say: Language) -> Tag:
    items = (tags.li(tags.a(say(f"status.{name}"), href=f"#{name}")) for name in _PARTS)
    return tags.nav(tags.ul(*items), **{"aria-label": say("contents")})


def _fetches(status: Status, say: Language) -> Tag:
    part = section("fetches", say("status.fetches"))
    fetches = status.worker_state.fetches
    if not fetches:
        return part(tags.p(say("status.no_fetches"), class_="none"))
    return part(tags.ol([_fetch(each, say) for each in fetches], class_="fetches"))


def _fetch(fetch: DownloadStatus, say: Language) -> Tag:
    names = fetch.repositories or (fetch.registry,)
    more = tags.span(f" +{len(names) - 1}", title="\n".join(names), class_="digest") if names[1:] else ""
    bar = tags.progress if fetch.size is None else tags.progress(value=str(fetch.held), max=str(fetch.size))
    short = re.sub(r"(:[0-9a-f]{8}).*", r"\1", fetch.digest)
    return tags.li(
        tags.p(tags.code(names[0]), more, " ", tags.code(short, class_="digest", title=fetch.digest)),
        bar(**{"aria-label": names[0]}),
        tags.p(describe_progress(fetch, say), class_="figures"),
        id=f"{fetch.registry}-{fetch.digest}",
    )


def _registries(status: Status, say: Language) -> Tag:
    part = section("registries", say("status.registries"))
    ordered = sort_by_state(status.worker_state.upstreams, status.now)
    names = display_names(ordered)
    unasked = [each for each in ordered if each.state(status.now) == "unasked"]
    if used := ordered[: len(ordered) - len(unasked)]:
        columns = ("registry", "state", "quota")
        rows = (_registry(each, names[each.name], status.now, say) for each in used)
        part(table((say(f"status.column.{name}") for name in columns), rows, "upstreams"))
    if unasked:
        joined = say("status.comma").join(names[each.name] for each in unasked)
        part(tags.p(say("status.not_asked", names=joined), class_="note"))
    return part


def _registry(upstream: UpstreamStatus, names: str, now: float, say: Language) -> Tag:
    state = upstream.state(now)
    name = tags.th(names, scope="row")
    cells = tags.td(
        tags.span(say(f"status.{state}"), class_=f"state {state}"),
        tags.span(describe_last_request(upstream, now, say), class_="when"),
        [*_failures(upstream, now, say)],
    )
    return tags.tr(
        name, cells, tags.td(describe_quota(upstream.quota, now, say)), id=f"upstream-{upstream.name}"
    )


def _failures(upstream: UpstreamStatus, now: float, say: Language) -> Iterator[Tag]:
    for address in upstream.addresses:
        if why := describe_failure(address, now, say):
            where = [tags.code(address.url), " "] if upstream.addresses[1:] else []
            yield tags.p(where, why, class_="why bad" if address.fails else "why")


def _popular(status: Status, say: Language) -> Tag:
    part = section("popular", say("status.popular"))
    if not status.popular:
        return part(tags.p(say("status.no_popular"), class_="none"))
    part(tags.p(inline_code(say("status.popular.what"))))
    names = ("repository", "manifests", "bytes")
    columns = [say(f"status.column.{name}") for name in names]
    rows = (
        _row(each.repository, (str(each.manifests), format_size(each.bytes)), columns)
        for each in status.popular
    )
    return part(table(columns, rows, "numbers"))


def _usage(status: Status, say: Language) -> Tag:
    part = section("usage", say("status.usage"))
    usage = status.worker_state.usage
    if usage is None:
        return part(
            tags.p(say("status.no_usage" if status.worker_state.cache else "status.no_cache"), class_="none")
        )
    part(tags.p(say("status.usage.what", age=format_age(max(0.0, status.now - usage.measured)))))
    if not usage.registries:
        return part(tags.p(say("status.nothing"), class_="none"))
    columns = [say(f"status.column.{name}") for name in ("registry", "size", "shared", "contents")]
    rows = (
        _row(each.registry, (format_size(each.bytes), format_size(each.shared), str(each.contents)), columns)
        for each in usage.registries
    )
    return part(table(columns, rows, "numbers"))


def _row(name: str, numbers: Sequence[str], columns: Sequence[str]) -> Tag:
    """Return a row of numbers, each labelled for narrow screens without a table head."""
    cells = (tags.td(each, **{"data-of": of}) for each, of in zip(numbers, columns[1:], strict=True))
    return tags.tr(tags.th(tags.code(name), scope="row"), [*cells])
