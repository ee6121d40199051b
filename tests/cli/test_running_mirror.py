"""Tests of the client of a running mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from dockmirror.app.endpoints import Port, listening_ports
from dockmirror.cli.running_mirror import connect_to_mirror, local_mirror, mirror_at
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.interfaces import IRegistry
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError, Unreachable
from dockmirror.oci.header_fields import CacheStatus
from dockmirror.oci.request import Blob, RegistryRequest, Repository, Tags
from dockmirror.oci.token import Credentials
from tests.fakes import Reply, World

from ..stacks import Outcome, bytes_of

MIRROR = "mirror.example:8080"
DATA = bytes(range(256)) * 1000
BLOB = Blob(Repository("docker.io/library/nginx"), Digest.of(DATA))


@pytest.mark.parametrize(
    ("listen", "url", "addresses"),
    [
        ((), "http://mirror.example:8080", ("127.0.0.1", "::1")),
        (("tcp:port=5000:interface=10.0.0.1",), "http://mirror.example:5000", ("10.0.0.1",)),
        (("tcp:5000:interface=0.0.0.0",), "http://mirror.example:5000", ("127.0.0.1", "::1")),
        (("https:8443",), "https://mirror.example:8443", ("127.0.0.1", "::1")),
    ],
)
def test_the_mirror_of_the_settings_is_reached_on_this_machine(
    listen: tuple[str, ...], url: str, addresses: tuple[str, ...]
) -> None:
    """Its name need not be resolved, and no proxy is used."""
    at = local_mirror(load({"domain": "mirror.example", "listen": list(listen)}, {}))
    assert at.url == url
    assert tuple(at.addresses["mirror.example"]) == addresses
    assert at.proxy == ""


@pytest.mark.parametrize("listen", ["unix:/run/mirror.sock", "systemd:domain=INET:index=0"])
def test_settings_without_a_port_are_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="with --mirror"):
        local_mirror(load({"listen": [listen]}, {}))


def test_a_mirror_is_reached_by_its_url(tmp_path: Path) -> None:
    """The CA file is its own; an invalid url is refused."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    at = mirror_at("https://mirror.example:8443", authority)
    assert (at.url, at.ca_file, at.addresses) == ("https://mirror.example:8443", authority, {})
    for wrong in ("mirror.example", "ftp://mirror.example", "http://mirror.example/path"):
        with pytest.raises(ValueError, match=r"^expected an address"):
            mirror_at(wrong)


def mirror(world: World, credentials: Credentials | None = None) -> IRegistry:
    """Return the mirror in the fake network."""
    return connect_to_mirror(mirror_at(f"http://{MIRROR}"), world.agent, Clock(), credentials)


def fetched(world: World, registry: IRegistry, request: RegistryRequest) -> Any:
    """Return the response."""
    work = Outcome(registry.fetch(request))
    world.agent.flush()
    return work.get()


def test_a_head_reports_the_cache_status() -> None:
    world = World()
    world.reply(MIRROR, str(BLOB), Reply(200, b"", (("Cache-Status", "dockmirror; hit"),)), Reply(200))
    statuses = [fetched(world, mirror(world), RegistryRequest(BLOB, head=True)).cache for _ in range(2)]
    assert statuses == [CacheStatus(), None]
    assert [seen.method for seen in world.seen] == ["HEAD", "HEAD"]


@pytest.mark.parametrize("revalidate", [False, True])
def test_the_mirror_is_told_to_ask_its_upstream(revalidate: bool) -> None:
    world, tags = World(), Tags(BLOB.repository)
    world.reply(MIRROR, str(BLOB), Reply(200))
    world.reply(MIRROR, str(tags), Reply(200, b"{}"))
    for target in (BLOB, tags):
        request = RegistryRequest(target, head=target is BLOB, revalidate=revalidate)
        fetched(world, mirror(world), request).body.discard()
    expected = ["no-cache"] if revalidate else None
    assert [seen.headers.get("cache-control") for seen in world.seen] == [expected] * 2


def test_the_address_at_which_no_mirror_answers_is_named() -> None:
    """So is the reason, and what to do."""
    world = World()
    world.agent.failing[MIRROR] = ConnectionRefusedError()
    with pytest.raises(Unreachable, match=rf"no mirror answered at http://{MIRROR}: .* --mirror$"):
        fetched(world, mirror(world), RegistryRequest(BLOB, head=True))


def test_a_blob_is_resumed_and_verified() -> None:
    """Resumption sends the same credentials; wrong bytes fail."""
    world = World()
    rest = Reply(206, DATA[1000:], (("Content-Range", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"),))
    world.reply(MIRROR, str(BLOB), Reply(200, DATA).cut(1000), rest, Reply(200, DATA[::-1]))
    alice = Credentials.basic("alice", "s3cret")
    clock = Clock()
    registry = connect_to_mirror(mirror_at(f"http://{MIRROR}"), world.agent, clock, alice)
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


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("tcp:5000", Port("http", "5000")),
        ("tcp6:port=5000:interface=\\:\\:1", Port("http", "5000", "::1")),
        ("tcp:interface=10.0.0.1:port=5000", Port("http", "5000", "10.0.0.1")),
        ("https:tcp:8443", Port("https", "8443")),
        ("https:[::1]:8443", Port("https", "8443", "::1")),
        ("127.0.0.1:8443", Port("http", "8443", "127.0.0.1")),
        ("https:tcp6:8443:interface=\\:\\:", Port("https", "8443", "::")),
        ("ssl:8443:privateKey=a", Port("https", "8443")),
        ("tls:/etc/pem:8443", Port("https", "8443")),
    ],
)
def test_the_port_of_each_kind_of_endpoint(listen: str, port: Port) -> None:
    assert list(
        listening_ports(load({"listen": ["unix:/run/m.sock", listen, "systemd:domain=INET:index=0"]}, {}))
    ) == [port]
