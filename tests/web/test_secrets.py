"""Secrets, which stand in no line of any log, at no level, and in no error."""

# mypy: allow-untyped-calls

from __future__ import annotations

import gc
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from twisted.internet.error import ConnectionRefusedError as Refused

from tests.fake_registry import Passwords, Registry, basic, error
from tests.fakes import DEAD, Reply
from tests.house import House
from tests.internet import AUTH, HUB, HUB_CDN, PRIVATE, Internet
from tests.stacks import logged

DOCKER, OWN, BASIC = "docker.mirror.example", "mirror.example", "basic.mirror.example"
USER, PASSWORD, REFRESH = "alice", "s3cret", "r3fresh"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"
SECRETS = (PASSWORD, REFRESH, "t0ken", "s1gned", "c00kie", basic(USER, PASSWORD).partition(" ")[2])


@pytest.fixture
def internet() -> Internet:
    """The registries, and one with passwords."""
    internet = Internet()
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    return internet


@pytest.fixture(scope="module", autouse=True)
def _aside() -> None:
    """Put the objects of other tests aside, so that each collection here is short."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Collect all that is logged in the test, unhandled failures included; it must hold no secret."""
    with logged() as texts:
        yield texts
        gc.collect()  # a Deferred that failed unseen says so when it goes
    assert_quiet(texts)


@pytest.fixture
def house(internet: Internet, log: list[str]) -> Iterator[House]:
    """A mirror whose access log is part of the log."""
    house = House(internet, upstream=["basic=https://basic.example"])
    yield house
    log.extend(house.lines)


def assert_quiet(texts: list[str]) -> None:
    """Expect no secret in any of these."""
    for text in texts:
        for secret in SECRETS:
            assert secret not in text
        assert quote(PASSWORD + "&=") not in text


def dance(house: House, path: str) -> None:
    """Send secrets in all the ways that clients have."""
    house.get(DOCKER, "/v2/", LOGIN)
    house.get(DOCKER, f"/v2/auth?account={USER}&password={PASSWORD}&scope=repository:{PRIVATE}:pull", LOGIN)
    grant = {"grant_type": "password", "username": USER, "password": PASSWORD}
    house.post(DOCKER, f"/v2/auth?refresh_token={REFRESH}", urlencode(grant), LOGIN)
    house.post(DOCKER, "/v2/auth", f"grant_type=refresh_token&refresh_token={REFRESH}")
    for host in (DOCKER, OWN, BASIC):
        house.get(host, f"{path}?token=t0ken", "Authorization: Bearer t0ken-0-user", "Cookie: c00kie")
        house.get(host, path, LOGIN)


def test_no_secret_of_a_pull_is_logged(internet: Internet, house: House, log: list[str]) -> None:
    house.pull(DOCKER, f"/v2/{PRIVATE}/manifests/latest", authorization=basic(USER, PASSWORD))
    answer = house.pull(DOCKER, f"/v2/busybox/blobs/{internet.layer}")
    assert answer.status == 200
    dance(house, f"/v2/{PRIVATE}/manifests/latest")
    assert [text for text in log if "error" in text.lower()] == []


@pytest.mark.parametrize("server", [HUB, AUTH])
@pytest.mark.parametrize("failure", [Refused(), ValueError("no address"), ZeroDivisionError()])
def test_no_secret_is_logged_when_an_upstream_fails(
    internet: Internet, house: House, server: str, failure: Exception
) -> None:
    internet.agent.failing[server] = failure
    dance(house, f"/v2/{PRIVATE}/manifests/latest")


@pytest.mark.parametrize("path", ["/v2/", "/token", f"/v2/{PRIVATE}/manifests/latest"])
@pytest.mark.parametrize(
    "reply",
    [
        error(401, "UNAUTHORIZED"),
        error(403, "DENIED", f"{PASSWORD} and t0ken-0-user are wrong"),
        error(500, "UNKNOWN", f"no t0ken, {PASSWORD}"),
        Reply(403, b"the token t0ken-0-user has expired"),
        Reply(500, f"no user {USER} with {PASSWORD}".encode()),
        Reply(500, b"<html>"),
        DEAD,
        Reply(200, b"<html>t0ken", (("Content-Type", "text/html"),)),
        Reply(200, b'{"token":"t0ken').cut(8),
        Reply(307, b"", (("Location", "https://t0ken:s3cret@evil.example/?s1gned"),)),
        Reply(307, b"", (("Location", "https://[s1gned"),)),
        Reply(200, b'{"token":"t0ken"}', (("Set-Cookie", "c00kie"),)),
    ],
)
def test_no_secret_of_a_refusal_is_logged(internet: Internet, house: House, path: str, reply: Reply) -> None:
    internet.reply(AUTH if path == "/token" else HUB, path, reply)
    dance(house, f"/v2/{PRIVATE}/manifests/latest")


@pytest.mark.parametrize(
    "reply", [Reply(403, b"<Error>"), DEAD, Reply(200, b"other"), Reply(200, b"x" * 9).cut(3)]
)
def test_no_signed_address_is_shown(internet: Internet, house: House, log: list[str], reply: Reply) -> None:
    """It gives access to a blob."""
    internet.reply(HUB_CDN, f"/blobs/{internet.layer}", reply)
    token = house.get(DOCKER, "/v2/auth?scope=repository:busybox:pull").json["token"]
    for host in (DOCKER, OWN):
        client = house.connect()
        client.ask("GET", host, f"/v2/busybox/blobs/{internet.layer}", f"Authorization: Bearer {token}")
        house.pass_time(0, 0.5, 1, 2, 4)
        log.append(client.answer.body.decode())


def test_an_untrusted_realm_is_named_by_its_host_alone(internet: Internet, house: House) -> None:
    realm = "https://s3cret:t0ken@evil.example/s3cret?s1gned"
    demand = ("WWW-Authenticate", f'Bearer realm="{realm}"')
    internet.reply(HUB, "/v2/", error(401, "UNAUTHORIZED").having(demand))
    answer = house.get(DOCKER, "/v2/auth", LOGIN)
    assert answer.error == (403, "DENIED")
    assert_quiet([answer.body.decode()])
    dance(house, f"/v2/{PRIVATE}/manifests/latest")
