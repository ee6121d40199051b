"""Writes to an upstream, and the signed locations of uploads."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import BytesBody
from dockmirror.interfaces import IWritableRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import BlobUploadUnknown, RangeInvalid, RegistryError, Unavailable
from dockmirror.oci.reference import Repository
from dockmirror.oci.write import UploadSession, UploadTarget, Write, WriteResult
from dockmirror.upstream.agents import IdentityEncodingAgent, make_http_client
from dockmirror.upstream.registry_writer import LocationSigner, RegistryWriter
from dockmirror.upstream.token_relay import ChallengeCache
from dockmirror.upstream.upload_client import UploadClient
from dockmirror.upstream.upstream_client import UpstreamClient
from tests.fakes import Reply, World
from tests.stacks import now

KEY, OTHER = b"k" * 32, b"o" * 32
A, B = Repository("a"), Repository("b")
ADDRESS = "https://storage.example/upload?signature=a%2Fb&x=+"
SIGNER = LocationSigner([KEY], "docker")


@given(st.lists(st.text()))
def test_a_signed_location_is_verified(values: list[str]) -> None:
    """It is a path segment that needs no encoding."""
    signed = SIGNER.sign(A, *values)
    assert SIGNER.verify(A, signed) == tuple(values)
    assert set(signed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert not signed.startswith(".")


@pytest.mark.parametrize(
    ("signer", "repository"),
    [
        (LocationSigner([OTHER], "docker"), A),
        (LocationSigner([KEY], "quay"), A),
        (SIGNER, B),
        (LocationSigner([], "docker"), A),
    ],
)
def test_a_location_signed_for_something_else_is_refused(
    signer: LocationSigner, repository: Repository
) -> None:
    """By another mirror, for another upstream, or for another repository."""
    with pytest.raises(BlobUploadUnknown):
        signer.verify(repository, SIGNER.sign(A, ADDRESS))


def test_any_change_breaks_the_signature() -> None:
    signed = SIGNER.sign(A, ADDRESS)
    body, code = signed.split(".")
    for changed in (body, f"{body}.", f".{code}", f"{body}.{code}.", "", ".", "é.é", f"{body[:-2]}.{code}",
                    f"{SIGNER.sign(A, 'https://evil.example/').split('.')[0]}.{code}"):  # fmt: skip
        with pytest.raises(BlobUploadUnknown):
            SIGNER.verify(A, changed)


def test_keys_can_be_rotated() -> None:
    both = LocationSigner([OTHER, KEY], "docker")
    assert both.verify(A, SIGNER.sign(A, ADDRESS)) == (ADDRESS,)
    assert LocationSigner([OTHER], "docker").verify(A, both.sign(A, ADDRESS)) == (ADDRESS,)


HOST, URL = "r.example", "https://r.example"
TOKEN = Credentials.bearer("t")


class Asked:
    """An upstream, and a client that writes to it."""

    def __init__(self, url: str = URL) -> None:
        self.world, clock = World(), Clock()
        self.seals = LocationSigner([b"k" * 32], "r")
        client = UpstreamClient(make_http_client(self.world.agent), clock, "r", url)
        handshake = ChallengeCache(client, url, clock)
        submitting = UploadClient(
            IdentityEncodingAgent(self.world.agent), client, clock, 60.0, lambda _: None
        )
        self.writing = RegistryWriter(url, client, submitting, handshake, self.seals)

    def write(self, write: Write, data: bytes = b"") -> WriteResult:
        """Return the result of a write."""
        coming: Any = self.writing.write(write, BytesBody(data, Descriptor(size=len(data))))
        return now(self.flushed(coming))

    async def flushed(self, coming: Any) -> WriteResult:
        """Return it when all bytes have arrived."""
        asked: Deferred[WriteResult] = Deferred.fromCoroutine(coming)
        self.world.agent.flush()
        return await asked

    def upload(self, address: str) -> UploadSession:
        """Return an upload with that location."""
        return UploadSession(A, self.seals.sign(A, address))


def address(asked: Asked, written: WriteResult) -> str:
    """Return the URL in a signed location."""
    assert written.location is not None
    (found,) = asked.seals.verify(A, written.location.removeprefix("blobs/uploads/"))
    return found


def test_the_writer_is_a_writable_registry() -> None:
    assert verifyObject(IWritableRegistry, Asked().writing)


@pytest.mark.parametrize(
    ("header", "signed_url"),
    [
        ("https://r.example/x?a=%2F&b", "https://r.example/x?a=%2F&b"),
        ("http://r.example/x", "https://r.example/x"),
        ("/x", "https://r.example/x"),
        ("x?y", "https://r.example/v2/a/blobs/uploads/x?y"),
        ("//other.example/x", "https://other.example/x"),
        ("http://r.example:8080/x", "http://r.example:8080/x"),
        ("/x#fragment", "https://r.example/x"),
    ],
)
def test_the_upload_location_is_kept_exactly(header: str, signed_url: str) -> None:
    """It may be signed; its scheme is https if the upstream's is."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(202, b"", (("Location", header),)))
    assert address(asked, asked.write(Write("POST", UploadTarget(A)))) == signed_url


@pytest.mark.parametrize("header", ["", "ftp://r.example/x", "https://u:p@r.example/x", "/a b"])
def test_an_invalid_location_is_an_error(header: str) -> None:
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(202, b"", (("Location", header),)))
    with pytest.raises(Unavailable, match="invalid upload location"):
        asked.write(Write("POST", UploadTarget(A)))


def test_without_a_location_an_upload_stays_where_it_was() -> None:
    """After a refusal, too."""
    asked = Asked()
    upload = asked.upload(f"{URL}/u")
    asked.world.reply(HOST, "/u", Reply(202), Reply(416))
    assert asked.write(Write("PATCH", upload), b"x").location == f"blobs/uploads/{upload.name}"
    with pytest.raises(RangeInvalid) as refused:
        asked.write(Write("PATCH", upload), b"x")
    assert refused.value.location == f"blobs/uploads/{upload.name}"


@pytest.mark.parametrize(
    ("where", "sent"),
    [(f"{URL}/u", "Bearer t"), (f"{URL}:443/u", "Bearer t"), ("http://r.example/u", None),
     (f"{URL}:8443/u", None), ("https://sub.r.example/u", None)],
)  # fmt: skip
def test_only_the_upstreams_origin_gets_credentials(where: str, sent: str | None) -> None:
    asked = Asked()
    for host in ("r.example", "r.example:443", "r.example:8443", "sub.r.example"):
        asked.world.reply(host, "/u", Reply(202))
    asked.write(Write("PATCH", asked.upload(where), credentials=TOKEN), b"x")
    assert [seen.authorization for seen in asked.world.seen] == [sent]


def test_credentials_that_were_dropped_do_not_come_back() -> None:
    """After a redirect to another host, and from there to the upstream."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(307, b"", (("Location", "https://o.example/"),)))
    asked.world.reply("o.example", "/", Reply(307, b"", (("Location", f"{URL}/u"),)))
    asked.world.reply(HOST, "/u", Reply(201))
    asked.write(Write("POST", UploadTarget(A), credentials=TOKEN))
    assert [seen.authorization for seen in asked.world.seen] == ["Bearer t", None, None]


def test_five_redirects_are_followed() -> None:
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(307, b"", (("Location", "./"),)))
    with pytest.raises(RegistryError, match="more than 5"):
        asked.write(Write("POST", UploadTarget(A)))
    assert len(asked.world.seen) == 6


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_an_invalid_url_releases_its_connection(status: int) -> None:
    """A connection that is not released would count against the limit."""
    asked = Asked()
    reply = Reply(status, bytes(100_000), (("Location", "ftp://r.example/"),)).cut(50, end="stalled")
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", reply)
    with pytest.raises(Unavailable, match="invalid URL"):
        asked.write(Write("POST", UploadTarget(A)))
    asked.world.agent.flush()
    assert len(asked.world.abandoned) == 1
