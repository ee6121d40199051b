"""Writes to an upstream over real HTTP bytes, against a server in memory."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import BytesBody
from dockmirror.interfaces import IWritableRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import RangeInvalid, RegistryError, Unavailable
from dockmirror.oci.reference import Repository
from dockmirror.oci.write import UploadSession, UploadTarget, Write, WriteResult
from dockmirror.upstream.identity_encoding import http_client
from dockmirror.upstream.registry_writer import RegistryWriter
from dockmirror.upstream.signed_locations import LocationSigner
from dockmirror.upstream.token_relay import ChallengeCache
from dockmirror.upstream.upload_client import UploadClient
from dockmirror.upstream.upstream_client import UpstreamClient
from tests.fakes import Reply, World
from tests.stacks import now

HOST, URL = "r.example", "https://r.example"
A = Repository("a")
TOKEN = Credentials.bearer("t")


class Asked:
    """An upstream, and what is asked of it."""

    def __init__(self, url: str = URL) -> None:
        self.world, clock = World(), Clock()
        self.seals = LocationSigner([b"k" * 32], "r")
        client = UpstreamClient(http_client(self.world.agent), clock, "r", url)
        handshake = ChallengeCache(client, url, clock)
        submitting = UploadClient(self.world.agent, client, clock, 60.0, lambda _: None)
        self.writing = RegistryWriter(url, client, submitting, handshake, self.seals)

    def write(self, write: Write, data: bytes = b"") -> WriteResult:
        """What comes of it."""
        coming: Any = self.writing.write(write, BytesBody(data, Descriptor(size=len(data))))
        return now(self.flushed(coming))

    async def flushed(self, coming: Any) -> WriteResult:
        """The same, when all bytes have got there."""
        asked: Deferred[WriteResult] = Deferred.fromCoroutine(coming)
        self.world.agent.flush()
        return await asked

    def upload(self, address: str) -> UploadSession:
        """One that goes on there."""
        return UploadSession(A, self.seals.sign(A, address))


def address(asked: Asked, written: WriteResult) -> str:
    """Where it goes on in truth."""
    assert written.location is not None
    (found,) = asked.seals.verify(A, written.location.removeprefix("blobs/uploads/"))
    return found


def test_it_is_written_to() -> None:
    """As a registry is."""
    assert verifyObject(IWritableRegistry, Asked().writing)


@pytest.mark.parametrize(
    ("told", "meant"),
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
def test_where_it_goes_on(told: str, meant: str) -> None:
    """To the letter, since it may be signed; by https, where the upstream is asked so."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(202, b"", (("Location", told),)))
    assert address(asked, asked.write(Write("POST", UploadTarget(A)))) == meant


@pytest.mark.parametrize("told", ["", "ftp://r.example/x", "https://u:p@r.example/x", "/a b"])
def test_what_is_no_address(told: str) -> None:
    """Is told at once."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(202, b"", (("Location", told),)))
    with pytest.raises(Unavailable, match="no address"):
        asked.write(Write("POST", UploadTarget(A)))


def test_an_upload_that_does_not_say() -> None:
    """Goes on where it was, also after a refusal."""
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
def test_credentials(where: str, sent: str | None) -> None:
    """Are for the upstream's own origin."""
    asked = Asked()
    for host in ("r.example", "r.example:443", "r.example:8443", "sub.r.example"):
        asked.world.reply(host, "/u", Reply(202))
    asked.write(Write("PATCH", asked.upload(where), credentials=TOKEN), b"x")
    assert [seen.authorization for seen in asked.world.seen] == [sent]


def test_they_do_not_come_back() -> None:
    """After a redirect elsewhere, and from there to the upstream."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(307, b"", (("Location", "https://o.example/"),)))
    asked.world.reply("o.example", "/", Reply(307, b"", (("Location", f"{URL}/u"),)))
    asked.world.reply(HOST, "/u", Reply(201))
    asked.write(Write("POST", UploadTarget(A), credentials=TOKEN))
    assert [seen.authorization for seen in asked.world.seen] == ["Bearer t", None, None]


def test_redirects_end() -> None:
    """After five."""
    asked = Asked()
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", Reply(307, b"", (("Location", "./"),)))
    with pytest.raises(RegistryError, match="more than 5"):
        asked.write(Write("POST", UploadTarget(A)))
    assert len(asked.world.seen) == 6


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_nowhere(status: int) -> None:
    """Is told of, and its connection is let go: each that was not would take a place from all others."""
    asked = Asked()
    reply = Reply(status, bytes(100_000), (("Location", "ftp://r.example/"),)).cut(50, end="stalled")
    asked.world.reply(HOST, "/v2/a/blobs/uploads/", reply)
    with pytest.raises(Unavailable, match="no address"):
        asked.write(Write("POST", UploadTarget(A)))
    asked.world.agent.flush()
    assert len(asked.world.abandoned) == 1
