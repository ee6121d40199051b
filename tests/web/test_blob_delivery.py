"""Blobs on their way to a client: verified, resumed where the upstream broke off, or cut off."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.fake_registry import digest, ranged
from tests.fakes import Reply, Seen
from tests.house import House
from tests.internet import Internet

HOST = "registry.k8s.io"
BLOB, SMALL = bytes(range(256)) * 1024, b"small"
LAST = len(BLOB) - 1
PATH, SMALL_PATH = f"/v2/a/blobs/{digest(BLOB)}", f"/v2/a/blobs/{digest(SMALL)}"

on_both_hosts = pytest.mark.parametrize("host", ["k8s.mirror.example", "mirror.example"])


def break_off(internet: Internet, *cuts: int, honour: bool = True) -> None:
    """Let each answer break off after so many bytes, and then none; ranges are honoured or ignored."""
    left = list(cuts)

    def answer(seen: Seen) -> Reply:
        reply = ranged(seen, BLOB) if honour else Reply(200, BLOB)
        return reply.cut(left.pop(0)) if left else reply

    internet.servers[HOST] = answer


@on_both_hosts
@pytest.mark.parametrize("honour", [True, False])
def test_a_broken_download_is_resumed_by_range(
    internet: Internet, house: House, host: str, honour: bool
) -> None:
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
def test_a_corrupt_large_blob_is_cut_off_before_its_end(
    internet: Internet, house: House, host: str, body: bytes
) -> None:
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
    answer = house.get("k8s.mirror.example", PATH, f"Range: bytes={requested}")
    assert (answer.status, answer["Content-Range"]) == (206, f"bytes {first}-{last}/{len(BLOB)}")
    assert answer.body == BLOB[first : last + 1]
    assert answer["Docker-Content-Digest"] is None
    head = house.ask("HEAD", "k8s.mirror.example", PATH, f"Range: bytes={requested}")
    assert (head.status, head["Content-Length"]) == (200, str(len(BLOB)))


@pytest.mark.parametrize("with_length", [True, False])
def test_a_blob_has_its_length_if_the_upstream_stated_it(
    internet: Internet, house: House, with_length: bool
) -> None:
    internet.reply(HOST, PATH, Reply(200, BLOB, told=with_length))
    answer = house.get("k8s.mirror.example", PATH)
    assert (answer.status, answer.body, answer.whole) == (200, BLOB, True)
    assert answer["Content-Length"] == (str(len(BLOB)) if with_length else None)
