"""A mirror that runs, asked as its clients ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from dockmirror.cli.running_mirror import address, address_at, connect_to_mirror
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.interfaces import IRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.reference import Repository
from dockmirror.oci.request import Blob, RegistryRequest
from tests.fakes import Reply, World

from ..stacks import Outcome, bytes_of

MIRROR = "mirror.example:8080"
DATA = bytes(range(256)) * 1000
BLOB = Blob(Repository("docker.io/library/nginx"), Digest.of(DATA))


@pytest.mark.parametrize(
    ("listen", "url", "addresses"),
    [
        ((), "http://mirror.example:8080", ("127.0.0.1", "::1")),
        (("tcp:5000",), "http://mirror.example:5000", ("127.0.0.1", "::1")),
        (("tcp:port=5000:interface=10.0.0.1",), "http://mirror.example:5000", ("10.0.0.1",)),
        (
            ("unix:/run/m.sock", "tcp:5000:backlog=9:interface=\\:\\:1"),
            "http://mirror.example:5000",
            ("::1",),
        ),
        (("tcp:5000:interface=0.0.0.0",), "http://mirror.example:5000", ("127.0.0.1", "::1")),
        (("https:8443",), "https://mirror.example:8443", ("127.0.0.1", "::1")),
        (("tcp:interface=10.0.0.1:port=5000",), "http://mirror.example:5000", ("10.0.0.1",)),
        (("ssl:8443:privateKey=a",), "https://mirror.example:8443", ("127.0.0.1", "::1")),
    ],
)
def test_on_this_machine(listen: tuple[str, ...], url: str, addresses: tuple[str, ...]) -> None:
    """It is reached where it listens, by its own name, which need not be resolved, and through no proxy."""
    at = address(load({"domain": "mirror.example", "listen": list(listen)}, {}))
    assert at.url == url
    assert tuple(at.addresses["mirror.example"]) == addresses
    assert at.proxy == ""


@pytest.mark.parametrize("listen", ["unix:/run/mirror.sock", "systemd:domain=INET:index=0"])
def test_nowhere(listen: str) -> None:
    """What listens on no port that is told has to be named."""
    with pytest.raises(ConfigurationError, match="listen"):
        address(load({"listen": [listen]}, {}))


def test_elsewhere(tmp_path: Path) -> None:
    """It is reached by a URL, with an authority of its own; what is none is refused."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    at = address_at("https://mirror.example:8443", authority)
    assert (at.url, at.ca_file, at.addresses) == ("https://mirror.example:8443", authority, {})
    for wrong in ("mirror.example", "ftp://mirror.example", "http://mirror.example/path"):
        with pytest.raises(ValueError, match=r"^expected an address"):
            address_at(wrong)


def mirror(world: World, credentials: Credentials | None = None) -> IRegistry:
    """The mirror of the world."""
    return connect_to_mirror(address_at(f"http://{MIRROR}"), world.agent, Clock(), credentials)


def fetched(world: World, registry: IRegistry, request: RegistryRequest) -> Any:
    """The answer."""
    work = Outcome(registry.fetch(request))
    world.agent.flush()
    return work.get()


def test_what_is_held() -> None:
    """Is told by the mirror's own header of a HEAD."""
    world = World()
    world.reply(MIRROR, str(BLOB), Reply(200, b"", (("Cache-Status", "dockmirror; hit"),)), Reply(200))
    told = [fetched(world, mirror(world), RegistryRequest(BLOB, head=True)).headers for _ in range(2)]
    assert told == [(("Cache-Status", "dockmirror; hit"),), ()]
    assert [seen.method for seen in world.seen] == ["HEAD", "HEAD"]


def test_whole_or_not() -> None:
    """A blob that breaks off is gone on with, as whoever asked; a wrong one fails."""
    world = World()
    rest = Reply(206, DATA[1000:], (("Content-Range", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"),))
    world.reply(MIRROR, str(BLOB), Reply(200, DATA).cut(1000), rest, Reply(200, DATA[::-1]))
    alice = Credentials.basic("alice", "s3cret")
    clock = Clock()
    registry = connect_to_mirror(address_at(f"http://{MIRROR}"), world.agent, clock, alice)
    content = fetched(world, registry, RegistryRequest(BLOB)).body
    consumer = StringTransport()
    work = Outcome(content.deliver(consumer))
    for _ in range(10):
        world.agent.flush()
        clock.advance(5)
    assert work.get() is None
    assert consumer.value() == DATA
    assert {seen.authorization for seen in world.seen} == {alice.header}
    with pytest.raises(RegistryError):
        bytes_of(fetched(world, registry, RegistryRequest(BLOB)).body)
