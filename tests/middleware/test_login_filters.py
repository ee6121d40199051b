"""An upstream at which the mirror has an account: everybody pulls with it, and nobody logs in."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from dockmirror.system.external_program import ProcessResult
from tests.fake_registry import basic
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet

OWN, HOST = "mirror.example", "docker.mirror.example"
MANIFEST = f"/v2/{PRIVATE}/manifests/latest"
EVERYWHERE = [(HOST, MANIFEST), (OWN, MANIFEST), (OWN, f"/v2/docker.io/{PRIVATE}/manifests/latest")]
BOB = f"Authorization: {basic('bob', 'b0bs')}"
everywhere = pytest.mark.parametrize(("host", "path"), EVERYWHERE)


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """A mirror with Alice's account at Docker Hub."""
    return with_password(internet, PASSWORD)


def with_password(internet: Internet, password: str) -> House:
    environ = {"DOCKMIRROR_PASSWORD_DOCKER": password}
    return House(internet, environ, networks=["private"], upstreams={"docker": {"username": USER}})


@everywhere
def test_clients_need_no_credentials(house: House, host: str, path: str) -> None:
    """On both hosts; shared caches may not keep the answers."""
    answer = house.get(host, path)
    assert (answer.status, answer.body) == (200, BUSYBOX)
    assert answer["Cache-Control"] == "private"


@everywhere
@pytest.mark.parametrize("header", [BOB, "Authorization: Bearer bobs"])
def test_clients_credentials_are_dropped(
    house: House, internet: Internet, host: str, path: str, header: str
) -> None:
    """Neither the registry nor its token service gets them."""
    assert house.get(host, path, header).body == BUSYBOX
    secret = header.partition(": ")[2]
    assert internet.seen
    assert not any(secret in str(seen.authorization) for seen in internet.seen)


def test_the_handshake_has_no_challenge(house: House, internet: Internet) -> None:
    assert house.get(HOST, "/v2/").json == {}
    assert internet.seen == []


def test_logins_are_refused(house: House, internet: Internet) -> None:
    """At the handshake and at the token service, with the reason."""
    form = "grant_type=password&username=bob&password=b0bs&service=x"
    for answer in (
        house.get(HOST, "/v2/", BOB),
        house.get(HOST, "/v2/auth?service=x", BOB),
        house.post(HOST, "/v2/auth", form),
    ):
        assert answer.error == (403, "DENIED")
        assert "takes no logins" in answer.message
        assert answer["WWW-Authenticate"] is None
    assert internet.seen == []


@pytest.mark.parametrize("port", ["", ":8080"])
def test_the_own_host_names_the_host_of_logins_with_the_clients_port(internet: Internet, port: str) -> None:
    answer = House(internet).get(f"{OWN}{port}", f"/v2/docker.io/{PRIVATE}/manifests/latest")
    assert answer.error == (403, "DENIED")
    assert answer.message.endswith(f"private images: docker login {HOST}{port}")


@everywhere
def test_a_refused_account_is_no_challenge(internet: Internet, host: str, path: str) -> None:
    answer = with_password(internet, "wrong").get(host, path)
    assert answer.error == (403, "DENIED")
    assert "does not give this to this mirror" in answer.message
    assert answer["WWW-Authenticate"] is None


def test_other_upstreams_do_not_use_the_account(house: House, internet: Internet) -> None:
    """Their clients log in."""
    assert house.get("quay.mirror.example", "/v2/").status == 401
    assert house.pull("quay.mirror.example", MANIFEST, authorization=basic(USER, PASSWORD)).body == BUSYBOX
    assert house.get(OWN, f"/v2/quay.io/{PRIVATE}/manifests/latest").error == (403, "DENIED")
    assert internet.asked(HUB) == []
    assert internet.asked(AUTH) == []


def test_networks_that_are_not_served_get_nothing(house: House, internet: Internet) -> None:
    for host, path in EVERYWHERE:
        assert house.connect("203.0.113.1").ask("GET", host, path).answer.error == (403, "DENIED")
    assert internet.seen == []


def test_passwords_are_not_in_the_access_log(house: House) -> None:
    for host, path in EVERYWHERE:
        house.get(host, path, BOB)
    assert house.lines
    assert not any(word in line for line in house.lines for word in (PASSWORD, "b0bs", "t0ken"))


async def ask_helper(command: Sequence[str], environ: Mapping[str, str], said: bytes) -> ProcessResult:
    assert said == b"https://index.docker.io/v1/"
    return ProcessResult(0, json.dumps({"Username": USER, "Secret": PASSWORD}).encode())


@everywhere
def test_a_credential_helper_can_be_the_account(internet: Internet, host: str, path: str) -> None:
    """Clients need no credentials, and do not log in."""
    upstreams = {"docker": {"credential_helper": "/bin/true"}}
    house = House(internet, ask=ask_helper, networks=["private"], upstreams=upstreams)
    answer = house.get(host, path)
    assert (answer.body, answer["Cache-Control"]) == (BUSYBOX, "private")
    assert house.get(HOST, "/v2/", BOB).error == (403, "DENIED")
    assert {seen.authorization for seen in internet.asked(AUTH)} == {basic(USER, PASSWORD)}


def test_a_failing_credential_helper_makes_the_upstream_unavailable(internet: Internet) -> None:
    upstreams = {"docker": {"credential_helper": "/bin/true"}}
    house = House(internet, networks=["private"], upstreams=upstreams)
    answer = house.get(HOST, MANIFEST)
    assert answer.error == (502, "UNAVAILABLE")
    assert "credential helper for docker provides no login" in answer.message
