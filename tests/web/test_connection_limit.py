"""Limits on connections, and the reserve that still answers health checks."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import UNIXAddress

from dockmirror.config.load import load
from dockmirror.web.client_limits import RESERVED
from tests.house import DOMAIN, Connection, House
from tests.internet import Internet

ONE, OTHER, THIRD = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def house(connections: int = 4, **settings: Any) -> House:
    return House(Internet(), access={"connections": connections}, **settings)


def hold(house: House, count: int, peer: str = ONE) -> list[Connection]:
    """Open silent connections."""
    return [house.connect(peer) for _ in range(count)]


def status(house: House, peer: str, path: str = "/v2/") -> int:
    """Return the status of a request on a new connection, which is closed then."""
    connection = house.connect(peer)
    found = connection.ask("GET", DOMAIN, path).answer.status
    connection.leave()
    return found


def test_a_network_that_holds_its_share_is_refused_with_429() -> None:
    mirror = house()
    held = hold(mirror, 2)
    refused = mirror.connect(ONE).ask("GET", DOMAIN, "/v2/")
    assert refused.answer.error == (429, "TOOMANYREQUESTS")
    assert "connection limit reached for your network" in refused.answer.message
    assert refused.answer["Connection"] == "close"
    assert refused.transport.disconnecting
    assert status(mirror, OTHER) == 200
    assert mirror.site.connections.turned_away == 1
    held[0].leave()
    assert status(mirror, ONE) == 200


def test_health_is_answered_from_the_reserve_to_everybody() -> None:
    mirror = house()
    hold(mirror, 2)
    assert status(mirror, ONE, "/healthz") == 200
    hold(mirror, 2, OTHER)
    assert status(mirror, THIRD) == 503
    assert {status(mirror, peer, "/healthz") for peer in (ONE, OTHER, THIRD)} == {200}


def test_silent_clients_do_not_use_up_the_reserve() -> None:
    """A new connection replaces the oldest of the reserve, and silent ones are closed soon."""
    mirror = house()
    hold(mirror, 2)
    beyond = hold(mirror, RESERVED)
    assert not any(each.aborted for each in beyond)
    assert status(mirror, ONE, "/healthz") == 200
    assert [each.aborted for each in beyond] == [True] + [False] * (RESERVED - 1)
    mirror.clock.advance(2)
    assert all(each.transport.disconnecting for each in beyond)


def test_the_reserve_is_bounded() -> None:
    """The next connection is closed at once while aborted ones are not closed yet."""
    mirror = house()
    hold(mirror, 2)
    beyond = hold(mirror, 2 * RESERVED)
    assert mirror.site.buildProtocol(beyond[0].transport.getPeer()) is None
    beyond[0].leave()
    assert status(mirror, ONE, "/healthz") == 200


def test_an_ipv6_network_is_one_client() -> None:
    """The addresses of one /64 share their connections; an IPv4 address mapped into IPv6 is itself."""
    mirror = house(networks=["public"])
    hold(mirror, 1, "2001:db8::1")
    hold(mirror, 1, "2001:db8::2")
    assert (status(mirror, "2001:db8::3"), status(mirror, "2001:db8:0:1::1")) == (429, 200)
    hold(mirror, 2, "::ffff:10.0.0.1")
    assert mirror.site.connections.open_count == 4


def test_trusted_proxies_and_unix_sockets_may_have_all_connections() -> None:
    """They stand for many clients."""
    mirror = house(trust_proxy=[ONE])
    hold(mirror, 3)
    assert status(mirror, ONE) == 200
    assert mirror.site.connections.turned_away == 0
    for _ in range(3):
        mirror.site.buildProtocol(UNIXAddress("/run/a"))
    assert mirror.site.connections.turned_away == 0


@pytest.mark.parametrize(("share", "served"), [("100%", 4), ("25%", 1), ("1%", 1)])
def test_the_operator_sets_the_share_of_a_network(share: str, served: int) -> None:
    """A network may always have one connection."""
    mirror = house()
    access = {"connections": 4, "connections_per_network": share}
    mirror.serving.apply(load({"domain": DOMAIN, "access": access}, {}))
    hold(mirror, 5)
    assert mirror.site.connections.open_count == served
