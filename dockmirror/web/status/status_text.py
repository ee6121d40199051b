"""The status as text for a terminal, and as JSON with sizes in bytes and times in seconds since the epoch."""

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
    """Return the status without charts.

    :param host: the host name by which it was requested.
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
    names = words.display_names(ordered)
    used = [each for each in ordered if each.state(now) != "unasked"]
    rows = [
        [
            names[each.name],
            say(f"status.{each.state(now)}"),
            words.describe_last_request(each, now, say),
            words.describe_quota(each.quota, now, say),
        ]
        for each in used
    ]
    for upstream, row in zip(used, table(rows), strict=True):
        yield row
        for address in upstream.addresses:
            if why := words.describe_failure(address, now, say):
                where = f"{address.url} " if upstream.addresses[1:] else ""
                yield f"        {where}{why}"
    if unasked := [names[each.name] for each in ordered if each not in used]:
        yield f"    {say('status.not_asked', names=say('status.comma').join(unasked))}"


def _cache(status: Status, say: Language) -> Iterator[str]:
    cache = status.worker_state.cache
    if cache is None:
        yield f"    {say('status.no_cache')}"
        return
    yield f"    {say('status.of', held=format_size(cache.bytes), size=format_size(cache.limit))}"
    if requests := sum(each.asked for each in status.slots):
        share = words.format_percent(sum(each.hits for each in status.slots), requests)
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
    state = status.worker_state
    return json.dumps(
        {
            "time": status.now,
            "status": status.state.status,
            "store": status.state.store,
            "processes": state.processes,
            "registries": [_registry(each, status.now) for each in state.upstreams],
            "fetches": [asdict(each) for each in state.fetches],
            "cache": asdict(state.cache) if state.cache else None,
            "usage": asdict(state.usage) if state.usage else None,
            "hours": {"seconds": PERIOD, "slots": [asdict(each) for each in status.slots]},
            "popular": [asdict(each) for each in status.popular],
        },
        indent=2,
    )


def _registry(upstream: UpstreamStatus, now: float) -> dict[str, Any]:
    rests = upstream.rests if upstream.rests is not None and now < upstream.rests else None
    return {**asdict(upstream), "state": upstream.state(now), "rests": rests}
