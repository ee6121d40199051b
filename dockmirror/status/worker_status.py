"""What several processes have noted, as one would have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from attrs import evolve

from .status_values import AddressStatus, DownloadStatus, UpstreamStatus, WorkerState


def merge_states(noted: Sequence[WorkerState]) -> WorkerState:
    """Merge the latest of what each has seen for itself, and the latest measurement of what all share."""
    upstreams: dict[str, UpstreamStatus] = {}
    for each in (upstream for one in noted for upstream in one.upstreams):
        known = upstreams.get(each.name)
        upstreams[each.name] = _both(known, each) if known else each
    latest = max(noted, key=_measured, default=None)
    fetches = sorted((fetch for one in noted for fetch in one.fetches), key=_which)
    return WorkerState(
        tuple(upstreams.values()),
        tuple(_furthest(same) for _, same in groupby(fetches, _which)),
        latest.cache if latest else None,
        sum(one.processes for one in noted),
        latest.usage if latest else None,
    )


def _both(one: UpstreamStatus, other: UpstreamStatus) -> UpstreamStatus:
    told = [quota for quota in (one.quota, other.quota) if quota]
    known = {each.url: each for each in other.addresses}
    return evolve(
        one,
        addresses=tuple(_of_both(each, known[each.url]) if each.url in known else each
                        for each in one.addresses),
        rests=max((each for each in (one.rests, other.rests) if each is not None), default=None),
        quota=max(told, key=lambda quota: quota.told, default=None),
    )  # fmt: skip


def _of_both(one: AddressStatus, other: AddressStatus) -> AddressStatus:
    later = max(one, other, key=lambda each: each.failed or 0.0)
    answered = max((each for each in (one.answered, other.answered) if each is not None), default=None)
    return evolve(later, answered=answered)


def _which(fetch: DownloadStatus) -> tuple[str, str]:
    return fetch.registry, fetch.digest


def _furthest(same: Iterable[DownloadStatus]) -> DownloadStatus:
    """One process fills the file and others read behind it, each for repositories of its own."""
    all_of_it = list(same)
    names = sorted({name for each in all_of_it for name in each.repositories})
    furthest = max(all_of_it, key=lambda each: (each.held, each.pace or 0.0))
    return evolve(furthest, repositories=tuple(names))


def _measured(one: WorkerState) -> tuple[float, int]:
    """Order by when a process has measured what is held; where none has, by how much each knows of."""
    return one.usage.measured if one.usage else -1.0, one.cache.bytes if one.cache else -1
