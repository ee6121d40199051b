"""Upstreams that are not found, or are not who they should be."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.authority import Authority, Certificate
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.registry import Registry
from tests.integration.parts.server import Exchange, Server

from .dns import FAILED, Name, name_server
from .rows import Record, hardship
from .trial import RIGHT, refusal

pytestmark = pytest.mark.integration

REPOSITORY = "hardship/reach"
NOBODYS = f"sha256:{'0' * 64}"
NAMES = {
    "slow.test": Name(seconds=1.5),
    "mute.test": Name(seconds=3600),
    "failed.test": Name(None, FAILED),
    "empty.test": Name(None),
    **{f"{each}.tls.test": Name() for each in ("right", "wrong", "expired", "unknown")},
}


@dataclass(frozen=True)
class Row:
    """An upstream of that name, what a client of it gets, and what it is told."""

    name: str
    upstream: str
    gets: str
    why: str = ""


GATEWAY, LATE = "502 UNAVAILABLE", "504 UNAVAILABLE"
UNRESOLVED = "its name cannot be resolved"
ROWS = [
    Row("its name is known to nobody", "nobody", GATEWAY, UNRESOLVED),
    Row("its name has no address", "empty", GATEWAY, UNRESOLVED),
    Row("its name server fails", "failed", GATEWAY, UNRESOLVED),
    Row("its name server takes 1.5 seconds", "slow", RIGHT),
    Row("its name server does not answer", "mute", LATE, "took more than 4 s"),
    Row("its certificate is for another name", "wrong", GATEWAY, "its certificate is for another name"),
    Row("its certificate has expired", "expired", GATEWAY, "its certificate has expired"),
    Row("its certificate is of an unknown authority", "unknown", GATEWAY, "an untrusted authority"),
]
CASES = [
    pytest.param(row, asks, id=f"{asks}-{row.upstream}", marks=hardship(f"{asks}: {row.name}"))
    for asks in ("manifest", "blob")
    for row in ROWS
]


@contextmanager
def _greets(certificate: Certificate) -> Iterator[int]:
    """Serve TLS with that certificate, and fail if a client accepts it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                context.wrap_socket(self.request, server_side=True).recv(1)
            except OSError:
                return
            pytest.fail("that certificate was taken")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@contextmanager
def _leads_to(url: str) -> Iterator[str]:
    """A registry whose blobs are all there; its address."""

    class Leading(Exchange):
        def do_GET(self) -> None:
            self.answer(*((200, b"{}") if self.path == "/v2/" else (307,)), Location=url + self.path)

        do_HEAD = do_GET

    with Server("127.0.0.1", Leading) as server:
        yield server.url


@pytest.fixture(scope="module")
def image(open_registry: Registry) -> Image:
    """The image of the registry."""
    pushed = artifact("reach", size=200_000)
    open_registry.push(REPOSITORY, pushed, "latest")
    return pushed


@pytest.fixture(scope="module")
def mirror(
    directory: MakeDirectory, make_machine: MakeMachine, authority: Authority, open_registry: Registry
) -> Iterator[Mirror]:
    """A mirror of them all: by their names, and, with "there" in front, of registries that lead to them."""
    stranger = Authority(directory("stranger"))
    machine = make_machine()
    with ExitStack() as stack:
        server = stack.enter_context(name_server(NAMES))
        (machine.etc / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:10 attempts:1\n")
        ports = {
            each: stack.enter_context(_greets(certificate))
            for each, certificate in (
                ("wrong", authority.issue("right.tls.test")),
                ("expired", authority.issue("expired.tls.test", ends=datetime.now(UTC) - timedelta(days=1))),
                ("unknown", stranger.issue("unknown.tls.test")),
            )
        }
        urls = {each: f"https://{each}.tls.test:{port}" for each, port in ports.items()}
        for each in ("nobody", "empty", "failed", "slow", "mute"):
            urls[each] = f"http://{each}.test:{open_registry.port}"
        led = {f"there-{each}": stack.enter_context(_leads_to(url)) for each, url in urls.items()}
        patience = {"timeout": 5, "connect_timeout": 4, "ca_file": str(authority.certificate)}
        upstreams = {each: {"url": url, **patience} for each, url in {**urls, **led}.items()}
        yield stack.enter_context(Mirror(directory("reach"), machine, upstreams, tag_ttl=0))


@pytest.mark.parametrize(("row", "asks"), CASES)
def test_reach(mirror: Mirror, image: Image, row: Row, asks: str, came: Record) -> None:
    """The client is told why, or waits; and so when it asks again."""
    for _ in range(2):
        if asks == "manifest":
            response, data = mirror.client(row.upstream).manifest(REPOSITORY, "latest"), image.manifest.data
        else:
            layer = image.layers[0]
            digest = layer.digest if row.gets == RIGHT else NOBODYS  # what is held may be given
            response, data = mirror.client(f"there-{row.upstream}").blob(REPOSITORY, digest), layer.data
        gets = RIGHT if (response.status, response.body) == (200, data) else refusal(response)
        came(gets)
        assert gets == row.gets
        if row.why:
            assert row.why in json.loads(response.body)["errors"][0]["message"]
    assert mirror.failures() == ""
