"""One question to an upstream, until it consents or refuses."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unauthorized, Unavailable
from dockmirror.oci.media import EVERYTHING
from dockmirror.oci.ranges import Range
from dockmirror.upstream.registry_client import HEADS_AVOIDED, RegistryClient
from dockmirror.upstream.token_relay import ChallengeCache
from tests.fake_registry import Registry, Tokens, error
from tests.fakes import Reply, World
from tests.stacks import asked, client, now

HOST, CDN = "registry.example", "cdn.example"
BLOB = f"/v2/a/blobs/sha256:{'0' * 64}"
MANIFEST = "/v2/a/manifests/latest"
BEARER = Credentials.bearer("t0ken")
CONNECTION = {"accept-encoding": ["identity"], "connection": ["close"], "host": [HOST]}


@pytest.fixture
def world() -> World:
    """A registry, and a network that delivers its blobs."""
    world = World()
    world.reply(HOST, BLOB, Reply(307, b"", (("Location", f"https://{CDN}/blob"),)))
    world.reply(CDN, "/blob", Reply(200, b"blob"))
    return world


@pytest.fixture
def handshake(world: World) -> ChallengeCache:
    """What the registry demands."""
    return ChallengeCache(client(world.agent), f"https://{HOST}", Clock())


@pytest.fixture
def clock() -> Clock:
    """By which it is remembered that HEADs are of no use."""
    return Clock()


@pytest.fixture
def asking(world: World, handshake: ChallengeCache, clock: Clock) -> RegistryClient:
    """What asks the registry."""
    return RegistryClient(f"https://{HOST}", client(world.agent), handshake, clock)


@pytest.mark.parametrize(
    ("path", "details", "url", "headers"),
    [
        (MANIFEST, {"accept": ("a/b", "c/d, e/f")}, MANIFEST, {"accept": ["a/b", "c/d, e/f"]}),
        (MANIFEST, {"if_none_match": '"x"', "accept": ("a/b",)}, MANIFEST,
         {"accept": ["a/b"], "if-none-match": ['"x"']}),
        (MANIFEST, {"credentials": BEARER, "accept": ("a/b",)}, MANIFEST,
         {"accept": ["a/b"], "authorization": ["Bearer t0ken"]}),
        (MANIFEST, {"range": Range.starting_at(1), "accept": ("a/b",)}, MANIFEST, {"accept": ["a/b"]}),
        (BLOB, {"range": Range.starting_at(1, 2)}, BLOB, {"range": ["bytes=1-2"]}),
        (BLOB, {"range": Range.starting_at(1, 2), "head": True}, BLOB, {}),
        ("/v2/", {"credentials": BEARER}, "/v2/", {"authorization": ["Bearer t0ken"]}),
        ("/v2/a/tags/list", {"query": (("n", "1"), ("last", "x/y"))}, "/v2/a/tags/list?n=1&last=x%2Fy", {}),
    ],
)  # fmt: skip
def test_what_is_sent(
    world: World,
    asking: RegistryClient,
    path: str,
    details: dict[str, Any],
    url: str,
    headers: dict[str, list[str]],
) -> None:
    """What the request means, and nothing else; only a GET of a blob has ranges."""
    world.reply(HOST, path, Reply(200))
    now(asking.ask(asked(path, **details)))
    (seen,) = world.seen
    assert seen.method == ("HEAD" if details.get("head") else "GET")
    assert seen.url == f"https://{HOST}{url}"
    assert seen.headers == {**CONNECTION, **headers}


@pytest.mark.parametrize("accept", [(), ("*/*",), ("a/b, */*;q=0.1",)])
def test_who_takes_any_manifest_is_given_the_newest_kind(
    world: World, asking: RegistryClient, accept: tuple[str, ...]
) -> None:
    """Asked so plainly, registries answer with their oldest; what the client wrote follows."""
    world.reply(HOST, MANIFEST, Reply(200))
    now(asking.ask(asked(MANIFEST, accept=accept)))
    assert world.seen[0].headers["accept"] == [", ".join(EVERYTHING), *accept]


@pytest.mark.parametrize("status", [200, 206, 304])
def test_answers(world: World, asking: RegistryClient, status: int) -> None:
    """After a redirect, too."""
    world.reply(CDN, "/blob", Reply(status))
    assert now(asking.ask(asked(BLOB, credentials=BEARER))).code == status
    assert [seen.authorization for seen in world.seen] == ["Bearer t0ken", None]


@pytest.mark.parametrize(
    ("path", "reply", "row"),
    [
        (BLOB, Reply(404), BlobUnknown),
        (MANIFEST, Reply(404, b"<html>"), ManifestUnknown),
        (MANIFEST, error(403, "DENIED"), Denied),
        (BLOB, Reply(503), Unavailable),
        (BLOB, Reply(203), Unavailable),
        (BLOB, Reply(204), Unavailable),
    ],
)
def test_refusals(
    world: World, asking: RegistryClient, path: str, reply: Reply, row: type[Exception]
) -> None:
    """Are raised as what they mean for what was asked."""
    world.reply(HOST, path, reply)
    with pytest.raises(row):
        now(asking.ask(asked(path)))


def test_what_a_401_demands_is_learnt(
    world: World, asking: RegistryClient, handshake: ChallengeCache
) -> None:
    """The upstream's ``/v2/`` may demand nothing (gcr.io's public repositories, and its private ones)."""
    demand = ("WWW-Authenticate", 'Bearer realm="https://registry.example/token"')
    world.reply(HOST, "/v2/", Reply(200, b"{}"))
    world.reply(HOST, MANIFEST, error(401, "UNAUTHORIZED").having(demand))
    with pytest.raises(Unauthorized) as raised:
        now(asking.ask(asked(MANIFEST)))
    assert [now(handshake.token_service())] == list(raised.value.challenges)


class TestElsewhere:
    """What the hosts say that an upstream redirects to."""

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_signed_address_that_has_ended(self, world: World, asking: RegistryClient, status: int) -> None:
        """Is asked for anew, once, with the client's credentials for the registry itself."""
        world.reply(CDN, "/blob", Reply(status, b"<Error>"), Reply(200, b"blob"))
        assert now(asking.ask(asked(BLOB, credentials=BEARER))).code == 200
        assert [(s.host, s.authorization) for s in world.seen] == [(HOST, "Bearer t0ken"), (CDN, None)] * 2

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_there_is_not_the_registrys(
        self, world: World, asking: RegistryClient, status: int
    ) -> None:
        """502: a client that was told to log in would log in for nothing."""
        world.reply(CDN, "/blob", Reply(status, b"<Error>"))
        with pytest.raises(Unavailable, match="where the upstream redirects to, it was refused") as raised:
            now(asking.ask(asked(BLOB)))
        assert (raised.value.status, raised.value.upstream_status) == (502, status)
        assert len(world.asked(CDN)) == 2

    def test_the_refusals_body_is_not_waited_for(self, world: World, asking: RegistryClient) -> None:
        """Its connection is closed, where it is long."""
        world.reply(CDN, "/blob", Reply(403, bytes(100_000)).cut(50, end="stalled"), Reply(200))
        assert now(asking.ask(asked(BLOB))).code == 200
        world.agent.flush()
        assert [seen.host for seen in world.abandoned] == [CDN]

    def test_what_is_not_there_is_unknown(self, world: World, asking: RegistryClient) -> None:
        """As if the registry itself had said so."""
        world.reply(CDN, "/blob", Reply(404, b"<Error>NoSuchKey</Error>"))
        with pytest.raises(BlobUnknown):
            now(asking.ask(asked(BLOB)))

    def test_another_registry_is_answered_anonymously(self, world: World, asking: RegistryClient) -> None:
        """With its own token service; registry.k8s.io leads to such."""
        other = Tokens("https://auth.pkg.dev/token", "pkg.dev")
        there = Registry(other)
        there.push("images/a", "latest")
        world.servers |= {"europe-docker.pkg.dev": there, "auth.pkg.dev": other}
        leads = ("Location", "https://europe-docker.pkg.dev/v2/images/a/manifests/latest")
        world.reply(HOST, MANIFEST, Reply(307, b"", (leads,)))
        response = now(asking.ask(asked(MANIFEST, credentials=BEARER, accept=("a/b",))))
        assert response.code == 200
        assert [(seen.host, seen.authorization) for seen in world.seen] == [
            (HOST, "Bearer t0ken"),
            ("europe-docker.pkg.dev", None),
            ("auth.pkg.dev", None),
            ("europe-docker.pkg.dev", "Bearer t0ken-0-anonymous"),
        ]
        assert world.asked("auth.pkg.dev")[0].query[1] == ("scope", "repository:images/a:pull")
        assert world.seen[-1].header("Accept") == "a/b"

    def test_another_registry_that_still_refuses(self, world: World, asking: RegistryClient) -> None:
        """Is not asked again and again, and what it demands is not learnt as the upstream's."""
        other = Tokens("https://auth.pkg.dev/token", "pkg.dev", private=["a"])
        world.servers |= {"pkg.dev": Registry(other), "auth.pkg.dev": other}
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable):
            now(asking.ask(asked(MANIFEST)))
        assert len(world.asked("pkg.dev")) == 2

    @pytest.mark.parametrize("reply", [error(401, "UNAUTHORIZED"), error(403, "DENIED"), Reply(404)])
    def test_another_registry_that_gives_nobody_a_token(
        self, world: World, asking: RegistryClient, handshake: ChallengeCache, reply: Reply
    ) -> None:
        """Is as one that refuses: to log in, or to ask for another name, would be for nothing."""
        demand = ("WWW-Authenticate", 'Bearer realm="https://auth.pkg.dev/token"')
        world.reply("auth.pkg.dev", "/token", reply.having(("WWW-Authenticate", 'Basic realm="x"')))
        world.reply("pkg.dev", MANIFEST, error(401, "UNAUTHORIZED").having(demand))
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable, match="where the upstream redirects to, it was refused") as raised:
            now(asking.ask(asked(MANIFEST)))
        told = raised.value
        assert (told.status, told.upstream_status, told.challenges) == (502, reply.status, ())
        assert told.from_other_host

    def test_another_registrys_token_service_that_is_down(self, world: World, asking: RegistryClient) -> None:
        """Is told of as what it is."""
        demand = ("WWW-Authenticate", 'Bearer realm="https://auth.pkg.dev/token"')
        world.reply("auth.pkg.dev", "/token", Reply(503, b"", (("Retry-After", "7"),)))
        world.reply("pkg.dev", MANIFEST, error(401, "UNAUTHORIZED").having(demand))
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable) as raised:
            now(asking.ask(asked(MANIFEST)))
        assert (raised.value.status, raised.value.retry_after, raised.value.from_other_host) == (
            503,
            "7",
            True,
        )


class TestHead:
    """A HEAD, which only the registry itself may answer."""

    @pytest.mark.parametrize("status", [200, 304])
    def test_the_registrys_own_answer(self, world: World, asking: RegistryClient, status: int) -> None:
        """It is given as it came."""
        world.reply(HOST, BLOB, Reply(status))
        response = now(asking.head(asked(BLOB, head=True)))
        assert response is not None
        assert response.code == status
        assert [(seen.host, seen.method) for seen in world.seen] == [(HOST, "HEAD")]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 405])
    def test_a_redirect_is_no_answer(
        self, world: World, asking: RegistryClient, clock: Clock, status: int
    ) -> None:
        """It is not followed, and no HEAD for that kind of content is sent for an hour."""
        world.reply(HOST, BLOB, Reply(status, b"", (("Location", f"https://{CDN}/blob"),)))
        world.reply(HOST, MANIFEST, Reply(200))
        for _ in range(3):
            assert now(asking.head(asked(BLOB, head=True))) is None
        assert [(seen.host, seen.path) for seen in world.seen] == [(HOST, BLOB)]
        assert now(asking.head(asked(MANIFEST, head=True))) is not None
        clock.advance(HEADS_AVOIDED - 1)
        assert now(asking.head(asked(BLOB, head=True))) is None
        clock.advance(1)
        world.reply(HOST, BLOB, Reply(200))
        assert now(asking.head(asked(BLOB, head=True))) is not None

    @pytest.mark.parametrize("status", [401, 404, 500])
    def test_a_refusal(self, world: World, asking: RegistryClient, status: int) -> None:
        """It is raised."""
        world.reply(HOST, BLOB, Reply(status))
        with pytest.raises((Unauthorized, BlobUnknown, Unavailable)):
            now(asking.head(asked(BLOB, head=True)))

    def test_what_a_401_demands_is_learnt(
        self, world: World, asking: RegistryClient, handshake: ChallengeCache
    ) -> None:
        """A mirror that has just started may be asked first for what it holds, and its client for a token."""
        demand = ("WWW-Authenticate", 'Bearer realm="https://registry.example/token"')
        world.reply(HOST, "/v2/", Reply(200, b"{}"))
        world.reply(HOST, BLOB, error(401, "UNAUTHORIZED").having(demand))
        with pytest.raises(Unauthorized) as raised:
            now(asking.head(asked(BLOB, head=True)))
        assert [now(handshake.token_service())] == list(raised.value.challenges)
