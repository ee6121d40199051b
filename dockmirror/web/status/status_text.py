"""The status as text for a terminal, and as JSON: lengths in bytes, times in seconds since the epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import asdict

from ...status.cache_series import PERIOD
from ...status.status_values import UpstreamStatus
from ..pages.home_text import table
from ..pages.home_view import format_age, format_size
from ..pages.languages import Language
from . import words
from .overview import Status


def render_status_text(status: Status, host: str, say: Language) -> str:
    """What needs to be looked at, first; without the charts.

    :param host: by which the mirror was asked.
    """
    lead = say(f"status.{status.state.status.replace(' ', '_')}", store=status.state.store)
    parts = [
        [f"{host}: {say('status')}", lead],
        [say("status.fetches"), *_fetches(status, say)],
        [say("status.registries"), *_registries(status, say)],
        [say("status.cache"), *_cache(status, say)],
        [say("status.usage"), *_usage(status, say)],
        [say("status.popular"), *_popular(status, say)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _fetches(status: Status, say: Language) -> list[str]:
    rows = [
        [", ".join(each.repositories) or each.registry, each.digest, words.describe_progress(each, say)]
        for each in status.worker_state.fetches
    ]
    return table(rows) or [f"    {say('status.no_fetches')}"]


def _registries(status: Status, say: Language) -> Iterator[str]:
    now, ordered = status.now, words.sort_by_state(status.worker_state.upstreams, status.now)
    called = words.display_names(ordered)
    seen = [each for each in ordered if each.state(now) != "unasked"]
    rows = [
        [
            called[each.name],
            say(f"status.{each.state(now)}"),
            words.describe_last_request(each, now, say),
            words.describe_quota(each.quota, now, say),
        ]
        for each in seen
    ]
    for upstream, row in zip(seen, table(rows), strict=True):
        yield row
        for address in upstream.addresses:
            if why := words.describe_failure(address, now, say):
                where = f"{address.url} " if upstream.addresses[1:] else ""
                yield f"        {where}{why}"
    if unasked := [called[each.name] for each in ordered if each not in seen]:
        yield f"    {say('status.not_asked', names=say('status.comma').join(unasked))}"


def _cache(status: Status, say: Language) -> Iterator[str]:
    held = status.worker_state.cache
    if held is None:
        yield f"    {say('status.no_cache')}"
        return
    yield f"    {say('status.of', held=format_size(held.bytes), size=format_size(held.limit))}"
    if asked := sum(each.asked for each in status.slots):
        share = words.format_percent(sum(each.hits for each in status.slots), asked)
        yield f"    {say('status.ratio.told', share=share)}"


def _usage(status: Status, say: Language) -> list[str]:
    usage = status.worker_state.usage
    if usage is None:
        return [f"    {say('status.no_usage' if status.worker_state.cache else 'status.no_cache')}"]
    rows = [[each.registry, format_size(each.bytes), str(each.contents)] for each in usage.registries]
    head = [say(f"status.column.{name}") for name in ("registry", "size", "contents")]
    measured = say("status.usage.what", age=format_age(max(0.0, status.now - usage.measured)))
    return [f"    {measured}", *(table([head, *rows]) if rows else [f"    {say('status.nothing')}"])]


def _popular(status: Status, say: Language) -> list[str]:
    rows = [[each.repository, str(each.manifests), format_size(each.bytes)] for each in status.popular]
    head = [say(f"status.column.{name}") for name in ("repository", "manifests", "bytes")]
    return table([head, *rows]) if rows else [f"    {say('status.no_popular')}"]


def render_status_json(status: Status) -> str:
    """The whole of it."""
    noted = status.worker_state
    return json.dumps(
        {
            "time": status.now,
            "status": status.state.status,
            "store": status.state.store,
            "processes": noted.processes,
            "registries": [_registry(each, status.now) for each in noted.upstreams],
            "fetches": [asdict(each) for each in noted.fetches],
            "cache": asdict(noted.cache) if noted.cache else None,
            "usage": asdict(noted.usage) if noted.usage else None,
            "hours": {"seconds": PERIOD, "slots": [asdict(each) for each in status.slots]},
            "popular": [asdict(each) for each in status.popular],
        },
        indent=2,
    )


def _registry(upstream: UpstreamStatus, now: float) -> dict[str, Any]:
    rests = upstream.rests if upstream.rests is not None and now < upstream.rests else None
    return {**asdict(upstream), "state": upstream.state(now), "rests": rests}
