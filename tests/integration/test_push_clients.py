"""Each client's push through the mirror is complete at the registry, and is pulled back unchanged."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest

from tests.long import LONG

from .conftest import MakeDirectory, MakeMachine
from .parts.accounts import ALICE, PUBLISHER, Account
from .parts.clients import Containerd, Dockerd, buildah, podman
from .parts.images import artifact, image, index
from .parts.machine import Machine
from .parts.media import DOCKER, FAMILIES, OCI, Family, sha256
from .parts.mirror import Mirror
from .parts.packed import large_directory
from .parts.plain import ACCEPT, PlainClient, Response
from .parts.process import wait_until
from .parts.registry import Registry
from .parts.stream import digest_of
from .parts.tokens import Tokens
from .pulls import credentials, ctr_pulls, skopeo_pulls, succeeded
from .pushes import (
    buildah_pushes,
    ctr_pushes,
    docker_loads,
    docker_pushes,
    podman_pushes,
    podman_pushes_index,
    skopeo_copies,
    skopeo_pushes,
)

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
LARGE = 1024 if LONG else 96
"""Mebibytes of the largest layer."""


@contextmanager
def sampled(measure: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Measure again and again until the end of the block, and yield the largest value."""
    seen, over = [measure()], threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            seen.append(measure())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Place:
    """A repository as clients reach it through the mirror, and as it is behind it."""

    mirror: Mirror
    upstream: str
    registry: Registry
    account: Account | None
    repository: str

    @property
    def reference(self) -> str:
        """The name of an image in it."""
        return f"{self.mirror.host(self.upstream)}/{self.repository}:latest"

    @property
    def client(self) -> PlainClient:
        """Asks the mirror."""
        return self.mirror.client(self.upstream, self.account)

    def has(self, digest: str) -> None:
        """The tag is of that digest, and mirror and registry have the same of it, to the last blob."""
        assert self.same() == digest

    def same(self) -> str:
        """The digest of the tag, all of which the mirror and the registry have alike."""
        clients = self.client, self.registry.plain
        return self._same([(each, each.admitted(self.repository)) for each in clients], "manifests", "latest")

    def _same(self, asking: list[tuple[PlainClient, dict[str, str]]], kind: str, reference: str) -> str:
        path = f"/v2/{self.repository}/{kind}/{reference}"
        got = [client.bare("GET", path, None, {"Accept": ACCEPT, **headers}) for client, headers in asking]
        assert [each.status for each in got] == [200, 200], path
        assert got[0].body == got[1].body
        digest = sha256(got[0].body)
        assert reference in ("latest", digest)
        if kind == "manifests":
            document = json.loads(got[0].body)
            for each in document.get("manifests", ()):
                self._same(asking, "manifests", each["digest"])
            for each in [*document.get("layers", ()), *filter(None, [document.get("config")])]:
                self._same(asking, "blobs", each["digest"])
        return digest


@pytest.fixture(scope="module")
def mirror(
    directory: MakeDirectory,
    make_machine: MakeMachine,
    tokens: Tokens,
    token_registry: Registry,
    basic_registry: Registry,
    open_registry: Registry,
) -> Iterator[Mirror]:
    """A mirror through which one may push."""
    upstreams = {
        "direct": {"url": token_registry.url, "realms": [tokens.url], "writes": True},
        "basic": {"url": basic_registry.url, "writes": True},
        "open": {"url": open_registry.url, "writes": True},
    }
    with Mirror(directory("mirror"), make_machine(), upstreams) as process:
        yield process
    assert process.failures() == ""


@pytest.fixture(params=["open", "basic", "direct"] if LONG else ["direct"])
def place(
    request: pytest.FixtureRequest,
    mirror: Mirror,
    token_registry: Registry,
    basic_registry: Registry,
    open_registry: Registry,
) -> Place:
    """A repository of a registry with tokens; in the long run also with Basic, and without authentication."""
    registry, account = {
        "open": (open_registry, None),
        "basic": (basic_registry, ALICE),
        "direct": (token_registry, PUBLISHER),
    }[request.param]
    name = request.node.originalname.removeprefix("test_").replace("_", "-")
    return Place(mirror, request.param, registry, account, f"pushed/{name}")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_skopeo(place: Place, skopeo_machine: Machine, family: Family) -> None:
    """An index, and the images in it, byte for byte."""
    pushed = index(f"skopeo {place.upstream}", family)
    skopeo_pushes(skopeo_machine, place.reference, pushed, place.account)
    place.has(pushed.digest)
    skopeo_pulls(skopeo_machine, place.reference, pushed, place.account)


def test_artifact(place: Place, skopeo_machine: Machine) -> None:
    """An artifact that refers to an image, by skopeo, which leaves it as it is."""
    subject = image(f"subject {place.upstream}", OCI)
    skopeo_pushes(skopeo_machine, place.reference, subject, place.account)
    note = artifact(f"note {place.upstream}", subject)
    skopeo_pushes(skopeo_machine, place.reference, note, place.account)
    place.has(note.digest)
    skopeo_pulls(skopeo_machine, place.reference, note, place.account)


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_podman(place: Place, podman_machine: Machine, kind: str) -> None:
    """An image as OCI and as schema 2; what is pulled back has the same files."""
    pushed = image(f"podman {kind} {place.upstream}", OCI if kind == "oci" else DOCKER)
    podman_pushes(podman_machine, place.reference, pushed, place.account, kind)
    place.same()
    options = [*credentials(place.account), "--tls-verify=false"]
    succeeded(podman(podman_machine, "pull", *options, place.reference))
    [inspected] = json.loads(succeeded(podman(podman_machine, "image", "inspect", place.reference)))
    assert pushed.config is not None
    assert inspected["RootFS"]["Layers"] == json.loads(pushed.config.data)["rootfs"]["diff_ids"]


def test_podman_index(place: Place, podman_machine: Machine) -> None:
    """An index of three architectures."""
    podman_pushes_index(podman_machine, place.reference, index(f"podman {place.upstream}"), place.account)
    place.same()


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_buildah(place: Place, podman_machine: Machine, kind: str) -> None:
    """An image that it has built; what is pulled back has the same file."""
    files = podman_machine.home / "files"
    files.mkdir()
    (files / "0").write_text(f"{place.upstream} {kind}" * 1000)
    buildah_pushes(podman_machine, place.reference, files, place.account, kind)
    place.same()
    options = [*credentials(place.account), "--tls-verify=false"]
    name = succeeded(buildah(podman_machine, "from", *options, place.reference)).strip()
    read = succeeded(podman_machine.run("sh", "-ec", 'cat "$(buildah mount "$1")/data/0"', "sh", name))
    assert read == f"{place.upstream} {kind}" * 1000


def test_docker(place: Place, dockerd: Dockerd) -> None:
    """An image that it has loaded, as schema 2; what is pulled back is the same image."""
    pushed = image(f"docker {place.upstream}")
    docker_pushes(dockerd, place.reference, pushed, place.account)
    place.same()
    host = place.mirror.host(place.upstream)
    if place.account:
        succeeded(dockerd.login(host, place.account))
    succeeded(dockerd.docker("pull", place.reference))
    succeeded(dockerd.docker("logout", host))
    [inspected] = json.loads(succeeded(dockerd.docker("image", "inspect", place.reference)))
    assert pushed.config is not None
    assert inspected["Id"] == pushed.config.digest
    assert inspected["RootFS"]["Layers"] == json.loads(pushed.config.data)["rootfs"]["diff_ids"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_containerd(place: Place, containerd: Containerd, family: Family) -> None:
    """An index, and the images in it, byte for byte."""
    pushed = index(f"ctr {place.upstream}", family)
    ctr_pushes(containerd, place.reference, pushed, place.account)
    place.has(pushed.digest)
    login = [f"--user={place.account.name}:{place.account.password}"] if place.account else []
    ctr_pulls(containerd, place.reference, pushed, "--plain-http", *login)
    succeeded(containerd.ctr("images", "rm", "--sync", place.reference))


def test_large_layer(mirror: Mirror, token_registry: Registry, skopeo_machine: Machine) -> None:
    """A layer, of which the mirror keeps nothing in memory."""
    source, repository = skopeo_machine.home / "large", "pushed/large"
    digest = large_directory(source, LARGE, "application/vnd.example.notes")
    before = mirror.rss()
    with sampled(mirror.rss) as most:
        skopeo_copies(skopeo_machine, source, f"{mirror.host('direct')}/{repository}:latest", PUBLISHER)
    assert most() - before < 48 * MIB
    stored = token_registry.blob(digest)
    with stored.open("rb") as file:
        assert f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == digest
    headers = mirror.client("direct", PUBLISHER).admitted(repository)
    with closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=60)) as connection:
        connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)
        assert digest_of(connection.getresponse()) == digest


def test_docker_is_interrupted(mirror: Mirror, open_registry: Registry, dockerd: Dockerd) -> None:
    """docker tries again what a mirror that was killed has not taken to its end."""
    pushed = image("interrupted", layers=(24 * MIB, 1000))
    reference = f"{mirror.host('open')}/pushed/interrupted:latest"
    docker_loads(dockerd, reference, pushed)
    uploads = open_registry.storage / "docker/registry/v2/repositories/pushed/interrupted/_uploads"
    with ThreadPoolExecutor() as threads:
        pushing = threads.submit(dockerd.docker, "push", reference)
        wait_until(lambda: any(file.stat().st_size > MIB for file in uploads.glob("*/data")), "it is sent")
        mirror.kill()
        assert not pushing.done()
        mirror.start()
        succeeded(pushing.result())
    succeeded(dockerd.docker("image", "rm", reference))
    Place(mirror, "open", open_registry, None, "pushed/interrupted").same()


def test_upload_is_resumed(place: Place) -> None:
    """A client goes on where it was when the mirror was killed, at the location that it had been given."""
    data = f"resumed {place.upstream}".encode() * 100_000
    headers = place.client.admitted(place.repository)
    half, end = len(data) // 2, len(data)

    def ask(method: str, path: str, body: bytes = b"", **more: str) -> Response:
        sent = {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        return place.client.bare(method, path.removeprefix(f"http://{place.client.host}"), body, sent)

    begun = ask("POST", f"/v2/{place.repository}/blobs/uploads/")
    patched = ask("PATCH", begun.headers["Location"], data[:half], Content_Range=f"0-{half - 1}")
    place.mirror.kill()
    place.mirror.start()
    status = ask("GET", patched.headers["Location"])
    assert (status.status, status.headers["Range"]) == (204, f"0-{half - 1}")
    patched = ask("PATCH", status.headers["Location"], data[half:], Content_Range=f"{half}-{end - 1}")
    location = patched.headers["Location"]
    put = ask("PUT", f"{location}{'&' if '?' in location else '?'}digest={sha256(data)}")
    assert put.status == 201
    assert place.registry.plain.blob(place.repository, sha256(data)).body == data
