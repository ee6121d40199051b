"""Rate limits per client network."""

from __future__ import annotations

import os
from ipaddress import ip_network
from mmap import mmap
from typing import Any

import pytest

from dockmirror.web.rate_limiter import COUNTERS_SIZE, RateCounters, WindowCount
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
    """Return the status of a client's request from that address."""
    client = house.connect(peer).ask("GET", "localhost", path)
    client.leave()
    return client.answer.status


def test_requests() -> None:
    """A network's requests are limited in a window, rejected ones aside, with ``Retry-After``."""
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
    """A network is one IPv4 address, or an IPv6 /64."""
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


ONE, OTHER = ip_network("192.0.2.1"), ip_network("2001:db8::/64")


@pytest.fixture
def ledger() -> RateCounters:
    """Empty."""
    return RateCounters(memoryview(mmap(-1, COUNTERS_SIZE)))


def test_a_window(ledger: RateCounters) -> None:
    """A window begins with the first request and ends after its seconds; networks have their own."""
    ledger.add(ONE, 100.0, 60, requests=1)
    ledger.add(ONE, 130.0, 60, requests=1, bytes=5)
    assert ledger.current_window(ONE, 159.0, 60) == WindowCount(100.0, 2, 5)
    assert ledger.current_window(OTHER, 159.0, 60) == WindowCount(159.0, 0, 0)
    assert ledger.current_window(ONE, 160.0, 60) == WindowCount(160.0, 0, 0)
    ledger.add(ONE, 161.0, 60, bytes=2**40)
    assert ledger.current_window(ONE, 170.0, 60) == WindowCount(161.0, 0, 2**40)


def test_a_clock_that_was_ahead(ledger: RateCounters) -> None:
    """A window that began in the future has ended."""
    ledger.add(ONE, 10_000.0, 60, requests=1)
    assert ledger.current_window(ONE, 100.0, 60) == WindowCount(100.0, 0, 0)


def test_processes_share_it() -> None:
    """Processes with the same memory see each other's counts."""
    descriptor = os.memfd_create("ledger")
    os.ftruncate(descriptor, COUNTERS_SIZE)
    ours, theirs = (RateCounters(memoryview(mmap(descriptor, COUNTERS_SIZE))) for _ in range(2))
    ours.add(ONE, 1.0, 60, requests=1)
    theirs.add(ONE, 2.0, 60, requests=1)
    assert ours.current_window(ONE, 3.0, 60) == theirs.current_window(ONE, 3.0, 60) == WindowCount(1.0, 2, 0)
    os.close(descriptor)


def test_there_is_no_end_of_networks() -> None:
    """Among networks that share slots, the one with the oldest window is evicted."""
    few = RateCounters(memoryview(mmap(-1, 8 * 32)))
    networks = [ip_network(f"10.0.0.{number}") for number in range(10)]
    for number, network in enumerate(networks):
        few.add(network, float(number), 600, requests=1)
    had = [few.current_window(network, 20.0, 600).requests for network in networks]
    assert had == [0, 0, *[1] * 8]
