"""Finished requests: counted for metrics, and remembered for each client."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from mmap import mmap
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.config.load import load
from dockmirror.http.access import ClientAddress
from dockmirror.web.recent_requests import RECENT_REQUESTS_SIZE, RecentRequests, endpoint_name
from tests.fake_registry import digest
from tests.house import DOMAIN, House
from tests.internet import LAYER, Internet
from tests.scraped import scraped

K8S = f"k8s.{DOMAIN}"
ONE, OTHER = "10.0.0.1", "10.0.0.2"


def requests_of(house: House, peer: str = ONE) -> Any:
    """Return the requests that a client is shown."""
    return house.connect(peer).ask("GET", DOMAIN, "/", "Accept: application/json").answer.json["requests"]


def test_each_client_sees_its_own_requests_newest_first(house: House) -> None:
    """Pages and health checks are left out; new settings forget nothing."""
    for path in ("/", "/v2/", "/client/docker", "/v2/x/tags/list", "/healthz", "/nothing"):
        house.connect(ONE).ask("GET", DOMAIN, path)
    house.connect(OTHER).ask("GET", DOMAIN, "/v2/y/tags/list")
    house.serving.apply(load({"domain": DOMAIN}, {}))
    paths = [[each["path"] for each in requests_of(house, peer)] for peer in (ONE, OTHER, "10.0.0.3")]
    assert paths == [["/v2/x/tags/list", "/v2/"], ["/v2/y/tags/list"], []]


def test_the_reason_of_a_refusal_is_shown(house: House) -> None:
    """The JSON, the text and the page have the sentence that the client got."""
    message = house.connect(ONE).ask("GET", DOMAIN, "/docker.io/v2/A/tags/list").answer.message
    (entry,) = requests_of(house)
    assert entry["reason"] == message
    for accept in ("text/plain", "text/html"):
        answer = house.connect(ONE).ask("GET", DOMAIN, "/", f"Accept: {accept}").answer
        assert f"refused: {message}" in answer.body.decode()


def test_no_query_and_no_header_is_remembered(house: House) -> None:
    house.connect(ONE).ask("GET", DOMAIN, "/v2/?password=s3cret", "Authorization: Basic czNjcmV0")
    answer = house.connect(ONE).ask("GET", DOMAIN, "/", "Accept: text/html").answer
    assert b"/v2/" in answer.body
    assert b"s3cret" not in answer.body
    assert b"czNjcmV0" not in answer.body


def test_behind_a_trusted_proxy_the_client_is_remembered(internet: Internet) -> None:
    house = House(internet, trust_proxy=["127.0.0.1"])
    house.connect("127.0.0.1").ask("GET", DOMAIN, "/v2/", f"X-Forwarded-For: {ONE}")
    assert (len(requests_of(house)), requests_of(house, "127.0.0.1")) == (1, [])


def test_rejected_clients_and_those_without_an_address_are_not_remembered(house: House) -> None:
    """Behind a UNIX socket all clients look alike."""
    house.connect("8.8.8.8").ask("GET", DOMAIN, "/v2/")
    for address in (ip_address("8.8.8.8"), None):
        assert house.watched.recent.list_for(ClientAddress(address, "http", DOMAIN)) == ()


def test_20_requests_and_300_characters_of_a_path_are_remembered(house: House) -> None:
    for number in range(25):
        house.connect(ONE).ask("GET", DOMAIN, f"/v2/{number}{'x' * 400}")
    listed = requests_of(house)
    assert len(listed) == 20
    assert listed[0]["path"].startswith("/v2/24x")
    assert {len(each["path"]) for each in listed} == {300}


def finished(client: ClientAddress, path: bytes = b"/v2/", method: bytes = b"GET") -> Any:
    """Return a finished request of a client."""
    return SimpleNamespace(
        admitted_client=client, path=path, method=method, code=200, sentLength=2, upstream_status=None,
        is_cut_off=False, reason=None,
    )  # fmt: skip


def test_the_least_recently_seen_client_is_evicted() -> None:
    clock = Clock()
    recent = RecentRequests(clock, memoryview(mmap(-1, RECENT_REQUESTS_SIZE // 512 * 8)))
    clients = [ClientAddress(ip_address(f"10.0.0.{number}"), "http", DOMAIN) for number in range(10)]
    for client in clients:
        clock.advance(1)
        recent(finished(client))
    assert [len(recent.list_for(client)) for client in clients] == [0, 0, *[1] * 8]


def test_processes_with_the_same_memory_see_each_others_requests() -> None:
    """The longest record fits."""
    memory = mmap(-1, RECENT_REQUESTS_SIZE)
    one, other = (RecentRequests(Clock(), memoryview(memory)) for _ in range(2))
    client = ClientAddress(ip_address("2001:db8::1"), "http", "\N{SNOWMAN}" * 300, "bob")
    one(finished(client, path=b"/v2/" + b"\xff" * 1000, method=b"M" * 5000))
    (record,) = other.list_for(client)
    assert (record.path, record.method) == ("/v2/" + "\N{REPLACEMENT CHARACTER}" * 96, "M" * 20)
    assert other.list_for(ClientAddress(client.address, "http", DOMAIN, "alice")) == ()


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
