"""Clients that leave, and clients that are slow."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.fake_registry import digest
from tests.fakes import SILENT, Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, HUB_CDN, LAYER, Internet
from tests.stacks import logged

DOCKER, OWN, K8S, K8S_HOST = (
    "docker.mirror.example",
    "mirror.example",
    "k8s.mirror.example",
    "registry.k8s.io",
)
MANIFEST = "/v2/library/busybox/manifests/latest"
BEARER = "Authorization: Bearer x"
PATH = f"/v2/a/blobs/{digest(LAYER)}"
BEGUN = Reply(200, LAYER).cut(100_000, end="stalled")


@pytest.mark.parametrize(
    ("server", "path", "requested"),
    [
        (HUB, MANIFEST, MANIFEST),
        (HUB, "/v2/library/busybox/tags/list", "/v2/busybox/tags/list"),
        (HUB, "/v2/", "/v2/"),
        (AUTH, "/token", "/v2/auth?scope=repository:busybox:pull"),
    ],
)
def test_a_client_that_leaves_early_cancels_the_request(
    internet: Internet, house: House, server: str, path: str, requested: str
) -> None:
    """It is no error: containerd closes early after its part."""
    internet.reply(server, path, SILENT)
    client = house.connect().ask("GET", DOCKER, requested, BEARER)
    count = len(internet.seen)
    with logged() as log:
        client.leave()
    assert [seen.path for seen in internet.abandoned] == [path]
    house.pass_time(100)
    assert (len(internet.seen), client.answers, log) == (count, [], [])
    assert house.lines[-1].endswith(" cut off")


@pytest.mark.parametrize("host", [K8S, OWN])
@pytest.mark.parametrize("first", [BEGUN, Reply(200, LAYER).cut(1000)])
def test_a_transfer_ends_when_its_client_leaves(
    internet: Internet, house: House, host: str, first: Reply
) -> None:
    """The rest is not requested any more."""
    internet.reply(K8S_HOST, PATH, first, Reply(200, LAYER).cut(0))
    client = house.connect().ask("GET", host, f"{PATH}?ns={K8S_HOST}")
    house.pass_time(0)
    count = len(internet.seen)
    client.leave()
    house.pass_time(0, 100)
    assert len(internet.seen) == count
    if first is BEGUN:
        assert len(internet.abandoned) == 1


def test_a_slow_client_sets_the_pace(internet: Internet, house: House) -> None:
    """The upstream that waits for it does not count as stalled."""
    internet.reply(K8S_HOST, PATH, BEGUN)
    client = house.connect().ask("GET", K8S, PATH)
    client.producer.pauseProducing()
    for _ in range(3):
        house.pass_time(599)
        assert not client.aborted
        client.producer.resumeProducing()
        client.producer.pauseProducing()
    client.producer.resumeProducing()
    internet.go_on(LAYER[100_000:])
    assert client.answer.body == LAYER


def test_a_client_that_reads_nothing_is_aborted_after_ten_minutes(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, PATH, BEGUN)
    client = house.connect().ask("GET", K8S, PATH)
    client.producer.pauseProducing()
    house.pass_time(600)
    assert client.aborted


def test_a_whole_pull_uses_one_connection(internet: Internet, house: House) -> None:
    client, layer = house.connect(), f"/v2/busybox/blobs/{internet.layer}"
    for method, path in (
        ("GET", "/v2/"),
        ("HEAD", MANIFEST),
        ("GET", MANIFEST),
        ("GET", layer),
        ("GET", "/x"),
    ):
        client.ask(method, OWN, path)
    client.ask("GET", OWN, layer, "Range: bytes=0-9")
    assert [(a.status, len(a.body)) for a in client.answers if a.status != 404] == [
        (200, 2), (200, 0), (200, len(BUSYBOX)), (200, len(LAYER)), (206, 10),
    ]  # fmt: skip
    assert len(internet.asked(HUB_CDN)) == 2
