"""Registry requests to an upstream, until it accepts or refuses."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.web.iweb import IResponse

from dockmirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unauthorized, Unavailable
from dockmirror.oci.header_fields import Range
from dockmirror.oci.media import EVERYTHING
from dockmirror.oci.token import Credentials
from dockmirror.upstream.registry_client import HEADS_AVOIDED_TTL, ChallengeCache, RegistryClient
from tests.fake_registry import Registry, Tokens, error
from tests.fakes import Reply, Seen, World
from tests.stacks import asked, client, now

HOST, CDN = "registry.example", "cdn.example"
BLOB = f"/v2/a/blobs/sha256:{'0' * 64}"
MANIFEST = "/v2/a/manifests/latest"
BEARER = Credentials.bearer("t0ken")
JSON = (("Content-Type", "application/json"),)
CONNECTION = {"accept-encoding": ["identity"], "connection": ["close"], "host": [HOST]}


class Upstream:
    """A registry, a network that delivers its blobs, and its client.

    :ivar clock: the clock of the remembered HEADs.
    """

    def __init__(self) -> None:
        self.world, self.clock = World(), Clock()
        self.reply = self.world.reply
        self.reply(HOST, BLOB, Reply(307, b"", (("Location", f"https://{CDN}/blob"),)))
        self.reply(CDN, "/blob", Reply(200, b"blob"))
        servers = client(self.world.agent)
        self.challenges = ChallengeCache(servers, f"https://{HOST}", Clock())
        self.client = RegistryClient(f"https://{HOST}", servers, self.challenges, self.clock)

    @property
    def seen(self) -> list[Seen]:
        return self.world.seen

    def send(self, path: str, **details: Any) -> IResponse:
        return now(self.client.send(asked(path, **details)))

    def head(self, path: str, **details: Any) -> IResponse | None:
        return now(self.client.head(asked(path, head=True, **details)))


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


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
    upstream: Upstream, path: str, details: dict[str, Any], url: str, headers: dict[str, list[str]]
) -> None:
    """Only a GET of a blob has ranges."""
    upstream.reply(HOST, path, Reply(200))
    upstream.send(path, **details)
    (seen,) = upstream.seen
    assert seen.method == ("HEAD" if details.get("head") else "GET")
    assert seen.url == f"https://{HOST}{url}"
    assert seen.headers == {**CONNECTION, **headers}


@pytest.mark.parametrize("accept", [(), ("*/*",), ("a/b, */*;q=0.1",)])
def test_a_client_of_any_manifest_gets_the_newest_kind(upstream: Upstream, accept: tuple[str, ...]) -> None:
    """Without ``Accept`` registries send their oldest; the client's own values follow."""
    upstream.reply(HOST, MANIFEST, Reply(200))
    upstream.send(MANIFEST, accept=accept)
    assert upstream.seen[0].headers["accept"] == [", ".join(EVERYTHING), *accept]


@pytest.mark.parametrize(("status", "condition"), [(200, None), (206, None), (304, '"x"')])
def test_a_success_is_returned(upstream: Upstream, status: int, condition: str | None) -> None:
    """After a redirect, too."""
    upstream.reply(CDN, "/blob", Reply(status))
    assert upstream.send(BLOB, credentials=BEARER, if_none_match=condition).code == status
    assert [seen.authorization for seen in upstream.seen] == ["Bearer t0ken", None]


@pytest.mark.parametrize("path", [BLOB, MANIFEST, "/v2/", "/v2/library/nginx/tags/list"])
def test_a_304_without_a_condition_is_useless(upstream: Upstream, path: str) -> None:
    """It says that the client has the content, which it does not; a GET follows a HEAD."""
    upstream.reply(HOST, path, Reply(304))
    with pytest.raises(Unavailable, match="the upstream answered 304") as raised:
        upstream.send(path, credentials=BEARER)
    assert raised.value.upstream_status == 304
    assert upstream.head(path) is None
    upstream.reply(HOST, path, Reply(200))
    assert upstream.head(path) is not None


@pytest.mark.parametrize(
    ("path", "reply", "error_class"),
    [
        (BLOB, Reply(404), BlobUnknown),
        (MANIFEST, Reply(404, b"<html>"), ManifestUnknown),
        (MANIFEST, error(403, "DENIED"), Denied),
        (BLOB, Reply(401), Unauthorized),
        (BLOB, Reply(500), Unavailable),
        (BLOB, Reply(503), Unavailable),
        (BLOB, Reply(203), Unavailable),
        (BLOB, Reply(204), Unavailable),
        (MANIFEST, Reply(206, b"{}"), Unavailable),
        ("/v2/a/tags/list", Reply(206, b"{}"), Unavailable),
    ],
)
@pytest.mark.parametrize("method", [Upstream.send, Upstream.head])
def test_a_refusal_is_raised(
    upstream: Upstream, path: str, reply: Reply, error_class: type[Exception], method: Callable[..., object]
) -> None:
    """Its error suits the request's target."""
    upstream.reply(HOST, path, reply)
    with pytest.raises(error_class):
        method(upstream, path)


@pytest.mark.parametrize("method", [Upstream.send, Upstream.head])
def test_the_challenge_of_a_401_is_remembered(upstream: Upstream, method: Callable[..., object]) -> None:
    """The upstream's ``/v2/`` may demand nothing (gcr.io), or may not have been asked yet."""
    demand = ("WWW-Authenticate", 'Bearer realm="https://registry.example/token"')
    upstream.reply(HOST, "/v2/", Reply(200, b"{}"))
    upstream.reply(HOST, MANIFEST, error(401, "UNAUTHORIZED").having(demand))
    with pytest.raises(Unauthorized) as raised:
        method(upstream, MANIFEST)
    assert [now(upstream.challenges.find_token_service())] == list(raised.value.challenges)


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_signed_url_is_requested_anew(upstream: Upstream, status: int) -> None:
    """Once, with the client's credentials for the registry itself; the refusal is not waited for."""
    refusal = Reply(status, bytes(100_000)).cut(50, end="stalled")
    upstream.reply(CDN, "/blob", refusal, Reply(200, b"blob"))
    assert upstream.send(BLOB, credentials=BEARER).code == 200
    requests = [(seen.host, seen.authorization) for seen in upstream.seen]
    assert requests == [(HOST, "Bearer t0ken"), (CDN, None)] * 2
    upstream.world.agent.flush()
    assert [seen.host for seen in upstream.world.abandoned] == [CDN]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_by_another_host_is_502(upstream: Upstream, status: int) -> None:
    """A client would log in for nothing.  A 404 counts as if the registry itself had said so."""
    upstream.reply(CDN, "/blob", Reply(status, b"<Error>"))
    with pytest.raises(Unavailable, match="the server that the upstream redirects to refused") as raised:
        upstream.send(BLOB)
    assert (raised.value.status, raised.value.upstream_status) == (502, status)
    assert len(upstream.world.asked(CDN)) == 2
    upstream.reply(CDN, "/blob", Reply(404, b"<Error>NoSuchKey</Error>"))
    with pytest.raises(BlobUnknown):
        upstream.send(BLOB)


@pytest.mark.parametrize("path", [MANIFEST, "/v2/a/tags/list"])
@pytest.mark.parametrize("hops", [[f"http://{CDN}/end"], [f"http://{CDN}/next", f"https://{CDN}/end"]])
def test_no_tag_or_list_comes_by_a_redirect_without_tls(
    upstream: Upstream, path: str, hops: list[str]
) -> None:
    """Nothing verifies it; anybody on the way could have written it."""
    for place, target in zip([(HOST, path), (CDN, "/next")], hops, strict=False):
        upstream.reply(*place, Reply(307, b"", (("Location", target),)))
    upstream.reply(CDN, "/end", Reply(200, b"{}", JSON))
    with pytest.raises(Unavailable, match="redirects from https to http"):
        upstream.send(path)


@pytest.mark.parametrize("path", [BLOB, f"/v2/a/manifests/sha256:{'0' * 64}"])
def test_a_digest_verifies_what_comes_without_tls(upstream: Upstream, path: str) -> None:
    upstream.reply(HOST, path, Reply(307, b"", (("Location", f"http://{CDN}/end"),)))
    upstream.reply(CDN, "/end", Reply(200, b"{}", JSON))
    assert upstream.send(path).code == 200


def redirect_to_registry(upstream: Upstream, path: str = MANIFEST) -> None:
    """Redirect from the registry to another one, which demands a token of its own."""
    upstream.reply(HOST, MANIFEST, Reply(307, b"", (("Location", f"https://pkg.dev{path}"),)))
    demand = ("WWW-Authenticate", 'Bearer realm="https://auth.pkg.dev/token"')
    upstream.reply("pkg.dev", MANIFEST, error(401, "UNAUTHORIZED").having(demand))


def test_another_registry_gets_an_anonymous_token(upstream: Upstream) -> None:
    """It has its own token service; registry.k8s.io redirects to such."""
    tokens = Tokens("https://auth.pkg.dev/token", "pkg.dev")
    other = Registry(tokens)
    other.push("images/a", "latest")
    redirect_to_registry(upstream, "/v2/images/a/manifests/latest")
    upstream.world.servers |= {"pkg.dev": other, "auth.pkg.dev": tokens}
    assert upstream.send(MANIFEST, credentials=BEARER, accept=("a/b",)).code == 200
    assert [(seen.host, seen.authorization) for seen in upstream.seen] == [
        (HOST, "Bearer t0ken"),
        ("pkg.dev", None),
        ("auth.pkg.dev", None),
        ("pkg.dev", "Bearer t0ken-0-anonymous"),
    ]
    assert upstream.world.asked("auth.pkg.dev")[0].query[1] == ("scope", "repository:images/a:pull")
    assert upstream.seen[-1].header("Accept") == "a/b"


@pytest.mark.parametrize(
    ("reply", "status", "requests"),
    [
        (error(401, "UNAUTHORIZED"), 502, 1),
        (error(403, "DENIED"), 502, 1),
        (Reply(404), 502, 1),
        (Reply(503, b"", (("Retry-After", "7"),)), 503, 1),
        (Reply(200, b'{"token":"x"}', JSON), 502, 2),
    ],
)
def test_another_registry_that_refuses_is_unavailable(
    upstream: Upstream, reply: Reply, status: int, requests: int
) -> None:
    """A login, or another name, would not help; an outage of its token service is reported."""
    redirect_to_registry(upstream)
    upstream.reply("auth.pkg.dev", "/token", reply.having(("WWW-Authenticate", 'Basic realm="x"')))
    refused = "the server that the upstream redirects to refused"
    with pytest.raises(Unavailable, match=refused if status == 502 else "503") as raised:
        upstream.send(MANIFEST)
    refusal = raised.value
    assert (refusal.status, refusal.from_other_host) == (status, True)
    assert status == 503 or refusal.challenges == ()
    assert refusal.upstream_status == (401 if requests == 2 else reply.status)
    assert refusal.retry_after == dict(reply.headers).get("Retry-After")
    assert len(upstream.world.asked("pkg.dev")) == requests


@pytest.mark.parametrize(("status", "condition"), [(200, None), (304, '"x"')])
def test_the_registrys_own_response_to_a_head_is_returned(
    upstream: Upstream, status: int, condition: str | None
) -> None:
    upstream.reply(HOST, BLOB, Reply(status))
    response = upstream.head(BLOB, if_none_match=condition)
    assert response is not None
    assert response.code == status
    assert [(seen.host, seen.method) for seen in upstream.seen] == [(HOST, "HEAD")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 405])
def test_a_redirect_is_no_answer_to_a_head(upstream: Upstream, status: int) -> None:
    """It is not followed, and no HEAD for that kind of content is sent for an hour."""
    upstream.reply(HOST, BLOB, Reply(status, b"", (("Location", f"https://{CDN}/blob"),)))
    upstream.reply(HOST, MANIFEST, Reply(200))
    for _ in range(3):
        assert upstream.head(BLOB) is None
    assert [(seen.host, seen.path) for seen in upstream.seen] == [(HOST, BLOB)]
    assert upstream.head(MANIFEST) is not None
    upstream.clock.advance(HEADS_AVOIDED_TTL - 1)
    assert upstream.head(BLOB) is None
    upstream.clock.advance(1)
    upstream.reply(HOST, BLOB, Reply(200))
    assert upstream.head(BLOB) is not None
