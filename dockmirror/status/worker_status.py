"""Merges the states of several workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from attrs import evolve

from .status_values import AddressStatus, DownloadStatus, UpstreamStatus, WorkerState


def merge_states(states: Sequence[WorkerState]) -> WorkerState:
    """Merge worker states: the newest value of local facts, the latest measurement of shared ones."""
    upstreams: dict[str, UpstreamStatus] = {}
    for each in (upstream for one in states for upstream in one.upstreams):
        known = upstreams.get(each.name)
        upstreams[each.name] = _merge_upstreams(known, each) if known else each
    latest = max(states, key=_freshness, default=None)
    fetches = sorted((fetch for one in states for fetch in one.fetches), key=_download_key)
    return WorkerState(
        tuple(upstreams.values()),
        tuple(_merge_downloads(same) for _, same in groupby(fetches, _download_key)),
        latest.cache if latest else None,
        sum(one.processes for one in states),
        latest.usage if latest else None,
    )


def _merge_upstreams(one: UpstreamStatus, other: UpstreamStatus) -> UpstreamStatus:
    quotas = [quota for quota in (one.quota, other.quota) if quota]
    known = {each.url: each for each in other.addresses}
    return evolve(
        one,
        addresses=tuple(_merge_addresses(each, known[each.url]) if each.url in known else each
                        for each in one.addresses),
        rests=max((each for each in (one.rests, other.rests) if each is not None), default=None),
        quota=max(quotas, key=lambda quota: quota.told, default=None),
    )  # fmt: skip


def _merge_addresses(one: AddressStatus, other: AddressStatus) -> AddressStatus:
    later = max(one, other, key=lambda each: each.failed or 0.0)
    answered = max((each for each in (one.answered, other.answered) if each is not None), default=None)
    return evolve(later, answered=answered)


def _download_key(fetch: DownloadStatus) -> tuple[str, str]:
    return fetch.registry, fetch.digest


def _merge_downloads(same: Iterable[DownloadStatus]) -> DownloadStatus:
    """Merge the states of one download: one process writes it, others read it, for different repositories."""
    downloads = list(same)
    names = sorted({name for each in downloads for name in each.repositories})
    furthest = max(downloads, key=lambda each: (each.held, each.pace or 0.0))
    return evolve(furthest, repositories=tuple(names))


def _freshness(one: WorkerState) -> tuple[float, int]:
    """Return the sort key of a state: the time of its measurement, then the bytes that it knows of."""
    return one.usage.measured if one.usage else -1.0, one.cache.bytes if one.cache else -1
