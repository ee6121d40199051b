"""The status as text for a terminal, and as JSON with sizes in bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from ...client_config.snippet import HUB
from ...config.notation import format_size
from ...history.pulls import Pull, PullSums, add_sums
from ...status import AddressStatus, CertificateStatus, DownloadStatus, Quota, UpstreamStatus
from ...store.sync_states import SyncState
from ...system.times import format_timestamp, parse_timestamp
from ..pages.own_pulls import name_image
from ..pages.page import Language, align_columns, format_age
from .overview import (
    NETWORK_COLUMNS,
    FleetSummary,
    HistorySummary,
    Status,
    describe_limits,
    describe_use,
    network_rows,
)

_TIMES = {
    "answered",
    "began",
    "ends",
    "expires",
    "failed",
    "measured",
    "rests",
    "seen",
    "started",
    "time",
    "told",
}
"""The fields of the JSON that hold times."""
_WEEK = 7 * 86_400
_ORDER = ("failing", "resting", "offline", "reachable", "unasked")


def sort_by_state(upstreams: tuple[UpstreamStatus, ...], now: float) -> list[UpstreamStatus]:
    """Sort upstreams, failing ones first."""
    return sorted(upstreams, key=lambda each: _ORDER.index(each.state(now)))


def display_names(upstreams: Iterable[UpstreamStatus]) -> dict[str, str]:
    """Return a display name for each upstream: its registry, and its own name if several share that."""
    all_of_them = list(upstreams)
    times = Counter(each.registry for each in all_of_them)
    return {
        each.name: each.registry if times[each.registry] == 1 else f"{each.registry} ({each.name})"
        for each in all_of_them
    }


def describe_last_request(upstream: UpstreamStatus, now: float, say: Language) -> str:
    """Say when the upstream was last asked, and until when it is paused."""
    times = [each.asked for each in upstream.addresses if each.asked is not None]
    parts = [say("status.asked", age=_ago(max(times), now, say))] if times else []
    if upstream.rests is not None and now < upstream.rests:
        parts.append(say("status.rests", age=format_age(upstream.rests - now, say)))
    return say("status.comma").join(parts)


def describe_failure(address: AddressStatus, now: float, say: Language) -> str:
    """Describe the last failure of an address; empty if there was none."""
    if address.failed is None:
        return ""
    return say("status.failed", age=_ago(address.failed, now, say), why=address.failure)


def describe_quota(reported: Quota | None, now: float, say: Language) -> str:
    """Say how many pulls are left; empty if the upstream has not said."""
    if reported is None or reported.remaining is None:
        return ""
    phrase = "status.left" if reported.limit is None else "status.left_of"
    return say(phrase, remaining=reported.remaining, limit=reported.limit, age=_ago(reported.told, now, say))


def describe_quotas(upstream: UpstreamStatus, now: float, say: Language) -> Iterator[str]:
    """Yield how many pulls are left, then the same for each account, with its name."""
    if own := describe_quota(upstream.quota, now, say):
        yield own
    for account in upstream.accounts:
        if left := describe_quota(account.quota, now, say):
            yield f"{account.name}: {left}"


def describe_progress(fetch: DownloadStatus, say: Language) -> str:
    """Say how far a download is, and how fast."""
    return " · ".join(_progress(fetch, say))


def _progress(fetch: DownloadStatus, say: Language) -> Iterator[str]:
    if fetch.size is None:
        yield format_size(fetch.held)
    else:
        yield say("status.of", held=format_size(fetch.held), size=format_size(fetch.size))
    if fetch.pace:
        yield say("status.pace", size=format_size(int(fetch.pace)))
        if fetch.size is not None:
            yield say("status.to_go", age=format_age((fetch.size - fetch.held) / fetch.pace, say))


def describe_running(pull: Pull, now: float, say: Language) -> str:
    """Say for whom a pull is, what it got so far, and since when."""
    sizes = {"cached": format_size(pull.cached_bytes), "fetched": format_size(pull.upstream_bytes)}
    parts = [pull.requester, say("status.got", **sizes), _ago(pull.began, now, say)]
    return " · ".join(filter(None, parts))


def describe_week(history: HistorySummary | None, say: Language) -> str:
    """Say in a sentence what was served this week and what that saved; empty without a history."""
    if history is None or history.error:
        return ""
    total = history.total
    if not total.pulls:
        return say("status.week.none")
    parts = [
        say("status.week.served", size=format_size(total.cached_bytes + total.upstream_bytes)),
        say("status.week.fetched", size=format_size(total.upstream_bytes)),
    ]
    for each in history.week:
        if each.saved_pulls:
            registry = "Docker Hub" if each.key == HUB else each.key
            parts.append(say("status.week.pulls", count=f"{each.saved_pulls:,}", registry=registry))
    if total.saved_seconds >= 1:
        parts.append(say("status.week.waiting", time=format_waiting(total.saved_seconds, say)))
    return say("status.week", parts=say("status.comma").join(parts))


def format_waiting(seconds: float, say: Language) -> str:
    """Format a sum of durations."""
    if seconds >= 3600:
        return say("duration.hours", count=f"{seconds / 3600:,.1f}")
    return format_age(seconds, say)


def format_uptime(seconds: float, say: Language) -> str:
    """Format the time since the start; from two days on in days."""
    if seconds >= 2 * 86_400:
        return say("duration.days", count=f"{seconds // 86_400:.0f}")
    return format_age(max(0.0, seconds), say)


SUM_COLUMNS = ("pulls", "failed", "sent", "share")


def format_sums(sums: PullSums) -> list[str]:
    """Return the cells of a client or an image; see ``SUM_COLUMNS``."""
    sent = sums.cached_bytes + sums.upstream_bytes
    share = format_percent(sums.cached_bytes, sent)
    return [f"{sums.pulls:,}", f"{sums.failed:,}", format_size(sent), share]


def fleet_rows(fleet: FleetSummary, now: float, say: Language) -> Iterator[list[str]]:
    """Return the cells of each mirror and, of several, of their total."""
    none = PullSums("", 0, 0, 0, 0, 0, 0, 0.0, 0.0)
    sums = {each.key: each for each in fleet.week}
    for mirror in fleet.mirrors:
        seen = say("status.fleet.seen", age=_ago(mirror.seen, now, say))
        state = seen if mirror.is_up(now) else say("status.fleet.gone", seen=seen)
        yield [mirror.name, mirror.version, state, *format_sums(sums.get(mirror.name, none))]
    if fleet.mirrors[1:]:
        yield [say("status.fleet.total"), "", "", *format_sums(add_sums("", fleet.week))]


def describe_expiry(certificate: CertificateStatus, now: float, say: Language) -> str:
    """Say when a certificate expires."""
    if not certificate.expires:
        return say("status.no_certificate")
    date = datetime.fromtimestamp(certificate.expires, UTC).strftime("%Y-%m-%d")
    return say("status.expires", date=date, count=int((certificate.expires - now) // 86_400))


def format_percent(part: int, whole: int) -> str:
    """Format a share; a dash if the whole is zero."""
    return f"{100 * part / whole:.0f} %" if whole else "—"


def _ago(time: float, now: float, say: Language) -> str:
    return format_age(max(0.0, now - time), say)


SYNC_COLUMNS = ("rule", "state", "last", "next", "found", "pulled", "failed", "fetched")


def sync_rows(states: Iterable[SyncState], now: float, say: Language) -> Iterator[list[str]]:
    """Return the cells of each rule that keeps images in sync; see ``SYNC_COLUMNS``."""
    for each in states:
        outcome = say(f"status.sync.{each.outcome}")
        state = say("status.sync.why", state=outcome, why=each.message) if each.message else outcome
        last = say("status.sync.ago", age=_ago(each.started, now, say)) if each.started else "—"
        due = say("status.sync.in", age=format_age(each.next_run - now, say)) if each.next_run > now else "—"
        counts = (f"{count:,}" for count in (each.matched, each.synced, each.failed))
        yield [each.name, state, last, due, *counts, format_size(each.bytes)]


def render_status_text(status: Status, host: str, say: Language) -> str:
    """Return the status without charts.

    :param host: the host name by which it was requested.
    """
    lead = say(f"status.{status.state.status.replace(' ', '_')}", store=status.state.store)
    week = describe_week(status.history, say)
    fleet = status.history.fleet if status.history else None
    parts = [
        [f"{host}: {say('status')}", lead, *([week] if week else [])],
        [say("status.fetches"), *_fetches(status, say)],
        [say("status.traffic"), *_traffic(status, say)],
        [say("status.registries"), *_registries(status, say)],
        [say("status.cache"), *_cache(status, say)],
        [say("status.usage"), *_usage(status, say)],
        [say("status.clients"), *_sums("clients", status, say)],
        [say("status.images"), *_sums("images", status, say)],
        *([[say("status.sync"), *_sync(status, say)]] if status.sync else []),
        *([[say("status.budgets"), *_budgets(status, say)]] if status.budgets else []),
        *([[say("status.fleet"), *_fleet(fleet, status.now, say)]] if fleet else []),
        [say("status.mirror"), *_mirror(status, say)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _fetches(status: Status, say: Language) -> list[str]:
    pulls = [
        [name_image(each), describe_running(each, status.now, say)]
        for each in (status.history.running if status.history else ())
    ]
    rows = [
        [", ".join(each.repositories) or each.registry, each.digest, describe_progress(each, say)]
        for each in status.worker_state.fetches
    ]
    return [*align_columns(pulls), *align_columns(rows)] or [f"    {say('status.no_fetches')}"]


def _traffic(status: Status, say: Language) -> list[str]:
    """Return the days of the last week, of which the page has a chart."""
    if status.history is None or status.history.error:
        return [_no_history(status.history, say)]
    rows = [
        [each.key[:10], *format_sums(each)]
        for each in status.history.days
        if parse_timestamp(each.key) > status.now - _WEEK
    ]
    head = [say(f"status.column.{name}") for name in ("time", *SUM_COLUMNS)]
    return align_columns([head, *rows]) if rows else [f"    {say('status.no_pulls')}"]


def _no_history(history: HistorySummary | None, say: Language) -> str:
    return f"    {history.error if history else say('status.no_history')}"


def _registries(status: Status, say: Language) -> Iterator[str]:
    now, ordered = status.now, sort_by_state(status.worker_state.upstreams, status.now)
    names = display_names(ordered)
    used = [each for each in ordered if each.state(now) != "unasked"]
    rows = [
        [
            names[each.name],
            say(f"status.{each.state(now)}"),
            describe_last_request(each, now, say),
            " · ".join(describe_quotas(each, now, say)),
        ]
        for each in used
    ]
    for upstream, row in zip(used, align_columns(rows), strict=True):
        yield row
        for address in upstream.addresses:
            if why := describe_failure(address, now, say):
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
    if (usage := status.worker_state.usage) is not None:
        minimum = say("status.min_free", size=format_size(cache.min_free))
        yield f"    {say('status.free')}: {format_size(usage.free)}, {minimum}"


def _usage(status: Status, say: Language) -> list[str]:
    usage = status.worker_state.usage
    if usage is None:
        return [f"    {say('status.no_usage' if status.worker_state.cache else 'status.no_cache')}"]
    rows = [[each.registry, format_size(each.bytes), str(each.contents)] for each in usage.registries]
    head = [say(f"status.column.{name}") for name in ("registry", "size", "contents")]
    measured = say("status.usage.what", age=_ago(usage.measured, status.now, say))
    return [f"    {measured}", *(align_columns([head, *rows]) if rows else [f"    {say('status.nothing')}"])]


def _sums(name: str, status: Status, say: Language) -> list[str]:
    if status.history is None or status.history.error:
        return [_no_history(status.history, say)]
    sums: Sequence[PullSums] = status.history.clients if name == "clients" else status.history.images
    rows = [[each.key or say("status.unnamed"), *format_sums(each)] for each in sums]
    head = [say(f"status.column.{each}") for each in (name, *SUM_COLUMNS)]
    return align_columns([head, *rows]) if rows else [f"    {say('status.no_pulls')}"]


def _sync(status: Status, say: Language) -> list[str]:
    head = [say(f"status.column.{each}") for each in SYNC_COLUMNS]
    return align_columns([head, *sync_rows(status.sync, status.now, say)])


def _budgets(status: Status, say: Language) -> Iterator[str]:
    head = [say(f"status.column.{each}") for each in NETWORK_COLUMNS]
    for budget in status.budgets:
        yield f"    {budget.images}: {describe_limits(budget, say)}"
        yield f"        {describe_use(budget, say)}"
        rows = [head, *network_rows(budget.most, status.now, say)] if budget.most else []
        yield from (f"    {row}" for row in align_columns(rows))


def _fleet(fleet: FleetSummary, now: float, say: Language) -> list[str]:
    rows = [*fleet_rows(fleet, now, say)]
    head = [say(f"status.column.{each}") for each in ("mirror", "version", "seen", *SUM_COLUMNS)]
    table = align_columns([head, *rows]) if rows else [f"    {say('status.fleet.none')}"]
    return [*([f"    {fleet.error}"] if fleet.error else []), *table]


def _mirror(status: Status, say: Language) -> list[str]:
    rows = [
        [say("status.version"), status.version],
        [say("status.uptime"), format_uptime(status.now - status.started, say)],
        [say("status.processes"), str(status.worker_state.processes)],
        *([each.file, describe_expiry(each, status.now, say)] for each in status.worker_state.certificates),
    ]
    return align_columns(rows)


def render_status_json(status: Status) -> str:
    state = status.worker_state
    fields = _format_times(
        {
            "time": status.now,
            "status": status.state.status,
            "store": status.state.store,
            "version": status.version,
            "started": status.started,
            "processes": state.processes,
            "certificates": [asdict(each) for each in state.certificates],
            "registries": [_registry(each, status.now) for each in state.upstreams],
            "fetches": [asdict(each) for each in state.fetches],
            "cache": asdict(state.cache) if state.cache else None,
            "usage": asdict(state.usage) if state.usage else None,
            "budgets": [asdict(each) for each in status.budgets],
        }
    )
    sync = [{**each.fields(), "pinned": len(each.pins)} for each in status.sync]
    return json.dumps({**fields, "sync": sync, "history": _history(status.history)}, indent=2)


def _history(history: HistorySummary | None) -> dict[str, Any] | None:
    if history is None:
        return None
    fields = asdict(history)
    return {**fields, "running": _format_times(fields["running"]), "fleet": _format_times(fields["fleet"])}


def _format_times(value: Any, key: str = "") -> Any:
    """Return nested fields with the times among them as text."""
    if isinstance(value, dict):
        return {name: _format_times(each, name) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_format_times(each) for each in value]
    return format_timestamp(value) if key in _TIMES and isinstance(value, int | float) else value


def _registry(upstream: UpstreamStatus, now: float) -> dict[str, Any]:
    rests = upstream.rests if upstream.rests is not None and now < upstream.rests else None
    return {**asdict(upstream), "state": upstream.state(now), "rests": rests}
