"""Images pushed through the mirror arrive as they were sent, and are there at once for everybody."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.long import LONG

from .parts.accounts import PUBLISHER, Account
from .parts.authority import Authority
from .parts.clients import skopeo
from .parts.deaf import Deaf, Pushing
from .parts.images import Image, artifact, image, index
from .parts.kept import wrong_blobs
from .parts.machine import Machine
from .parts.media import DOCKER, OCI
from .parts.mirror import DOMAIN, Mirror
from .parts.plain import PlainClient, Response
from .parts.process import free_port, listens, wait_until
from .parts.registry import Registry
from .parts.tokens import Tokens
from .pulls import succeeded

pytestmark = pytest.mark.integration

MakeMachine = Callable[..., Machine]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def pushed_through(
    directory: Callable[[str], Path],
    make_machine: MakeMachine,
    authority: Authority,
    tokens: Tokens,
    token_registry: Registry,
    basic_registry: Registry,
    open_registry: Registry,
) -> Iterator[Mirror]:
    """A mirror of two processes that lets clients write to registries of every kind."""
    upstreams: dict[str, dict[str, Any]] = {
        "direct": {"url": token_registry.url, "realms": [tokens.url], "writes": True},
        "basic": {"url": basic_registry.url, "writes": True},
        "open": {"url": open_registry.url, "writes": True},
        "closed": {"url": open_registry.url},
    }
    keys = {"keys": str(directory("state") / "keys")}
    with Mirror(directory("mirror"), make_machine(), upstreams, workers=2, access=keys) as process:
        yield process
    assert process.failures() == ""


@pytest.fixture(params=["direct", "basic", "open"])
def named(request: pytest.FixtureRequest) -> str:
    """The upstreams that may be written to."""
    return str(request.param)


def account(named: str) -> Account | None:
    """The account that may push there."""
    return {"direct": PUBLISHER, "basic": Account("alice", "alice-secret"), "open": None}[named]


def registry(named: str, request: pytest.FixtureRequest) -> PlainClient:
    """The registry itself."""
    of = {"direct": "token_registry", "basic": "basic_registry", "open": "open_registry"}[named]
    return PlainClient(request.getfixturevalue(of).url, account(named))


def same(image: Image, client: PlainClient, repository: str, *tags: str) -> None:
    """Compare all contents of an image with those pushed."""
    for reference in (*tags, image.digest):
        assert client.manifest(repository, reference).body == image.manifest.data
    for blob in image.blobs:
        assert client.blob(repository, blob.digest).body == blob.data
    for child in image.children:
        same(child, client, repository)


@pytest.mark.parametrize("kind", ["schema2", "oci", "index", "artifact"])
def test_every_kind_of_image(
    pushed_through: Mirror, named: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Arrives at every kind of registry, and is to be had through the mirror as from there."""
    subject = image(f"push {named}", OCI)
    pushed = {
        "schema2": image(f"push {kind}", DOCKER), "oci": subject, "index": index(f"push {named}"),
        "artifact": artifact(f"push {named}", subject),
    }[kind]  # fmt: skip
    client = pushed_through.client(named, account(named))
    client.push(f"pushed/{kind}", pushed, "latest")
    same(pushed, registry(named, request), f"pushed/{kind}", "latest")
    same(pushed, client, f"pushed/{kind}", "latest")


def test_visible_to_every_process(pushed_through: Mirror, named: str) -> None:
    """Each process serves a new tag at once, whichever of them took the push or served the tag before."""
    client, path = pushed_through.client(named, account(named)), "/v2/pushed/again/manifests/latest"
    headers = client.admitted("pushed/again")
    for number in range(10 if LONG else 3):
        pushed = image(f"push again {named} {number}", OCI, layers=(10,))
        client.push("pushed/again", pushed, "latest", f"n{number}")
        for _ in range(8):  # connections, which the kernel gives to either process
            assert client.bare("GET", path, None, {**headers, "Accept": "*/*"}).body == pushed.manifest.data
        listed = client.bare("GET", "/v2/pushed/again/tags/list", None, headers)
        assert f"n{number}" in json.loads(listed.body)["tags"]


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
def test_skopeo(
    pushed_through: Mirror,
    named: str,
    kind: str,
    make_machine: MakeMachine,
    request: pytest.FixtureRequest,
) -> None:
    """Copies from one repository to another through the mirror, with a login where one is wanted."""
    machine, who, host = make_machine("skopeo", "curl"), account(named), pushed_through.host(named)
    source = image(f"push skopeo {named} {kind}", DOCKER if kind == "v2s2" else OCI)
    registry(named, request).push("pushed/source", source, kind)
    login = f"{who.name}:{who.password}" if who else None
    creds = [f"--src-creds={login}", f"--dest-creds={login}"] if login else []
    names = [f"docker://{host}/pushed/source:{kind}", f"docker://{host}/pushed/skopeo:{kind}"]
    succeeded(skopeo(machine, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *creds, *names))
    same(source, registry(named, request), "pushed/skopeo", kind)
    same(source, pushed_through.client(named, who), "pushed/skopeo", kind)


def test_pushed_image_is_cached(pushed_through: Mirror, open_registry: Registry) -> None:
    """Pushed blobs and manifests are pulled back from the cache."""
    pushed, client = image("push held", OCI, layers=(3 * MIB, 100)), pushed_through.client("open")
    client.push("pushed/held", pushed, "latest")
    for blob in pushed.blobs:
        algorithm, _, name = blob.digest.partition(":")
        file = pushed_through.cache / "docker/registry/v2/blobs" / algorithm / name[:2] / name / "data"
        wait_until(file.exists, f"{blob.digest} is held")
    same(pushed, client, "pushed/held", "latest")
    assert [
        each for each in open_registry.accesses("GET", "/pushed/held/") if "/blobs/sha" in each.path
    ] == []
    assert wrong_blobs(pushed_through.cache) == []
    assert not list((pushed_through.cache / "dockmirror/tmp").glob("push-*"))


def test_deleted(pushed_through: Mirror) -> None:
    """A deleted image is 404 in both processes, also by an upstream without ``writes``."""
    pushed, repository = image("push deleted", OCI), "pushed/deleted"
    client, readers = (
        pushed_through.client("open"),
        [pushed_through.client(each) for each in ("open", "closed")],
    )
    client.push(repository, pushed, "latest")
    for reader in readers:
        for _ in range(4):
            same(pushed, reader, repository, "latest")
    named = {"Host": str(client.host)}
    blob = pushed.blobs[0].digest
    for path in (f"manifests/{pushed.digest}", f"blobs/{blob}"):
        assert client.bare("DELETE", f"/v2/{repository}/{path}", b"", named).status == 202
    for reader in readers:
        for _ in range(8):
            assert reader.manifest(repository, "latest").status == 404
            assert reader.manifest(repository, pushed.digest).status == 404
            assert reader.blob(repository, blob).status == 404
    client.push(repository, pushed, "latest")
    for reader in readers:
        same(pushed, reader, repository, "latest")


def test_ignored_tag_parameters(pushed_through: Mirror, open_registry: Registry) -> None:
    """distribution ignores ``?tag=``: what the mirror serves by these tags is what the registry has."""
    old, new, repository = image("push stable", OCI), image("push moved", OCI), "pushed/tags"
    client = pushed_through.client("open")
    client.push(repository, old, "stable")
    assert client.manifest(repository, "stable").body == old.manifest.data
    client.push(repository, new)
    path = f"/v2/{repository}/manifests/{new.digest}?tag=stable&tag=never"
    headers = {"Host": str(client.host), "Content-Type": new.manifest.media_type}
    assert client.bare("PUT", path, new.manifest.data, headers).status == 201
    assert open_registry.plain.manifest(repository, "stable").body == old.manifest.data
    for _ in range(8):
        assert client.manifest(repository, "stable").body == old.manifest.data
        assert client.manifest(repository, "never").status == 404


class TestLarge:
    """A blob that is larger than what there may be in memory."""

    SIZE = (300 if LONG else 40) * MIB

    @pytest.mark.parametrize("chunked", [False, True])
    def test_memory(self, pushed_through: Mirror, open_registry: Registry, chunked: bool) -> None:
        """Memory does not grow with the size of a push, with a length and without one."""
        client = pushed_through.client("open")
        location, digest = begin(client), hashlib.sha256()
        before = most = pushed_through.rss()
        with closing(http.client.HTTPConnection("127.0.0.1", pushed_through.port, timeout=60)) as connection:
            connection.putrequest("PATCH", location, skip_host=True)
            connection.putheader("Host", str(client.host))
            framed = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(self.SIZE))
            connection.putheader(*framed)
            connection.endheaders()
            for number in range(self.SIZE // MIB):
                piece = number.to_bytes(4, "big") * (MIB // 4)
                digest.update(piece)
                connection.send(b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece)
                if number % 10 == 0:
                    most = max(most, pushed_through.rss())
            if chunked:
                connection.send(b"0\r\n\r\n")
            response = connection.getresponse()
            assert response.status == 202
            location = str(response.headers["Location"])
        assert most - before < 20 * MIB, (before, most)
        finished = f"{location}?digest=sha256:{digest.hexdigest()}"
        assert client.bare("PUT", finished, b"", {"Host": str(client.host)}).status == 201
        stored = open_registry.plain.request("HEAD", f"/v2/pushed/large/blobs/sha256:{digest.hexdigest()}")
        assert stored.headers["Content-Length"] == str(self.SIZE)


def begin(client: PlainClient) -> str:
    """The location of a new upload."""
    begun = client.bare("POST", "/v2/pushed/large/blobs/uploads/", b"", {"Host": str(client.host)})
    assert begun.status == 202
    location: str = begun.headers["Location"]
    assert location.startswith("/v2/pushed/large/blobs/uploads/")
    return location


def test_resumed_upload(pushed_through: Mirror, open_registry: Registry) -> None:
    """An upload goes on at the registry's offset, after the last chunk that was complete."""
    client, data = pushed_through.client("open"), random.Random("resumed").randbytes(3 * MIB)
    named = {"Host": str(client.host)}

    def send(location: str, first: int, last: int) -> Response:
        headers = {**named, "Content-Range": f"{first}-{last - 1}"}
        return client.bare("PATCH", location, data[first:last], headers)

    sent = send(begin(client), 0, MIB)
    assert (sent.status, sent.headers["Range"]) == (202, f"0-{MIB - 1}")
    location = sent.headers["Location"]
    with closing(http.client.HTTPConnection("127.0.0.1", pushed_through.port, timeout=60)) as connection:
        connection.putrequest("PATCH", location, skip_host=True)
        for field in (*named.items(), ("Content-Length", "1000"), ("Content-Range", f"{MIB}-{MIB + 999}")):
            connection.putheader(*field)
        connection.endheaders()
    status = client.bare("GET", location, None, named)
    assert (status.status, status.headers["Range"]) == (204, f"0-{MIB - 1}")
    sent = send(status.headers["Location"], MIB, 3 * MIB)
    assert sent.status == 202
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert client.bare("PUT", f"{sent.headers['Location']}?digest={digest}", b"", named).status == 201
    assert open_registry.plain.blob("pushed/large", digest).body == data


@pytest.mark.parametrize("host", ["closed", ""])
def test_read_only(pushed_through: Mirror, host: str) -> None:
    """A push to an upstream without ``writes`` is 405 UNSUPPORTED."""
    client = pushed_through.client(host)
    answer = client.bare("POST", "/v2/pushed/x/blobs/uploads/", b"", {"Host": str(client.host)})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert json.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    """An upstream that does not listen yet."""
    with closing(Deaf()) as upstream:
        yield upstream


@pytest.mark.parametrize("scheme", ["tcp", "https"])
def test_slow_upstream(
    directory: Callable[[str], Path],
    make_machine: MakeMachine,
    authority: Authority,
    deaf: Deaf,
    scheme: str,
) -> None:
    """A client waits for an upstream that reads slowly, and the mirror buffers little; no byte is lost."""
    size, certificates, secure = (200 if LONG else 80) * MIB, directory("certificates"), free_port()
    issued = authority.issue(f"deaf.{DOMAIN}")
    shutil.copy(issued.certificate, certificates / "fullchain.pem")
    shutil.copy(issued.key, certificates / "privkey.pem")
    settings: dict[str, Any] = {
        "access": {"keys": str(directory("state") / "keys")},
        "certificates": str(certificates),
    }
    upstreams: dict[str, dict[str, Any]] = {"deaf": {"url": deaf.url, "writes": True}}
    mirror = Mirror(directory("mirror"), make_machine(), upstreams, **settings)
    ports = (f"tcp:{mirror.port}", f"https:{secure}")
    mirror.configure(listen=[f"{port}:interface=127.0.0.1" for port in ports])
    with mirror:
        wait_until(lambda: listens("127.0.0.1", secure), "the mirror listens by https")
        location, before = begin(mirror.client("deaf")), mirror.rss()
        port = secure if scheme == "https" else mirror.port
        connection: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        if scheme == "https":
            context = ssl.create_default_context(cafile=authority.certificate)
            connection = context.wrap_socket(connection, server_hostname=f"deaf.{DOMAIN}")
        with connection:
            pushing = Pushing(connection, mirror.host("deaf"), location, size)
            pushing.start()
            wait_until(pushing.waits, "nothing more is taken")
            assert pushing.sent < 64 * MIB, "that is what kernels hold"
            assert mirror.rss() - before < 20 * MIB
            deaf.listens.set()
            pushing.join(60)
            assert connection.recv(100).startswith(b"HTTP/1.1 202 ")
            assert (pushing.sent, deaf.taken) == (size, size)
        assert mirror.failures() == ""
