"""The state of the mirror as values."""

from __future__ import annotations

import json

import pytest

from dockmirror.status.status_values import (
    AddressStatus,
    CacheUsage,
    DownloadStatus,
    Quota,
    RegistryUsage,
    UpstreamStatus,
    Usage,
    WorkerState,
)

UP, DOWN, UNASKED = (
    AddressStatus("https://u", 9.0, 5.0, "was down"),
    AddressStatus("https://d", 1.0, 5.0, "no"),
    AddressStatus("n"),
)


def test_a_state_survives_json() -> None:
    """One process reads what another has written."""
    noted = WorkerState(
        (UpstreamStatus("docker", "docker.io", "docker.m", (UP, DOWN), 7.0, Quota(3.0, 100, 5)),
         UpstreamStatus("ghcr", "ghcr.io", "ghcr.m", (UNASKED,))),
        (DownloadStatus("docker.io", "sha256:ab", ("docker.io/library/x",), 5, 10, 2.5),),
        CacheUsage(5, 10),
        3,
        Usage(4.0, 1.5, (RegistryUsage("docker.io", 7, 2, 3),), 9),
    )  # fmt: skip
    for each in (noted, WorkerState()):
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
def test_an_upstream_is_reachable_by_one_address(
    addresses: list[AddressStatus], rests: float | None, state: str
) -> None:
    """It is there while one of its addresses is."""
    assert UpstreamStatus("u", "u.io", "u.m", tuple(addresses), rests).state(10.0) == state
