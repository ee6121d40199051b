"""Blobs and parts of blobs: nothing but what was asked for."""

# mypy: allow-untyped-calls

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from dockmirror.body.verified import CorruptContent
from dockmirror.interfaces import Answer
from dockmirror.oci.consent import HeldBlob, Sample
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import BlobUnknown, RangeInvalid, RegistryError, Unavailable, Unreachable
from dockmirror.oci.ranges import ContentRange, Range
from tests.fake_registry import MANIFEST as TYPE
from tests.fake_registry import digest
from tests.fakes import Reply, World
from tests.stacks import Outcome, asked, bytes_of, now, upstream

HOST = "registry.example"
BLOB = bytes(range(100))
PATH = f"/v2/a/blobs/{digest(BLOB)}"
MULTIPART = ("Content-Type", "multipart/byteranges; boundary=x")


def world(*replies: Reply) -> World:
    """A registry that answers to the blob so."""
    world = World()
    world.reply(HOST, PATH, *replies)
    return world


def fetch(world: World, ranges: str | None = None, **details: Any) -> Answer:
    """The registry's answer."""
    wanted = None if ranges is None else Range.parse(f"bytes={ranges}")
    return now(upstream(world.agent, url=f"https://{HOST}").fetch(asked(PATH, range=wanted, **details)))


def part(first: int, last: int, size: int | str = 100) -> Reply:
    """A 206 of some bytes."""
    return Reply(206, BLOB[first : last + 1], (("Content-Range", f"bytes {first}-{last}/{size}"),))


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("kind", [(), (("Content-Type", "text/html"),), (("Content-Encoding", "gzip"),)])
def test_a_blob(kind: tuple[tuple[str, str], ...], head: bool) -> None:
    """Is octets, whatever a file server calls it."""
    answer = fetch(world(Reply(200, BLOB, kind)), head=head)
    descriptor = answer.body.descriptor
    assert (answer.status, answer.upstream_status, answer.content_range) == (200, 200, None)
    assert (descriptor.media_type, str(descriptor.digest), descriptor.size) == (
        "application/octet-stream", digest(BLOB), 100,
    )  # fmt: skip
    assert bytes_of(answer.body) == (b"" if head else BLOB)


def test_a_blob_of_unknown_length() -> None:
    """Has none until it is there."""
    answer = fetch(world(Reply(200, BLOB, told=False)))
    assert answer.body.descriptor.size is None
    assert bytes_of(answer.body) == BLOB


def test_a_blob_without_an_end() -> None:
    """Is left when more comes than its manifest says, or than is taken of any."""
    registry = world(Reply(200, BLOB, told=False))
    asking = upstream(registry.agent, url=f"https://{HOST}")
    layer = {"mediaType": "a/b", "digest": digest(BLOB), "size": 99}
    manifest = json.dumps({"schemaVersion": 2, "config": layer, "layers": []}).encode()
    registry.reply(HOST, "/v2/a/manifests/x", Reply(200, manifest, (("Content-Type", TYPE),)))
    now(asking.fetch(asked("/v2/a/manifests/x")))
    answer = now(asking.fetch(asked(PATH)))
    with pytest.raises(Unavailable, match="larger than 99 bytes"):
        bytes_of(answer.body)


def test_a_page_in_the_place_of_a_blob() -> None:
    """Is not the blob spoilt."""
    answer = fetch(world(Reply(200, b"<html>log in</html>", (("Content-Type", "text/html"),))))
    with pytest.raises(Unavailable, match="a web page") as raised:
        bytes_of(answer.body)
    assert not isinstance(raised.value, CorruptContent)


def test_a_compressed_layer_stays_compressed() -> None:
    """Though its file server says that it is a text in a coding."""
    layer = gzip.compress(BLOB)
    labels = (("Content-Encoding", "gzip"), ("Content-Type", "application/x-tar"))
    answer = fetch(world(Reply(200, layer, labels)))
    assert bytes_of(answer.body) == layer


def test_a_head_stays_one() -> None:
    """And asks for no range: HTTP knows those of GET only."""
    registry = world(Reply(200, BLOB))
    assert fetch(registry, "0-1", head=True).status == 200
    assert [(seen.method, seen.header("Range")) for seen in registry.seen] == [("HEAD", None)]


@pytest.mark.parametrize(
    ("ranges", "first", "last"),
    [
        ("0-0", 0, 0),
        ("10-19", 10, 19),
        ("90-", 90, 99),
        ("90-1000", 90, 99),
        ("-5", 95, 99),
        ("-1000", 0, 99),
    ],
)
class TestPart:
    """One range."""

    def assert_part(self, answer: Answer, first: int, last: int) -> None:
        """It is what was asked for."""
        assert answer.status == 206
        assert str(answer.content_range) == f"bytes {first}-{last}/100"
        assert answer.body.descriptor.size == last - first + 1
        assert answer.body.descriptor.digest is None
        assert bytes_of(answer.body) == BLOB[first : last + 1]

    def test_that_the_upstream_sends(self, ranges: str, first: int, last: int) -> None:
        """Is passed on."""
        registry = world(part(first, last))
        self.assert_part(fetch(registry, ranges), first, last)
        assert registry.seen[0].header("Range") == f"bytes={ranges}"

    def test_that_is_cut_out_of_the_whole(self, ranges: str, first: int, last: int) -> None:
        """Where the upstream knows no ranges: podman takes a 200 for a failure, dockerd aborts."""
        answer = fetch(world(Reply(200, BLOB)), ranges)
        self.assert_part(answer, first, last)
        assert answer.upstream_status == 200


def test_the_whole_is_left_when_the_part_has_passed() -> None:
    """What is not wanted is not fetched."""
    registry = world(Reply(200, BLOB).cut(50, end="stalled"))
    assert bytes_of(fetch(registry, "10-19").body) == BLOB[10:20]
    registry.agent.flush()
    assert len(registry.abandoned) == 1


def test_a_whole_that_breaks_off_before_the_part() -> None:
    """Is unreachable."""
    answer = fetch(world(Reply(200, BLOB).cut(50)), "40-59")
    assert isinstance(Outcome(answer.body.deliver(StringTransport())).error, Unreachable)


@pytest.mark.parametrize(
    ("ranges", "reply"),
    [
        ("10-19", part(0, 9)),
        ("10-19", part(10, 20)),
        ("10-19", part(10, 18)),
        ("10-", part(10, 98)),
        ("-10", part(89, 99)),
        ("10-19", Reply(206, BLOB[10:20])),
        ("10-19", Reply(206, BLOB[10:20], (("Content-Range", "bytes 19-10/100"),))),
        ("10-19", Reply(206, BLOB[10:20], (("Content-Range", "bytes 10-19/15"),))),
        ("10-19", Reply(206, BLOB[10:20], (("Content-Range", "items 10-19/100"),))),
        ("10-19", Reply(206, BLOB[10:20], (MULTIPART,))),
        ("10-19", part(10, 20, "*")),
        ("10-19", part(9, 19, "*")),
        ("0-1,5-6", part(0, 6)),
        ("0-1,5-6", Reply(206, BLOB[:2])),
        (None, part(10, 19)),
        (None, Reply(206, BLOB, (MULTIPART,))),
    ],
)
def test_another_range(ranges: str | None, reply: Reply) -> None:
    """Than was asked for is of no use."""
    with pytest.raises(Unavailable, match="another range than was asked for") as raised:
        fetch(world(reply), ranges)
    assert (raised.value.status, raised.value.upstream_status) == (502, 206)


def test_another_range_is_not_read() -> None:
    """Its connection is closed."""
    registry = world(Reply(206, bytes(100_000), (("Content-Range", "bytes 0-99999/*"),)).cut(50, "stalled"))
    with pytest.raises(Unavailable):
        fetch(registry, "10-19")
    registry.agent.flush()
    assert len(registry.abandoned) == 1


def test_a_whole_of_unknown_length() -> None:
    """Is passed on as it is: how much of it a range means is not known."""
    answer = fetch(world(Reply(200, BLOB, told=False)), "10-19")
    assert (answer.status, answer.content_range, bytes_of(answer.body)) == (200, None, BLOB)


def test_a_size_that_is_not_told() -> None:
    """``*`` says so, and is enough where both ends were asked for."""
    answer = fetch(world(part(10, 19, "*")), "10-19")
    assert str(answer.content_range) == "bytes 10-19/*"
    assert bytes_of(answer.body) == BLOB[10:20]


@pytest.mark.parametrize("ranges", ["100-", "100-200", "-0"])
def test_what_lies_in_no_blob(ranges: str) -> None:
    """Is 416 with the size, whether the upstream says so or sends the whole, which is then left."""
    refusal = Reply(416, b"", (("Content-Range", "bytes */100"),))
    for reply in (refusal, Reply(200, BLOB).cut(50, end="stalled")):
        registry = world(reply)
        with pytest.raises(RangeInvalid) as raised:
            fetch(registry, ranges)
        assert raised.value.content_size == 100
        registry.agent.flush()
        assert len(registry.abandoned) == (reply.status == 200)


class TestSeveral:
    """Several ranges."""

    def test_are_passed_on_as_the_upstream_sends_them(self) -> None:
        """In its own multipart body, of its own length."""
        registry = world(Reply(206, b"--x parts --x--", (MULTIPART,)))
        answer = fetch(registry, "0-1,5-6")
        assert registry.seen[0].header("Range") == "bytes=0-1,5-6"
        assert (answer.status, answer.content_range) == (206, None)
        assert answer.body.descriptor.media_type == "multipart/byteranges; boundary=x"
        assert answer.body.descriptor.size == 15
        assert bytes_of(answer.body) == b"--x parts --x--"

    def test_may_be_answered_by_one_of_them(self) -> None:
        """An upstream need not send all."""
        assert bytes_of(fetch(world(part(5, 6)), "0-1,5-6").body) == BLOB[5:7]

    def test_may_be_joined_by_the_upstream(self) -> None:
        """Ranges that overlap are one range to an upstream that joins them (RFC 9110, 15.3.7.2)."""
        answer = fetch(world(part(0, 6)), "4-6,0-5")
        assert (str(answer.content_range), bytes_of(answer.body)) == ("bytes 0-6/100", BLOB[:7])

    def test_may_be_answered_by_the_whole(self) -> None:
        """As it is: clients of several ranges know how to take it."""
        answer = fetch(world(Reply(200, BLOB)), "0-1,5-6")
        assert (answer.status, bytes_of(answer.body)) == (200, BLOB)


@pytest.mark.parametrize("ranges", [None, "10-19"])
def test_what_a_client_has_is_not_sent(ranges: str | None) -> None:
    """304, and the whole that the upstream had begun to send is left."""
    registry = world(Reply(200, BLOB).cut(50, end="stalled"))
    answer = fetch(registry, ranges, if_none_match=f'"{digest(BLOB)}"')
    assert (answer.status, bytes_of(answer.body)) == (304, b"")
    registry.agent.flush()
    assert len(registry.abandoned) == 1


def test_what_is_not_there() -> None:
    """Is unknown."""
    with pytest.raises(BlobUnknown):
        fetch(world(Reply(404)))


class TestElsewhere:
    """Where a registry has sent on to for a blob."""

    @pytest.fixture
    def registry(self) -> World:
        """One that sends on to another host."""
        registry = world(Reply(307, b"", (("Location", "https://cdn.example/blob?signature=x"),)))
        registry.reply("cdn.example", "/blob", Reply(200, BLOB), part(10, 19))
        return registry

    def test_parts_are_asked_for_there(self, registry: World) -> None:
        """Without the registry, and without the credentials that it was asked with."""
        answer = fetch(registry, credentials=Credentials.bearer("t0ken"))
        assert answer.open_range is not None
        another = now(answer.open_range(Range.starting_at(10, 19)))
        assert (another.status, str(another.content_range)) == (206, "bytes 10-19/100")
        assert bytes_of(another.body) == BLOB[10:20]
        assert [(seen.host, seen.authorization, seen.header("Range")) for seen in registry.seen] == [
            (HOST, "Bearer t0ken", None),
            ("cdn.example", None, None),
            ("cdn.example", None, "bytes=10-19"),
        ]
        assert registry.seen[-1].url == "https://cdn.example/blob?signature=x"

    def test_a_refusal_there(self, registry: World) -> None:
        """Is raised: nobody else is asked."""
        registry.reply("cdn.example", "/blob", Reply(200, BLOB), Reply(403, b"<Error>"))
        answer = fetch(registry)
        assert answer.open_range is not None
        with pytest.raises(RegistryError) as raised:
            now(answer.open_range(Range.starting_at(10, 19)))
        assert (raised.value.status, len(registry.seen)) == (403, 3)

    def test_its_address_shows_nowhere(self, registry: World) -> None:
        """It is signed."""
        assert "signature" not in repr(fetch(registry))


@pytest.mark.parametrize("location", [f"/v2/a/{digest(BLOB)}", f"https://{HOST}/elsewhere"])
def test_what_the_registry_has_itself_is_asked_of_it(location: str) -> None:
    """It may want to see credentials."""
    registry = world(Reply(307, b"", (("Location", location),)))
    registry.reply(HOST, location.removeprefix(f"https://{HOST}"), Reply(200, BLOB))
    assert fetch(registry).open_range is None
    assert fetch(world(Reply(200, BLOB))).open_range is None


SAMPLED = ContentRange(36, 99, 100)
TOLD = ("Docker-Content-Digest", digest(BLOB))
SEE = Reply(307, b"", (("Location", f"https://{HOST}/elsewhere"),))


def proven(world: World, *elsewhere: Reply) -> tuple[bool, list[str]]:
    """Whether the registry has proven that it gives the held blob, and the methods of all requests."""
    world.reply(HOST, "/elsewhere", *elsewhere or (Reply(404),))

    async def sample() -> Sample:
        return Sample(SAMPLED, BLOB[36:])

    answer = fetch(world, head=True, held=HeldBlob(100, sample))
    assert bytes_of(answer.body) == b""
    return answer.consents, [seen.method for seen in world.seen]


def test_a_head_with_digest_and_length_is_consent() -> None:
    """Nothing else is asked."""
    assert proven(world(Reply(200, BLOB, (TOLD,)))) == (True, ["HEAD"])


@pytest.mark.parametrize(
    "reply",
    [
        SEE,
        Reply(405),
        Reply(200, BLOB),
        Reply(200, BLOB[1:], (TOLD,)),
        Reply(200, BLOB, (("Docker-Content-Digest", digest(b"other")),)),
        Reply(200, BLOB, (TOLD, ("Content-Type", "text/html"))),
        Reply(206, BLOB, (TOLD,)),
        Reply(304, b"", (TOLD,)),
    ],
)
def test_any_other_head_is_followed_by_a_get(reply: Reply) -> None:
    """A redirect of it is not followed; the part that is asked for proves the blob, or not."""
    assert proven(world(reply, part(36, 99))) == (True, ["HEAD", "GET"])
    assert proven(world(reply, Reply(200, BLOB))) == (True, ["HEAD", "GET"])
    for other in (
        part(0, 63), part(36, 99, 101), part(36, 99, "*"), part(36, 50), Reply(200, bytes(100)),
        Reply(200, b""), Reply(200, BLOB, told=False), Reply(416, b"", (("Content-Range", "bytes */30"),)),
    ):  # fmt: skip
        try:
            consents, methods = proven(world(reply, other))
        except Unavailable:
            continue  # it is another part than was asked for
        assert (consents, methods) == (False, ["HEAD", "GET"])


def test_the_get_is_followed_to_its_end() -> None:
    """It asks the registry itself first: the address of the HEAD was signed for that."""
    assert proven(world(SEE, SEE), part(36, 99)) == (True, ["HEAD", "GET", "GET"])
    registry = world(SEE, SEE)
    with pytest.raises(BlobUnknown):
        proven(registry, Reply(404))
    assert registry.seen[-1].header("Range") == "bytes=36-99"


def test_a_head_that_is_redirected_is_answered_by_one_byte() -> None:
    """It tells the size, and proves nothing."""
    registry = world(SEE, part(0, 0))
    answer = fetch(registry, head=True)
    assert (answer.status, answer.body.descriptor.size, answer.consents) == (200, 100, False)
    empty = world(SEE, Reply(416, b"", (("Content-Range", "bytes */0"),)))
    assert fetch(empty, head=True).body.descriptor.size == 0
