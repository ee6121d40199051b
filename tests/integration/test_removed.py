"""Images that are removed beside a running mirror, pulled again, and served in an outage."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.long import LONG

from .conftest import MakeChain, MakeDirectory
from .parts.chain import Chain
from .parts.command import dockmirror
from .parts.images import Image, image
from .parts.kept import blob_file, blobs, forget_figures, holds
from .parts.machine import EVICTS_OFTEN, Machine
from .parts.plain import PlainClient
from .parts.process import free_port, wait_until
from .pulls import skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

WARM_UP = 12
"""So many clients pull everything that each worker has served it."""


@pytest.fixture(scope="module")
def operations() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture(scope="module", params=[1, 2] if LONG else [2])
def roomy(chains: MakeChain, operations: int, request: pytest.FixtureRequest) -> Iterator[Chain]:
    """A mirror of so many workers whose budget is not spent."""
    listening = f"tcp:{operations}:interface=127.0.0.1"
    with chains(workers=request.param, cache_size="1GB", operations=listening) as chain:
        yield chain


@dataclass(frozen=True)
class Removable:
    """An image of a repository of its own, which all workers of a mirror have served."""

    chain: Chain
    name: str
    image: Image

    @property
    def repository(self) -> str:
        """The repository's name upstream."""
        return f"library/{self.name}"

    def pull(self) -> None:
        """Pull it as a client does that has nothing of it, each time by new connections."""
        client = self.chain.mirror.client("docker")
        for reference in ("latest", self.image.digest):
            assert client.manifest(self.repository, reference).body == self.image.manifest.data
        for content in self.image.blobs:
            assert client.blob(self.repository, content.digest).body == content.data

    def files(self) -> list[Path]:
        """The files of its contents."""
        return [blob_file(self.chain.mirror.cache, each.digest) for each in self.image.everything()]

    def is_complete(self) -> bool:
        """Return True if the command lists the image as complete."""
        listed = json.loads(succeeded(dockmirror(self.chain.mirror, "ls", "--json", self.name)))
        return [each["complete"] for each in listed] == [True]

    def remove(self) -> None:
        """Remove it as an operator does."""
        succeeded(dockmirror(self.chain.mirror, "rm", "--yes", f"{self.name}:latest"))

    def repair(self) -> None:
        """Damage all of its files, and have them deleted."""
        for file in self.files():
            file.write_bytes(b"damaged")
        succeeded(dockmirror(self.chain.mirror, "verify", "--repair"))

    def collect(self) -> None:
        """Have the command delete everything as over the budget, which the mirror does not read."""
        age(self.chain.mirror.cache)
        self.chain.mirror.configure(cache_size="1B")
        succeeded(dockmirror(self.chain.mirror, "gc"))
        self.chain.mirror.configure(cache_size="1GB")

    def evict(self) -> None:
        """Have one of the workers find that the budget is spent."""
        age(self.chain.mirror.cache)
        forget_figures(self.chain.mirror.cache)
        wait_until(lambda: "evicted " in self.chain.mirror.read_log(), "it is evicted")


def age(cache: Path) -> None:
    """Make everything look unused for long."""
    then = time.time() - 9000
    for file in blobs(cache):
        os.utime(file, (then, then))


def pulled_by_all(chain: Chain, name: str, layers: tuple[int, ...] = (20_000, 3_000)) -> Removable:
    """Push an image and pull it until every worker has it in memory."""
    removable = Removable(chain, name, image(name, layers=layers))
    chain.registry.push(removable.repository, removable.image, "latest")
    for _ in range(WARM_UP):
        removable.pull()
    wait_until(
        lambda: holds(chain.mirror.cache, f"docker.io/{removable.repository}", removable.image), "cached"
    )
    return removable


def test_shown(roomy: Chain, operations: int) -> None:
    """The status page shows what is on the disk, whichever of two workers has noticed a removal."""
    read = partial(status, operations)
    shown = pulled_by_all(roomy, "shown", (2_000_000,))
    wait_until(lambda: "docker.io" in read()["registries"], "it is shown")
    assert read()["held"] > 2_000_000
    shown.remove()
    wait_until(lambda: read()["registries"] == [], "it is not shown any more")
    assert read()["held"] < 2_000_000
    shown.pull()
    wait_until(lambda: read()["registries"] == ["docker.io"], "it is shown again")


def status(port: int) -> dict[str, Any]:
    """The status page's figures of the cache, all of the same moment."""
    client = PlainClient(f"http://127.0.0.1:{port}")
    told = json.loads(client.bare("GET", "/status.json", None, {}).body)
    assert told["cache"]["bytes"] == told["usage"]["held"]
    return {**told["usage"], "registries": [each["registry"] for each in told["usage"]["registries"]]}


@pytest.mark.parametrize("removal", [Removable.remove, Removable.repair, Removable.collect])
def test_pulled_again(
    roomy: Chain, directory: MakeDirectory, skopeo_machine: Machine, removal: Callable[[Removable], None]
) -> None:
    """The next pull restores all of a removed image on the disk, whichever worker had it in its memory."""
    removed = pulled_by_all(roomy, removal.__name__)
    removal(removed)
    assert not any(file.exists() for file in removed.files())
    removed.pull()
    wait_until(removed.is_complete, "it is cached again")
    archive = directory("archive") / "removed.tar"
    succeeded(dockmirror(roomy.mirror, "export", f"{removed.name}:latest", "-o", str(archive)))
    with roomy.upstream_stopped():
        skopeo_pulls(skopeo_machine, f"{roomy.mirror.host('docker')}/{removed.name}:latest", removed.image)
    roomy.wait_for_upstream()


def test_evicted(chains: MakeChain) -> None:
    """The next pull restores all of an evicted image, also while a worker checks the budget."""
    with chains(patched=EVICTS_OFTEN, workers=2, cache_size="1B") as chain:
        evicted = pulled_by_all(chain, "evict")
        evicted.evict()
        wait_until(lambda: not any(file.exists() for file in evicted.files()), "all of it is evicted")
        evicted.pull()
        wait_until(evicted.is_complete, "it is cached again")


def test_warmed_again(roomy: Chain) -> None:
    """An image that ``warm`` reports as cached is on the disk, also if it was removed a moment before."""
    warm = pulled_by_all(roomy, "warm")
    for fetched in (len(warm.image.blobs), 0):
        if fetched:
            warm.remove()
        [warmed] = json.loads(succeeded(dockmirror(roomy.mirror, "warm", "--json", f"{warm.name}:latest")))
        assert (warmed["fetched"], warmed["error"]) == (fetched, None)
        assert warm.is_complete()
