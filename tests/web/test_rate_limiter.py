"""How much a client may have in a while."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet

DOCKER = "docker.mirror.example"
PATH = f"/v2/a/blobs/{digest(LAYER)}"


def limited(**access: Any) -> House:
    """A mirror with these limits."""
    return House(Internet(), access={"window": 60, **access})


def status(house: House, peer: str, path: str = "/v2/auth") -> int:
    """What a client of that address gets."""
    client = house.connect(peer).ask("GET", "localhost", path)
    client.leave()
    return client.answer.status


def test_requests() -> None:
    """So many of a network in a window, the refused ones aside; then it is told when to come back."""
    house = limited(requests=2)
    assert [status(house, "10.0.0.1", "/v2/") for _ in range(4)] == [200, 200, 429, 429]
    house.pass_time(59.5)
    answer = house.connect("10.0.0.1").ask("GET", "localhost", "/").answer
    assert answer.error == (429, "TOOMANYREQUESTS")
    assert answer["Retry-After"] == "1"
    house.pass_time(0.5)
    assert [status(house, "10.0.0.1", "/v2/") for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "fd00:0:0:1::1", False),
    ],
)
def test_a_network(one: str, other: str, same: bool) -> None:
    """Is one address of IPv4, and 64 bits of IPv6; another one has its own."""
    house = limited(requests=1)
    assert status(house, one, "/v2/") == 200
    assert status(house, other, "/v2/") == (429 if same else 200)


def test_behind_a_proxy() -> None:
    """It is the client's, and not the proxy's."""
    house = House(Internet(), access={"requests": 1}, trust_proxy=["127.0.0.1"])
    for client, expected in (("10.0.0.1", 200), ("10.0.0.2", 200), ("10.0.0.1", 429)):
        asked = house.connect("127.0.0.1").ask("GET", "localhost", "/v2/", f"X-Forwarded-For: {client}")
        assert asked.answer.status == expected


def test_health_is_not_counted() -> None:
    """A load balancer asks for it all day."""
    house = limited(requests=1)
    assert [status(house, "10.0.0.1", "/healthz") for _ in range(5)] == [200] * 5


def test_bytes() -> None:
    """A response goes on whatever it takes; what follows is refused until the window has passed."""
    house = limited(bytes="1KB")
    world = house.world
    world.reply("registry.k8s.io", PATH, Reply(200, LAYER))
    answer = house.connect("10.0.0.1").ask("GET", "k8s.mirror.example", PATH).answer
    assert answer.body == LAYER
    assert status(house, "10.0.0.1", "/v2/") == 429
    assert status(house, "10.0.0.2", "/v2/") == 200
    house.pass_time(60)
    assert status(house, "10.0.0.1", "/v2/") == 200


def test_bytes_that_are_on_their_way() -> None:
    """Count already; and what is sent in the next window counts for that one alone."""
    house = limited(bytes="50KB")
    house.world.reply("registry.k8s.io", PATH, Reply(200, LAYER).cut(100_000, end="stalled"))
    client = house.connect("10.0.0.1").ask("GET", "k8s.mirror.example", PATH)
    assert status(house, "10.0.0.1", "/v2/") == 429
    house.pass_time(30, 30)
    assert status(house, "10.0.0.1", "/v2/") == 200
    client.leave()
    assert status(house, "10.0.0.1", "/v2/") == 200


def test_without_limits() -> None:
    """Nobody is counted."""
    house = limited()
    assert {status(house, "10.0.0.1", "/v2/") for _ in range(200)} == {200}
