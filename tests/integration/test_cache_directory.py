"""The mirror's directory is an ordinary registry's: one serves from it what was pulled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.chain import Chain
from .parts.images import Image, artifact, image, index
from .parts.kept import holds
from .parts.machine import Machine
from .parts.media import DOCKER, OCI
from .parts.process import wait_until
from .parts.registry import Registry
from .pulls import skopeo_pulls, skopeo_reads

pytestmark = pytest.mark.integration

SUBJECT = image("served from the directory", DOCKER)
IMAGES = {
    "image": SUBJECT,
    "oci": image("served from the directory", OCI),
    "index": index("served from the directory"),
    "list": index("served from the directory", DOCKER),
    "artifact": artifact("served from the directory", SUBJECT),
}


@pytest.fixture(scope="module")
def successor(chains: MakeChain, directory: MakeDirectory, with_skopeo: Machine) -> Iterator[Registry]:
    """A docker-registry on the directory of a mirror through which all was pulled, and that is no more."""
    with chains() as chain:
        for tag, pushed in IMAGES.items():
            chain.registry.push("library/left", pushed, tag)
            skopeo_pulls(with_skopeo, f"{chain.mirror.host('docker')}/left:{tag}", pushed)
            for each in pushed.children or (pushed,):
                _wait(chain, each)
        chain.mirror.stop()
        chain.stop_upstream()
        with Registry(directory("successor"), storage=chain.mirror.cache) as registry:
            yield registry


@pytest.fixture(scope="module")
def with_skopeo(make_machine: MakeMachine) -> Machine:
    """A machine with skopeo."""
    return make_machine("skopeo")


@pytest.mark.parametrize("tag", IMAGES)
def test_served(successor: Registry, skopeo_machine: Machine, tag: str) -> None:
    """An ordinary registry serves an image, an index with all its platforms, and an artifact."""
    name = f"{successor.netloc}/docker.io/library/left"
    skopeo_reads(skopeo_machine, f"{name}:{tag}", IMAGES[tag])
    skopeo_pulls(skopeo_machine, f"{name}@{IMAGES[tag].digest}", IMAGES[tag])


def _wait(chain: Chain, pushed: Image) -> None:
    wait_until(lambda: holds(chain.mirror.cache, "docker.io/library/left", pushed), "all of it is held")
