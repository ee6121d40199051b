"""Blobs on their way to clients, which may leave or be slow: verified, resumed, or cut off."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.fake_registry import digest, ranged
from tests.fakes import SILENT, Reply, Seen
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, HUB_CDN, LAYER, Internet
from tests.stacks import logged

DOCKER, OWN, K8S, HOST = "docker.mirror.example", "mirror.example", "k8s.mirror.example", "registry.k8s.io"
MANIFEST = "/v2/library/busybox/manifests/latest"
BLOB, SMALL = bytes(range(256)) * 1024, b"small"
LAST = len(BLOB) - 1
PATH, SMALL_PATH = f"/v2/a/blobs/{digest(BLOB)}", f"/v2/a/blobs/{digest(SMALL)}"
LAYER_PATH = f"/v2/a/blobs/{digest(LAYER)}"
BEGUN = Reply(200, LAYER).cut(100_000, end="stalled")

on_both_hosts = pytest.mark.parametrize("host", [K8S, OWN])


def break_off(internet: Internet, *cuts: int, honour: bool = True) -> None:
    """Let each answer break off after so many bytes, and then none; ranges are honoured or ignored."""
    left = list(cuts)

    def answer(seen: Seen) -> Reply:
        reply = ranged(seen, BLOB) if honour else Reply(200, BLOB)
        return reply.cut(left.pop(0)) if left else reply

    internet.servers[HOST] = answer


@on_both_hosts
@pytest.mark.parametrize("honour", [True, False])
def test_a_broken_download_is_resumed(internet: Internet, house: House, host: str, honour: bool) -> None:
    """The client notices nothing, also where the upstream ignores the range."""
    break_off(internet, 1000, 2000, honour=honour)
    client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
    house.pass_time(0, 0.5)
    assert (client.answer.whole, client.answer.body) == (True, BLOB)
    assert client.answer["Content-Length"] == str(len(BLOB))
    ranges = [seen.header("Range") for seen in internet.seen]
    assert ranges == [None, "bytes=1000-", f"bytes={3000 if honour else 2000}-"]


@on_both_hosts
def test_a_download_that_cannot_be_resumed_is_cut_off(internet: Internet, house: House, host: str) -> None:
    internet.reply(HOST, PATH, Reply(200, BLOB).cut(100_000), Reply(404))
    client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
    house.pass_time(0, 100)
    assert client.aborted
    assert not client.answer.whole
    assert BLOB.startswith(client.answer.body)


@on_both_hosts
@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("body", [b"Small", b"smal", b"small.", b"", b"<html>"])
def test_a_corrupt_small_blob_never_reaches_the_client(
    internet: Internet, house: House, host: str, body: bytes, with_length: bool
) -> None:
    internet.reply(HOST, SMALL_PATH, Reply(200, body, told=with_length))
    answer = house.get(host, f"{SMALL_PATH}?ns={HOST}")
    assert answer.error == (502, "UNAVAILABLE")
    assert digest(SMALL) in answer.message
    described = ("Docker-Content-Digest", "ETag", "Accept-Ranges", "Content-Range")
    assert [answer[name] for name in described] == [None] * 4


@on_both_hosts
@pytest.mark.parametrize("body", [BLOB[:-1] + b"x", BLOB[:-1], BLOB + b"x"], ids=["end", "less", "more"])
def test_a_corrupt_large_blob_is_cut_off(internet: Internet, house: House, host: str, body: bytes) -> None:
    internet.reply(HOST, PATH, Reply(200, body[:100_000], told=False, end="stalled"))
    client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
    internet.go_on(body[100_000:])
    assert client.aborted
    assert (client.answer.whole, client.answer.body) == (False, body[:100_000])


@pytest.mark.parametrize("honour", [True, False])
@pytest.mark.parametrize(("requested", "first", "last"), [("0-1", 0, 1), ("-5", LAST - 4, LAST)])
def test_a_range_gets_206_even_if_the_upstream_ignores_ranges(
    internet: Internet, house: House, honour: bool, requested: str, first: int, last: int
) -> None:
    """podman and dockerd insist on it; HTTP knows ranges of GET alone."""
    break_off(internet, honour=honour)
    answer = house.get(K8S, PATH, f"Range: bytes={requested}")
    assert (answer.status, answer["Content-Range"]) == (206, f"bytes {first}-{last}/{len(BLOB)}")
    assert answer.body == BLOB[first : last + 1]
    assert answer["Docker-Content-Digest"] is None
    head = house.ask("HEAD", K8S, PATH, f"Range: bytes={requested}")
    assert (head.status, head["Content-Length"]) == (200, str(len(BLOB)))


@pytest.mark.parametrize("with_length", [True, False])
def test_a_blob_has_the_length_that_was_stated(internet: Internet, house: House, with_length: bool) -> None:
    internet.reply(HOST, PATH, Reply(200, BLOB, told=with_length))
    answer = house.get(K8S, PATH)
    assert (answer.status, answer.body, answer.whole) == (200, BLOB, True)
    assert answer["Content-Length"] == (str(len(BLOB)) if with_length else None)


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
    client = house.connect().ask("GET", DOCKER, requested, "Authorization: Bearer x")
    count = len(internet.seen)
    with logged() as log:
        client.leave()
    assert [seen.path for seen in internet.abandoned] == [path]
    house.pass_time(100)
    assert (len(internet.seen), client.answers, log) == (count, [], [])
    assert house.lines[-1].endswith(" cut off")


@on_both_hosts
@pytest.mark.parametrize("first", [BEGUN, Reply(200, LAYER).cut(1000)])
def test_a_transfer_ends_with_its_client(internet: Internet, house: House, host: str, first: Reply) -> None:
    """The rest is not requested any more."""
    internet.reply(HOST, LAYER_PATH, first, Reply(200, LAYER).cut(0))
    client = house.connect().ask("GET", host, f"{LAYER_PATH}?ns={HOST}")
    house.pass_time(0)
    count = len(internet.seen)
    client.leave()
    house.pass_time(0, 100)
    assert len(internet.seen) == count
    if first is BEGUN:
        assert len(internet.abandoned) == 1


def test_a_slow_client_sets_the_pace(internet: Internet, house: House) -> None:
    """The upstream that waits for it does not count as stalled."""
    internet.reply(HOST, LAYER_PATH, BEGUN)
    client = house.connect().ask("GET", K8S, LAYER_PATH)
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
    internet.reply(HOST, LAYER_PATH, BEGUN)
    client = house.connect().ask("GET", K8S, LAYER_PATH)
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
