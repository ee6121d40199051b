"""Manifests: byte for byte and verified."""

# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from attrs import evolve

from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BrokenOff, ManifestUnknown, Unavailable, Unsupported
from dockmirror.oci.manifest import MANIFEST_LIMIT
from dockmirror.oci.media import SIGNED
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
STORED = Reply(200, BODY, (KIND, DIGEST))
DESCRIPTOR = Descriptor(TYPE, Digest.of(BODY), len(BODY))


@pytest.fixture
def world() -> World:
    """Return a registry that has one manifest."""
    world = World()
    for path in (TAG, BY_DIGEST):
        world.reply(HOST, path, STORED)
    return world


def fetch(world: World, path: str, **details: Any) -> Answer:
    """Return the registry's answer."""
    return now(upstream(world.agent, url=f"https://{HOST}").fetch(asked(path, **details)))


@pytest.mark.parametrize("path", [TAG, BY_DIGEST])
@pytest.mark.parametrize(
    "reply",
    [
        STORED,
        Reply(200, BODY, (KIND,)),
        Reply(200, BODY, (KIND,), told=False),
        STORED.having(("Content-Encoding", "gzip")),
    ],
)
def test_a_manifest_arrives_unchanged(world: World, path: str, reply: Reply) -> None:
    """Digest and size are known even if the upstream omits them; the label of a coding is ignored."""
    for kind in (TYPE, "x/unknown"):
        headers = tuple((name, kind if name == "Content-Type" else value) for name, value in reply.headers)
        world.reply(HOST, path, evolve(reply, headers=headers))
        answer = fetch(world, path)
        assert (answer.status, answer.upstream_status) == (200, 200)
        assert bytes_of(answer.body) == BODY
        assert answer.body.descriptor == evolve(DESCRIPTOR, media_type=kind)


def encoded(data: bytes) -> str:
    """Return base64url, as a JWS uses it."""
    return base64.urlsafe_b64encode(data).decode()


def test_a_signed_manifest_has_the_digest_of_its_payload(world: World) -> None:
    """No other media type may have the digest of a part, nor a document that says more than its payload."""
    payload = b'{"schemaVersion":1\n}'
    protected = json.dumps({"formatLength": 18, "formatTail": encoded(b"\n}")}).encode()
    signed = payload[:18] + b',"signatures":[{"protected":"' + encoded(protected).encode() + b'"}]\n}'
    reported = ("Docker-Content-Digest", digest(payload))
    world.reply(HOST, TAG, Reply(200, signed, (("Content-Type", SIGNED), reported)))
    assert bytes_of(fetch(world, TAG).body) == signed
    other = signed.replace(b',"sig', b',"name":"a","sig')
    for reply in (
        Reply(200, signed, (KIND, reported)),
        Reply(200, other, (("Content-Type", SIGNED), reported)),
    ):
        world.reply(HOST, TAG, reply)
        with pytest.raises(Unavailable, match="does not match"):
            fetch(world, TAG)


MISMATCH = f"the upstream's manifest does not match {digest(BODY)}"
INVALID = "invalid or incomplete manifest"


@pytest.mark.parametrize(
    ("path", "reply", "reason"),
    [
        (TAG, Reply(200, BODY[:-1], (KIND, DIGEST)), MISMATCH),
        (BY_DIGEST, Reply(200, BODY[:-1], (KIND,)), MISMATCH),
        (BY_DIGEST, Reply(200, b"", (KIND, ("Docker-Content-Digest", digest(b"")))), MISMATCH),
        (TAG, Reply(200, b"", (KIND,)), INVALID),
        (TAG, Reply(200, b"<html>hello", (KIND,)), INVALID),
        (TAG, Reply(200, b"[]", (KIND,)), INVALID),
        (TAG, Reply(200, b"hello", (KIND,)), INVALID),
    ],
)
def test_an_invalid_manifest_is_refused(world: World, path: str, reply: Reply, reason: str) -> None:
    """A client would store anything that comes with a 200."""
    world.reply(HOST, path, reply)
    with pytest.raises(Unavailable, match=reason) as raised:
        fetch(world, path)
    assert raised.value.status == 502


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xml"])
def test_a_web_page_is_refused(world: World, kind: str, head: bool) -> None:
    """It is not read."""
    world.reply(HOST, TAG, ENDLESS.having(("Content-Type", kind)))
    with pytest.raises(Unavailable, match="web page") as raised:
        fetch(world, TAG, head=head)
    assert (raised.value.status, raised.value.upstream_status) == (502, 200)
    world.agent.flush()
    assert len(world.abandoned) == 1


def test_a_manifest_may_have_4_mib(world: World) -> None:
    """A larger one is not read to its end."""
    largest = b"{" + b" " * (MANIFEST_LIMIT - 2) + b"}"
    world.reply(HOST, TAG, Reply(200, largest, (KIND,)))
    assert fetch(world, TAG).body.descriptor.size == MANIFEST_LIMIT
    for announced in (True, False):
        world.reply(HOST, TAG, Reply(200, largest + b" ", (KIND,), told=announced))
        with pytest.raises(Unavailable, match="larger than 4194304 bytes"):
            fetch(world, TAG)


def test_a_manifest_that_breaks_off_is_requested_once_more(world: World) -> None:
    """A second break is an error."""
    world.reply(HOST, TAG, STORED.cut(5), STORED)
    assert bytes_of(fetch(world, TAG).body) == BODY
    world.reply(HOST, TAG, STORED.cut(5), STORED.cut(5), STORED)
    with pytest.raises(BrokenOff):
        fetch(world, TAG)


@pytest.mark.parametrize("path", [TAG, BY_DIGEST])
def test_a_head_is_sent_as_a_head(world: World, path: str) -> None:
    """Docker Hub counts a GET as a pull, and a HEAD not."""
    answer = fetch(world, path, head=True)
    assert [seen.method for seen in world.seen] == ["HEAD"]
    assert (answer.body.descriptor, bytes_of(answer.body)) == (DESCRIPTOR, b"")


@pytest.mark.parametrize("path", [TAG, BY_DIGEST])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, BODY, (KIND,)),
        Reply(200, BODY, (DIGEST,)),
        Reply(200, BODY, (KIND, DIGEST), told=False),
        Reply(200, BODY, (KIND, ("Docker-Content-Digest", "nonsense"))),
        Reply(405),
        error(405, "UNSUPPORTED"),
        Reply(307, b"", (("Location", f"https://{HOST}/elsewhere"),)),
    ],
)
def test_a_head_without_an_answer_is_completed_by_a_get(world: World, path: str, reply: Reply) -> None:
    """The GET starts at the registry, and its bytes are consent; the redirect of the HEAD is not followed."""
    world.reply(HOST, path, reply, STORED if path == BY_DIGEST else Reply(200, MANIFEST_BODY, (KIND,)))
    answer = fetch(world, path, head=True)
    assert answer.consents
    body = BODY if path == BY_DIGEST else MANIFEST_BODY
    assert answer.body.descriptor == Descriptor(TYPE, Digest.of(body), len(body))
    assert bytes_of(answer.body) == b""
    assert [(seen.method, seen.path) for seen in world.seen] == [("HEAD", path), ("GET", path)]


@pytest.mark.parametrize(
    ("head", "status", "error_class"), [(True, 404, ManifestUnknown), (False, 405, Unsupported)]
)
def test_a_refused_request_is_sent_once(
    world: World, head: bool, status: int, error_class: type[Exception]
) -> None:
    world.reply(HOST, TAG, Reply(status))
    with pytest.raises(error_class):
        fetch(world, TAG, head=head)
    assert len(world.seen) == 1


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("condition", [f'"{digest(BODY)}"', f'"x", W/"{digest(BODY)}"', "*"])
def test_a_client_that_has_the_manifest_gets_304(world: World, condition: str, head: bool) -> None:
    """Even if the upstream ignores conditions; a client that has another manifest gets this one."""
    answer = fetch(world, TAG, if_none_match=condition, head=head)
    assert (answer.status, bytes_of(answer.body)) == (304, b"")
    assert world.seen[0].header("If-None-Match") == condition
    assert bytes_of(fetch(world, TAG, if_none_match='"sha256:0"').body) == BODY


def test_a_304_of_the_upstream_is_passed_on(world: World) -> None:
    """A bare one answers a HEAD: a GET might count as a pull."""
    world.reply(HOST, TAG, Reply(304, b"", (DIGEST, ("ETag", '"x"'))), Reply(304))
    answer = fetch(world, TAG, if_none_match='"x"')
    assert (answer.status, answer.headers) == (304, (("ETag", '"x"'),))
    assert fetch(world, TAG, if_none_match='"x"', head=True).status == 304
    assert [seen.method for seen in world.seen] == ["GET", "HEAD"]


def test_some_headers_are_forwarded(world: World) -> None:
    """They describe the content and the rate limit; no other header is forwarded."""
    forwarded = (
        ("RateLimit-Limit", "100;w=21600"),
        ("RateLimit-Remaining", "76"),
        ("Warning", '299 - "old"'),
    )
    hidden = (
        ("Set-Cookie", "session=1"), ("Strict-Transport-Security", "max-age=1"), ("Alt-Svc", "h3"),
        ("Docker-RateLimit-Source", "192.0.2.1"), ("X-Registry-Supports-Signatures", "1"), ("Via", "x"),
        ("Retry-After", "1"), ("Server", "nginx"),
    )  # fmt: skip
    world.reply(HOST, TAG, STORED.having(*forwarded, *hidden))
    assert fetch(world, TAG).headers == forwarded


def test_only_the_registrys_own_304_is_consent(world: World) -> None:
    """It must be about the requested digest; the manifest is fetched if a redirect leads to the 304."""
    same = {"head": True, "if_none_match": f'"{digest(BODY)}"'}
    for headers in ((), (DIGEST,)):
        world.reply(HOST, TAG, Reply(304, b"", headers))
        answer = fetch(world, TAG, **same)
        assert (answer.status, answer.consents) == (304, True)
    world.reply(HOST, TAG, Reply(304, b"", (("Docker-Content-Digest", digest(b"other")),)), STORED)
    assert fetch(world, TAG, **same).upstream_status == 200
    world.reply(HOST, TAG, Reply(307, b"", (("Location", f"https://{HOST}/elsewhere"),)))
    world.reply(HOST, "/elsewhere", Reply(304), STORED)
    answer = fetch(world, TAG, if_none_match=same["if_none_match"])
    assert (answer.status, answer.consents) == (304, False)
    answer = fetch(world, TAG, **same)
    assert (answer.status, answer.upstream_status) == (304, 200)


def test_json_that_is_no_manifest_is_no_consent(world: World) -> None:
    """An upstream may answer a tag with any other document."""
    for body, consents in ((b'{"login":"required"}', False), (MANIFEST_BODY, True)):
        world.reply(HOST, TAG, Reply(200, body, (KIND,)))
        assert fetch(world, TAG).consents is consents
