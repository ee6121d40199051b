"""Rate limits per client network."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet

K8S, K8S_HOST = "k8s.mirror.example", "registry.k8s.io"
PATH = f"/v2/a/blobs/{digest(LAYER)}"
CLIENT = "10.0.0.1"


def limited(**access: Any) -> House:
    """Build a mirror with these limits."""
    return House(Internet(), access={"window": 60, **access})


def status(house: House, peer: str = CLIENT, path: str = "/v2/", *headers: str) -> int:
    """Return the status of a client's request from that address."""
    client = house.connect(peer).ask("GET", "localhost", path, *headers)
    client.leave()
    return client.answer.status


def test_requests_of_a_network_are_limited_in_a_window() -> None:
    """Rejected ones and health checks do not count."""
    house = limited(requests=2)
    assert [status(house, path="/healthz") for _ in range(5)] == [200] * 5
    assert [status(house) for _ in range(4)] == [200, 200, 429, 429]
    house.pass_time(59.5)
    answer = house.connect(CLIENT).ask("GET", "localhost", "/").answer
    assert (answer.error, answer["Retry-After"]) == ((429, "TOOMANYREQUESTS"), "1")
    house.pass_time(0.5)
    assert [status(house) for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "fd00:0:0:1::1", False),
    ],
)
def test_a_network_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, same: bool) -> None:
    house = limited(requests=1)
    assert (status(house, one), status(house, other)) == (200, 429 if same else 200)


def test_behind_a_proxy_the_clients_network_is_limited() -> None:
    house = House(Internet(), access={"requests": 1}, trust_proxy=["127.0.0.1"])
    forwarded = [f"X-Forwarded-For: {client}" for client in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    assert [status(house, "127.0.0.1", "/v2/", each) for each in forwarded] == [200, 200, 429]


def test_a_response_beyond_the_limit_of_bytes_is_finished() -> None:
    """The next requests are refused until the window has passed."""
    house = limited(bytes="1KB")
    house.world.reply(K8S_HOST, PATH, Reply(200, LAYER))
    assert house.connect(CLIENT).ask("GET", K8S, PATH).answer.body == LAYER
    assert (status(house), status(house, "10.0.0.2")) == (429, 200)
    house.pass_time(60)
    assert status(house) == 200


def test_bytes_of_a_running_response_count_in_the_window_in_which_they_were_sent() -> None:
    house = limited(bytes="50KB")
    house.world.reply(K8S_HOST, PATH, Reply(200, LAYER).cut(100_000, end="stalled"))
    client = house.connect(CLIENT).ask("GET", K8S, PATH)
    assert status(house) == 429
    house.pass_time(30, 30)
    assert status(house) == 200
    client.leave()
    assert status(house) == 200


def test_without_limits_nothing_is_counted() -> None:
    house = limited()
    assert {status(house) for _ in range(200)} == {200}


def test_the_operators_networks_have_no_limits() -> None:
    """The refusal of other clients says whom to ask."""
    house = limited(requests=1, exempt=["10.0.0.0/8"], contact="https://example.com/limits")
    assert [status(house) for _ in range(3)] == [200] * 3
    refused = [house.connect("192.168.0.1").ask("GET", "localhost", "/v2/").answer for _ in range(2)][1]
    assert refused.message == (
        "rate limit exceeded for your network; try again in 60 s;"
        " to have the limit raised, see https://example.com/limits"
    )
    assert house.metrics.registry.get_sample_value("dockmirror_limited_total", {"limit": "access"}) == 1
