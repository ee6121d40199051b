"""Merged states of several workers."""

from __future__ import annotations

from dockmirror.status.status_values import (
    AddressStatus,
    CacheUsage,
    DownloadStatus,
    Quota,
    RegistryUsage,
    UpstreamStatus,
    Usage,
    WorkerState,
    merge_states,
)


def upstream(
    *addresses: AddressStatus, rests: float | None = None, quota: Quota | None = None
) -> WorkerState:
    """Return an upstream's state as one worker has it."""
    return WorkerState((UpstreamStatus("docker", "docker.io", "docker.m", addresses, rests, quota),))


def test_no_workers_have_an_empty_state() -> None:
    """Nothing was recorded."""
    assert merge_states([]) == WorkerState(processes=0)


def test_the_newest_health_of_an_upstream_counts() -> None:
    """An address that only one worker has seen is kept."""
    one = upstream(
        AddressStatus("a", 5.0, 3.0, "three"), AddressStatus("b", 1.0), rests=4.0, quota=Quota(1.0, 100, 9)
    )
    other = upstream(AddressStatus("a", 2.0, 4.0, "four"), rests=6.0, quota=Quota(2.0, 100, 8))
    expected = upstream(
        AddressStatus("a", 5.0, 4.0, "four"), AddressStatus("b", 1.0), rests=6.0, quota=Quota(2.0, 100, 8)
    )
    assert merge_states([one, other]).upstreams == expected.upstreams
    assert merge_states([one, upstream(AddressStatus("a"), AddressStatus("b"))]).upstreams == one.upstreams


def test_states_of_one_download_are_merged() -> None:
    """One process writes the file, others read it."""
    filled = DownloadStatus("docker.io", "sha256:a", ("docker.io/x",), 50, 100, 7.0)
    behind = DownloadStatus("docker.io", "sha256:a", ("docker.io/y",), 40, 100, 6.0)
    elsewhere = DownloadStatus("ghcr.io", "sha256:a", ("ghcr.io/x",), 1, None, None)
    assert merge_states(
        [WorkerState(fetches=(filled, elsewhere)), WorkerState(fetches=(behind,))]
    ).fetches == (
        DownloadStatus("docker.io", "sha256:a", ("docker.io/x", "docker.io/y"), 50, 100, 7.0),
        elsewhere,
    )


def test_the_largest_cache_size_counts() -> None:
    """All workers have the same cache; the last to look knows most."""
    noted = merge_states(
        [WorkerState(cache=CacheUsage(0, 100)), WorkerState(cache=CacheUsage(7, 100)), WorkerState()]
    )
    assert noted.cache == CacheUsage(7, 100)
    assert noted.processes == 3


def test_the_last_measurement_counts() -> None:
    """Older ones are dropped."""
    old, new = Usage(1.0, 0.5, (), 900), Usage(2.0, 0.5, (RegistryUsage("docker.io", 7, 2, 3),), 9)
    assert merge_states([WorkerState(usage=new), WorkerState(), WorkerState(usage=old)]).usage == new


def test_size_and_measurement_come_from_one_worker() -> None:
    """A worker that has missed a removal knows of more, and is older."""
    before = WorkerState(
        cache=CacheUsage(900, 1000), usage=Usage(1.0, 0.5, (RegistryUsage("docker.io", 900, 0, 3),), 900)
    )
    after = WorkerState(
        cache=CacheUsage(9, 1000), usage=Usage(2.0, 0.5, (RegistryUsage("docker.io", 7, 2, 3),), 9)
    )
    for noted in ([before, after], [after, before]):
        merged = merge_states(noted)
        assert (merged.cache, merged.usage) == (after.cache, after.usage)
