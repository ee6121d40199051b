"""A mirror and a peer of its fleet, which may be set up otherwise, out of order, or in other hands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest

from dockmirror.middleware.peers import STALL_TIMEOUT

from ..chained import serve
from ..fake_registry import basic, digest
from ..fakes import Reply, Seen, World
from ..house import DOMAIN, House
from .cached_house import StoringHouse

BLOB = bytes(range(256)) * 256
PEER, REGISTRY, ELSEWHERE = "10.0.0.2:8080", "registry.example", "bucket.example"
VIRTUAL = f"work.{DOMAIN}"
PATH = f"/v2/team/app/blobs/{digest(BLOB)}"
OWN_PATH = PATH.replace("/v2/", f"/v2/{REGISTRY}/")
LOGIN = "Authorization: Bearer a-clients"
REFUSED = Reply(403, json.dumps({"errors": [{"code": "DENIED"}]}).encode())


class Fleet:
    """A mirror, in a world of servers that has its registry and one peer.

    :ivar world: the servers; the peer is found by the name of the host that it is asked for.
    :ivar from_peer: the peer's answers in turn, the last one again and again.
    """

    def __init__(self, root: Path, peer: str = f"http://{PEER}", **settings: Any) -> None:
        self.from_peer = [Reply(200, BLOB)]
        self.world = World({REGISTRY: lambda _: Reply(200, BLOB), PEER: self._peer, ELSEWHERE: self._peer})
        self.world.servers |= dict.fromkeys((DOMAIN, VIRTUAL, "peer.example", "[::1]:8080"), self._peer)
        upstreams = {"work": {"url": f"https://{REGISTRY}"}}
        self.house = StoringHouse(
            self.world, root / "cache", {}, upstreams=upstreams, peers=[peer], **settings
        )

    def _peer(self, _: Seen) -> Reply:
        return self.from_peer.pop(0) if len(self.from_peer) > 1 else self.from_peer[0]

    def settle_until(self, is_over: Callable[[], bool]) -> None:
        """Let threads and pauses of no length end."""
        for _ in range(100):
            if is_over():
                return
            self.house.settle()
            self.house.pass_time(0.0)
        raise AssertionError("it is not over")

    def asked(self) -> list[str]:
        """Return the hosts that the mirror has sent requests to."""
        return [seen.host for seen in self.world.seen]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    running = Fleet(tmp_path)
    yield running
    running.house.close()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that requires a login of its clients."""
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"alice:{hashed}\n")
    running = Fleet(tmp_path, access={"htpasswd": str(tmp_path / "htpasswd"), "keys": str(tmp_path / "keys")})
    yield running
    running.house.close()


@pytest.mark.parametrize("login", [(), (LOGIN,)], ids=["anonymous", "token"])
def test_what_a_peer_gives_is_no_consent_of_the_registry(fleet: Fleet, login: tuple[str, ...]) -> None:
    """A peer may have other accounts and settings, imported images, or a registry that is down."""
    fleet.world.servers[REGISTRY] = lambda _: REFUSED
    answers = [fleet.house.get(VIRTUAL, PATH, *login) for _ in range(2)]
    assert [each.status for each in answers] == [200, 403]
    assert fleet.asked()[0] != REGISTRY


def test_a_peer_does_not_lead_to_another_server(fleet: Fleet) -> None:
    """It would be asked for the peer's host, and by way of a mirror's own network."""
    fleet.from_peer = [Reply(307, headers=(("Location", f"https://{ELSEWHERE}/blob"),)), Reply(200, BLOB)]
    assert fleet.house.get(VIRTUAL, PATH, LOGIN).body == BLOB
    assert fleet.asked() == [VIRTUAL, REGISTRY]


def test_the_rest_of_a_blob_that_a_peer_stops_sending_comes_from_the_registry(fleet: Fleet) -> None:
    """After a few seconds: a peer that hangs must not hang the others."""
    fleet.from_peer = [Reply(200, BLOB).cut(len(BLOB) // 2, end="stalled")]
    connection = fleet.house.connect().ask("GET", VIRTUAL, PATH, LOGIN)
    fleet.settle_until(lambda: VIRTUAL in fleet.asked())
    fleet.house.pass_time(STALL_TIMEOUT - 0.1)
    fleet.house.settle()
    assert fleet.asked() == [VIRTUAL]
    fleet.house.pass_time(0.1)
    fleet.settle_until(lambda: bool(connection.answers) and connection.answer.whole)
    assert connection.answer.body == BLOB
    (rest,) = fleet.world.asked(REGISTRY)
    assert rest.header("Range") == f"bytes={len(BLOB) // 2}-"


@pytest.mark.parametrize(
    ("host", "path", "login", "seen"),
    [
        (VIRTUAL, PATH, (LOGIN,), f"http://{VIRTUAL}{PATH}"),
        (VIRTUAL, PATH, (), f"http://{DOMAIN}{OWN_PATH}"),
        (DOMAIN, OWN_PATH, (), f"http://{DOMAIN}{OWN_PATH}"),
    ],
)
def test_a_request_names_its_registry(
    fleet: Fleet, host: str, path: str, login: tuple[str, ...], seen: str
) -> None:
    """A peer with other hosts, whose default is another registry, refuses it instead of asking that one."""
    fleet.house.get(host, path, *login)
    assert [each.url for each in fleet.world.seen] == [f"{seen}?ns={REGISTRY}"]


def test_a_login_to_the_mirrors_reaches_the_peer_and_no_other_server(members: Fleet) -> None:
    """It is a token of the mirror itself, and not the client's password."""
    members.from_peer = [Reply(307, headers=(("Location", f"https://{ELSEWHERE}/blob"),))]
    assert members.house.get(DOMAIN, OWN_PATH, f"Authorization: {basic('alice', 's3cret')}").body == BLOB
    to_peer, to_registry = members.world.seen
    assert to_peer.host == DOMAIN
    assert to_peer.authorization is not None
    scheme, _, token = to_peer.authorization.partition(" ")
    assert (scheme, jwt.decode(token, options={"verify_signature": False})["sub"]) == ("Bearer", "dockmirror")
    assert (to_registry.host, to_registry.authorization) == (REGISTRY, None)


def test_the_rate_limit_of_a_peer_counts_for_all_tokens(members: Fleet) -> None:
    """Each request has a new one."""
    members.from_peer = [Reply(429)]
    for blob in (BLOB, BLOB[1:]):
        members.world.servers[REGISTRY] = lambda _, blob=blob: Reply(200, blob)  # type: ignore[misc]
        path = OWN_PATH.replace(digest(BLOB), digest(blob))
        assert members.house.get(DOMAIN, path, f"Authorization: {basic('alice', 's3cret')}").body == blob
        members.house.pass_time(2.0)
    assert members.asked() == [DOMAIN, REGISTRY, REGISTRY]


@pytest.mark.parametrize(
    "address",
    ["http://peer.example:80", "https://peer.example:443", "https://PEER.example/", "http://[::1]:8080"],
)
def test_a_peer_is_asked_however_its_address_is_written(tmp_path: Path, address: str) -> None:
    fleet = Fleet(tmp_path, address)
    with closing(fleet.house):
        assert fleet.house.get(VIRTUAL, PATH, LOGIN).body == BLOB
    assert fleet.asked() == [VIRTUAL]


def test_credentials_do_not_reach_another_registry_through_a_peer_with_other_hosts(fleet: Fleet) -> None:
    """The peer's default upstream is asked for any unknown host, but not for another registry."""
    other = World({"other.example": lambda _: Reply(200, BLOB)})
    peer = House(
        other, domain="old.example", default="other", upstreams={"other": {"url": "https://other.example"}}
    )
    fleet.world.servers[VIRTUAL] = serve(peer)
    assert fleet.house.get(VIRTUAL, PATH, LOGIN).body == BLOB
    assert fleet.asked() == [VIRTUAL, REGISTRY]
    assert other.seen == []
