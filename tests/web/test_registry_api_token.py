"""``/v2/auth``: what of a client's request reaches the upstream's token service, and what comes back."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from tests.fake_registry import basic, error
from tests.fakes import SILENT, Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet

DOCKER, K8S = "docker.mirror.example", "k8s.mirror.example"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and all others."""
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


class TestRelay:
    """Parameters that are relayed to the token service."""

    def test_docker_login(self, internet: Internet, house: House) -> None:
        """All its parameters and its Authorization; nothing else of its headers."""
        parameters = (("account", USER), ("client_id", "docker"), ("offline_token", "true"))
        asked = f"/v2/auth?{urlencode(parameters)}"
        answer = house.get(DOCKER, asked, LOGIN, "User-Agent: docker/20", "Cookie: a=b", "X-Meta: c")
        assert answer.status == 200
        (seen,) = internet.asked(AUTH)
        assert seen.query == (("service", "registry.docker.io"), *parameters)
        assert seen.headers == {
            "accept-encoding": ["identity"], "authorization": [basic(USER, PASSWORD)],
            "connection": ["close"], "host": [AUTH],
        }  # fmt: skip

    @pytest.mark.parametrize(
        "grant",
        [
            {"grant_type": "password", "username": USER, "password": PASSWORD, "access_type": "offline"},
            {"grant_type": "refresh_token", "refresh_token": "r3fresh&=+ "},
        ],
    )
    def test_forms(self, internet: Internet, house: House, grant: dict[str, str]) -> None:
        """Forms of both grants are relayed unchanged, except for the service."""
        form = urlencode({**grant, "service": DOCKER, "client_id": "x", "scope": "repository:busybox:pull"})
        answer = house.post(DOCKER, "/v2/auth", form)
        assert answer.json["access_token"] == answer.json["token"]
        (seen,) = internet.asked(AUTH)
        assert (seen.method, seen.query) == ("POST", ())
        assert dict(seen.form) == {
            **grant, "client_id": "x", "scope": "repository:library/busybox:pull",
            "service": "registry.docker.io",
        }  # fmt: skip

    def test_a_form_with_a_password_lets_in(self, house: House) -> None:
        """The token that it brings is good for a private image."""
        form = {"grant_type": "password", "username": USER, "password": PASSWORD}
        given = house.post(DOCKER, "/v2/auth", urlencode({**form, "scope": f"repository:{PRIVATE}:pull"}))
        bearer = f"Authorization: Bearer {given.json['access_token']}"
        assert house.get(DOCKER, f"/v2/{PRIVATE}/manifests/latest", bearer).body == BUSYBOX

    def test_a_token_service_without_forms(self, internet: Internet, house: House) -> None:
        """405 to the form, after which clients ask by GET."""
        internet.reply(AUTH, "/token", Reply(501), Reply(200, b'{"token":"x"}'))
        answer = house.post(DOCKER, "/v2/auth", "grant_type=refresh_token&refresh_token=x")
        assert answer.error == (405, "UNSUPPORTED")
        assert answer["Allow"] == "GET, HEAD"
        assert house.get(DOCKER, "/v2/auth").status == 200

    def test_ns_stays_here(self, internet: Internet, house: House) -> None:
        """It is meant for mirrors."""
        house.get(DOCKER, "/v2/auth?ns=docker.io&scope=repository:busybox:pull")
        assert "ns" not in dict(internet.asked(AUTH)[0].query)


class TestAnswer:
    """The response of the token service."""

    def test_a_token_under_both_names(self, internet: Internet, house: House) -> None:
        """The token is sent under both names with all other fields, and must not be cached."""
        said = {
            "access_token": "x",
            "expires_in": 60,
            "issued_at": "2026-01-01T00:00:00Z",
            "refresh_token": "r",
        }
        internet.reply(AUTH, "/token", Reply(200, json.dumps(said).encode(), (("Set-Cookie", "a=b"),)))
        for answer in (house.get(DOCKER, "/v2/auth"), house.post(DOCKER, "/v2/auth", "a=b")):
            assert answer.json == {**said, "token": "x"}
            assert "no-store" in str(answer["Cache-Control"])
            assert answer["Set-Cookie"] is None

    @pytest.mark.parametrize("path", ["/v2/%61uth", "/v2%2Fauth", "/v2/auth/"])
    def test_by_another_spelling(self, internet: Internet, house: House, path: str) -> None:
        """It is not there, and no upstream is asked: whoever looks at paths knows one."""
        before = len(internet.seen)
        assert house.get(DOCKER, path).status in (400, 404)
        assert len(internet.seen) == before

    @pytest.mark.parametrize(
        ("reply", "status", "code"),
        [
            (error(401, "UNAUTHORIZED"), 401, "UNAUTHORIZED"),
            (error(403, "DENIED"), 403, "DENIED"),
            (Reply(400, b'{"error":"invalid_grant"}'), 400, "UNKNOWN"),
            (Reply(404, b"<html>"), 404, "NAME_UNKNOWN"),
            (Reply(429, b"", (("Retry-After", "9"),)), 429, "TOOMANYREQUESTS"),
            (Reply(503, b"<html>"), 503, "UNAVAILABLE"),
            (Reply(307, b"", (("Location", "https://evil.example/"),)), 502, "UNAVAILABLE"),
            (Reply(200, b"<html>"), 502, "UNAVAILABLE"),
        ],
    )
    @pytest.mark.parametrize("form", [True, False])
    def test_a_refusal(
        self, internet: Internet, house: House, reply: Reply, status: int, code: str, form: bool
    ) -> None:
        """A refusal keeps its status, is no web page, and must not be cached."""
        internet.reply(AUTH, "/token", reply)
        answer = house.post(DOCKER, "/v2/auth", "a=b") if form else house.get(DOCKER, "/v2/auth", LOGIN)
        assert answer.error == (status, code)
        assert "no-store" in str(answer["Cache-Control"])
        assert answer["Retry-After"] == dict(reply.headers).get("Retry-After")
        assert internet.asked("evil.example") == []

    def test_a_token_service_that_is_silent(self, internet: Internet, house: House) -> None:
        """A silent token service is named after a minute."""
        internet.reply(AUTH, "/token", SILENT)
        client = house.connect().ask("GET", DOCKER, "/v2/auth")
        house.pass_time(60)
        assert client.answer.error == (504, "UNAVAILABLE")
        assert f"docker cannot be reached: {AUTH}" in client.answer.message


class TestTrust:
    """Hosts that credentials are not sent to."""

    @pytest.mark.parametrize("realm", ["https://evil.example/token", f"http://{AUTH}/token"])
    def test_to_foreign_realms(self, internet: Internet, house: House, realm: str) -> None:
        """Credentials are not sent to foreign realms or in clear text; anonymous requests are."""
        demand = ("WWW-Authenticate", f'Bearer realm="{realm}"')
        internet.reply(HUB, "/v2/", error(401, "UNAUTHORIZED").having(demand))
        internet.reply("evil.example", "/token", Reply(200, b'{"token":"x"}'))
        for answer in (
            house.get(DOCKER, "/v2/auth", LOGIN),
            house.post(DOCKER, "/v2/auth", f"grant_type=password&username=a&password={PASSWORD}"),
        ):
            assert answer.error == (403, "DENIED")
            assert "credentials are not sent to" in answer.message
        assert [seen.host for seen in internet.seen] == [HUB]
        assert house.get(DOCKER, "/v2/auth?account=alice").status == 200

    def test_an_operator_may_name_more(self, internet: Internet) -> None:
        """The operator may trust further realms with ``realms``."""
        own = {"url": "https://own.example", "realms": ["https://login.example"]}
        house = House(internet, upstreams={"own": own})
        demand = ("WWW-Authenticate", 'Bearer realm="https://login.example/token"')
        internet.reply("own.example", "/v2/", error(401, "UNAUTHORIZED").having(demand))
        internet.reply("login.example", "/token", Reply(200, b'{"token":"x"}'))
        assert house.get("own.mirror.example", "/v2/auth", LOGIN).status == 200
        assert internet.asked("login.example")[0].authorization == basic(USER, PASSWORD)


class TestMarker:
    """The token of an upstream that has none."""

    @pytest.mark.parametrize("form", [True, False])
    def test_is_given_to_who_insists(self, internet: Internet, house: House, form: bool) -> None:
        """Under both names, without asking anybody for it."""
        asked = "scope=repository:pause:pull"
        answer = house.post(K8S, "/v2/auth", asked) if form else house.get(K8S, f"/v2/auth?{asked}", LOGIN)
        assert answer.json["token"] == answer.json["access_token"]
        assert "no-store" in str(answer["Cache-Control"])
        assert [seen.path for seen in internet.seen] == ["/v2/"]

    def test_is_no_credentials_when_it_comes_back(self, internet: Internet, house: House) -> None:
        """The upstream never sees it."""
        token = house.get(K8S, "/v2/auth").json["token"]
        for path in ("/v2/", "/v2/team/image/manifests/1"):
            answer = house.get(K8S, path, f"Authorization: Bearer {token}")
            assert answer.status == 200
        assert [seen.authorization for seen in internet.seen] == [None, None]


class TestRequest:
    """Requests that are no token requests."""

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_other_methods(self, house: House, method: str) -> None:
        """Other methods get 405 with the allowed ones."""
        answer = house.ask(method, DOCKER, "/v2/auth")
        assert answer.error == (405, "UNSUPPORTED")
        assert answer["Allow"] == "GET, HEAD, POST"

    @pytest.mark.parametrize("kind", ["Content-Type: application/json", "X: y"])
    def test_a_body_that_is_no_form(self, internet: Internet, house: House, kind: str) -> None:
        """A body of another type is rejected."""
        client = house.connect().ask("POST", DOCKER, "/v2/auth", kind, "Content-Length: 2", body=b"{}")
        assert client.answer.error == (400, "UNKNOWN")
        assert internet.asked(AUTH) == []

    def test_a_form_that_is_too_large(self, internet: Internet, house: House) -> None:
        """A form that is too large is rejected before it is read."""
        client = house.connect().ask("POST", DOCKER, "/v2/auth", FORM, "Content-Length: 65537")
        assert client.answer.error == (413, "SIZE_INVALID")
        assert internet.seen == []

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_form_may_be_chunked(self, internet: Internet, house: House, chunked: bool) -> None:
        """A form may be chunked, and its type may have parameters."""
        kind = f"{FORM}; charset=utf-8"
        if chunked:
            client = house.connect().ask(
                "POST", DOCKER, "/v2/auth", kind, "Transfer-Encoding: chunked", body=b"3\r\na=b\r\n0\r\n\r\n"
            )
        else:
            client = house.connect().ask("POST", DOCKER, "/v2/auth", kind, "Content-Length: 3", body=b"a=b")
        assert client.answer.status == 200
        assert dict(internet.asked(AUTH)[0].form)["a"] == "b"

    def test_too_many_parameters(self, internet: Internet, house: House) -> None:
        """Too many parameters are rejected."""
        assert house.get(DOCKER, "/v2/auth?" + "scope=a&" * 51).error == (400, "UNKNOWN")
        assert internet.seen == []

    def test_auth_is_also_a_name(self, internet: Internet, house: House) -> None:
        """``auth`` followed by more is a repository's name."""
        assert house.get(DOCKER, "/v2/auth/manifests/latest").status == 401
        assert internet.seen[-1].path == "/v2/library/auth/manifests/latest"
