"""How the status is put into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ...status.status_values import AddressStatus, DownloadStatus, Quota, UpstreamStatus
from ..pages.home_view import format_age, format_size
from ..pages.languages import Language

_ORDER = ("failing", "resting", "reachable", "unasked")


def sort_by_state(upstreams: tuple[UpstreamStatus, ...], now: float) -> list[UpstreamStatus]:
    """What needs to be looked at first."""
    return sorted(upstreams, key=lambda each: _ORDER.index(each.state(now)))


def display_names(upstreams: Iterable[UpstreamStatus]) -> dict[str, str]:
    """What each is called, by its name in the settings: by its registry, where that is not several."""
    all_of_them = list(upstreams)
    times = Counter(each.registry for each in all_of_them)
    return {
        each.name: each.registry if times[each.registry] == 1 else f"{each.registry} ({each.name})"
        for each in all_of_them
    }


def describe_last_request(upstream: UpstreamStatus, now: float, say: Language) -> str:
    """When it was last asked, and until when it is left alone."""
    times = [each.asked for each in upstream.addresses if each.asked is not None]
    parts = [say("status.asked", age=_ago(max(times), now))] if times else []
    if upstream.rests is not None and now < upstream.rests:
        parts.append(say("status.rests", age=format_age(upstream.rests - now)))
    return say("status.comma").join(parts)


def describe_failure(address: AddressStatus, now: float, say: Language) -> str:
    """Its last one, in a sentence; nothing where there was none."""
    if address.failed is None:
        return ""
    return say("status.failed", age=_ago(address.failed, now), why=address.failure)


def describe_quota(told: Quota | None, now: float, say: Language) -> str:
    """How many pulls are left; nothing where the upstream has not said."""
    if told is None or told.remaining is None:
        return ""
    phrase = "status.left" if told.limit is None else "status.left_of"
    return say(phrase, remaining=told.remaining, limit=told.limit, age=_ago(told.told, now))


def describe_progress(fetch: DownloadStatus, say: Language) -> str:
    """How far a fetch is, and how fast."""
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
    """A share; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "—"


def _ago(time: float, now: float) -> str:
    return format_age(max(0.0, now - time))
