"""Token requests, trusted realms and cached challenges."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.client import URI
from twisted.web.iweb import IResponse

from dockmirror.config.known_registries import KNOWN, KnownRegistry
from dockmirror.interfaces import Answer
from dockmirror.oci.errors import Challenge, Denied, RegistryError, Unauthorized, Unavailable, Unsupported
from dockmirror.oci.token import Credentials, TokenRequest
from dockmirror.upstream.agents import AgentRequest, AgentWrapper, make_http_client
from dockmirror.upstream.registry_client import ChallengeCache, TrustedRealms, parse_realm
from dockmirror.upstream.upstream_client import parse_url
from tests.fake_registry import basic, error
from tests.fakes import ENDLESS, SILENT, Pairs, Reply
from tests.internet import AUTH, HUB, PASSWORD, PRIVATE, USER, Internet
from tests.stacks import Outcome, bytes_of, client, now, upstream

PULL = (("scope", "repository:library/busybox:pull"),)
ALICE = Credentials.basic(USER, PASSWORD)
JSON = (("Content-Type", "application/json"),)


@pytest.fixture
def internet() -> Internet:
    """Return Docker Hub and its token service."""
    return Internet()


def take(internet: Internet, *pairs: tuple[str, str], **details: Any) -> Answer:
    """Request a token from Docker Hub."""
    return now(upstream(internet.agent).token(TokenRequest.parse(pairs, **details)))


def challenge(internet: Internet, *challenges: str) -> None:
    """Change Docker Hub's challenges."""
    headers = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
    internet.reply(HUB, "/v2/", error(401, "UNAUTHORIZED").having(*headers))


def test_a_request_by_get(internet: Internet) -> None:
    """It has the challenge's service, every scope, and the client's other parameters."""
    pairs = (("service", "mirror"), ("scope", "a:b:c d:e:f"), ("scope", "g:h:i"), ("account", USER))
    take(internet, *pairs, ("offline_token", "true"), ("client_id", "docker"), credentials=ALICE)
    (seen,) = internet.asked(AUTH)
    assert (seen.method, seen.path, seen.authorization) == ("GET", "/token", basic(USER, PASSWORD))
    assert seen.query == (
        ("service", "registry.docker.io"), ("scope", "a:b:c"), ("scope", "d:e:f"), ("scope", "g:h:i"),
        ("account", USER), ("offline_token", "true"), ("client_id", "docker"),
    )  # fmt: skip


def test_a_request_by_form(internet: Internet) -> None:
    """All is in the body, scopes as one field of words; the URL holds no secret."""
    pairs = (("grant_type", "password"), ("username", USER), ("password", PASSWORD), *PULL)
    take(internet, ("scope", "a:b:c"), *pairs, form=True)
    (seen,) = internet.asked(AUTH)
    assert (seen.method, seen.query) == ("POST", ())
    assert seen.form == (
        ("service", "registry.docker.io"), ("scope", "a:b:c repository:library/busybox:pull"),
        ("grant_type", "password"), ("username", USER), ("password", PASSWORD),
    )  # fmt: skip


@pytest.mark.parametrize("form", [False, True])
def test_the_realms_own_query_is_kept(internet: Internet, form: bool) -> None:
    """nvcr.io puts a scope with a comma there, and names no service; a login in a realm is not sent."""
    challenge(
        internet,
        'Basic realm="x"',
        f'Bearer realm="https://name:s3cret@{AUTH}/token?scope=x:y:pull,push&z=%2F"',
    )
    take(internet, *PULL, form=form)
    (seen,) = internet.asked(AUTH)
    assert seen.query[:2] == (("scope", "x:y:pull,push"), ("z", "/"))
    assert (seen.form if form else seen.query[2:]) == PULL
    assert seen.authorization is None


@pytest.mark.parametrize("form", [False, True])
def test_a_token_has_both_names(internet: Internet, form: bool) -> None:
    """Some clients read one, some the other; other fields are passed on."""
    answer = take(internet, *PULL, form=form)
    token = "t0ken-0-anonymous"  # noqa: S105
    assert json.loads(bytes_of(answer.body)) == {"token": token, "access_token": token, "expires_in": 300}
    assert (answer.status, answer.upstream_status) == (200, 200)
    assert answer.body.descriptor.media_type == "application/json"


@pytest.mark.parametrize(
    ("reply", "status", "error_class"),
    [
        (error(401, "UNAUTHORIZED"), 401, Unauthorized),
        (error(403, "DENIED"), 403, Denied),
        (Reply(400, b"bad"), 400, RegistryError),
        (Reply(404), 404, RegistryError),
        (Reply(405), 405, RegistryError),
        (Reply(429, b"", (("Retry-After", "9"),)), 429, RegistryError),
        (Reply(500, b"<html>"), 500, Unavailable),
        (Reply(201, b'{"token":"x"}'), 502, Unavailable),
        (Reply(200, b"<html>", (("Content-Type", "text/html"),)), 502, Unavailable),
        (Reply(200, b"{}", JSON), 502, Unavailable),
        (Reply(200, b'{"token":""}', JSON), 502, Unavailable),
        (Reply(200, b'{"token":"a\\nb"}', JSON), 502, Unavailable),
        (Reply(200, b'["token"]', JSON), 502, Unavailable),
        (Reply(200, b'{"token":"%b"}' % (b"x" * 65536), JSON), 502, Unavailable),
    ],
)
@pytest.mark.parametrize("form", [False, True])
def test_refusals_keep_their_status(
    internet: Internet, reply: Reply, status: int, error_class: type[RegistryError], form: bool
) -> None:
    """An invalid token is an error of the upstream."""
    internet.reply(AUTH, "/token", reply)
    with pytest.raises(error_class) as raised:
        take(internet, *PULL, form=form)
    assert raised.value.status == status
    assert raised.value.retry_after == dict(reply.headers).get("Retry-After")


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(internet: Internet, status: int, form: bool) -> None:
    """A 307 would replay the password to any host."""
    internet.reply(AUTH, "/token", Reply(status, b"", (("Location", "https://evil.example/"),)))
    with pytest.raises(Unavailable) as raised:
        take(internet, ("password", PASSWORD), *PULL, form=form, credentials=ALICE)
    assert raised.value.upstream_status == status
    assert internet.asked("evil.example") == []


def test_a_service_without_forms_gets_405(internet: Internet) -> None:
    """Clients then retry by GET; 501 would make them fail.  Its body is not waited for."""
    internet.reply(AUTH, "/token", evolve(ENDLESS, status=501), Reply(501))
    with pytest.raises(Unsupported) as raised:
        take(internet, *PULL, form=True)
    assert (raised.value.status, raised.value.upstream_status) == (405, 501)
    internet.agent.flush()
    assert len(internet.abandoned) == 1
    with pytest.raises(Unavailable) as by_get:
        take(internet, *PULL)
    assert by_get.value.status == 501


@pytest.mark.parametrize("realm", ["https://evil.example/token", f"http://{AUTH}/token"])
@pytest.mark.parametrize(
    ("pairs", "details"),
    [
        ((), {"credentials": ALICE}),
        ((("password", PASSWORD),), {"form": True}),
        ((("refresh_token", PASSWORD),), {"form": True}),
        ((("assertion", PASSWORD),), {}),
    ],
)
def test_credentials_are_not_sent_to_a_foreign_realm(
    internet: Internet, realm: str, pairs: Pairs, details: dict[str, Any]
) -> None:
    """Nor without encryption; every possible secret counts.  An anonymous request may go there."""
    challenge(internet, f'Bearer realm="{realm}"')
    internet.reply("evil.example", "/token", Reply(200, b'{"token":"x"}', JSON))
    with pytest.raises(Denied, match="credentials are not sent to"):
        take(internet, *pairs, **details)
    assert [seen.host for seen in internet.seen] == [HUB]
    take(internet, ("account", USER), ("client_id", "docker"), *PULL)
    assert internet.seen[-1].url.startswith(realm)
    assert internet.seen[-1].authorization is None


@pytest.mark.parametrize(
    "realm",
    [
        "", "token", "/token", "ftp://a/", "https://", "https://[::1", "https://a:99999/", "https://a b/",
        "https://a/\t", "https://a/\x7f", "https://a/\xe4",
    ],
)  # fmt: skip
def test_an_invalid_realm_is_not_asked(realm: str) -> None:
    with pytest.raises(Unavailable, match="names no token service"):
        parse_realm(Challenge("Bearer", {"realm": realm}))


def test_an_upstream_without_tokens(internet: Internet) -> None:
    """A client can go on with a marker; it gets 404 with the reason if the upstream demands a password."""
    answer = now(upstream(internet.agent, url="https://registry.k8s.io").token(TokenRequest.parse(PULL)))
    fields = json.loads(bytes_of(answer.body))
    assert fields["token"] == fields["access_token"] == "anonymous"  # noqa: S105
    assert answer.upstream_status is None
    challenge(internet, 'Basic realm="Registry"')
    with pytest.raises(Unsupported, match="Basic") as raised:
        take(internet, *PULL)
    assert raised.value.status == 404


def test_a_repository_is_asked_if_the_registry_demands_nothing(internet: Internet) -> None:
    """Another process may have met its challenge, and sent the client to the token service."""
    internet.reply(HUB, "/v2/", Reply(200, b"{}"))
    assert b'"anonymous"' in bytes_of(take(internet, ("scope", "repository:../x:pull")).body)
    assert [seen.path for seen in internet.seen] == ["/v2/"]
    answer = take(internet, ("scope", f"repository:{PRIVATE}:pull"), credentials=ALICE)
    assert b'"anonymous"' not in bytes_of(answer.body)
    assert [(seen.path, seen.authorization) for seen in internet.seen[2:]] == [
        (f"/v2/{PRIVATE}/tags/list", None), ("/token", ALICE.header),
    ]  # fmt: skip


HUB_REALMS = TrustedRealms("https://registry-1.docker.io", ("https://auth.docker.io",))
FOREIGN = r"credentials are not sent to .*'realms'"
UNENCRYPTED = "it does not use https as the upstream does"


@pytest.mark.parametrize(
    ("realms", "realm", "refusal"),
    [
        (HUB_REALMS, "https://auth.docker.io/token", None),
        (HUB_REALMS, "https://AUTH.docker.io.:443/token?x=y", None),
        (HUB_REALMS, "https://registry-1.docker.io/token", None),
        (HUB_REALMS, "https://registry-1.docker.io:5001/token", None),
        (TrustedRealms("https://quay.io"), "https://quay.io/v2/auth", None),
        (TrustedRealms("http://127.0.0.1:5000"), "http://127.0.0.1:5001/auth", None),
        (TrustedRealms("http://127.0.0.1:5000"), "https://127.0.0.1:5001/auth", None),
        (TrustedRealms("http://[::1]:5000"), "http://[::1]:5001/auth", None),
        (TrustedRealms("http://lan", ("http://auth.lan:81",)), "http://auth.lan:81/token", None),
        (TrustedRealms("http://lan", ("https://auth.lan",)), "https://auth.lan/token", None),
        (HUB_REALMS, "https://auth.docker.io.evil.example/token", FOREIGN),
        (HUB_REALMS, "https://evil.example/token", FOREIGN),
        (HUB_REALMS, "https://docker.io/token", FOREIGN),
        (HUB_REALMS, "https://sub.registry-1.docker.io/token", FOREIGN),
        (HUB_REALMS, "https://auth.docker.io@evil.example/token", FOREIGN),
        (HUB_REALMS, "https://auth.docker.io:444/token", FOREIGN),
        (TrustedRealms("http://lan", ("https://auth.lan",)), "http://auth.lan/token", FOREIGN),
        (HUB_REALMS, "http://registry-1.docker.io/token", UNENCRYPTED),
        (HUB_REALMS, "http://auth.docker.io/token", UNENCRYPTED),
        (HUB_REALMS, "https://name:s3cret@evil.example/token", r"sent to https://evil.example: .*'realms'"),
    ],
)
def test_a_foreign_realm_is_refused(realms: TrustedRealms, realm: str, refusal: str | None) -> None:
    """The upstream's host and the named origins are trusted; an encrypted upstream's must be encrypted."""
    with pytest.raises(Denied, match=refusal) if refusal else nullcontext() as raised:
        realms.check(realm)
    assert "s3cret" not in str(raised)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_well_known_registries_trust_only_the_hosts_in_the_table(known: KnownRegistry) -> None:
    with pytest.raises(Denied):
        TrustedRealms(known.url, known.realms).check("https://evil.example/token")


class _UrlRecorder(AgentWrapper):
    """An agent that records URLs, and never responds."""

    def __init__(self, urls: list[bytes]) -> None:
        self._urls = urls

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        self._urls.append(request.uri)
        return Deferred()


PIECES = st.sampled_from(
    [
        "http:", "https:", "//", "/", "\\", "@", ":", "#", "?", "%2f", "%40", "[", "]", "::1", "443",
        "80", ".", "registry.example", "evil.example", "user", " ", "\t", "\x00", "\u3002", "\uff0f",
        "e\u0301", "HTTPS:",
    ]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=8).map("".join)
    | st.lists(PIECES, max_size=6).map("".join).map("https://".__add__)
)
@example("https://registry.example/token")
@example("https://registry.example./")
@example("https://registry.example\\@evil.example/")
@example("https://evil.example\\.registry.example/")
@example("https://registry.example:80@evil.example/")
def test_the_checked_host_is_the_requested_one(text: str) -> None:
    """Any spelling of a realm leads to the host that was checked."""
    urls: list[bytes] = []
    try:
        realm = parse_realm(Challenge("Bearer", {"realm": text}))
        TrustedRealms("https://registry.example").check(realm)
        make_http_client(_UrlRecorder(urls)).request("GET", parse_url(realm))
    except (RegistryError, ValueError):
        return
    assert [URI.fromBytes(uri).host.rstrip(b".") for uri in urls] == [b"registry.example"]


@pytest.fixture
def challenge_cache(internet: Internet) -> ChallengeCache:
    """Return Docker Hub's challenges."""
    return ChallengeCache(client(internet.agent), f"https://{HUB}", Clock())


def test_challenges_are_remembered_for_five_minutes(internet: Internet) -> None:
    clock = Clock()
    challenge_cache = ChallengeCache(client(internet.agent, clock), f"https://{HUB}", clock)
    for seconds, requests in ((0, 1), (299, 1), (1, 2), (1, 2)):
        clock.advance(seconds)
        (demand,) = now(challenge_cache.get_challenges())
        assert demand.get("realm") == f"https://{AUTH}/token"
        assert len(internet.seen) == requests


def test_many_wait_for_one_request(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """One of them may leave meanwhile."""
    internet.reply(HUB, "/v2/", SILENT)
    waiting = [Outcome(challenge_cache.get_challenges()) for _ in range(3)]
    waiting[0].work.cancel()
    internet.agent.flush()
    assert isinstance(waiting[0].error, CancelledError)
    assert len(internet.seen) == 1
    assert internet.abandoned == []


def demand(text: str) -> tuple[str, str]:
    return "WWW-Authenticate", text


BASIC = (Challenge("Basic"),)
MOVED = Reply(301, b"", (("Location", "https://moved.example/v2/"),))


@pytest.mark.parametrize(
    ("replies", "challenges", "abandoned"),
    [
        ([Reply(200, b"{}", (demand("Basic"),))], (), 0),
        ([Reply(401)], (Challenge("Bearer"),), 0),
        ([evolve(ENDLESS, status=401).having(("Content-Type", "text/html"), demand("Basic"))], BASIC, 1),
        ([MOVED, Reply(401, b"{}", (demand("Basic"),))], BASIC, 0),
        ([MOVED, Reply(200, b"{}", (demand("Basic"),))], (), 0),
    ],
    ids=["with a 200", "401 without a challenge", "web page", "redirected", "redirected to a 200"],
)
def test_only_a_401_demands_credentials(
    internet: Internet,
    challenge_cache: ChallengeCache,
    replies: list[Reply],
    challenges: tuple[Challenge, ...],
    abandoned: int,
) -> None:
    """It may be a web page, whose body is not waited for, or follow a redirect; its default is a token."""
    for host, reply in zip((HUB, "moved.example"), replies, strict=False):
        internet.reply(host, "/v2/", reply)
    assert now(challenge_cache.get_challenges()) == challenges
    assert now(challenge_cache.find_token_service()) is None
    internet.agent.flush()
    assert len(internet.abandoned) == abandoned


def test_failures_are_not_remembered(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """The upstream may be up again; a successful web page is no registry."""
    page = Reply(200, b"<html>", (("Content-Type", "text/html"),))
    internet.reply(HUB, "/v2/", Reply(503), page, Reply(200, b"{}"))
    for status, reason in ((503, "503"), (200, "web page")):
        with pytest.raises(Unavailable, match=reason) as raised:
            now(challenge_cache.get_challenges())
        assert raised.value.upstream_status == status
    assert now(challenge_cache.get_challenges()) == ()


def test_a_resources_challenge_is_remembered(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """It counts if ``/v2/`` itself demands nothing; the newest is used."""
    internet.reply(HUB, "/v2/", Reply(200, b"{}"))
    assert now(challenge_cache.find_token_service()) is None
    bearers = [Challenge("Bearer", {"realm": f"https://{name}.example/"}) for name in "ab"]
    for bearer in bearers:
        challenge_cache.learn([Challenge("Basic"), bearer])
        challenge_cache.learn([])
        assert now(challenge_cache.find_token_service()) == bearer
