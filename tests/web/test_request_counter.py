"""Finished requests, counted for the metrics."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dockmirror.web.access_log import endpoint_name
from tests.fake_registry import digest
from tests.house import DOMAIN, House
from tests.internet import LAYER, Internet
from tests.scraped import scraped

K8S = f"k8s.{DOMAIN}"


def counted(house: House) -> Mapping[tuple[str, ...], float]:
    """Return the counts by endpoint, host and status."""
    samples = scraped(house.metrics.registry)
    return {labels: value for (name, labels), value in samples.items() if name == "dockmirror_requests_total"}


@pytest.mark.parametrize(
    ("path", "name"),
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
def test_a_path_is_counted_by_its_endpoint(path: str, name: str) -> None:
    assert endpoint_name(path.encode()) == name


def test_requests_are_counted_by_host_endpoint_and_status(internet: Internet) -> None:
    """The own host has one label for all of its names and addresses."""
    house = House(internet, names=["m.lan"])
    answer = house.get(f"{K8S}:8080", "/v2/team/image/manifests/1")
    house.get(K8S.upper(), "/v2/team/image/manifests/nope")
    for host in (DOMAIN, "m.lan", "localhost:1", "127.0.0.1:8080", "[::1]:80"):
        house.get(host, "/v2/")
    manifests = {("manifest", K8S, "200"): 1, ("manifest", K8S, "404"): 1}
    assert counted(house) == {**manifests, ("ping", DOMAIN, "200"): 5}
    assert scraped(house.metrics.registry)["dockmirror_sent_bytes_total", (K8S,)] > len(answer.body)


def test_values_that_clients_make_up_never_become_labels(house: House) -> None:
    for number in range(20):
        house.ask(f"M{number}", f"h{number}.example", f"/p{number}")
    house.connect(peer="8.8.8.8").ask("GET", K8S, "/v2/")
    assert set(counted(house)) == {("other", "other", "404"), ("ping", K8S, "403")}


def test_requests_to_an_upstream_are_measured_by_its_name(internet: Internet, house: House) -> None:
    assert house.get(K8S, internet.registries["k8s"].add("team/image", LAYER)).body == LAYER
    samples = scraped(house.metrics.registry)
    assert samples["dockmirror_received_bytes_total", ("k8s",)] >= len(LAYER)
    assert samples["dockmirror_upstream_seconds_count", ("k8s",)] > 0
    assert samples["dockmirror_upstream_seconds_count", ("quay",)] == 0
