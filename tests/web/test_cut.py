"""Blobs on their way to a client: right, gone on with where they broke off, or cut off."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.fake_registry import Registry, digest, ranged
from tests.fakes import DEAD, Reply, Seen
from tests.house import House
from tests.internet import Internet

HOSTS = ["k8s.mirror.example", "mirror.example"]
HOST = "registry.k8s.io"
BLOB = bytes(range(256)) * 1024
LAST = len(BLOB) - 1
PATH = f"/v2/a/blobs/{digest(BLOB)}"
SMALL = b"small"
SMALL_PATH = f"/v2/a/blobs/{digest(SMALL)}"


@pytest.fixture
def internet() -> Internet:
    """A registry with a large blob and a small one."""
    internet = Internet()
    registry = internet.registries["k8s"]
    for blob in (BLOB, SMALL):
        registry.add("a", blob)
    return internet


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


def breaks_off(internet: Internet, *cuts: int, honour: bool = True) -> None:
    """Has each answer break off after so many bytes, the next one at the next number; then none."""
    left = list(cuts)

    def answer(seen: Seen) -> Reply:
        reply = ranged(seen, BLOB) if honour else Reply(200, BLOB)
        return reply.cut(left.pop(0)) if left else reply

    internet.servers[HOST] = answer


@pytest.mark.parametrize("host", HOSTS)
class TestBroken:
    """An upstream that breaks off."""

    @pytest.mark.parametrize("cuts", [(1000,), (0,), (1000, 2000, 0, 70_000, 1), (len(BLOB) - 1,)])
    @pytest.mark.parametrize("honour", [True, False])
    def test_is_asked_for_the_rest(
        self, internet: Internet, house: House, host: str, cuts: tuple[int, ...], honour: bool
    ) -> None:
        """Up to five times; the client notices nothing, also where the upstream always sends the whole."""
        breaks_off(internet, *cuts, honour=honour)
        client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
        house.pass_time(0, 0.5, 1, 2, 4)
        assert client.answer.whole
        assert client.answer.body == BLOB
        assert client.answer["Content-Length"] == str(len(BLOB))
        assert len(internet.seen) == len(cuts) + 1

    def test_is_asked_with_a_range(self, internet: Internet, house: House, host: str) -> None:
        """A broken download is resumed with a range for the missing part."""
        breaks_off(internet, 1000, 2000)
        house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
        house.pass_time(0, 0.5)
        assert [seen.header("Range") for seen in internet.seen] == [None, "bytes=1000-", "bytes=3000-"]

    def test_for_the_sixth_time(self, internet: Internet, house: House, host: str) -> None:
        """Cuts the client off: what it has is not the blob, and it must not think so."""
        breaks_off(internet, *[100_000, 1, 1, 1, 1, 1])
        client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
        house.pass_time(0, 0.5, 1, 2, 4, 100)
        assert client.aborted
        assert not client.answer.whole
        assert BLOB.startswith(client.answer.body)
        assert len(internet.seen) == 6

    def test_a_part_is_gone_on_with_too(self, internet: Internet, house: House, host: str) -> None:
        """A broken partial response is resumed up to the end of the part."""
        breaks_off(internet, 500)
        answer = house.get(host, f"{PATH}?ns={HOST}", "Range: bytes=1000-1999")
        house.pass_time(0)
        assert [seen.header("Range") for seen in internet.seen] == ["bytes=1000-1999", "bytes=1500-1999"]
        assert (answer.status, answer["Content-Range"]) == (206, f"bytes 1000-1999/{len(BLOB)}")

    @pytest.mark.parametrize(
        "rest",
        [
            Reply(404),
            Reply(401, b"", (("WWW-Authenticate", 'Bearer realm="x"'),)),
            Reply(206, BLOB[500:], (("Content-Range", f"bytes 500-{len(BLOB) - 1}/{len(BLOB)}"),)),
            Reply(206, BLOB[1000:], (("Content-Type", "multipart/byteranges; boundary=x"),)),
            Reply(200, b"<html>", (("Content-Type", "text/html"),)),
        ],
    )
    def test_and_does_not_go_on(self, internet: Internet, house: House, host: str, rest: Reply) -> None:
        """If the upstream cannot resume, the response is cut off."""
        internet.reply(HOST, PATH, Reply(200, BLOB).cut(100_000), rest)
        internet.reply(HOST, "/v2/", Reply(200, b"{}"))
        client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
        house.pass_time(0, 100)
        assert client.aborted
        assert not client.answer.whole
        assert BLOB.startswith(client.answer.body)

    def test_before_the_client_has_a_byte(self, internet: Internet, house: House, host: str) -> None:
        """It is told so, if the upstream stays away."""
        internet.reply(HOST, SMALL_PATH, Reply(200, SMALL).cut(2), DEAD)
        client = house.connect().ask("GET", host, f"{SMALL_PATH}?ns={HOST}")
        house.pass_time(0, 0.5, 1, 2, 4)
        assert client.answer.error == (502, "UNAVAILABLE")
        assert not client.aborted


@pytest.mark.parametrize("host", HOSTS)
class TestWrong:
    """An upstream that sends something else."""

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize("body", [b"Small", b"smal", b"small.", b"", b"<html>"])
    def test_a_short_one(self, internet: Internet, house: House, host: str, body: bytes, told: bool) -> None:
        """Never reaches the client, who learns why not."""
        internet.reply(HOST, SMALL_PATH, Reply(200, body, told=told))
        answer = house.get(host, f"{SMALL_PATH}?ns={HOST}")
        assert answer.error == (502, "UNAVAILABLE")
        assert digest(SMALL) in answer.message
        described = ("Docker-Content-Digest", "ETag", "Accept-Ranges", "Content-Range")
        assert [answer[name] for name in described] == [None] * 4

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize(
        "body",
        [BLOB[:-1] + b"x", b"x" + BLOB[1:], BLOB[:-1], BLOB + b"x"],
        ids=["end", "begin", "less", "more"],
    )
    def test_a_long_one(self, internet: Internet, house: House, host: str, body: bytes, told: bool) -> None:
        """A corrupt blob is cut off before its end, so that no client takes it for complete."""
        length = (("Content-Length", str(len(body))),) if told else ()
        internet.reply(HOST, PATH, Reply(200, body[:100_000], length, told=False, end="stalled"))
        client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}")
        internet.go_on(body[100_000:])
        assert client.aborted
        assert not client.answer.whole
        assert client.answer.body == body[:100_000]

    def test_a_long_one_that_comes_at_once(self, internet: Internet, house: House, host: str) -> None:
        """A corrupt blob that arrives at once gets an error response instead."""
        internet.reply(HOST, PATH, Reply(200, BLOB[:-1] + b"x"))
        assert house.get(host, f"{PATH}?ns={HOST}").error == (502, "UNAVAILABLE")

    def test_a_manifest(self, internet: Internet, house: House, host: str) -> None:
        """A manifest that does not match its digest is not sent."""
        path = f"/v2/a/manifests/{digest(b'{}')}"
        internet.reply(HOST, path, Reply(200, b'{"x":1}'))
        assert house.get(host, f"{path}?ns={HOST}").error == (502, "UNAVAILABLE")

    @pytest.mark.parametrize(("length", "body"), [(10, b"0123456789abc"), (10, b"01234")])
    def test_a_part_of_another_length(
        self, internet: Internet, house: House, host: str, length: int, body: bytes
    ) -> None:
        """A part of another length than announced is never sent longer, and cut off if shorter."""
        told = ("Content-Range", f"bytes 0-{length - 1}/{len(BLOB)}")
        internet.reply(HOST, PATH, Reply(206, body, (told,), told=False), Reply(404))
        client = house.connect().ask("GET", host, f"{PATH}?ns={HOST}", "Range: bytes=0-9")
        house.pass_time(0, 100)
        assert client.answer["Content-Length"] == "10"
        assert client.answer.whole is (len(body) >= length)
        assert client.aborted is not client.answer.whole


class TestPart:
    """Ranges, as clients ask for them."""

    @pytest.mark.parametrize("honour", [True, False])
    @pytest.mark.parametrize(
        ("asked", "first", "last"),
        [("0-1", 0, 1), ("9-", 9, LAST), ("-5", LAST - 4, LAST), ("5-9999999", 5, LAST)],
    )
    def test_is_206(
        self, internet: Internet, house: House, honour: bool, asked: str, first: int, last: int
    ) -> None:
        """A range gets 206, even if the upstream ignores ranges: podman and dockerd insist."""
        breaks_off(internet, honour=honour)
        answer = house.get(HOSTS[0], PATH, f"Range: bytes={asked}")
        assert (answer.status, answer["Content-Range"]) == (206, f"bytes {first}-{last}/{len(BLOB)}")
        assert answer.body == BLOB[first : last + 1]
        assert answer["Docker-Content-Digest"] is None

    def test_several_are_passed_on(self, internet: Internet, house: House) -> None:
        """Several ranges are answered with the upstream's multipart body."""
        kind = "multipart/byteranges; boundary=x"
        internet.reply(HOST, PATH, Reply(206, b"--x--", (("Content-Type", kind),)))
        answer = house.get(HOSTS[0], PATH, "Range: bytes=0-1,5-6")
        assert (answer.status, answer["Content-Type"], answer["Content-Range"]) == (206, kind, None)
        assert answer.body == b"--x--"

    def test_a_head_has_none(self, house: House) -> None:
        """HTTP knows ranges of GET alone."""
        answer = house.ask("HEAD", HOSTS[0], PATH, "Range: bytes=0-1")
        assert (answer.status, answer["Content-Length"]) == (200, str(len(BLOB)))


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
@pytest.mark.parametrize("told", [True, False])
def test_sizes(size: int, told: bool) -> None:
    """Blobs of any size arrive, with their length if the upstream stated it."""
    blob = b"x" * size
    internet = Internet()
    internet.servers[HOST] = Registry()
    internet.reply(HOST, f"/v2/a/blobs/{digest(blob)}", Reply(200, blob, told=told))
    answer = House(internet).get(HOSTS[0], f"/v2/a/blobs/{digest(blob)}")
    assert (answer.status, answer.body, answer.whole) == (200, blob, True)
    assert answer["Content-Length"] == (str(size) if told else None)
