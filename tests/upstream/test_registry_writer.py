"""Writes to an upstream, and the signed locations of uploads."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import BytesBody
from dockmirror.interfaces import IWritableRegistry
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import BlobUploadUnknown, RangeInvalid, RegistryError, Unavailable
from dockmirror.oci.request import Repository
from dockmirror.oci.token import Credentials
from dockmirror.oci.write import UploadSession, UploadTarget, Write, WriteResult
from dockmirror.upstream.agents import IdentityEncodingAgent, make_http_client
from dockmirror.upstream.registry_client import ChallengeCache
from dockmirror.upstream.registry_writer import LocationSigner, RegistryWriter
from dockmirror.upstream.upload_client import UploadClient
from dockmirror.upstream.upstream_client import UpstreamClient
from tests.fakes import Reply, World
from tests.stacks import Outcome

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
    """By another mirror, for another upstream, or for another repository; keys can be rotated."""
    with pytest.raises(BlobUploadUnknown):
        signer.verify(repository, SIGNER.sign(A, ADDRESS))
    both = LocationSigner([OTHER, KEY], "docker")
    assert both.verify(A, SIGNER.sign(A, ADDRESS)) == (ADDRESS,)
    assert LocationSigner([OTHER], "docker").verify(A, both.sign(A, ADDRESS)) == (ADDRESS,)


def test_any_change_breaks_the_signature() -> None:
    signed = SIGNER.sign(A, ADDRESS)
    body, code = signed.split(".")
    evil = SIGNER.sign(A, "https://evil.example/").split(".")[0]
    joined = (f"{body}.", f".{code}", f"{body}.{code}.", f"{body[:-2]}.{code}", f"{evil}.{code}")
    for changed in (body, *joined, "", ".", "é.é"):
        with pytest.raises(BlobUploadUnknown):
            SIGNER.verify(A, changed)


HOST, URL = "r.example", "https://r.example"
TOKEN = Credentials.bearer("t")


class Upstream:
    """An upstream, and a client that writes to it."""

    def __init__(self, url: str = URL) -> None:
        self.world, clock = World(), Clock()
        self.signer = LocationSigner([b"k" * 32], "r")
        client = UpstreamClient(make_http_client(self.world.agent), clock, "r", url)
        challenges = ChallengeCache(client, url, clock)
        uploads = UploadClient(IdentityEncodingAgent(self.world.agent), client, clock, 60.0, lambda _: None)
        self.writer = RegistryWriter(url, client, uploads, challenges, self.signer)

    def write(self, write: Write, data: bytes = b"") -> WriteResult:
        """Return the result of a write."""
        outcome = Outcome(self.writer.write(write, BytesBody(data, Descriptor(size=len(data)))))
        self.world.agent.flush()
        result: WriteResult = outcome.get()
        return result

    def begin(self, reply: Reply) -> WriteResult:
        """Begin an upload, to which the upstream replies so."""
        self.world.reply(HOST, "/v2/a/blobs/uploads/", reply)
        return self.write(Write("POST", UploadTarget(A), credentials=TOKEN))

    def upload(self, address: str) -> UploadSession:
        """Return an upload with that location."""
        return UploadSession(A, self.signer.sign(A, address))


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
    upstream = Upstream()
    assert verifyObject(IWritableRegistry, upstream.writer)
    location = upstream.begin(Reply(202, b"", (("Location", header),))).location
    assert location is not None
    assert upstream.signer.verify(A, location.removeprefix("blobs/uploads/")) == (signed_url,)


@pytest.mark.parametrize("header", ["", "ftp://r.example/x", "https://u:p@r.example/x", "/a b"])
def test_an_invalid_location_is_an_error(header: str) -> None:
    with pytest.raises(Unavailable, match="invalid upload location"):
        Upstream().begin(Reply(202, b"", (("Location", header),)))


def test_without_a_location_an_upload_stays_where_it_was() -> None:
    """After a refusal, too."""
    upstream = Upstream()
    upload = upstream.upload(f"{URL}/u")
    upstream.world.reply(HOST, "/u", Reply(202), Reply(416))
    assert upstream.write(Write("PATCH", upload), b"x").location == f"blobs/uploads/{upload.name}"
    with pytest.raises(RangeInvalid) as refused:
        upstream.write(Write("PATCH", upload), b"x")
    assert refused.value.location == f"blobs/uploads/{upload.name}"


@pytest.mark.parametrize(
    ("where", "sent"),
    [(f"{URL}/u", "Bearer t"), (f"{URL}:443/u", "Bearer t"), ("http://r.example/u", None),
     (f"{URL}:8443/u", None), ("https://sub.r.example/u", None)],
)  # fmt: skip
def test_only_the_upstreams_origin_gets_credentials(where: str, sent: str | None) -> None:
    upstream = Upstream()
    for host in ("r.example", "r.example:443", "r.example:8443", "sub.r.example"):
        upstream.world.reply(host, "/u", Reply(202))
    upstream.write(Write("PATCH", upstream.upload(where), credentials=TOKEN), b"x")
    assert [seen.authorization for seen in upstream.world.seen] == [sent]


def test_credentials_that_were_dropped_do_not_come_back() -> None:
    """After a redirect to another host, and from there to the upstream."""
    upstream = Upstream()
    upstream.world.reply("o.example", "/", Reply(307, b"", (("Location", f"{URL}/u"),)))
    upstream.world.reply(HOST, "/u", Reply(201))
    upstream.begin(Reply(307, b"", (("Location", "https://o.example/"),)))
    assert [seen.authorization for seen in upstream.world.seen] == ["Bearer t", None, None]


def test_five_redirects_are_followed() -> None:
    upstream = Upstream()
    with pytest.raises(RegistryError, match="more than 5"):
        upstream.begin(Reply(307, b"", (("Location", "./"),)))
    assert len(upstream.world.seen) == 6


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_an_invalid_url_releases_its_connection(status: int) -> None:
    """A connection that is not released would count against the limit."""
    upstream = Upstream()
    reply = Reply(status, bytes(100_000), (("Location", "ftp://r.example/"),)).cut(50, end="stalled")
    with pytest.raises(Unavailable, match="invalid URL"):
        upstream.begin(reply)
    upstream.world.agent.flush()
    assert len(upstream.world.abandoned) == 1
