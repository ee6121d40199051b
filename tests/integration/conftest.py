"""Fixtures of the integration tests: each real part is started when a test first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from .parts import registry
from .parts.authority import Authority
from .parts.cdn import BlobStore
from .parts.chain import Chain, new_chain
from .parts.clients import Containerd, Dockerd
from .parts.front import Front
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.programs import require
from .parts.registry import Registry
from .parts.seaweed import WEED, SeaweedFS
from .parts.sharing import Sharing, new_sharing
from .parts.tokens import Tokens

MakeDirectory = Callable[[str], Path]
MakeMachine = Callable[..., Machine]
MakeChain = Callable[..., AbstractContextManager[Chain]]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> MakeDirectory:
    """Makes a new directory under the session's own."""
    return lambda name: tmp_path_factory.mktemp(name)


@pytest.fixture(scope="session")
def make_machine(directory: MakeDirectory) -> MakeMachine:
    """Makes a machine on which the named programs are installed."""

    def make(*programs: str) -> Machine:
        require("unshare", *programs)
        machine = Machine(directory("machine"))
        machine.prepare()
        return machine

    return make


@pytest.fixture(scope="session")
def authority(directory: MakeDirectory) -> Authority:
    """The certificate authority of the session."""
    return Authority(directory("authority"))


@pytest.fixture(scope="session")
def tokens(authority: Authority) -> Iterator[Tokens]:
    """The token service of :func:`token_registry`."""
    with Tokens(authority) as service:
        yield service


@pytest.fixture(scope="session")
def token_registry(directory: MakeDirectory, authority: Authority, tokens: Tokens) -> Iterator[Registry]:
    """A registry that asks for tokens, also for what everybody may pull."""
    require("docker-registry")
    with registry.token_registry(directory("token-registry"), authority, tokens) as process:
        yield process


@pytest.fixture(scope="session")
def blob_store(token_registry: Registry) -> Iterator[BlobStore]:
    """The host to which :func:`front` redirects."""
    with BlobStore(token_registry) as server:
        yield server


@pytest.fixture(scope="session")
def front(token_registry: Registry, blob_store: BlobStore) -> Iterator[Front]:
    """The same registry as :func:`token_registry`, with its blobs on a CDN."""
    with Front(token_registry, blob_store) as server:
        yield server


@pytest.fixture(scope="session")
def basic_registry(directory: MakeDirectory) -> Iterator[Registry]:
    """A registry that asks for Alice's name and password, for everything."""
    require("docker-registry")
    with registry.basic_registry(directory("basic-registry")) as process:
        yield process


@pytest.fixture(scope="session")
def open_registry(directory: MakeDirectory) -> Iterator[Registry]:
    """A registry that asks for nothing."""
    require("docker-registry")
    with Registry(directory("open-registry")) as process:
        yield process


@pytest.fixture(scope="session")
def tls_registry(directory: MakeDirectory, authority: Authority) -> Iterator[Registry]:
    """A registry by https, with a certificate for its address and ``tls.test``."""
    require("docker-registry")
    with registry.tls_registry(directory("tls-registry"), authority, "tls.test") as process:
        yield process


@pytest.fixture(scope="session")
def seaweedfs(directory: MakeDirectory) -> Iterator[SeaweedFS]:
    """An S3 server with a bucket, which the first object makes."""
    require(WEED)
    with SeaweedFS(directory("seaweedfs")) as server:
        server.store().put("first", b"")
        yield server


@pytest.fixture
def sharing(directory: MakeDirectory, authority: Authority, seaweedfs: SeaweedFS) -> Iterator[Sharing]:
    """A new upstream, and nothing in the bucket; mirrors are to be added."""
    require("docker-registry", "unshare")
    with new_sharing(directory("sharing"), authority, seaweedfs) as parts:
        yield parts


@pytest.fixture
def skopeo_machine(make_machine: MakeMachine) -> Machine:
    """A new machine with skopeo and curl."""
    return make_machine("skopeo", "curl")


@pytest.fixture
def podman_machine(make_machine: MakeMachine) -> Machine:
    """A new machine with podman and buildah."""
    return make_machine("podman", "buildah")


@pytest.fixture(scope="session")
def dockerd(make_machine: MakeMachine) -> Iterator[Dockerd]:
    """A Docker daemon without mirrors."""
    with Dockerd(make_machine("dockerd", "docker")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def containerd(make_machine: MakeMachine) -> Iterator[Containerd]:
    """A containerd."""
    with Containerd(make_machine("containerd", "ctr")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def mirror(
    directory: MakeDirectory,
    make_machine: MakeMachine,
    authority: Authority,
    tokens: Tokens,
    token_registry: Registry,
    front: Front,
    basic_registry: Registry,
    open_registry: Registry,
    tls_registry: Registry,
) -> Iterator[Mirror]:
    """A mirror of every kind of registry; the one behind a CDN stands for Docker Hub."""
    relayed = {"realms": [tokens.url]}
    trusting = {"ca_file": str(authority.certificate)}
    upstreams: dict[str, dict[str, Any]] = {
        "docker": {"url": front.url, **relayed},
        "direct": {"url": token_registry.url, **relayed},
        "basic": {"url": basic_registry.url},
        "open": {"url": open_registry.url},
        "tls": {"url": f"https://tls.test:{tls_registry.port}", **trusting},
    }
    with Mirror(directory("mirror"), make_machine(), upstreams) as process:
        yield process
    assert process.failures() == ""


@pytest.fixture(scope="session")
def chains(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> MakeChain:
    """Makes a chain with settings of its own, to be entered; *patched* is for :meth:`Machine.patch`."""
    require("docker-registry")

    def make(patched: str = "", **settings: Any) -> AbstractContextManager[Chain]:
        machine = make_machine()
        if patched:
            machine.patch(patched)
        return new_chain(directory("chain"), machine, authority, **settings)

    return make


@pytest.fixture(scope="module")
def chain(chains: MakeChain) -> Iterator[Chain]:
    """A mirror of a registry behind a CDN, for the tests of one file: each has repositories of its own."""
    with chains() as parts:
        yield parts
