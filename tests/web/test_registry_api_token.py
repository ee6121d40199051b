"""``/v2/auth``: a client's token request, the upstream's token service, and its answer."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from tests.fake_registry import basic, error
from tests.fakes import Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, PASSWORD, PRIVATE, USER, Internet

DOCKER, K8S = "docker.mirror.example", "k8s.mirror.example"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"
FORM = "Content-Type: application/x-www-form-urlencoded"


def test_a_login_is_relayed_with_its_parameters_and_nothing_else(internet: Internet, house: House) -> None:
    parameters = (("account", USER), ("client_id", "docker"), ("offline_token", "true"))
    path = f"/v2/auth?{urlencode(parameters)}&ns=docker.io"
    assert house.get(DOCKER, path, LOGIN, "User-Agent: docker/20", "Cookie: a=b", "X-Meta: c").status == 200
    (seen,) = internet.asked(AUTH)
    assert seen.query == (("service", "registry.docker.io"), *parameters)
    assert {name: values for name, values in seen.headers.items() if name != "cdn-loop"} == {
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
def test_a_form_is_relayed_for_the_upstream(internet: Internet, house: House, grant: dict[str, str]) -> None:
    """Short names in scopes are completed, and a scope may stand in the query."""
    form = {**grant, "service": DOCKER, "client_id": "x", "scope": f"repository:{PRIVATE}:pull"}
    answer = house.post(DOCKER, "/v2/auth?scope=repository:a:pull", urlencode(form))
    assert answer.json["access_token"] == answer.json["token"]
    (seen,) = internet.asked(AUTH)
    assert (seen.method, seen.query) == ("POST", ())
    assert dict(seen.form) == {
        **grant, "client_id": "x", "scope": f"repository:library/a:pull repository:{PRIVATE}:pull",
        "service": "registry.docker.io",
    }  # fmt: skip
    if grant["grant_type"] == "password":
        bearer = f"Authorization: Bearer {answer.json['access_token']}"
        assert house.get(DOCKER, f"/v2/{PRIVATE}/manifests/latest", bearer).body == BUSYBOX


def test_a_token_service_without_forms_gets_a_login_by_get(internet: Internet, house: House) -> None:
    """A 405 lets clients ask by GET."""
    internet.reply(AUTH, "/token", Reply(501), Reply(200, b'{"token":"x"}'))
    answer = house.post(DOCKER, "/v2/auth", "grant_type=refresh_token&refresh_token=x")
    assert (answer.error, answer["Allow"]) == ((405, "UNSUPPORTED"), "GET, HEAD")
    assert house.get(DOCKER, "/v2/auth").status == 200


def test_a_token_is_sent_under_both_names_and_not_cached(internet: Internet, house: House) -> None:
    fields = {"access_token": "x", "expires_in": 60, "issued_at": "2026-01-01T00:00:00Z"}
    internet.reply(AUTH, "/token", Reply(200, json.dumps(fields).encode(), (("Set-Cookie", "a=b"),)))
    for answer in (house.get(DOCKER, "/v2/auth"), house.post(DOCKER, "/v2/auth", "a=b")):
        assert answer.json == {**fields, "token": "x"}
        assert "no-store" in str(answer["Cache-Control"])
        assert answer["Set-Cookie"] is None


@pytest.mark.parametrize("path", ["/v2/%61uth", "/v2%2Fauth", "/v2/auth/"])
def test_other_spellings_of_the_path_are_unknown(internet: Internet, house: House, path: str) -> None:
    assert house.get(DOCKER, path).status in (400, 404)
    assert internet.seen == []


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (error(401, "UNAUTHORIZED"), 401, "UNAUTHORIZED"),
        (Reply(429, b"", (("Retry-After", "9"),)), 429, "TOOMANYREQUESTS"),
        (Reply(307, b"", (("Location", "https://evil.example/"),)), 502, "UNAVAILABLE"),
        (Reply(200, b"<html>"), 502, "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("form", [True, False])
def test_a_refusal_of_the_token_service_is_passed_on_and_not_cached(
    internet: Internet, house: House, reply: Reply, status: int, code: str, form: bool
) -> None:
    internet.reply(AUTH, "/token", reply)
    answer = house.post(DOCKER, "/v2/auth", "a=b") if form else house.get(DOCKER, "/v2/auth", LOGIN)
    assert answer.error == (status, code)
    assert "no-store" in str(answer["Cache-Control"])
    assert answer["Retry-After"] == dict(reply.headers).get("Retry-After")
    assert internet.asked("evil.example") == []


@pytest.mark.parametrize("form", [True, False])
def test_an_open_registry_never_sees_its_marker_token(internet: Internet, house: House, form: bool) -> None:
    query = "scope=repository:pause:pull"
    answer = house.post(K8S, "/v2/auth", query) if form else house.get(K8S, f"/v2/auth?{query}", LOGIN)
    token = answer.json["token"]
    assert token == answer.json["access_token"]
    assert "no-store" in str(answer["Cache-Control"])
    assert [seen.path for seen in internet.seen] == ["/v2/", "/v2/pause/tags/list"]
    for path in ("/v2/", "/v2/team/image/manifests/1"):
        assert house.get(K8S, path, f"Authorization: Bearer {token}").status == 200
    assert {seen.authorization for seen in internet.seen} == {None}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_get_405_with_the_allowed_ones(house: House, method: str) -> None:
    answer = house.ask(method, DOCKER, "/v2/auth")
    assert (answer.error, answer["Allow"]) == ((405, "UNSUPPORTED"), "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (("Content-Type: application/json", "Content-Length: 2"), b"{}", (400, "UNKNOWN")),
        (("X: y", "Content-Length: 2"), b"{}", (400, "UNKNOWN")),
        ((FORM, "Content-Length: 65537"), b"", (413, "SIZE_INVALID")),
    ],
)
def test_a_body_of_another_type_or_size_is_refused(
    internet: Internet, house: House, headers: tuple[str, ...], body: bytes, expected: tuple[int, str]
) -> None:
    client = house.connect().ask("POST", DOCKER, "/v2/auth", *headers, body=body)
    assert client.answer.error == expected
    assert internet.asked(AUTH) == []


@pytest.mark.parametrize(
    ("framing", "body"),
    [("Transfer-Encoding: chunked", b"3\r\na=b\r\n0\r\n\r\n"), ("Content-Length: 3", b"a=b")],
)
def test_a_form_may_be_chunked(internet: Internet, house: House, framing: str, body: bytes) -> None:
    client = house.connect().ask("POST", DOCKER, "/v2/auth", f"{FORM}; charset=utf-8", framing, body=body)
    assert client.answer.status == 200
    assert dict(internet.asked(AUTH)[0].form)["a"] == "b"


def test_too_many_parameters_are_refused(internet: Internet, house: House) -> None:
    assert house.get(DOCKER, "/v2/auth?" + "scope=a&" * 51).error == (400, "UNKNOWN")
    assert internet.seen == []
