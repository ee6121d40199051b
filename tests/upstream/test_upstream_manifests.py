"""Manifests: byte for byte, and right, or not at all."""

# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dockmirror.interfaces import Answer
from dockmirror.oci.errors import BrokenOff, ManifestUnknown, Unavailable, Unsupported
from dockmirror.oci.media import SIGNED
from dockmirror.upstream.upstream_manifests import LIMIT
from tests.fake_registry import MANIFEST as TYPE
from tests.fake_registry import digest, error
from tests.fakes import ENDLESS, Reply, World
from tests.stacks import asked, bytes_of, now, upstream

HOST = "registry.example"
BODY = b'{"schemaVersion" : 2,\n "x":"\xc3\xa4"}\n'
TAG = "/v2/a/manifests/latest"
BY_DIGEST = f"/v2/a/manifests/{digest(BODY)}"
KIND = ("Content-Type", TYPE)
DIGEST = ("Docker-Content-Digest", digest(BODY))
MANIFEST_BODY = json.dumps(
    {"schemaVersion": 2, "mediaType": TYPE, "config": {"digest": digest(b"c")}, "layers": []}
).encode()
GIVEN = Reply(200, BODY, (KIND, DIGEST))


@pytest.fixture
def world() -> World:
    """A registry that has one manifest."""
    world = World()
    for path in (TAG, BY_DIGEST):
        world.reply(HOST, path, GIVEN)
    return world


def fetch(world: World, path: str, **details: Any) -> Answer:
    """The registry's answer."""
    return now(upstream(world.agent, url=f"https://{HOST}").fetch(asked(path, **details)))


def described(answer: Answer) -> tuple[str | None, str, int | None]:
    """Type, digest and size of what an answer brings."""
    descriptor = answer.body.descriptor
    return descriptor.media_type, str(descriptor.digest), descriptor.size


@pytest.mark.parametrize("path", [TAG, BY_DIGEST])
@pytest.mark.parametrize("told", [GIVEN, Reply(200, BODY, (KIND,)), Reply(200, BODY, (KIND,), told=False)])
def test_a_manifest(world: World, path: str, told: Reply) -> None:
    """Arrives as it is, with its type, digest and size, whether the upstream told them or not."""
    world.reply(HOST, path, told)
    answer = fetch(world, path)
    assert (answer.status, answer.upstream_status) == (200, 200)
    assert bytes_of(answer.body) == BODY
    assert described(answer) == (TYPE, digest(BODY), len(BODY))


@pytest.mark.parametrize("kind", ["application/vnd.docker.distribution.manifest.v1+prettyjws", "x/unknown"])
def test_other_kinds_pass(world: World, kind: str) -> None:
    """What a client takes is its own business."""
    world.reply(HOST, TAG, Reply(200, BODY, (("Content-Type", kind),)))
    assert described(fetch(world, TAG))[0] == kind


def encoded(data: bytes) -> str:
    """In base64url, as a JWS has it."""
    return base64.urlsafe_b64encode(data).decode()


def test_a_signed_manifest(world: World) -> None:
    """Has the digest of what was signed; nothing else may have the digest of only a part of it."""
    payload = b'{"schemaVersion":1\n}'
    protected = json.dumps({"formatLength": 18, "formatTail": encoded(b"\n}")}).encode()
    signed = payload[:18] + b',"signatures":[{"protected":"' + encoded(protected).encode() + b'"}]\n}'
    told = ("Docker-Content-Digest", digest(payload))
    world.reply(HOST, TAG, Reply(200, signed, (("Content-Type", SIGNED), told)))
    assert bytes_of(fetch(world, TAG).body) == signed
    world.reply(HOST, TAG, Reply(200, signed, (KIND, told)))
    with pytest.raises(Unavailable):
        fetch(world, TAG)


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        (TAG, Reply(200, BODY[:-1], (KIND, DIGEST))),
        (BY_DIGEST, Reply(200, BODY[:-1], (KIND,))),
        (BY_DIGEST, Reply(200, BODY[:-1], (KIND, ("Docker-Content-Digest", digest(BODY[:-1]))))),
        (BY_DIGEST, Reply(200, b"", (KIND,))),
    ],
)
def test_what_is_another_manifest(world: World, path: str, reply: Reply) -> None:
    """Than its digest, or than the one asked for, is not passed on."""
    world.reply(HOST, path, reply)
    with pytest.raises(Unavailable, match=f"the upstream's manifest is not {digest(BODY)}") as raised:
        fetch(world, path)
    assert raised.value.status == 502


@pytest.mark.parametrize("body", [b"", b"<html>hello", b"[]", b"hello"])
def test_what_is_no_manifest(world: World, body: bytes) -> None:
    """A client would store whatever comes with a 200."""
    world.reply(HOST, TAG, Reply(200, body, (KIND,)))
    with pytest.raises(Unavailable, match="no manifest"):
        fetch(world, TAG)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xml"])
def test_a_web_page(world: World, kind: str, head: bool) -> None:
    """Is none either."""
    world.reply(HOST, TAG, Reply(200, BODY, (("Content-Type", kind),)))
    with pytest.raises(Unavailable, match="web page") as raised:
        fetch(world, TAG, head=head)
    assert (raised.value.status, raised.value.upstream_status) == (502, 200)


def test_a_web_page_is_not_read(world: World) -> None:
    """A long one is left."""
    world.reply(HOST, TAG, ENDLESS.having(("Content-Type", "text/html")))
    with pytest.raises(Unavailable):
        fetch(world, TAG)
    world.agent.flush()
    assert len(world.abandoned) == 1


def test_the_largest(world: World) -> None:
    """Is of 4 MiB, as for clients; one that is larger is not read to its end."""
    largest = b"{" + b" " * (LIMIT - 2) + b"}"
    world.reply(HOST, TAG, Reply(200, largest, (KIND,)))
    assert described(fetch(world, TAG))[2] == LIMIT
    world.reply(
        HOST, TAG, Reply(200, largest + b" ", (KIND,)), Reply(200, largest + b" ", (KIND,), told=False)
    )
    for _ in range(2):
        with pytest.raises(Unavailable, match="larger than 4194304 bytes"):
            fetch(world, TAG)


def test_one_that_breaks_off(world: World) -> None:
    """Is asked for once more, and then it is not half a manifest but an upstream that broke off."""
    world.reply(HOST, TAG, GIVEN.cut(5), GIVEN)
    assert bytes_of(fetch(world, TAG).body) == BODY
    world.reply(HOST, TAG, GIVEN.cut(5), GIVEN.cut(5), GIVEN)
    with pytest.raises(BrokenOff):
        fetch(world, TAG)


def test_labels_of_a_coding_are_ignored(world: World) -> None:
    """The bytes are those of the digest."""
    world.reply(HOST, TAG, GIVEN.having(("Content-Encoding", "gzip")))
    assert bytes_of(fetch(world, TAG).body) == BODY


class TestHead:
    """Asked for by HEAD."""

    @pytest.mark.parametrize("path", [TAG, BY_DIGEST])
    def test_it_stays_one(self, world: World, path: str) -> None:
        """Docker Hub counts a GET as a pull, and a HEAD not."""
        answer = fetch(world, path, head=True)
        assert [seen.method for seen in world.seen] == ["HEAD"]
        assert described(answer) == (TYPE, digest(BODY), len(BODY))
        assert bytes_of(answer.body) == b""

    @pytest.mark.parametrize(
        "told",
        [
            Reply(200, BODY, (KIND,)),
            Reply(200, BODY, (DIGEST,)),
            Reply(200, BODY, (KIND, ("Docker-Content-Digest", "nonsense"))),
            Reply(405),
            error(405, "UNSUPPORTED"),
        ],
    )
    def test_what_clients_insist_on_is_found_out(self, world: World, told: Reply) -> None:
        """By a GET, where the answer lacks type or digest, or the upstream does not offer HEAD."""
        world.reply(HOST, TAG, told, GIVEN)
        answer = fetch(world, TAG, head=True)
        assert [seen.method for seen in world.seen] == ["HEAD", "GET"]
        assert described(answer) == (TYPE, digest(BODY), len(BODY))
        assert bytes_of(answer.body) == b""

    def test_what_is_not_there(self, world: World) -> None:
        """Is not asked for twice."""
        world.reply(HOST, TAG, Reply(404))
        with pytest.raises(ManifestUnknown):
            fetch(world, TAG, head=True)
        assert len(world.seen) == 1

    def test_a_get_that_is_not_offered(self, world: World) -> None:
        """Is not asked for twice either."""
        world.reply(HOST, TAG, Reply(405))
        with pytest.raises(Unsupported):
            fetch(world, TAG)
        assert len(world.seen) == 1


class TestConditional:
    """Asked for by a client that may have it already."""

    @pytest.mark.parametrize("head", [True, False])
    @pytest.mark.parametrize("condition", [f'"{digest(BODY)}"', f'"x", W/"{digest(BODY)}"', "*"])
    def test_what_it_has_is_not_sent(self, world: World, condition: str, head: bool) -> None:
        """Also where the upstream knows nothing of conditions."""
        answer = fetch(world, TAG, if_none_match=condition, head=head)
        assert answer.status == 304
        assert bytes_of(answer.body) == b""
        assert world.seen[0].header("If-None-Match") == condition

    def test_the_upstreams_304(self, world: World) -> None:
        """Is the client's."""
        world.reply(HOST, TAG, Reply(304, b"", (DIGEST, ("ETag", '"x"'))))
        answer = fetch(world, TAG, if_none_match='"x"')
        assert (answer.status, answer.headers) == (304, (("ETag", '"x"'),))

    def test_a_304_that_tells_nothing_more(self, world: World) -> None:
        """Is the answer to a HEAD: there is no GET after it, which an upstream may count as a pull."""
        world.reply(HOST, TAG, Reply(304))
        assert fetch(world, TAG, if_none_match='"x"', head=True).status == 304
        assert [seen.method for seen in world.seen] == ["HEAD"]

    def test_what_it_has_not(self, world: World) -> None:
        """Is sent."""
        assert bytes_of(fetch(world, TAG, if_none_match='"sha256:0"').body) == BODY


def test_headers_that_travel(world: World) -> None:
    """Those that tell a client something of the content or its limits; no others."""
    travelling = (
        ("RateLimit-Limit", "100;w=21600"),
        ("RateLimit-Remaining", "76"),
        ("Warning", '299 - "old"'),
    )
    hidden = (
        ("Set-Cookie", "session=1"), ("Strict-Transport-Security", "max-age=1"), ("Alt-Svc", "h3"),
        ("Docker-RateLimit-Source", "192.0.2.1"), ("X-Registry-Supports-Signatures", "1"), ("Via", "x"),
        ("Retry-After", "1"), ("Server", "nginx"),
    )  # fmt: skip
    world.reply(HOST, TAG, GIVEN.having(*travelling, *hidden))
    assert fetch(world, TAG).headers == travelling


@pytest.mark.parametrize("path", [TAG, BY_DIGEST])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(307, b"", (("Location", f"https://{HOST}/elsewhere"),)),
        Reply(405),
        Reply(200, BODY, (KIND,)),
        Reply(200, BODY, (DIGEST,)),
    ],
)
def test_a_head_that_does_not_answer_becomes_a_get(world: World, path: str, reply: Reply) -> None:
    """It goes to the registry itself, and the bytes are consent; where the HEAD leads to nobody asks."""
    world.reply(HOST, path, reply, Reply(200, MANIFEST_BODY, (KIND,)) if path == TAG else GIVEN)
    answer = fetch(world, path, head=True)
    assert answer.consents
    assert bytes_of(answer.body) == b""
    assert [(seen.method, seen.path) for seen in world.seen] == [("HEAD", path), ("GET", path)]


def test_a_304_is_the_registrys_own(world: World) -> None:
    """To the digest that was asked about; where it comes from elsewhere the manifest is fetched."""
    same = {"head": True, "if_none_match": f'"{digest(BODY)}"'}
    for told in ((), (DIGEST,)):
        world.reply(HOST, TAG, Reply(304, b"", told))
        answer = fetch(world, TAG, **same)
        assert (answer.status, answer.consents) == (304, True)
    world.reply(HOST, TAG, Reply(304, b"", (("Docker-Content-Digest", digest(b"other")),)), GIVEN)
    assert fetch(world, TAG, **same).upstream_status == 200
    world.reply(HOST, TAG, Reply(307, b"", (("Location", f"https://{HOST}/elsewhere"),)))
    world.reply(HOST, "/elsewhere", Reply(304), GIVEN)
    answer = fetch(world, TAG, if_none_match=same["if_none_match"])
    assert (answer.status, answer.consents) == (304, False)
    answer = fetch(world, TAG, **same)
    assert (answer.status, answer.upstream_status) == (304, 200)


def test_a_document_is_no_consent(world: World) -> None:
    """What comes by a tag, and is no manifest, lets nobody have what is held."""
    for body, consents in ((b'{"login":"required"}', False), (MANIFEST_BODY, True)):
        world.reply(HOST, TAG, Reply(200, body, (KIND,)))
        assert fetch(world, TAG).consents is consents
