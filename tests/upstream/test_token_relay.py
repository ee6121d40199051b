"""The token dance: how an upstream's token service is asked, and what it says."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from dockmirror.interfaces import Answer
from dockmirror.oci.challenge import Challenge
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import Denied, RegistryError, Unauthorized, Unavailable, Unsupported
from dockmirror.oci.token import TokenRequest
from dockmirror.upstream.token_relay import parse_realm
from tests.fake_registry import basic, error
from tests.fakes import ENDLESS, Pairs, Reply
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet
from tests.stacks import bytes_of, now, upstream

PULL = (("scope", "repository:library/busybox:pull"),)
ALICE = Credentials.basic(USER, PASSWORD)
JSON = (("Content-Type", "application/json"),)


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and its token service."""
    return Internet()


def take(internet: Internet, *pairs: tuple[str, str], **details: Any) -> Answer:
    """A token by Docker Hub's own dance."""
    return now(upstream(internet.agent).token(TokenRequest.parse(pairs, **details)))


def challenged(internet: Internet, *challenges: str) -> None:
    """Has Docker Hub demand something else."""
    headers = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
    internet.reply(HUB, "/v2/", error(401, "UNAUTHORIZED").having(*headers))


class TestRequest:
    """How a token service is asked."""

    def test_by_get(self, internet: Internet) -> None:
        """With its own service, each scope, and what else the client said but its idea of the service."""
        pairs = (("service", "mirror"), ("scope", "a:b:c d:e:f"), ("scope", "g:h:i"), ("account", USER))
        take(internet, *pairs, ("offline_token", "true"), ("client_id", "docker"), credentials=ALICE)
        (seen,) = internet.asked(AUTH)
        assert (seen.method, seen.path, seen.authorization) == ("GET", "/token", basic(USER, PASSWORD))
        assert seen.query == (
            ("service", "registry.docker.io"), ("scope", "a:b:c"), ("scope", "d:e:f"), ("scope", "g:h:i"),
            ("account", USER), ("offline_token", "true"), ("client_id", "docker"),
        )  # fmt: skip

    def test_by_form(self, internet: Internet) -> None:
        """All in the body, scopes as one field of words; nothing secret in the address."""
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
    """What a token service says."""

    @pytest.mark.parametrize("form", [False, True])
    def test_a_token_has_both_names(self, internet: Internet, form: bool) -> None:
        """Some clients read one, some the other; what else was said is passed on."""
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
    def test_refusals_and_nonsense(
        self, internet: Internet, reply: Reply, status: int, row: type[RegistryError]
    ) -> None:
        """A refusal keeps its status; what is no token is of no use."""
        internet.reply(AUTH, "/token", reply)
        with pytest.raises(row) as raised:
            take(internet, *PULL)
        assert raised.value.status == status
        assert raised.value.retry_after == dict(reply.headers).get("Retry-After")

    @pytest.mark.parametrize("form", [False, True])
    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_redirects_are_not_followed(self, internet: Internet, status: int, form: bool) -> None:
        """A 307 would replay the password to whoever it names."""
        internet.reply(AUTH, "/token", Reply(status, b"", (("Location", "https://evil.example/"),)))
        with pytest.raises(Unavailable) as raised:
            take(internet, ("password", PASSWORD), *PULL, form=form, credentials=ALICE)
        assert raised.value.upstream_status == status
        assert internet.asked("evil.example") == []

    def test_a_service_that_knows_no_forms(self, internet: Internet) -> None:
        """Says so with 405, after which clients ask by GET; 501 would make them fail."""
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
    def test_what_a_service_without_forms_says_is_kept(self, internet: Internet, status: int) -> None:
        """Clients know what to do with it."""
        internet.reply(AUTH, "/token", Reply(status))
        with pytest.raises(RegistryError) as raised:
            take(internet, *PULL, form=True)
        assert raised.value.status == status


class TestTrust:
    """Where credentials go."""

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
    def test_not_to_a_foreign_realm(
        self, internet: Internet, realm: str, pairs: Pairs, details: dict[str, Any]
    ) -> None:
        """And not in the clear; whatever could be a secret counts."""
        challenged(internet, f'Bearer realm="{realm}"')
        with pytest.raises(Denied, match="credentials are not sent to"):
            take(internet, *pairs, **details)
        assert [seen.host for seen in internet.seen] == [HUB]

    def test_an_anonymous_request_may_go_there(self, internet: Internet) -> None:
        """It says nothing that everybody may not know."""
        challenged(internet, 'Bearer realm="http://other.example/token"')
        internet.reply("other.example", "/token", Reply(200, b'{"token":"x"}', JSON))
        take(internet, ("account", USER), ("client_id", "docker"), *PULL)
        (seen,) = internet.asked("other.example")
        assert seen.authorization is None

    def test_a_name_in_a_realm_is_not_sent(self, internet: Internet) -> None:
        """A registry does not choose whose credentials are used."""
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
    def test_what_is_no_realm(self, realm: str) -> None:
        """Is asked nowhere."""
        with pytest.raises(Unavailable, match="names no token service"):
            parse_realm(Challenge("Bearer", {"realm": realm}))


class TestNone:
    """Upstreams without tokens."""

    def test_a_client_that_insists_is_given_one_that_means_nothing(self, internet: Internet) -> None:
        """So that it can go on."""
        answer = now(upstream(internet.agent, url="https://registry.k8s.io").token(TokenRequest.parse(PULL)))
        given = json.loads(bytes_of(answer.body))
        assert given["token"] == given["access_token"] == "anonymous"  # noqa: S105
        assert answer.upstream_status is None

    def test_who_asks_for_passwords_has_no_tokens(self, internet: Internet) -> None:
        """404, and the reason."""
        challenged(internet, 'Basic realm="Registry"')
        with pytest.raises(Unsupported, match="Basic") as raised:
            take(internet, *PULL)
        assert raised.value.status == 404
