"""Access by network, virtual hosts, and the paths of a host."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest

from dockmirror.config.known_registries import KNOWN
from dockmirror.system.networks import normalize_host
from tests.fake_registry import basic
from tests.house import House
from tests.internet import BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet

DOCKER, OWN = "docker.mirror.example", "mirror.example"
MANIFEST = "/v2/library/busybox/manifests/latest"


@pytest.mark.parametrize("name", [known.name for known in KNOWN])
def test_each_registry_has_a_host_and_takes_logins_there(house: House, name: str) -> None:
    """Public images need no account."""
    host = f"{name}.mirror.example"
    answer = house.pull(host, "/v2/team/image/manifests/1")
    assert (answer.status, answer.body) == (200, b'{"schemaVersion":2}')
    path = f"/v2/{PRIVATE}/manifests/latest"
    assert house.pull(host, path, authorization=basic(USER, PASSWORD)).body == BUSYBOX


@pytest.mark.parametrize("host", ["DOCKER.Mirror.EXAMPLE", f"{DOCKER}.", f"{DOCKER}.:8080", f"{DOCKER}:"])
def test_hosts_may_be_spelled_in_several_ways(house: House, host: str) -> None:
    """The realm of a challenge is where the client asked."""
    answer = house.get(host, MANIFEST)
    assert answer.status == 401
    assert f'realm="http://{host}/v2/auth"' in str(answer["WWW-Authenticate"])


@pytest.mark.parametrize(
    "host", [OWN, "localhost:8080", "127.0.0.1", "192.0.2.1:8080", "[::1]", "[2001:DB8::1]:8080"]
)
def test_the_own_host_is_the_domain_localhost_and_any_address(house: House, host: str) -> None:
    assert house.get(host, "/v2/").status == 200


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({"names": ["mirror.lan", "m"]}, {"mirror.lan": 200, "M:80": 200, "other.lan": 404}),
        ({"hosts": "{name}-{domain}"}, {"docker-mirror.example": 401, DOCKER: 404}),
        ({"default": "docker"}, {"x.example": 401, "k8s.mirror.example": 200, "127.0.0.1": 200}),
    ],
)
def test_the_operator_may_set_names_a_pattern_and_a_default(
    internet: Internet, settings: dict[str, Any], statuses: dict[str, int]
) -> None:
    house = House(internet, **settings)
    assert {host: house.get(host, "/v2/").status for host in statuses} == statuses


@pytest.mark.parametrize("path", ["/", "/v2/", MANIFEST, "/v2/auth", "/what/ever?x"])
@pytest.mark.parametrize("host", ["unknown.example", "mirror.example.docker", ""])
def test_an_unknown_host_gets_404_with_the_known_ones(house: House, host: str, path: str) -> None:
    answer = house.get(host, path)
    assert answer.status == 404
    names = [known.name for known in KNOWN if known.follows is None]
    assert set(answer.json["hosts"]) == {OWN, *(f"{name}.mirror.example" for name in names)}
    for method in ("POST", "DELETE", "HEAD"):
        assert house.ask(method, host, path).status == 404
    assert house.world.seen == []


@pytest.mark.parametrize(
    ("host", "text"), [(DOCKER, "docker pull docker.mirror.example"), (OWN, "k8s.mirror")]
)
def test_a_short_text_describes_the_host(house: House, host: str, text: str) -> None:
    answer = house.get(host, "/")
    assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert text in answer.body.decode()
    assert house.ask("HEAD", host, "/").status == 200
    refused = house.ask("POST", host, "/")
    assert refused.error == (405, "UNSUPPORTED")
    assert "GET" in str(refused["Allow"])


@pytest.mark.parametrize("host", [DOCKER, OWN])
@pytest.mark.parametrize(
    "path", ["/v1/", "/v2x", "//", "//v2/", "/a/v2/", "/v2%2F", "/..%2fv2/", "/%00", "/V2/", "/docker.io"]
)
def test_other_paths_get_404_in_the_registrys_format(house: House, host: str, path: str) -> None:
    assert house.get(host, path).error == (404, "UNSUPPORTED")
    assert house.ask("HEAD", host, path).status == 404
    assert house.world.seen == []


@pytest.mark.parametrize("path", ["/", "/v2/", MANIFEST, "/v2/auth", "/nothing"])
@pytest.mark.parametrize("host", [DOCKER, OWN, "unknown.example"])
def test_other_networks_are_refused_by_the_setting_that_decides(house: House, host: str, path: str) -> None:
    """The refusal does not reveal the upstreams."""
    answer = house.connect("8.8.8.8").ask("GET", host, path).answer
    assert answer.error == (403, "DENIED")
    assert "'networks'" in answer.message
    assert HUB not in answer.body.decode()
    assert house.world.seen == []


def test_the_operator_may_allow_every_network(internet: Internet) -> None:
    house = House(internet, networks=["public"])
    assert house.connect("8.8.8.8").ask("GET", OWN, "/v2/").answer.status == 200


def test_headers_of_an_untrusted_proxy_are_refused(house: House) -> None:
    """They would make the whole world look private."""
    answer = house.connect("127.0.0.1").ask("GET", OWN, "/v2/", "X-Forwarded-For: 10.0.0.1").answer
    assert answer.error == (403, "DENIED")
    assert "'trust_proxy'" in answer.message


def test_a_trusted_proxy_names_the_client_the_scheme_and_the_host(internet: Internet) -> None:
    house = House(internet, trust_proxy=["127.0.0.1"])
    forwarded = ("X-Forwarded-Proto: https", f"X-Forwarded-Host: {DOCKER}:8443")
    ours, other = (
        house.connect("127.0.0.1").ask("GET", "b", "/v2/", f"X-Forwarded-For: {peers}", *forwarded).answer
        for peers in ("8.8.8.8, 10.0.0.9", "8.8.8.8")
    )
    assert f'realm="https://{DOCKER}:8443/v2/auth"' in str(ours["WWW-Authenticate"])
    assert other.error == (403, "DENIED")


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.b:80", "a.b"), ("a.b.:80", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), (":80", "")],
)
def test_host_names_are_normalized(host: str, name: str) -> None:
    assert normalize_host(host) == name
