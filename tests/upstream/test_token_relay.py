"""Token requests, trusted realms and cached challenges."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from dockmirror.config.known_registries import KNOWN, KnownRegistry
from dockmirror.interfaces import Answer
from dockmirror.oci.challenge import Challenge
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import Denied, RegistryError, Unauthorized, Unavailable, Unsupported
from dockmirror.oci.token import TokenRequest
from dockmirror.upstream.addresses import parse_origin
from dockmirror.upstream.agents import make_http_client
from dockmirror.upstream.token_relay import ChallengeCache, TrustedRealms, parse_realm
from dockmirror.upstream.upstream_client import parse_url
from tests.fake_registry import basic, error
from tests.fakes import ENDLESS, SILENT, Pairs, Reply
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet
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


def challenged(internet: Internet, *challenges: str) -> None:
    """Change Docker Hub's challenges."""
    headers = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
    internet.reply(HUB, "/v2/", error(401, "UNAUTHORIZED").having(*headers))


class TestRequest:
    """Requests to a token service."""

    def test_a_request_by_get(self, internet: Internet) -> None:
        """It has the challenge's service, every scope, and the client's other parameters."""
        pairs = (("service", "mirror"), ("scope", "a:b:c d:e:f"), ("scope", "g:h:i"), ("account", USER))
        take(internet, *pairs, ("offline_token", "true"), ("client_id", "docker"), credentials=ALICE)
        (seen,) = internet.asked(AUTH)
        assert (seen.method, seen.path, seen.authorization) == ("GET", "/token", basic(USER, PASSWORD))
        assert seen.query == (
            ("service", "registry.docker.io"), ("scope", "a:b:c"), ("scope", "d:e:f"), ("scope", "g:h:i"),
            ("account", USER), ("offline_token", "true"), ("client_id", "docker"),
        )  # fmt: skip

    def test_a_request_by_form(self, internet: Internet) -> None:
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
    def test_the_realms_own_query_is_kept(self, internet: Internet, form: bool) -> None:
        """nvcr.io puts a scope with a comma there, and names no service."""
        challenged(internet, f'Bearer realm="https://{AUTH}/token?scope=x:y:pull,push&z=%2F"')
        take(internet, *PULL, form=form)
        (seen,) = internet.asked(AUTH)
        assert seen.query[:2] == (("scope", "x:y:pull,push"), ("z", "/"))
        assert (seen.form if form else seen.query[2:]) == PULL

    @pytest.mark.parametrize(
        "challenges",
        [
            [f'Bearer realm="https://{AUTH}/token",service="a, b"'],
            [f'bearer service = "a, b" , REALM="https://{AUTH}/tok\\en",,'],
            ['Basic realm="x, Bearer realm=y"', f'Bearer realm="https://{AUTH}/token",service="a, b"'],
            [f'Basic realm="x", Bearer realm=https://{AUTH}/token,service="a, b",scope="z:p:pull,push"'],
        ],
    )
    def test_challenges_of_all_spellings(self, internet: Internet, challenges: list[str]) -> None:
        """In several lines or in one, quoted or not, in any order and letter case."""
        challenged(internet, *challenges)
        take(internet, *PULL)
        (seen,) = internet.asked(AUTH)
        assert (seen.path, seen.query) == ("/token", (("service", "a, b"), *PULL))


class TestAnswer:
    """Responses of a token service."""

    @pytest.mark.parametrize("form", [False, True])
    def test_a_token_has_both_names(self, internet: Internet, form: bool) -> None:
        """Some clients read one, some the other; other fields are passed on."""
        answer = take(internet, *PULL, form=form)
        given = json.loads(bytes_of(answer.body))
        assert given == {
            "token": "t0ken-0-anonymous", "access_token": "t0ken-0-anonymous", "expires_in": 300,
        }  # fmt: skip
        assert (answer.status, answer.upstream_status) == (200, 200)
        assert answer.body.descriptor.media_type == "application/json"

    @pytest.mark.parametrize(
        ("reply", "status", "row"),
        [
            (error(401, "UNAUTHORIZED"), 401, Unauthorized),
            (error(403, "DENIED"), 403, Denied),
            (Reply(400, b"bad"), 400, RegistryError),
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
    def test_refusals_keep_their_status(
        self, internet: Internet, reply: Reply, status: int, row: type[RegistryError]
    ) -> None:
        """An invalid token is an error of the upstream."""
        internet.reply(AUTH, "/token", reply)
        with pytest.raises(row) as raised:
            take(internet, *PULL)
        assert raised.value.status == status
        assert raised.value.retry_after == dict(reply.headers).get("Retry-After")

    @pytest.mark.parametrize("form", [False, True])
    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirects_are_not_followed(self, internet: Internet, status: int, form: bool) -> None:
        """A 307 would replay the password to any host."""
        internet.reply(AUTH, "/token", Reply(status, b"", (("Location", "https://evil.example/"),)))
        with pytest.raises(Unavailable) as raised:
            take(internet, ("password", PASSWORD), *PULL, form=form, credentials=ALICE)
        assert raised.value.upstream_status == status
        assert internet.asked("evil.example") == []

    def test_a_service_without_forms_gets_405(self, internet: Internet) -> None:
        """Clients then retry by GET; 501 would make them fail."""
        internet.reply(AUTH, "/token", Reply(501))
        with pytest.raises(Unsupported) as raised:
            take(internet, *PULL, form=True)
        assert (raised.value.status, raised.value.upstream_status) == (405, 501)
        internet.reply(AUTH, "/token", evolve(ENDLESS, status=501), Reply(501))
        with pytest.raises(Unsupported):
            take(internet, *PULL, form=True)
        internet.agent.flush()
        assert len(internet.abandoned) == 1
        with pytest.raises(Unavailable) as by_get:
            take(internet, *PULL)
        assert by_get.value.status == 501

    @pytest.mark.parametrize("status", [400, 404, 405])
    def test_other_refusals_of_forms_are_kept(self, internet: Internet, status: int) -> None:
        """Clients know how to handle them."""
        internet.reply(AUTH, "/token", Reply(status))
        with pytest.raises(RegistryError) as raised:
            take(internet, *PULL, form=True)
        assert raised.value.status == status


class TestTrust:
    """Realms that may see credentials."""

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
        self, internet: Internet, realm: str, pairs: Pairs, details: dict[str, Any]
    ) -> None:
        """Nor without encryption; every possible secret counts."""
        challenged(internet, f'Bearer realm="{realm}"')
        with pytest.raises(Denied, match="credentials are not sent to"):
            take(internet, *pairs, **details)
        assert [seen.host for seen in internet.seen] == [HUB]

    def test_an_anonymous_request_may_go_to_a_foreign_realm(self, internet: Internet) -> None:
        """It holds no secret."""
        challenged(internet, 'Bearer realm="http://other.example/token"')
        internet.reply("other.example", "/token", Reply(200, b'{"token":"x"}', JSON))
        take(internet, ("account", USER), ("client_id", "docker"), *PULL)
        (seen,) = internet.asked("other.example")
        assert seen.authorization is None

    def test_a_login_in_a_realm_is_not_sent(self, internet: Internet) -> None:
        """A registry does not choose the credentials."""
        challenged(internet, f'Bearer realm="https://name:s3cret@{AUTH}/token"')
        take(internet, *PULL)
        assert internet.asked(AUTH)[0].authorization is None

    @pytest.mark.parametrize(
        "realm",
        [
            "",
            "token",
            "/token",
            "ftp://a/",
            "https://",
            "https://[::1",
            "https://a:99999/",
            "https://a b/",
            "https://a/\t",
            "https://a/\x7f",
            "https://a/\xe4",
        ],
    )
    def test_an_invalid_realm_is_not_asked(self, realm: str) -> None:
        with pytest.raises(Unavailable, match="names no token service"):
            parse_realm(Challenge("Bearer", {"realm": realm}))


class TestNone:
    """Upstreams without tokens."""

    def test_a_client_gets_a_token_without_meaning(self, internet: Internet) -> None:
        """It can go on with it."""
        answer = now(upstream(internet.agent, url="https://registry.k8s.io").token(TokenRequest.parse(PULL)))
        given = json.loads(bytes_of(answer.body))
        assert given["token"] == given["access_token"] == "anonymous"  # noqa: S105
        assert answer.upstream_status is None

    def test_an_upstream_with_basic_has_no_tokens(self, internet: Internet) -> None:
        """The client gets 404, with the reason."""
        challenged(internet, 'Basic realm="Registry"')
        with pytest.raises(Unsupported, match="Basic") as raised:
            take(internet, *PULL)
        assert raised.value.status == 404


HUB_REALMS = TrustedRealms("https://registry-1.docker.io", ("https://auth.docker.io",))


@pytest.mark.parametrize(
    ("realms", "realm"),
    [
        (HUB_REALMS, "https://auth.docker.io/token"),
        (HUB_REALMS, "https://AUTH.docker.io.:443/token?x=y"),
        (HUB_REALMS, "https://registry-1.docker.io/token"),
        (HUB_REALMS, "https://registry-1.docker.io:5001/token"),
        (TrustedRealms("https://quay.io"), "https://quay.io/v2/auth"),
        (TrustedRealms("http://127.0.0.1:5000"), "http://127.0.0.1:5001/auth"),
        (TrustedRealms("http://127.0.0.1:5000"), "https://127.0.0.1:5001/auth"),
        (TrustedRealms("http://[::1]:5000"), "http://[::1]:5001/auth"),
        (TrustedRealms("http://lan", ("http://auth.lan:81",)), "http://auth.lan:81/token"),
    ],
)
def test_the_upstreams_host_and_named_origins_are_trusted(realms: TrustedRealms, realm: str) -> None:
    realms.check(realm)


@pytest.mark.parametrize(
    ("realms", "realm"),
    [
        (HUB_REALMS, "https://auth.docker.io.evil.example/token"),
        (HUB_REALMS, "https://evil.example/token"),
        (HUB_REALMS, "https://docker.io/token"),
        (HUB_REALMS, "https://sub.registry-1.docker.io/token"),
        (HUB_REALMS, "https://auth.docker.io@evil.example/token"),
        (HUB_REALMS, "https://auth.docker.io:444/token"),
        (TrustedRealms("http://lan", ("https://auth.lan",)), "http://auth.lan/token"),
    ],
)
def test_a_foreign_realm_is_refused(realms: TrustedRealms, realm: str) -> None:
    """The error says how to allow it."""
    with pytest.raises(Denied, match=r"credentials are not sent to .*'realms'"):
        realms.check(realm)


@pytest.mark.parametrize("realm", ["http://registry-1.docker.io/token", "http://auth.docker.io/token"])
def test_an_encrypted_upstream_needs_an_encrypted_realm(realm: str) -> None:
    with pytest.raises(Denied, match="it does not use https as the upstream does"):
        HUB_REALMS.check(realm)


def test_a_plain_upstream_may_have_an_encrypted_realm() -> None:
    TrustedRealms("http://lan", ("https://auth.lan",)).check("https://auth.lan/token")


def test_the_error_repeats_no_password() -> None:
    """Only the host of the URL is named."""
    with pytest.raises(Denied) as raised:
        HUB_REALMS.check("https://name:s3cret@evil.example/token")
    assert "s3cret" not in str(raised.value)
    assert "https://evil.example" in str(raised.value)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_well_known_registries_trust_only_the_hosts_in_the_table(known: KnownRegistry) -> None:
    with pytest.raises(Denied):
        TrustedRealms(known.url, known.realms).check("https://evil.example/token")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://A.example/x", ("https", "a.example", 443)),
        ("http://a.example", ("http", "a.example", 80)),
        ("https://a.example.:443/", ("https", "a.example", 443)),
        ("https://a.example:444", ("https", "a.example", 444)),
        ("http://[::1]:5000/v2/", ("http", "::1", 5000)),
    ],
)
def test_an_origin_has_one_form(url: str, expected: tuple[str, str, int]) -> None:
    assert parse_origin(url) == expected


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
    asked: list[bytes] = []
    try:
        realm = parse_realm(Challenge("Bearer", {"realm": text}))
        TrustedRealms("https://registry.example").check(realm)
        make_http_client(_Noting(asked)).request("GET", parse_url(realm))
    except (RegistryError, ValueError):
        return
    assert [URI.fromBytes(uri).host.rstrip(b".") for uri in asked] == [b"registry.example"]


@implementer(IAgent)
class _Noting:
    """An agent that records URLs, and never responds."""

    def __init__(self, asked: list[bytes]) -> None:
        self._asked = asked

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        self._asked.append(uri)
        return Deferred()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def challenge_cache(internet: Internet, clock: Clock) -> ChallengeCache:
    """Return Docker Hub's challenges."""
    return ChallengeCache(client(internet.agent, clock), f"https://{HUB}", clock)


def test_challenges_are_remembered_for_five_minutes(
    internet: Internet, clock: Clock, challenge_cache: ChallengeCache
) -> None:
    for seconds, asked in ((0, 1), (299, 1), (1, 2), (1, 2)):
        clock.advance(seconds)
        (challenge,) = now(challenge_cache.get_challenges())
        assert challenge.get("realm") == f"https://{AUTH}/token"
        assert len(internet.seen) == asked


def test_many_wait_for_one_request(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """One of them may leave meanwhile."""
    internet.reply(HUB, "/v2/", SILENT)
    waiting = [Outcome(challenge_cache.get_challenges()) for _ in range(3)]
    waiting[0].work.cancel()
    internet.agent.flush()
    assert isinstance(waiting[0].error, CancelledError)
    assert len(internet.seen) == 1
    assert internet.abandoned == []


def test_failures_are_not_remembered(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """The upstream may be up again."""
    internet.reply(HUB, "/v2/", Reply(503), Reply(200, b"{}"))
    with pytest.raises(Unavailable):
        now(challenge_cache.get_challenges())
    assert now(challenge_cache.get_challenges()) == ()


@pytest.mark.parametrize("status", [200, 401])
def test_redirects_of_v2_are_followed(
    internet: Internet, challenge_cache: ChallengeCache, status: int
) -> None:
    internet.reply(HUB, "/v2/", Reply(301, b"", (("Location", "https://moved.example/v2/"),)))
    demand = ("WWW-Authenticate", 'Bearer realm="https://moved.example/token"')
    internet.reply("moved.example", "/v2/", Reply(status, b"{}", (demand,)))
    challenges = now(challenge_cache.get_challenges())
    assert [c.get("realm") for c in challenges] == ["https://moved.example/token"][: status == 401]


def test_a_challenge_with_a_200_is_ignored(internet: Internet, challenge_cache: ChallengeCache) -> None:
    internet.reply(HUB, "/v2/", Reply(200, b"{}", (("WWW-Authenticate", "Basic"),)))
    assert now(challenge_cache.get_challenges()) == ()


def test_a_401_without_a_challenge_demands_a_token(
    internet: Internet, challenge_cache: ChallengeCache
) -> None:
    internet.reply(HUB, "/v2/", Reply(401))
    assert now(challenge_cache.get_challenges()) == (Challenge("Bearer"),)
    assert now(challenge_cache.find_token_service()) is None


def test_a_401_may_be_a_web_page(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """Its header counts; its body is not waited for."""
    demand = (("Content-Type", "text/html"), ("WWW-Authenticate", "Basic"))
    internet.reply(HUB, "/v2/", evolve(ENDLESS, status=401).having(*demand))
    assert now(challenge_cache.get_challenges()) == (Challenge("Basic"),)
    internet.agent.flush()
    assert len(internet.abandoned) == 1


def test_a_successful_web_page_is_no_registry(internet: Internet, challenge_cache: ChallengeCache) -> None:
    internet.reply(HUB, "/v2/", Reply(200, b"<html>", (("Content-Type", "text/html"),)))
    with pytest.raises(Unavailable, match="web page") as raised:
        now(challenge_cache.get_challenges())
    assert raised.value.upstream_status == 200


def test_a_resources_challenge_is_remembered(internet: Internet, challenge_cache: ChallengeCache) -> None:
    """It counts if ``/v2/`` itself demands nothing; the newest is used."""
    internet.reply(HUB, "/v2/", Reply(200, b"{}"))
    assert now(challenge_cache.find_token_service()) is None
    bearers = [Challenge("Bearer", {"realm": f"https://{name}.example/"}) for name in "ab"]
    for bearer in bearers:
        challenge_cache.learn([Challenge("Basic"), bearer])
        challenge_cache.learn([])
        assert now(challenge_cache.find_token_service()) == bearer
