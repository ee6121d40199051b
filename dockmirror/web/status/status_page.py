"""The status as an HTML page; it is complete without its script, which only refreshes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from attrs import define, field
from twisted.web.template import Tag, tags

from ...http.server_request import ServerRequest
from ...status import DownloadStatus, UpstreamStatus
from ..events import NextEvent
from ..pages.page import (
    PAGE,
    Language,
    PageAssets,
    flatten,
    language_for,
    read_asset,
    render_page,
    section,
    table,
)
from .overview import Status, StatusOverview
from .status_sections import (
    render_budgets,
    render_cache,
    render_fleet,
    render_mirror,
    render_running,
    render_sums,
    render_sync,
    render_traffic,
)
from .status_text import (
    describe_failure,
    describe_last_request,
    describe_progress,
    describe_quotas,
    describe_week,
    display_names,
    sort_by_state,
)

ASSETS = PageAssets(
    PAGE.style + read_asset(__package__, "status.css"), read_asset(__package__, "status.js"), may_connect=True
)


def render_status(status: Status, host: str, say: Language) -> Tag:
    """Return the whole document.

    :param host: the host name by which the page was requested.
    """
    parts = render_parts(status, host, say)
    header = parts.pop("header")
    stale = tags.p(say("status.stale"), id="stale", role="status", hidden="")
    return render_page(
        f"{host}: {say('status')}", say, header, _contents(parts, say), Tag("main")(*parts.values()), stale,
        look=ASSETS,
    )  # fmt: skip


def render_parts(status: Status, host: str, say: Language) -> dict[str, Tag]:
    """Return the parts of the page that change, by their CSS selectors."""
    fleet = status.history.fleet if status.history else None
    return {
        "header": _header(status, host, say),
        "#fetches": _fetches(status, say),
        "#traffic": render_traffic(status, say),
        "#registries": _registries(status, say),
        "#cache": render_cache(status, say),
        "#clients": render_sums("clients", status, say),
        "#images": render_sums("images", status, say),
        **({"#sync": render_sync(status, say)} if status.sync else {}),
        **({"#budgets": render_budgets(status, say)} if status.budgets else {}),
        **({"#fleet": render_fleet(status, fleet, say)} if fleet else {}),
        "#mirror": render_mirror(status, say),
    }


def _header(status: Status, host: str, say: Language) -> Tag:
    state = status.state
    lead = say(f"status.{state.status.replace(' ', '_')}", store=state.store)
    week = describe_week(status.history, say)
    return tags.header(
        tags.p(say("status"), class_="what"),
        tags.h1(host),
        tags.p(lead, class_="lead" if state.status == "ready" else "lead bad"),
        tags.p(week, class_="lead week") if week else "",
    )


def _contents(parts: Iterable[str], say: Language) -> Tag:
    items = (tags.li(tags.a(say(f"status.{part.removeprefix('#')}"), href=part)) for part in parts)
    return tags.nav(tags.ul(*items), **{"aria-label": say("contents")})


def _fetches(status: Status, say: Language) -> Tag:
    part = section("fetches", say("status.fetches"))
    fetches = status.worker_state.fetches
    pulls = status.history.running if status.history else ()
    if pulls:
        part(tags.h3(say("status.running")), render_running(pulls, status.now, say))
    if fetches:
        items = (_fetch(each, say) for each in fetches)
        part(tags.h3(say("status.downloads")), tags.ol([*items], class_="fetches"))
    return part if pulls or fetches else part(tags.p(say("status.no_fetches"), class_="none"))


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
    quotas = [
        [tags.br() if number else "", each] for number, each in enumerate(describe_quotas(upstream, now, say))
    ]
    return tags.tr(name, cells, tags.td(quotas), id=f"upstream-{upstream.name}")


def _failures(upstream: UpstreamStatus, now: float, say: Language) -> Iterator[Tag]:
    for address in upstream.addresses:
        if why := describe_failure(address, now, say):
            where = [tags.code(address.url), " "] if upstream.addresses[1:] else []
            yield tags.p(where, why, class_="why bad" if address.fails else "why")


_SILENCE = 4
"""Looks without a change after which an empty event is sent."""


class StatusEvents:
    """Makes the events of each viewer: a JSON object of HTML by the selectors of the parts."""

    def __init__(self, overview: StatusOverview) -> None:
        self._overview = overview

    def subscribe(self, request: ServerRequest) -> NextEvent:
        """Return the function that makes a viewer's next event.

        :raises RegistryError: when the query cannot be parsed.
        """
        say, host = language_for(request), request.field("host") or ""
        return _Viewer(self._overview, host, say).next_event


@define
class _Viewer:
    """Remembers what a viewer was sent."""

    _overview: StatusOverview
    _host: str
    _say: Language
    _shown: dict[str, str] = field(factory=dict)
    _unchanged: int = 0

    async def next_event(self) -> str | None:
        """Return the parts that changed; if none did, sometimes an empty event, which tells the page so."""
        parts = render_parts(await self._overview.status(), self._host, self._say)
        rendered = {selector: await flatten(part) for selector, part in parts.items()}
        changed = {selector: html for selector, html in rendered.items() if self._shown.get(selector) != html}
        self._shown = rendered
        self._unchanged = 0 if changed else self._unchanged + 1
        return json.dumps(changed) if changed or self._unchanged % _SILENCE == 0 else None
