"""The cache section of the status page: its size, and how much of what clients got came out of it."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.web.template import Tag, tags

from ...config.notation import format_size
from ..pages.page import Language, format_age, section, table
from .history_section import render_row
from .overview import Status
from .status_text import format_percent, format_waiting


def render_cache(status: Status, say: Language) -> Tag:
    part = section("cache", say("status.cache"))
    if status.worker_state.cache is None:
        return part(tags.p(say("status.no_cache"), class_="none"))
    return part(tags.dl(*_tiles(status, say), class_="tiles"), *_usage(status, say))


def _tiles(status: Status, say: Language) -> Iterator[Tag]:
    usage = status.worker_state.cache
    if usage is not None:
        label = say("status.held")
        full = tags.progress(value=str(usage.bytes), max=str(max(usage.limit, 1)), **{"aria-label": label})
        yield _tile(label, format_size(usage.bytes), say("status.limit", size=format_size(usage.limit)), full)
    if status.history is not None and not status.history.error:
        total = status.history.total
        share = format_percent(total.cached_bytes, total.cached_bytes + total.upstream_bytes)
        yield _tile(say("status.hit"), share, say("status.this_week"))
        yield _tile(say("status.waiting"), format_waiting(total.saved_seconds), say("status.this_week"))


def _tile(name: str, value: str, unit: str, *more: Tag) -> Tag:
    return tags.div(tags.dt(name), tags.dd(tags.strong(value), " ", unit, *more))


def _usage(status: Status, say: Language) -> Iterator[Tag]:
    usage = status.worker_state.usage
    yield tags.h3(say("status.usage"))
    if usage is None:
        yield tags.p(say("status.no_usage"), class_="none")
        return
    yield tags.p(say("status.usage.what", age=format_age(max(0.0, status.now - usage.measured))))
    if not usage.registries:
        yield tags.p(say("status.nothing"), class_="none")
        return
    columns = [say(f"status.column.{name}") for name in ("registry", "size", "shared", "contents")]
    rows = (
        render_row(
            each.registry, (format_size(each.bytes), format_size(each.shared), str(each.contents)), columns
        )
        for each in usage.registries
    )
    yield table(columns, rows, "numbers")
