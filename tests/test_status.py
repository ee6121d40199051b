"""The state of the mirror: its values, their recording and their merging."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from dockmirror.status import (
    AddressStatus,
    CacheUsage,
    DownloadStatus,
    Quota,
    RegistryUsage,
    UpstreamHealth,
    UpstreamHealthTable,
    UpstreamStatus,
    Usage,
    WorkerState,
    merge_states,
)

UP, DOWN, UNASKED = (
    AddressStatus("https://u", 9.0, 5.0, "was down"),
    AddressStatus("https://d", 1.0, 5.0, "no"),
    AddressStatus("n"),
)


def test_a_state_survives_json() -> None:
    state = WorkerState(
        (UpstreamStatus("docker", "docker.io", "docker.m", (UP, DOWN), 7.0, Quota(3.0, 100, 5)),
         UpstreamStatus("ghcr", "ghcr.io", "ghcr.m", (UNASKED,))),
        (DownloadStatus("docker.io", "sha256:ab", ("docker.io/library/x",), 5, 10, 2.5),),
        CacheUsage(5, 10),
        3,
        Usage(4.0, 1.5, (RegistryUsage("docker.io", 7, 2, 3),), 9),
    )  # fmt: skip
    for each in (state, WorkerState()):
        assert WorkerState.from_json(json.loads(json.dumps(each.as_json()))) == each


@pytest.mark.parametrize(
    ("addresses", "rests", "state"),
    [
        ([UNASKED], None, "unasked"),
        ([UP], None, "reachable"),
        ([DOWN], None, "failing"),
        ([DOWN, UNASKED], None, "failing"),
        ([DOWN, UP], None, "reachable"),
        ([UP], 11.0, "resting"),
        ([UP], 10.0, "reachable"),
    ],
)
def test_one_address_makes_it_reachable(
    addresses: list[AddressStatus], rests: float | None, state: str
) -> None:
    assert UpstreamStatus("u", "u.io", "u.m", tuple(addresses), rests).state(10.0) == state


def test_an_upstream_that_is_not_asked_is_offline() -> None:
    """Whatever happened when it was asked last."""
    assert UpstreamStatus("u", "u.io", "u.m", (DOWN,), 11.0, offline=True).state(10.0) == "offline"


def test_an_address_records_answers_and_failures_with_their_times() -> None:
    clock = Clock()
    health = UpstreamHealth(clock)
    assert health.of("https://a").address == AddressStatus("https://a")
    clock.advance(5)
    health.of("https://a").record_failure("it is down")
    assert health.of("https://a").address == AddressStatus("https://a", None, 5.0, "it is down")
    assert health.of("https://a").address.fails
    clock.advance(1)
    health.of("https://a").record_answer()
    assert health.of("https://a").address == AddressStatus("https://a", 6.0, 5.0, "it is down")
    assert not health.of("https://a").address.fails
    assert health.of("https://b").address.asked is None


def test_a_quota_keeps_its_last_values() -> None:
    """A response without the fields changes nothing."""
    clock = Clock()
    health = UpstreamHealth(clock)
    for fields, quota in (
        ((None, None), None),
        ((100, 76), Quota(1.0, 100, 76)),
        ((None, None), Quota(1.0, 100, 76)),
        ((None, 75), Quota(3.0, 100, 75)),
    ):
        health.record_quota("", *fields)
        assert health.quotas.get("") == quota
        clock.advance(1)


def test_health_survives_new_settings() -> None:
    """An upstream keeps its record under its name."""
    upstreams = UpstreamHealthTable(Clock())
    upstreams.of("docker").record_pause(9.0)
    assert (upstreams.of("docker").rests, upstreams.of("other").rests) == (9.0, None)


def upstream(
    *addresses: AddressStatus, rests: float | None = None, quota: Quota | None = None
) -> WorkerState:
    """Return an upstream's state as one worker has it."""
    return WorkerState((UpstreamStatus("docker", "docker.io", "docker.m", addresses, rests, quota),))


def test_the_newest_health_of_an_upstream_counts() -> None:
    """An address that only one worker has seen is kept."""
    three, four, b = (
        AddressStatus("a", 5.0, 3.0, "three"), AddressStatus("a", 2.0, 4.0, "four"), AddressStatus("b", 1.0)
    )  # fmt: skip
    one = upstream(three, b, rests=4.0, quota=Quota(1.0, 100, 9))
    other = upstream(four, rests=6.0, quota=Quota(2.0, 100, 8))
    merged = upstream(AddressStatus("a", 5.0, 4.0, "four"), b, rests=6.0, quota=Quota(2.0, 100, 8))
    assert merge_states([one, other]).upstreams == merged.upstreams
    assert merge_states([one, upstream(AddressStatus("a"), AddressStatus("b"))]).upstreams == one.upstreams
    assert merge_states([]) == WorkerState(processes=0)


def test_states_of_one_download_are_merged() -> None:
    """One process writes the file, others read it."""
    writer = DownloadStatus("docker.io", "sha256:a", ("docker.io/x",), 50, 100, 7.0)
    reader = DownloadStatus("docker.io", "sha256:a", ("docker.io/y",), 40, 100, 6.0)
    other = DownloadStatus("ghcr.io", "sha256:a", ("ghcr.io/x",), 1, None, None)
    merged = DownloadStatus("docker.io", "sha256:a", ("docker.io/x", "docker.io/y"), 50, 100, 7.0)
    states = [WorkerState(fetches=(writer, other)), WorkerState(fetches=(reader,))]
    assert merge_states(states).fetches == (merged, other)


def cached(size: int, usage: Usage | None = None) -> WorkerState:
    return WorkerState(cache=CacheUsage(size, 1000), usage=usage)


def test_the_last_measurement_and_then_the_largest_cache_size_count() -> None:
    """A worker that has missed a removal knows of more, and its measurement is older."""
    merged = merge_states([cached(0), cached(7), WorkerState()])
    assert (merged.cache, merged.processes) == (CacheUsage(7, 1000), 3)
    old = cached(900, Usage(1.0, 0.5, (RegistryUsage("docker.io", 900, 0, 3),), 900))
    new = cached(9, Usage(2.0, 0.5, (RegistryUsage("docker.io", 7, 2, 3),), 9))
    for states in ([old, new, WorkerState()], [WorkerState(), new, old]):
        merged = merge_states(states)
        assert (merged.cache, merged.usage) == (new.cache, new.usage)
