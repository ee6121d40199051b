"""Mirrors of one upstream that share a bucket, each with a disk of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .accounts import ACCOUNTS
from .authority import Authority
from .bucket_front import BucketFront
from .cdn import BlobStore
from .front import Front
from .images import Image
from .kept import leaks, links, tag_link, wrong_blobs
from .machine import Machine
from .mirror import Mirror
from .plain import PlainClient, Response
from .process import free_port, wait_until
from .registry import Registry, token_registry
from .seaweed import CREDENTIALS, SECRET, SeaweedFS
from .tokens import Tokens


class Keyed(Machine):
    """A machine in whose environment the keys of the bucket are, and the authorities that it trusts."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self._trusted = str(authority.certificate)

    @property
    def environment(self) -> dict[str, str]:
        """See ``Machine``."""
        return {**super().environment, **CREDENTIALS, "SSL_CERT_FILE": self._trusted}


class Sharing:
    """An upstream, a bucket, and mirrors.

    :ivar front: what the mirrors take for the object store.
    :ivar store: their objects.
    :ivar patch: code for :meth:`Machine.patch` of mirrors that are added from then on.
    """

    def __init__(self, directory: Path, authority: Authority, seaweedfs: SeaweedFS, stack: ExitStack) -> None:
        self.seaweedfs = seaweedfs
        self.prefix = uuid.uuid4().hex
        self.store = seaweedfs.store(self.prefix)
        self.mirrors: list[Mirror] = []
        self.patch = ""
        self._directory = directory
        self._authority = authority
        self._stack = stack
        (directory / "registry").mkdir()
        self.tokens = stack.enter_context(Tokens(authority))
        self.registry: Registry = stack.enter_context(
            token_registry(directory / "registry", authority, self.tokens)
        )
        self.blobs = stack.enter_context(BlobStore(self.registry))
        self.upstream = stack.enter_context(Front(self.registry, self.blobs))
        self.front = stack.enter_context(BucketFront(seaweedfs))

    def add(self, upstreams: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any) -> Mirror:
        """Start another mirror with an empty disk, by default of the upstream that all share."""
        directory = self._directory / f"mirror-{len(self.mirrors)}"
        machine = Keyed(directory / "machine", self._authority)
        machine.prepare()
        if self.patch:
            machine.patch(self.patch)
        common = {"docker": {"url": self.upstream.url, "realms": [self.tokens.url]}}
        operations = free_port()
        shared = {
            "store": self.seaweedfs.url(self.prefix),
            "store_endpoint": self.front.url,
            "operations": f"tcp:{operations}:interface=127.0.0.1",
            "history": False,  # whose sums are requests, too
        }
        mirror = Mirror(directory, machine, upstreams or common, **{**shared, **settings})
        self._stack.enter_context(mirror)
        self.mirrors.append(mirror)
        return mirror

    def stop_upstream(self) -> None:
        """Stop every server but the mirrors and the bucket."""
        for part in (self.upstream, self.blobs, self.registry, self.tokens):
            part.stop()

    def uploaded(self, mirror: Mirror, images: Mapping[str, Image]) -> None:
        """Waits until the bucket has these images of repositories, and nothing is owed by this mirror.

        Only then: whoever has just got the last byte of a blob is ahead of who keeps it, and owes it.
        """
        keys = [key for name, image in images.items() for key in _keys(f"docker.io/{name}", image)]
        wait_until(lambda: all(map(self.has, keys)), "the bucket has the images")
        owed = mirror.cache / "dockmirror/write_behind"
        wait_until(lambda: not owed.is_dir() or not any(owed.iterdir()), "all is uploaded")

    def keys(self) -> list[str]:
        """The keys in the bucket."""
        return [each["path"] for chunk in self.store.list() for each in chunk]

    def has(self, key: str) -> bool:
        """Return True if the bucket has an object."""
        try:
            self.store.head(key)
        except FileNotFoundError:
            return False
        return True

    def check(self) -> None:
        """Nothing failed that nothing expected, nothing wrong is kept, and no secret lies anywhere."""
        secrets = {each.password for each in ACCOUNTS} | set(self.tokens.issued) | {SECRET}
        for mirror in self.mirrors:
            assert mirror.failures() == ""
            assert wrong_blobs(mirror.cache) == []
            assert leaks(mirror.directory, secrets) == []
        for key in self.keys():
            data = bytes(self.store.get(key).bytes())
            assert not any(secret.encode() in data for secret in secrets), key


@contextmanager
def new_sharing(directory: Path, authority: Authority, seaweedfs: SeaweedFS) -> Iterator[Sharing]:
    """A new upstream and a new prefix in the bucket; what the mirrors have done is checked at the end."""
    with ExitStack() as stack:
        sharing = Sharing(directory, authority, seaweedfs, stack)
        yield sharing
        sharing.check()


def _keys(repository: str, image: Image) -> list[str]:
    return [*links(repository, image), tag_link(repository, "latest")]


def pulled(client: PlainClient, repository: str, image: Image) -> list[Response]:
    """Pull an image, check its bytes and return all responses."""
    answers = [client.manifest(repository, "latest")]
    assert answers[0].body == image.manifest.data, answers[0]
    for blob in image.blobs:
        answers.append(client.blob(repository, blob.digest))
        assert answers[-1].body == blob.data, answers[-1].status
    return answers


def state(mirror: Mirror) -> dict[str, Any]:
    """The document that ``/readyz`` of a mirror answers."""
    found: dict[str, Any] = json.loads(_operations(mirror, "/readyz"))
    return found


def status(mirror: Mirror) -> dict[str, Any]:
    """The document that ``/status.json`` of a mirror answers."""
    found: dict[str, Any] = json.loads(_operations(mirror, "/status.json"))
    return found


def metric(mirror: Mirror, name: str) -> float:
    """The value of a metric without labels."""
    lines = _operations(mirror, "/metrics").decode().splitlines()
    return next(float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} "))


def _operations(mirror: Mirror, path: str) -> bytes:
    port = int(str(mirror.setting("operations")).split(":")[1])
    return PlainClient(f"http://127.0.0.1:{port}").bare("GET", path, None, {}).body
