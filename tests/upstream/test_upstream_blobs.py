"""Blobs, ranges of blobs, and the limits of their sizes."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from dockmirror.body.bodies import CorruptContent
from dockmirror.interfaces import Answer
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    RangeInvalid,
    RegistryError,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.oci.header_fields import ContentRange, Range
from dockmirror.oci.request import Repository
from dockmirror.oci.token import Credentials
from dockmirror.upstream.upstream_registry import DEFAULT_LIMIT, BlobSizes
from tests.fake_registry import MANIFEST as TYPE
from tests.fake_registry import digest
from tests.fakes import Reply, World
from tests.stacks import asked, bytes_of, now, upstream

CONFIG, LAYER = Digest.of(b"config"), Digest.of(b"layer")
HERE, THERE = Repository("here"), Repository("there")


def manifest(size: object) -> bytes:
    """Return a manifest with a configuration of 6 bytes, and a layer of that size."""
    blobs = [
        {"mediaType": "a/b", "digest": str(digest), "size": stated}
        for digest, stated in ((CONFIG, 6), (LAYER, size))
    ]
    fields = {"schemaVersion": 2, "mediaType": TYPE, "config": blobs[0], "layers": blobs[1:]}
    return json.dumps(fields).encode()


def test_a_manifest_limits_the_blobs_of_its_repository_for_an_hour() -> None:
    clock = Clock()
    sizes = BlobSizes(clock)
    sizes.learn(HERE, manifest(5))
    assert (sizes.get_limit(HERE, CONFIG), sizes.get_limit(HERE, LAYER)) == (6, 5)
    assert sizes.get_limit(THERE, LAYER) == DEFAULT_LIMIT
    clock.advance(3600)
    assert sizes.get_limit(HERE, LAYER) == DEFAULT_LIMIT


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", manifest(-1), manifest("many")])
def test_an_invalid_manifest_leaves_the_default_limit(data: bytes) -> None:
    sizes = BlobSizes(Clock())
    sizes.learn(HERE, data)
    assert sizes.get_limit(HERE, LAYER) == DEFAULT_LIMIT


HOST = "registry.example"
BLOB = bytes(range(100))
PATH = f"/v2/a/blobs/{digest(BLOB)}"
MULTIPART = ("Content-Type", "multipart/byteranges; boundary=x")


def world(*replies: Reply) -> World:
    """Return a registry that answers the blob's request with that."""
    world = World()
    world.reply(HOST, PATH, *replies)
    return world


def fetch(world: World, ranges: str | None = None, **details: Any) -> Answer:
    """Return the registry's answer."""
    parsed = None if ranges is None else Range.parse(f"bytes={ranges}")
    return now(upstream(world.agent, url=f"https://{HOST}").fetch(asked(PATH, range=parsed, **details)))


def part(first: int, last: int, size: int | str = 100) -> Reply:
    """Return a 206 of some bytes."""
    return Reply(206, BLOB[first : last + 1], (("Content-Range", f"bytes {first}-{last}/{size}"),))


PAGE = ("Content-Type", "text/html")


@pytest.mark.parametrize(
    ("label", "head"),
    [(None, False), (None, True), (PAGE, False), (("Content-Encoding", "gzip"), False),
     (("Content-Encoding", "gzip"), True)],
)  # fmt: skip
def test_a_blob_has_the_media_type_of_bytes(label: tuple[str, str] | None, head: bool) -> None:
    """A file server's label is ignored; a range is, for a HEAD: HTTP defines ranges for GET only."""
    registry = world(Reply(200, BLOB, (label,) if label else ()))
    answer = fetch(registry, "0-1" if head else None, head=head)
    assert (answer.status, answer.upstream_status, answer.content_range) == (200, 200, None)
    assert answer.body.descriptor == Descriptor("application/octet-stream", Digest.of(BLOB), 100)
    assert bytes_of(answer.body) == (b"" if head else BLOB)
    (seen,) = registry.seen
    assert (seen.method, seen.header("Range")) == ("HEAD" if head else "GET", None)


def test_a_blob_that_exceeds_its_limit_is_left() -> None:
    """The limit is its manifest's, or the default."""
    registry = world(Reply(200, BLOB, told=False))
    asking = upstream(registry.agent, url=f"https://{HOST}")
    layer = {"mediaType": "a/b", "digest": digest(BLOB), "size": 99}
    stating = json.dumps({"schemaVersion": 2, "config": layer, "layers": []}).encode()
    registry.reply(HOST, "/v2/a/manifests/x", Reply(200, stating, (("Content-Type", TYPE),)))
    now(asking.fetch(asked("/v2/a/manifests/x")))
    answer = now(asking.fetch(asked(PATH)))
    with pytest.raises(Unavailable, match="larger than 99 bytes"):
        bytes_of(answer.body)


def test_a_web_page_in_place_of_a_blob_is_no_corruption() -> None:
    answer = fetch(world(Reply(200, b"<html>log in</html>", (("Content-Type", "text/html"),))))
    with pytest.raises(Unavailable, match="a web page") as raised:
        bytes_of(answer.body)
    assert not isinstance(raised.value, CorruptContent)


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
@pytest.mark.parametrize("is_range_supported", [True, False])
def test_a_range_is_passed_on_or_cut_out_of_the_blob(
    ranges: str, first: int, last: int, is_range_supported: bool
) -> None:
    """Podman treats a 200 as a failure, dockerd aborts."""
    registry = world(part(first, last) if is_range_supported else Reply(200, BLOB))
    answer = fetch(registry, ranges)
    assert (answer.status, str(answer.content_range)) == (206, f"bytes {first}-{last}/100")
    assert answer.body.descriptor.size == last - first + 1
    assert answer.body.descriptor.digest is None
    assert bytes_of(answer.body) == BLOB[first : last + 1]
    assert answer.upstream_status == (206 if is_range_supported else 200)
    assert registry.seen[0].header("Range") == f"bytes={ranges}"


def test_a_whole_blob_is_left_behind_the_range() -> None:
    """One that breaks off before its end is unreachable."""
    registry = world(Reply(200, BLOB).cut(50, end="stalled"))
    assert bytes_of(fetch(registry, "10-19").body) == BLOB[10:20]
    registry.agent.flush()
    assert len(registry.abandoned) == 1
    with pytest.raises(Unreachable):
        bytes_of(fetch(world(Reply(200, BLOB).cut(50)), "40-59").body)


@pytest.mark.parametrize(
    ("ranges", "reply"),
    [
        ("10-19", part(0, 9)),
        ("10-19", part(10, 20)),
        ("10-19", part(10, 18)),
        ("10-19", part(0, 4, 5)),
        ("10-", part(0, 9, 10)),
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
def test_another_range_than_requested_is_refused(ranges: str | None, reply: Reply) -> None:
    """It is not read."""
    registry = world(evolve(reply, body=bytes(100_000)).cut(50, "stalled"))
    with pytest.raises(Unavailable, match="another range than requested") as raised:
        fetch(registry, ranges)
    assert (raised.value.status, raised.value.upstream_status) == (502, 206)
    registry.agent.flush()
    assert len(registry.abandoned) == 1


@pytest.mark.parametrize("ranges", [None, "10-19"])
def test_a_blob_of_unknown_length(ranges: str | None) -> None:
    """A range of it cannot be resolved, but ``*`` is enough in a 206 if both ends were requested."""
    answer = fetch(world(Reply(200, BLOB, told=False)), ranges)
    assert (answer.status, answer.content_range, answer.body.descriptor.size) == (200, None, None)
    assert bytes_of(answer.body) == BLOB
    answer = fetch(world(part(10, 19, "*")), "10-19")
    assert (str(answer.content_range), bytes_of(answer.body)) == ("bytes 10-19/*", BLOB[10:20])


@pytest.mark.parametrize("ranges", ["100-", "100-200", "-0"])
def test_a_range_beyond_the_blob_is_416(ranges: str) -> None:
    """The upstream says so, or sends the whole blob, which is then left."""
    refusal = Reply(416, b"", (("Content-Range", "bytes */100"),))
    for reply in (refusal, Reply(200, BLOB).cut(50, end="stalled")):
        registry = world(reply)
        with pytest.raises(RangeInvalid) as raised:
            fetch(registry, ranges)
        assert raised.value.content_size == 100
        registry.agent.flush()
        assert len(registry.abandoned) == (reply.status == 200)


@pytest.mark.parametrize(
    ("ranges", "reply", "status", "part", "data"),
    [
        ("0-1,5-6", Reply(206, b"--x parts --x--", (MULTIPART,)), 206, None, b"--x parts --x--"),
        ("0-1,5-6", part(5, 6), 206, ContentRange(5, 6, 100), BLOB[5:7]),
        ("4-6,0-5", part(0, 6), 206, ContentRange(0, 6, 100), BLOB[:7]),
        ("0-1,5-6", Reply(200, BLOB), 200, None, BLOB),
    ],
    ids=["multipart", "one of them", "joined (RFC 9110, 15.3.7.2)", "whole"],
)
def test_several_ranges(
    ranges: str, reply: Reply, status: int, part: ContentRange | None, data: bytes
) -> None:
    """The upstream chooses what it sends."""
    registry = world(reply)
    answer = fetch(registry, ranges)
    assert registry.seen[0].header("Range") == f"bytes={ranges}"
    assert (answer.status, answer.content_range) == (status, part)
    descriptor = answer.body.descriptor
    assert descriptor.size == len(data)
    assert descriptor.media_type == dict(reply.headers).get("Content-Type", "application/octet-stream")
    assert bytes_of(answer.body) == data


@pytest.mark.parametrize("ranges", [None, "10-19"])
def test_a_client_that_has_the_blob_gets_304(ranges: str | None) -> None:
    """The whole blob that the upstream had begun to send is left; a missing blob is unknown."""
    registry = world(Reply(200, BLOB).cut(50, end="stalled"), Reply(404))
    answer = fetch(registry, ranges, if_none_match=f'"{digest(BLOB)}"')
    assert (answer.status, bytes_of(answer.body)) == (304, b"")
    registry.agent.flush()
    assert len(registry.abandoned) == 1
    with pytest.raises(BlobUnknown):
        fetch(registry, ranges)


def test_further_ranges_are_requested_from_the_host_of_a_redirect() -> None:
    """Without the registry, and without its credentials; the signed URL is never shown."""
    registry = world(Reply(307, b"", (("Location", "https://cdn.example/blob?signature=x"),)))
    registry.reply("cdn.example", "/blob", Reply(200, BLOB), part(10, 19), Reply(403, b"<Error>"))
    answer = fetch(registry, credentials=Credentials.bearer("t0ken"))
    assert "signature" not in repr(answer)
    assert answer.open_range is not None
    another = now(answer.open_range(Range.starting_at(10, 19)))
    assert (another.status, str(another.content_range)) == (206, "bytes 10-19/100")
    assert bytes_of(another.body) == BLOB[10:20]
    with pytest.raises(RegistryError) as raised:
        now(answer.open_range(Range.starting_at(10, 19)))
    assert raised.value.status == 403
    assert [(seen.host, seen.authorization, seen.header("Range")) for seen in registry.seen] == [
        (HOST, "Bearer t0ken", None),
        ("cdn.example", None, None),
        *[("cdn.example", None, "bytes=10-19")] * 2,
    ]
    assert registry.seen[-1].url == "https://cdn.example/blob?signature=x"


@pytest.mark.parametrize("location", [f"/v2/a/{digest(BLOB)}", f"https://{HOST}/elsewhere"])
def test_without_a_redirect_ranges_are_requested_from_the_registry(location: str) -> None:
    """It may require credentials."""
    registry = world(Reply(307, b"", (("Location", location),)))
    registry.reply(HOST, location.removeprefix(f"https://{HOST}"), Reply(200, BLOB))
    assert fetch(registry).open_range is None
    assert fetch(world(Reply(200, BLOB))).open_range is None


SAMPLED = ContentRange(36, 99, 100)
DIGEST_HEADER = ("Docker-Content-Digest", digest(BLOB))
REDIRECT = Reply(307, b"", (("Location", f"https://{HOST}/target"),))


def check_consent(world: World, *targets: Reply) -> tuple[bool, list[str]]:
    """Return whether the registry consents to serving the held blob, and the methods of all requests."""
    world.reply(HOST, "/target", *targets or (Reply(404),))

    async def read(held: ContentRange) -> bytes:
        return BLOB[held.first : held.last + 1]

    answer = fetch(world, head=True, held=HeldBlob(100, read, SAMPLED))
    assert bytes_of(answer.body) == b""
    return answer.consents, [seen.method for seen in world.seen]


@pytest.mark.parametrize(
    "reply",
    [
        REDIRECT,
        Reply(405),
        Reply(200, BLOB),
        Reply(200, BLOB[1:], (DIGEST_HEADER,)),
        Reply(200, BLOB, (("Docker-Content-Digest", digest(b"other")),)),
        Reply(200, BLOB, (DIGEST_HEADER, ("Content-Type", "text/html"))),
        Reply(206, BLOB, (DIGEST_HEADER,)),
        Reply(304, b"", (DIGEST_HEADER,)),
    ],
)
def test_a_head_without_digest_and_length_is_followed_by_a_get(reply: Reply) -> None:
    """Its redirect is not followed; the requested part is compared with the held blob."""
    assert check_consent(world(Reply(200, BLOB, (DIGEST_HEADER,)))) == (True, ["HEAD"])
    assert check_consent(world(reply, part(36, 99))) == (True, ["HEAD", "GET"])
    assert check_consent(world(reply, Reply(200, BLOB))) == (True, ["HEAD", "GET"])
    for other in (
        part(0, 63), part(36, 99, 101), part(36, 99, "*"), part(36, 50), Reply(200, bytes(100)),
        Reply(200, b""), Reply(200, BLOB, told=False), Reply(416, b"", (("Content-Range", "bytes */30"),)),
    ):  # fmt: skip
        try:
            consents, methods = check_consent(world(reply, other))
        except Unavailable:
            continue  # it is another part than requested
        assert (consents, methods) == (False, ["HEAD", "GET"])


def test_a_refusal_does_not_wait_for_the_held_blob() -> None:
    """A download may stall before the part that is compared; a client without rights is told at once."""
    registry = world(REDIRECT, Reply(401))

    async def read(_: ContentRange) -> bytes:
        raise AssertionError("the upstream gave nothing to compare")

    with pytest.raises(Unauthorized):
        fetch(registry, head=True, held=HeldBlob(100, read, SAMPLED))


def test_redirects_of_the_get_are_followed() -> None:
    """It starts at the registry: the URL that the HEAD is redirected to is signed for HEAD only."""
    assert check_consent(world(REDIRECT, REDIRECT), part(36, 99)) == (True, ["HEAD", "GET", "GET"])
    registry = world(REDIRECT, REDIRECT)
    with pytest.raises(BlobUnknown):
        check_consent(registry, Reply(404))
    assert registry.seen[-1].header("Range") == "bytes=36-99"


@pytest.mark.parametrize("reply", [REDIRECT, Reply(200, BLOB, (PAGE,)), Reply(200, BLOB, told=False)])
def test_a_head_that_proves_no_blob_is_replaced_by_a_get_of_one_byte(reply: Reply) -> None:
    """It tells the size, but is no consent; a file server may label a blob HTML."""
    registry = world(reply, evolve(part(0, 0), headers=(PAGE, *part(0, 0).headers)))
    answer = fetch(registry, head=True)
    assert (answer.status, answer.body.descriptor.size, answer.consents) == (200, 100, False)
    empty = world(reply, Reply(416, b"", (("Content-Range", "bytes */0"),)))
    assert fetch(empty, head=True).body.descriptor.size == 0
    with pytest.raises(Unavailable, match="web page"):
        fetch(world(reply, Reply(200, b"<html>", (PAGE,))), head=True)
