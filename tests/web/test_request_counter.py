"""Requests counted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dockmirror.web.recent_requests import endpoint_name
from tests.fake_registry import digest
from tests.house import DOMAIN, House
from tests.internet import LAYER, Internet
from tests.scraped import scraped

K8S = f"k8s.{DOMAIN}"


def requests(house: House) -> Mapping[tuple[str, ...], float]:
    """Return the counts by endpoint, host and status."""
    seen = scraped(house.metrics.registry)
    return {labels: number for (name, labels), number in seen.items() if name == "dockmirror_requests_total"}


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v2/", "ping"), ("/v2", "ping"), ("/v2/auth", "token"), ("/docker.io/v2/auth", "token"),
        ("/v2/a/manifests/1", "manifest"), (f"/v2/a/b/blobs/{digest(b'')}", "blob"),
        ("/v2/a/tags/list", "tags"), (f"/v2/a/referrers/{digest(b'')}", "referrers"),
        ("/v2/_catalog", "catalog"), ("/docker.io/v2/a/manifests/1", "manifest"), ("/", "other"),
        ("/healthz", "other"), ("/v2/A/manifests/1", "other"), ("/v2/auth/x", "other"), ("", "other"),
        ("/v2/x/y", "other"), ("*", "other"), ("/v2/a/blobs/uploads/", "upload"),
        ("/v2/a/blobs/uploads/x.y", "upload"),
    ],
)  # fmt: skip
def test_endpoints(path: str, word: str) -> None:
    """A path is counted as what it asks for, on its own or below a registry's name; any other is other."""
    assert endpoint_name(path.encode()) == word


def test_a_request() -> None:
    """Host, endpoint and status are told, and the bytes that were sent to that host's clients."""
    house = House(Internet())
    answer = house.get(f"{K8S}:8080", "/v2/team/image/manifests/1")
    house.get(K8S.upper(), "/v2/team/image/manifests/nope")
    assert requests(house) == {("manifest", K8S, "200"): 1, ("manifest", K8S, "404"): 1}
    sent = scraped(house.metrics.registry)["dockmirror_sent_bytes_total", (K8S,)]
    assert sent > len(answer.body)


def test_the_own_host() -> None:
    """The own host is one label for all of its names and addresses."""
    house = House(Internet(), names=["m.lan"])
    for host in (DOMAIN, "m.lan", "localhost:1", "127.0.0.1:8080", "[::1]:80"):
        house.get(host, "/v2/")
    assert requests(house) == {("ping", DOMAIN, "200"): 5}


def test_what_a_client_makes_up() -> None:
    """Values that clients make up never become labels."""
    house = House(Internet())
    for number in range(20):
        house.ask(f"M{number}", f"h{number}.example", f"/p{number}")
    house.connect(peer="8.8.8.8").ask("GET", K8S, "/v2/")
    assert set(requests(house)) == {("other", "other", "404"), ("ping", K8S, "403")}


def test_an_upstream_is_measured() -> None:
    """Requests to an upstream are measured by its name."""
    internet = Internet()
    house = House(internet)
    path = f"/v2/team/image/blobs/{internet.registries['k8s'].add('team/image', LAYER).rpartition('/')[2]}"
    assert house.get(K8S, path).body == LAYER
    seen = scraped(house.metrics.registry)
    assert seen["dockmirror_received_bytes_total", ("k8s",)] >= len(LAYER)
    assert seen["dockmirror_upstream_seconds_count", ("k8s",)] > 0
    assert seen["dockmirror_upstream_seconds_count", ("quay",)] == 0
