"""Phrases of the status page and the status text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ...status.status_values import AddressStatus, DownloadStatus, Quota, UpstreamStatus
from ..pages.home_view import format_age, format_size
from ..pages.languages import Language

_ORDER = ("failing", "resting", "reachable", "unasked")


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
    parts = [say("status.asked", age=_ago(max(times), now))] if times else []
    if upstream.rests is not None and now < upstream.rests:
        parts.append(say("status.rests", age=format_age(upstream.rests - now)))
    return say("status.comma").join(parts)


def describe_failure(address: AddressStatus, now: float, say: Language) -> str:
    """Describe the last failure of an address; empty if there was none."""
    if address.failed is None:
        return ""
    return say("status.failed", age=_ago(address.failed, now), why=address.failure)


def describe_quota(reported: Quota | None, now: float, say: Language) -> str:
    """Say how many pulls are left; empty if the upstream has not said."""
    if reported is None or reported.remaining is None:
        return ""
    phrase = "status.left" if reported.limit is None else "status.left_of"
    return say(phrase, remaining=reported.remaining, limit=reported.limit, age=_ago(reported.told, now))


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
            yield say("status.to_go", age=format_age((fetch.size - fetch.held) / fetch.pace))


def format_percent(part: int, whole: int) -> str:
    """Format a share; a dash if the whole is zero."""
    return f"{100 * part / whole:.0f} %" if whole else "—"


def _ago(time: float, now: float) -> str:
    return format_age(max(0.0, now - time))
