"""A branch's mirror in front of a region's, in front of the headquarters', in front of a registry."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define
from twisted.internet.task import Clock

from ..chained import CachedMirror, serve
from ..fake_registry import MANIFEST, Registry, Tokens, basic, digest, error
from ..fakes import Reply, Seen
from ..house import Answer
from ..shelf import image

USER = "alice", "s3cret"
NAME, PRIVATE = "/v2/library/busybox", "/v2/alice/private"
TAG = f"{NAME}/manifests/latest"
LAYER = bytes(range(256)) * 1000
IMAGE = image(LAYER)
ACCEPT = f"Accept: {MANIFEST}"
TTL = 300.0


@define
class Hub:
    """The registry behind the chain.

    :ivar refusal: what it answers instead.
    """

    registry: Registry
    tokens: Tokens
    refusal: Reply | None = None

    def __call__(self, seen: Seen) -> Reply:
        if seen.path == "/token":
            return self.tokens(seen)
        if self.refusal is not None:
            return self.refusal
        reply = self.registry(seen)
        if "/manifests/" in seen.path and reply.status == 200:
            return reply.having(("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "76"))
        return reply


class Chain:
    """Three mirrors, from the client's on."""

    def __init__(self) -> None:
        tokens = Tokens("https://hub.example/token", "hub", dict([USER]), ["alice/private"])
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)
        self.hub = Hub(Registry(tokens), tokens)
        head = CachedMirror("head", self.clock, "hub.example", self.hub, TTL)
        region = CachedMirror("region", self.clock, head.host, serve(head), TTL)
        branch = CachedMirror("branch", self.clock, region.host, serve(region), TTL)
        self.mirrors: Sequence[CachedMirror] = (branch, region, head)
        self.branch = branch
        self.hub.registry.push("library/busybox", "latest", IMAGE)
        self.blob = self.hub.registry.add("library/busybox", LAYER)
        self.hub.registry.push("alice/private", "latest", IMAGE)

    def pull(self, path: str, *headers: str, login: str | None = None) -> Answer:
        """Return the branch's answer to a client that gets a token first."""
        name = path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        headers = (ACCEPT, *headers)
        answer = self.branch.ask("GET", path, *headers)
        if answer.status != 401:
            return answer
        authorization = (f"Authorization: {login}",) if login else ()
        given = self.branch.ask("GET", f"/v2/auth?scope=repository:{name}:pull", *authorization)
        if given.status != 200:
            return given
        return self.branch.ask("GET", path, *headers, f"Authorization: Bearer {given.json['token']}")

    def asked(self) -> list[int]:
        """Return how many requests each mirror's upstream got for contents since the last call."""
        return [sum("/manifests/" in line or "/blobs/" in line for line in m.asked()) for m in self.mirrors]


@pytest.fixture
def chain() -> Chain:
    return Chain()


def members(answer: Answer) -> list[str]:
    """Return the outcome at each mirror, from the registry's on."""
    assert answer.status == 200, answer.body
    return [
        member.removeprefix("dockmirror; ")
        for line in answer.lines("Cache-Status")
        for member in line.split(", ")
    ]


def test_each_mirror_adds_its_cache_status(chain: Chain) -> None:
    """The nearest to the registry comes first (RFC 9211, 2); what is held has the holder's own only."""
    for path, data in ((TAG, IMAGE), (chain.blob, LAYER)):
        answer = chain.pull(path)
        assert answer.body == data
        assert members(answer) == ["fwd=miss; stored"] * 3
        assert members(chain.pull(path)) == ["hit"]


def test_a_held_image_is_confirmed_by_the_next_mirror_that_knows(chain: Chain) -> None:
    chain.pull(TAG)
    chain.clock.advance(TTL + 1)
    assert members(chain.pull(TAG)) == ["fwd=stale; detail=confirmed"] * 3


def test_the_age_counts_from_the_registry(chain: Chain) -> None:
    """The tag is no older than its lifetime at one mirror, although three serve it without asking."""
    chain.mirrors[2].ask("GET", TAG, ACCEPT)
    chain.clock.advance(200)
    first = chain.pull(TAG)
    assert (first["Age"], members(first)[0]) == ("200", "hit")
    chain.clock.advance(50)
    kept = chain.pull(TAG)
    assert (kept["Age"], members(kept)) == ("250", ["hit"])
    new = move_tag(chain)
    chain.clock.advance(51)
    moved = chain.pull(TAG)
    assert (moved.body, moved["Age"]) == (new, "0")


def test_the_age_of_a_confirmed_tag_counts_from_the_registry(chain: Chain) -> None:
    chain.pull(TAG)
    chain.clock.advance(TTL + 1)
    region = chain.mirrors[1]
    region.ask("HEAD", TAG, ACCEPT)
    chain.clock.advance(10)
    answer = chain.pull(TAG)
    assert (answer["Age"], members(answer)) == ("10", ["hit", "fwd=stale; detail=confirmed"])
    chain.clock.advance(5)
    assert chain.pull(TAG)["Age"] == "15"


def test_the_age_of_a_list_counts_from_the_registry(chain: Chain) -> None:
    path = f"{NAME}/tags/list"
    chain.mirrors[2].ask("GET", path)
    chain.clock.advance(200)
    for age in ("200", "250"):
        assert chain.pull(path)["Age"] == age
        chain.clock.advance(50)
    chain.clock.advance(1)
    assert chain.pull(path)["Age"] is None


def test_no_cache_reaches_the_registry(chain: Chain) -> None:
    """A client that wants the tag as it is now gets it from the registry itself."""
    chain.pull(TAG)
    new = move_tag(chain)
    assert chain.pull(TAG).body == IMAGE
    answer = chain.pull(TAG, "Cache-Control: no-cache")
    assert answer.body == new
    assert "hit" not in members(answer)
    assert members(chain.pull(TAG)) == ["hit"]


def test_a_stale_answer_says_so_at_the_end_of_the_chain(chain: Chain) -> None:
    """It counts as no confirmation: while the registry is down each mirror asks the next one."""
    for path in (TAG, chain.blob):
        chain.pull(path)
    chain.hub.refusal = error(503, "UNAVAILABLE", "maintenance")
    chain.clock.advance(TTL + 1)
    for age in (TTL + 1, TTL + 11):
        answer = chain.pull(TAG)
        assert answer.body == IMAGE
        assert members(answer) == ["fwd=stale; detail=upstream", *["fwd=stale; detail=confirmed"] * 2]
        assert answer["Warning"] == '299 - "served stale: the upstream answered 503"'
        assert answer["Age"] == str(int(age))
        chain.clock.advance(10)
    chain.hub.refusal = None
    chain.clock.advance(120)
    answer = chain.pull(TAG)
    assert (answer["Warning"], answer["Age"]) == (None, "0")


def test_the_registrys_quota_is_reported_at_the_end_of_the_chain(chain: Chain) -> None:
    assert chain.pull(TAG)["RateLimit-Remaining"] == "76"
    chain.clock.advance(TTL + 1)
    assert chain.pull(TAG)["RateLimit-Remaining"] == "76"


def test_a_limit_is_reported_at_the_end_of_the_chain(chain: Chain) -> None:
    """Each mirror waits as long as the registry says, and asks nobody meanwhile."""
    chain.hub.refusal = error(429, "TOOMANYREQUESTS", "slow down", ("Retry-After", "40"))
    answer = chain.pull(TAG)
    assert (answer.error, answer["Retry-After"]) == ((429, "TOOMANYREQUESTS"), "40")
    chain.asked()
    chain.clock.advance(10)
    answer = chain.pull(TAG)
    assert (answer.status, answer["Retry-After"]) == (429, "30")
    assert chain.asked() == [0, 0, 0]


def test_what_is_private_stays_so(chain: Chain) -> None:
    """Being held by every mirror grants nobody access."""
    path = f"{PRIVATE}/manifests/latest"
    assert chain.pull(path, login=basic(*USER)).body == IMAGE
    assert chain.pull(path).status == 401
    assert chain.pull(path, login=basic(USER[0], "wrong")).status == 401
    by_digest = f"{PRIVATE}/manifests/{digest(IMAGE)}"
    assert chain.pull(by_digest).status == 401
    assert chain.pull(by_digest, login=basic(*USER)).body == IMAGE


def move_tag(chain: Chain) -> bytes:
    """Let the tag name another image, and return that."""
    new = image(LAYER, LAYER)
    chain.hub.registry.push("library/busybox", "latest", new)
    return new
