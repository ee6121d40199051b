"""Registry requests to an upstream, until it accepts or refuses."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unauthorized, Unavailable
from dockmirror.oci.media import EVERYTHING
from dockmirror.oci.ranges import Range
from dockmirror.upstream.registry_client import HEADS_AVOIDED_TTL, RegistryClient
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
    """Return a registry, and a network that delivers its blobs."""
    world = World()
    world.reply(HOST, BLOB, Reply(307, b"", (("Location", f"https://{CDN}/blob"),)))
    world.reply(CDN, "/blob", Reply(200, b"blob"))
    return world


@pytest.fixture
def challenge_cache(world: World) -> ChallengeCache:
    """Return the registry's challenges."""
    return ChallengeCache(client(world.agent), f"https://{HOST}", Clock())


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the remembered HEADs."""
    return Clock()


@pytest.fixture
def requester(world: World, challenge_cache: ChallengeCache, clock: Clock) -> RegistryClient:
    """Return the registry's client."""
    return RegistryClient(f"https://{HOST}", client(world.agent), challenge_cache, clock)


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
def test_only_headers_that_the_request_needs_are_sent(
    world: World,
    requester: RegistryClient,
    path: str,
    details: dict[str, Any],
    url: str,
    headers: dict[str, list[str]],
) -> None:
    """Only a GET of a blob has ranges."""
    world.reply(HOST, path, Reply(200))
    now(requester.send(asked(path, **details)))
    (seen,) = world.seen
    assert seen.method == ("HEAD" if details.get("head") else "GET")
    assert seen.url == f"https://{HOST}{url}"
    assert seen.headers == {**CONNECTION, **headers}


@pytest.mark.parametrize("accept", [(), ("*/*",), ("a/b, */*;q=0.1",)])
def test_a_client_of_any_manifest_gets_the_newest_kind(
    world: World, requester: RegistryClient, accept: tuple[str, ...]
) -> None:
    """Without ``Accept`` registries send their oldest; the client's own values follow."""
    world.reply(HOST, MANIFEST, Reply(200))
    now(requester.send(asked(MANIFEST, accept=accept)))
    assert world.seen[0].headers["accept"] == [", ".join(EVERYTHING), *accept]


@pytest.mark.parametrize("status", [200, 206, 304])
def test_a_success_is_returned(world: World, requester: RegistryClient, status: int) -> None:
    """After a redirect, too."""
    world.reply(CDN, "/blob", Reply(status))
    assert now(requester.send(asked(BLOB, credentials=BEARER))).code == status
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
def test_a_refusal_is_raised(
    world: World, requester: RegistryClient, path: str, reply: Reply, row: type[Exception]
) -> None:
    """Its error suits the request's target."""
    world.reply(HOST, path, reply)
    with pytest.raises(row):
        now(requester.send(asked(path)))


def test_the_challenge_of_a_401_is_remembered(
    world: World, requester: RegistryClient, challenge_cache: ChallengeCache
) -> None:
    """The upstream's ``/v2/`` may demand nothing (gcr.io's public repositories, and its private ones)."""
    demand = ("WWW-Authenticate", 'Bearer realm="https://registry.example/token"')
    world.reply(HOST, "/v2/", Reply(200, b"{}"))
    world.reply(HOST, MANIFEST, error(401, "UNAUTHORIZED").having(demand))
    with pytest.raises(Unauthorized) as raised:
        now(requester.send(asked(MANIFEST)))
    assert [now(challenge_cache.find_token_service())] == list(raised.value.challenges)


class TestOtherHost:
    """Responses of the hosts that an upstream redirects to."""

    @pytest.mark.parametrize("status", [401, 403])
    def test_an_expired_signed_url_is_requested_anew(
        self, world: World, requester: RegistryClient, status: int
    ) -> None:
        """Once, with the client's credentials for the registry itself."""
        world.reply(CDN, "/blob", Reply(status, b"<Error>"), Reply(200, b"blob"))
        assert now(requester.send(asked(BLOB, credentials=BEARER))).code == 200
        assert [(s.host, s.authorization) for s in world.seen] == [(HOST, "Bearer t0ken"), (CDN, None)] * 2

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_by_another_host_is_502(
        self, world: World, requester: RegistryClient, status: int
    ) -> None:
        """A client would log in for nothing."""
        world.reply(CDN, "/blob", Reply(status, b"<Error>"))
        with pytest.raises(Unavailable, match="the server that the upstream redirects to refused") as raised:
            now(requester.send(asked(BLOB)))
        assert (raised.value.status, raised.value.upstream_status) == (502, status)
        assert len(world.asked(CDN)) == 2

    def test_the_body_of_a_refusal_is_not_waited_for(self, world: World, requester: RegistryClient) -> None:
        world.reply(CDN, "/blob", Reply(403, bytes(100_000)).cut(50, end="stalled"), Reply(200))
        assert now(requester.send(asked(BLOB))).code == 200
        world.agent.flush()
        assert [seen.host for seen in world.abandoned] == [CDN]

    def test_a_404_of_another_host_is_unknown(self, world: World, requester: RegistryClient) -> None:
        """As if the registry itself had said so."""
        world.reply(CDN, "/blob", Reply(404, b"<Error>NoSuchKey</Error>"))
        with pytest.raises(BlobUnknown):
            now(requester.send(asked(BLOB)))

    def test_another_registry_gets_an_anonymous_token(self, world: World, requester: RegistryClient) -> None:
        """It has its own token service; registry.k8s.io redirects to such."""
        other = Tokens("https://auth.pkg.dev/token", "pkg.dev")
        there = Registry(other)
        there.push("images/a", "latest")
        world.servers |= {"europe-docker.pkg.dev": there, "auth.pkg.dev": other}
        leads = ("Location", "https://europe-docker.pkg.dev/v2/images/a/manifests/latest")
        world.reply(HOST, MANIFEST, Reply(307, b"", (leads,)))
        response = now(requester.send(asked(MANIFEST, credentials=BEARER, accept=("a/b",))))
        assert response.code == 200
        assert [(seen.host, seen.authorization) for seen in world.seen] == [
            (HOST, "Bearer t0ken"),
            ("europe-docker.pkg.dev", None),
            ("auth.pkg.dev", None),
            ("europe-docker.pkg.dev", "Bearer t0ken-0-anonymous"),
        ]
        assert world.asked("auth.pkg.dev")[0].query[1] == ("scope", "repository:images/a:pull")
        assert world.seen[-1].header("Accept") == "a/b"

    def test_another_registry_that_still_refuses_is_not_asked_again(
        self, world: World, requester: RegistryClient
    ) -> None:
        """Its challenges are not remembered as the upstream's."""
        other = Tokens("https://auth.pkg.dev/token", "pkg.dev", private=["a"])
        world.servers |= {"pkg.dev": Registry(other), "auth.pkg.dev": other}
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable):
            now(requester.send(asked(MANIFEST)))
        assert len(world.asked("pkg.dev")) == 2

    @pytest.mark.parametrize("reply", [error(401, "UNAUTHORIZED"), error(403, "DENIED"), Reply(404)])
    def test_another_registry_without_anonymous_tokens_refuses(
        self, world: World, requester: RegistryClient, challenge_cache: ChallengeCache, reply: Reply
    ) -> None:
        """A login, or another name, would not help."""
        demand = ("WWW-Authenticate", 'Bearer realm="https://auth.pkg.dev/token"')
        world.reply("auth.pkg.dev", "/token", reply.having(("WWW-Authenticate", 'Basic realm="x"')))
        world.reply("pkg.dev", MANIFEST, error(401, "UNAUTHORIZED").having(demand))
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable, match="the server that the upstream redirects to refused") as raised:
            now(requester.send(asked(MANIFEST)))
        wrapped = raised.value
        assert (wrapped.status, wrapped.upstream_status, wrapped.challenges) == (502, reply.status, ())
        assert wrapped.from_other_host

    def test_an_outage_of_another_registrys_token_service_is_reported(
        self, world: World, requester: RegistryClient
    ) -> None:
        demand = ("WWW-Authenticate", 'Bearer realm="https://auth.pkg.dev/token"')
        world.reply("auth.pkg.dev", "/token", Reply(503, b"", (("Retry-After", "7"),)))
        world.reply("pkg.dev", MANIFEST, error(401, "UNAUTHORIZED").having(demand))
        world.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{MANIFEST}"),)))
        with pytest.raises(Unavailable) as raised:
            now(requester.send(asked(MANIFEST)))
        outage = raised.value
        assert (outage.status, outage.retry_after, outage.from_other_host) == (503, "7", True)


class TestHead:
    """HEAD requests, which only the registry itself may answer."""

    @pytest.mark.parametrize("status", [200, 304])
    def test_the_registrys_own_response_is_returned(
        self, world: World, requester: RegistryClient, status: int
    ) -> None:
        world.reply(HOST, BLOB, Reply(status))
        response = now(requester.head(asked(BLOB, head=True)))
        assert response is not None
        assert response.code == status
        assert [(seen.host, seen.method) for seen in world.seen] == [(HOST, "HEAD")]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 405])
    def test_a_redirect_is_no_answer(
        self, world: World, requester: RegistryClient, clock: Clock, status: int
    ) -> None:
        """It is not followed, and no HEAD for that kind of content is sent for an hour."""
        world.reply(HOST, BLOB, Reply(status, b"", (("Location", f"https://{CDN}/blob"),)))
        world.reply(HOST, MANIFEST, Reply(200))
        for _ in range(3):
            assert now(requester.head(asked(BLOB, head=True))) is None
        assert [(seen.host, seen.path) for seen in world.seen] == [(HOST, BLOB)]
        assert now(requester.head(asked(MANIFEST, head=True))) is not None
        clock.advance(HEADS_AVOIDED_TTL - 1)
        assert now(requester.head(asked(BLOB, head=True))) is None
        clock.advance(1)
        world.reply(HOST, BLOB, Reply(200))
        assert now(requester.head(asked(BLOB, head=True))) is not None

    @pytest.mark.parametrize("status", [401, 404, 500])
    def test_a_refusal_is_raised(self, world: World, requester: RegistryClient, status: int) -> None:
        world.reply(HOST, BLOB, Reply(status))
        with pytest.raises((Unauthorized, BlobUnknown, Unavailable)):
            now(requester.head(asked(BLOB, head=True)))

    def test_the_challenge_of_a_401_is_remembered(
        self, world: World, requester: RegistryClient, challenge_cache: ChallengeCache
    ) -> None:
        """A mirror that has just started may be asked first for cached content, and then for a token."""
        demand = ("WWW-Authenticate", 'Bearer realm="https://registry.example/token"')
        world.reply(HOST, "/v2/", Reply(200, b"{}"))
        world.reply(HOST, BLOB, error(401, "UNAUTHORIZED").having(demand))
        with pytest.raises(Unauthorized) as raised:
            now(requester.head(asked(BLOB, head=True)))
        assert [now(challenge_cache.find_token_service())] == list(raised.value.challenges)
