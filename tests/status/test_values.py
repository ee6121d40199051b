"""What is told of the mirror."""

from __future__ import annotations

import json

import pytest

from dockmirror.status.values import Address, Fetch, Held, Noted, Quota, Upstream, Usage, Used

UP, DOWN, UNASKED = (
    Address("https://u", 9.0, 5.0, "was down"),
    Address("https://d", 1.0, 5.0, "no"),
    Address("n"),
)


def test_across_processes() -> None:
    """What one tells is what another reads."""
    noted = Noted(
        (Upstream("docker", "docker.io", "docker.m", (UP, DOWN), 7.0, Quota(3.0, 100, 5)),
         Upstream("ghcr", "ghcr.io", "ghcr.m", (UNASKED,))),
        (Fetch("docker.io", "sha256:ab", ("docker.io/library/x",), 5, 10, 2.5),),
        Held(5, 10),
        3,
        Usage(4.0, 1.5, (Used("docker.io", 7, 2, 3),), 9),
    )  # fmt: skip
    for each in (noted, Noted()):
        assert Noted.from_json(json.loads(json.dumps(each.as_json()))) == each


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
def test_the_state_of_an_upstream(addresses: list[Address], rests: float | None, state: str) -> None:
    """It is there while one of its addresses is."""
    assert Upstream("u", "u.io", "u.m", tuple(addresses), rests).state(10.0) == state
