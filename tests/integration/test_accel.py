"""nginx sends cached blobs itself, as docs/examples/nginx-accel.conf has it; the mirror decides for whom."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeMachine
from .parts.accounts import ALICE, Account
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd
from .parts.images import Image, image
from .parts.kept import blob_file, files
from .parts.machine import Machine
from .parts.media import Content
from .parts.nginx import GROUP, Nginx
from .parts.plain import PlainClient, Response
from .parts.process import wait_until
from .pulls import ctr_pulls, docker_pulls, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

LARGE = 1_000_000
EXAMPLE = "nginx-accel.conf"
PRIVATE_FIELDS = ("X-Accel-Redirect", "Last-Modified")
OWN_FIELDS = {"Server", "Date", "Connection"}
"""Those that nginx sets for itself."""


@dataclass(frozen=True)
class Accelerated:
    """A mirror, and an nginx that reads its cache as another user."""

    chain: Chain
    nginx: Nginx
    authority: Authority
    seen: dict[str, int] = field(default_factory=dict)
    """How many requests for a blob ``newly_left`` has told of."""

    def client(self, name: str = "docker", account: Account | None = None) -> PlainClient:
        """A client of nginx."""
        url, host = f"https://127.0.0.1:{self.nginx.port}", self.nginx.host(name)
        return PlainClient(url, account, host, self.authority.certificate)

    def hold(self, repository: str) -> Image:
        """Push an image, and cache its blobs."""
        pushed = image(repository, layers=(LARGE,))
        self.chain.registry.push(repository, pushed, "latest")
        client = self.chain.mirror.client("docker", ALICE)
        for each in pushed.blobs:
            assert client.blob(repository, each.digest).status == 200
        wait_until(lambda: self.file(pushed.layers[0]).exists(), "the layer is cached")
        assert self.newly_left(pushed.layers[0], 1) == [False]
        return pushed

    def file(self, content: Content) -> Path:
        """The file of a blob."""
        return blob_file(self.chain.mirror.cache, content.digest)

    def newly_left(self, content: Content, count: int) -> list[bool]:
        """Return for each of so many new requests for a blob whether nginx was to send it.

        A request is logged when its response has ended, which a client may see first.
        """
        before = self.seen.get(content.digest, 0)
        wait_until(lambda: len(self.left_to_nginx(content)) >= before + count, "the requests are logged")
        found = self.left_to_nginx(content)[before:]
        self.seen[content.digest] = before + len(found)
        return found

    def is_left_at_last(self, content: Content) -> bool:
        """Wait until the last request for a blob that was logged was left to nginx."""
        wait_until(lambda: self.left_to_nginx(content)[-1], "the blob is left to nginx")
        return True

    def left_to_nginx(self, content: Content) -> list[bool]:
        """Return for each finished request for a blob, challenges aside, whether nginx was to send it."""
        lines = [line for line in self.chain.mirror.read_log().splitlines() if line.startswith("{")]
        requests = [each for each in map(json.loads, lines) if content.digest in str(each.get("path"))]
        whole = [each for each in requests if each["status"] == 200 and each["method"] == "GET"]
        assert {each["bytes"] for each in whole} == {len(content.data)}
        assert not any(each["accel"] for each in requests if each["status"] == 401)
        return [each["accel"] for each in requests if each["status"] != 401]

    def cached_bytes(self) -> int:
        """The bytes that all pulls of the history were sent from the cache."""
        with closing(sqlite3.connect(self.chain.mirror.state / "history" / "pulls.db")) as history:
            return int(history.execute("SELECT coalesce(sum(cached_bytes), 0) FROM pull").fetchone()[0])

    def trusted_by(self, machine: Machine) -> Machine:
        """The machine, on which the authority is trusted now."""
        if not (machine.etc / "docker/certs.d" / self.nginx.host("docker")).exists():
            machine.trust(self.authority.certificate, self.nginx.host("docker"))
        return machine


@pytest.fixture(scope="module")
def accelerated(chains: MakeChain, make_machine: MakeMachine, authority: Authority) -> Iterator[Accelerated]:
    """The cache lies where nginx's user may go, and nobody but its group may read it."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o711)  # noqa: S103
        cache = f"{place}/cache"
        settings = {"trust_proxy": ["127.0.0.1"], "accel": "nginx", "cache_group": GROUP}
        with chains(cache=cache, log_format="json", networks=["127.0.0.0/24"], **settings) as chain:
            yield from in_front_of(chain, make_machine, authority, cache)


def in_front_of(
    chain: Chain, make_machine: MakeMachine, authority: Authority, cache: str
) -> Iterator[Accelerated]:
    """Run an nginx in front of a mirror, whose cache it expects in that directory."""
    certificate = authority.issue("mirror.test", "*.mirror.test", "127.0.0.1")
    moved = {"/var/cache/dockmirror": cache}
    with Nginx(make_machine("nginx"), chain.mirror.port, certificate, EXAMPLE, moved) as nginx:
        yield Accelerated(chain, nginx, authority)


@pytest.fixture(scope="module")
def lost(accelerated: Accelerated, make_machine: MakeMachine, authority: Authority) -> Iterator[Accelerated]:
    """The same mirror behind an nginx that finds no file, as if each were evicted before it is opened."""
    with tempfile.TemporaryDirectory() as empty:
        os.chmod(empty, 0o711)  # noqa: S103
        yield from in_front_of(accelerated.chain, make_machine, authority, empty)


@pytest.fixture(scope="module")
def denied(
    accelerated: Accelerated, make_machine: MakeMachine, authority: Authority
) -> Iterator[Accelerated]:
    """The same mirror behind an nginx that may read no file."""
    with tempfile.TemporaryDirectory() as closed:
        yield from in_front_of(accelerated.chain, make_machine, authority, closed)


def test_as_it_stands(make_machine: MakeMachine, authority: Authority) -> None:
    """nginx finds nothing wrong with the file, nor anything to warn of."""
    machine = make_machine("nginx")
    nginx = Nginx(machine, 8080, authority.issue("mirror.test"), EXAMPLE)
    checked = machine.run("nginx", "-t", "-c", str(nginx.configuration))
    succeeded(checked)
    assert "[warn]" not in checked.stderr


@pytest.mark.parametrize(
    ("number", "by_nginx", "fields"),
    [
        (0, True, {}),
        (1, True, {"Range": "bytes=5-"}),
        (2, True, {"Range": "bytes=5-10", "If-Range": '"{digest}"'}),
        (3, True, {"Range": "bytes=-7"}),
        (4, True, {"If-None-Match": '"another"'}),
        (5, True, {"Range": "bytes=0-"}),
        (6, True, {"Range": "bytes=999999-99999999"}),
        (7, False, {"Range": "bytes=5-10", "If-Range": '"another"'}),
        (8, False, {"Range": "bytes=abc"}),
        (9, False, {"Range": "bytes=99999999-"}),
        (10, False, {"If-None-Match": '"{digest}"'}),
        (11, False, {"If-None-Match": "*"}),
        (12, False, {"If-Match": '"another"'}),
        (13, False, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
        (14, False, {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}),
    ],
)
def test_responses(accelerated: Accelerated, number: int, by_nginx: bool, fields: dict[str, str]) -> None:
    """A client gets the status, the fields and the bytes that it gets from the mirror itself."""
    pushed = accelerated.hold(f"library/responses{number}")
    repository, layer = f"library/responses{number}", pushed.layers[0]
    asked = {name: value.format(digest=layer.digest) for name, value in fields.items()}
    direct = accelerated.chain.mirror.client("docker").blob(repository, layer.digest, asked)
    through = accelerated.client().blob(repository, layer.digest, asked)
    assert (through.status, through.body) == (direct.status, direct.body)
    assert fields_of(through) == fields_of(direct)
    assert accelerated.newly_left(layer, 2) == [False, by_nginx]


def fields_of(response: Response) -> list[tuple[str, str]]:
    """The fields that the mirror decides about; nginx leaves one out of a part."""
    own = OWN_FIELDS | ({"Accept-Ranges"} if response.status == 206 else set())
    return sorted((name, value) for name, value in response.headers.items() if name not in own)


def test_head(accelerated: Accelerated) -> None:
    """A HEAD is answered by the mirror, as before."""
    layer = accelerated.hold("library/head").layers[0]
    response = accelerated.client().request("HEAD", f"/v2/library/head/blobs/{layer.digest}")
    assert (response.status, response.headers["Content-Length"]) == (200, str(len(layer.data)))
    assert accelerated.newly_left(layer, 1) == [False]


def test_only_the_proxy_gets_the_name_of_a_file(accelerated: Accelerated) -> None:
    """Neither a client without it nor one behind it sees the name, whatever it says of itself."""
    layer = accelerated.hold("library/names").layers[0]
    for client, by_nginx in (
        (accelerated.client(), True),
        (accelerated.chain.mirror.client("docker"), False),
    ):
        for fields in ({}, {"Dockmirror-Accel": "on"}, {"X-Accel-Redirect": "/", "X-Sendfile-Type": "a"}):
            response = client.blob("library/names", layer.digest, fields)
            assert (response.status, response.body) == (200, layer.data)
            assert not any(name in response.headers for name in PRIVATE_FIELDS)
            assert accelerated.newly_left(layer, 1) == [by_nginx]


def test_a_client_cannot_decline_for_nginx(accelerated: Accelerated) -> None:
    """nginx sets the field that says so itself."""
    layer = accelerated.hold("library/declined").layers[0]
    response = accelerated.client().blob("library/declined", layer.digest, {"Dockmirror-Accel": "off"})
    assert response.body == layer.data
    assert accelerated.newly_left(layer, 1) == [True]


def test_no_client_gets_a_file_by_its_name(accelerated: Accelerated) -> None:
    """The location is internal; what is requested there is unknown to the mirror."""
    layer = accelerated.hold("library/internal").layers[0]
    name = accelerated.file(layer).relative_to(accelerated.chain.mirror.cache / "docker/registry/v2/blobs")
    for account in (None, ALICE):
        response = accelerated.client(account=account).request("GET", f"/dockmirror-blobs/{name}")
        assert (response.status, layer.data in response.body) == (404, False)


def test_private(accelerated: Accelerated) -> None:
    """A private blob is left to nginx for its owner, and for nobody else."""
    layer = accelerated.hold("private/accel").layers[0]
    anonymous = accelerated.client().blob("private/accel", layer.digest)
    assert anonymous.status == 401
    response = accelerated.client(account=ALICE).blob("private/accel", layer.digest)
    assert (response.status, response.body) == (200, layer.data)
    assert response.headers["Cache-Control"] == "private, no-store"
    assert accelerated.newly_left(layer, 1) == [True]


@pytest.mark.parametrize("front", ["lost", "denied"])
@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=7-99"}])
def test_what_nginx_cannot_open(request: pytest.FixtureRequest, front: str, fields: dict[str, str]) -> None:
    """The mirror is asked again, with the same path and fields, and sends the bytes itself."""
    failing: Accelerated = request.getfixturevalue(front)
    repository = f"library/{front}{len(fields)}"
    layer = failing.hold(repository).layers[0]
    direct = failing.chain.mirror.client("docker").blob(repository, layer.digest, fields)
    response = failing.client().blob(repository, layer.digest, {**fields, "Dockmirror-Accel": "on"})
    assert (response.status, response.body) == (direct.status, direct.body)
    assert fields_of(response) == fields_of(direct)
    assert failing.newly_left(layer, 3) == [False, True, False]


def test_own_host(lost: Accelerated) -> None:
    """The second request has the query of the first."""
    layer = lost.hold("library/own").layers[0]
    path = f"/v2/library/own/blobs/{layer.digest}?ns=docker.io"
    assert lost.client("").request("GET", path).body == layer.data
    assert lost.newly_left(layer, 2) == [True, False]


def test_a_truncated_file(accelerated: Accelerated) -> None:
    """A file that was written to lost its seal: it is fetched again and not left to nginx meanwhile."""
    layer = accelerated.hold("library/truncated").layers[0]
    assert accelerated.client().blob("library/truncated", layer.digest).body == layer.data
    assert accelerated.newly_left(layer, 1) == [True]
    os.truncate(accelerated.file(layer), LARGE // 2)
    response = accelerated.client().blob("library/truncated", layer.digest)
    assert (response.status, response.body) == (200, layer.data)
    assert accelerated.newly_left(layer, 1) == [False]


def test_evicted(accelerated: Accelerated) -> None:
    """A blob whose file is gone is fetched again."""
    layer = accelerated.hold("library/evicted").layers[0]
    file = accelerated.file(layer)
    file.unlink()

    def is_cached_again() -> bool:
        assert accelerated.client().blob("library/evicted", layer.digest).body == layer.data
        return file.exists()

    wait_until(is_cached_again, "the layer is cached")
    assert accelerated.client().blob("library/evicted", layer.digest).body == layer.data
    assert accelerated.is_left_at_last(layer)


def test_modes(accelerated: Accelerated) -> None:
    """nginx's group may read what was left to it, others nothing; all beside the blobs is the owner's."""
    layer = accelerated.hold("library/modes").layers[0]
    accelerated.client().blob("library/modes", layer.digest)
    cache, file = accelerated.chain.mirror.cache, accelerated.file(layer)
    assert (file.stat().st_mode & 0o777, file.group()) == (0o640, GROUP)
    for directory in file.parents[: len(file.relative_to(cache).parts)]:
        assert (directory.stat().st_mode & 0o777, directory.group()) == (0o750, GROUP)
    for private in ("dockmirror", "docker/registry/v2/repositories"):
        assert (cache / private).stat().st_mode & 0o777 == 0o700
    assert files(cache / "dockmirror")


def test_skopeo(accelerated: Accelerated, skopeo_machine: Machine) -> None:
    """The history counts the bytes that nginx was granted as sent from the cache."""
    pushed = accelerated.hold("library/skopeo")
    before = accelerated.cached_bytes()
    reference = f"{accelerated.nginx.host('docker')}/library/skopeo:latest"
    skopeo_pulls(accelerated.trusted_by(skopeo_machine), reference, pushed, verified=True)
    assert accelerated.is_left_at_last(pushed.layers[0])
    size = len(pushed.layers[0].data)
    wait_until(lambda: accelerated.cached_bytes() >= before + size, "the history has the layer")


def test_dockerd(accelerated: Accelerated, dockerd: Dockerd) -> None:
    pushed = accelerated.hold("private/dockerd-accel")
    accelerated.trusted_by(dockerd.machine)
    docker_pulls(dockerd, f"{accelerated.nginx.host('docker')}/private/dockerd-accel:latest", pushed, ALICE)
    assert accelerated.is_left_at_last(pushed.layers[0])


def test_containerd(accelerated: Accelerated, containerd: Containerd) -> None:
    pushed = accelerated.hold("library/containerd")
    reference = f"{accelerated.nginx.host('docker')}/library/containerd:latest"
    ctr_pulls(containerd, reference, pushed, f"--tlscacert={accelerated.authority.certificate}")
    assert accelerated.is_left_at_last(pushed.layers[0])
