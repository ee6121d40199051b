"""Images that were removed beside a running mirror, pulled again, and wanted when the upstream is gone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory
from .parts.chain import Chain
from .parts.command import dockmirror
from .parts.images import Image, image
from .parts.kept import blob_file, blobs, forget_figures, holds
from .parts.machine import Machine
from .parts.plain import PlainClient
from .parts.process import free_port, wait_until
from .pulls import skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

PLACE = "docker.io/library/removed"
REMOVED = "removed:latest"
WARM_UP = 12
"""So many clients ask for everything that each worker has served it."""


def remove(chain: Chain, _: Image) -> None:
    """Removes it as an operator does."""
    succeeded(dockmirror(chain.mirror, "rm", "--yes", REMOVED))


def repair(chain: Chain, pushed: Image) -> None:
    """Damages all of its files, and has them dropped."""
    for content in pushed.everything():
        blob_file(chain.mirror.cache, content.digest).write_bytes(b"damaged")
    succeeded(dockmirror(chain.mirror, "verify", "--repair"))


def collect(chain: Chain, _: Image) -> None:
    """Deletes all as being over the budget."""
    age(chain.mirror.cache)
    chain.mirror.configure(cache_size="1B")  # which the mirror reads at its next start
    succeeded(dockmirror(chain.mirror, "gc"))


def evict(chain: Chain, _: Image) -> None:
    """Has one of the workers find that it is time to evict."""
    age(chain.mirror.cache)
    forget_figures(chain.mirror.cache)
    wait_until(lambda: "evicted " in chain.mirror.read_log(), "it is evicted")


def age(cache: Path) -> None:
    """Makes all of it look unused for long."""
    then = time.time() - 9000
    for file in blobs(cache):
        os.utime(file, (then, then))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("removal", "cache_size"), [(remove, "1GB"), (repair, "1GB"), (collect, "1GB"), (evict, "1B")]
)
def test_pulled_again(
    chains: MakeChain,
    directory: MakeDirectory,
    skopeo_machine: Machine,
    removal: Callable[[Chain, Image], None],
    cache_size: str,
    workers: int,
) -> None:
    """The next pull restores all of it on the disk, whichever worker had it in its memory."""
    pushed = image(f"{removal.__name__} {workers}")
    with chains(workers=workers, cache_size=cache_size) as chain:
        chain.registry.push("library/removed", pushed, "latest")
        for _ in range(WARM_UP):
            pull(chain, pushed)
        wait_until(lambda: holds(chain.mirror.cache, PLACE, pushed), "it is held")
        removal(chain, pushed)
        assert not any(blob_file(chain.mirror.cache, each.digest).exists() for each in pushed.everything())
        pull(chain, pushed)
        wait_until(lambda: is_complete(chain), "it is held again")
        archive = directory("archive") / "removed.tar"
        succeeded(dockmirror(chain.mirror, "export", REMOVED, "-o", str(archive)))
        chain.stop_upstream()
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host('docker')}/library/{REMOVED}", pushed)


@pytest.mark.parametrize("workers", [1, 2])
def test_warmed_again(chains: MakeChain, skopeo_machine: Machine, workers: int) -> None:
    """An image that ``warm`` reports as cached is on the disk, also if it was removed a moment before."""
    pushed = image(f"warmed {workers}")
    with chains(workers=workers) as chain:
        chain.registry.push("library/removed", pushed, "latest")
        for _ in range(WARM_UP):
            pull(chain, pushed)
        for fetched in (len(pushed.blobs), 0):
            if fetched:
                remove(chain, pushed)
            [warmed] = json.loads(succeeded(dockmirror(chain.mirror, "warm", "--json", REMOVED)))
            assert (warmed["fetched"], warmed["error"]) == (fetched, None)
            assert is_complete(chain)
        chain.stop_upstream()
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host('docker')}/library/{REMOVED}", pushed)


def test_shown(chains: MakeChain) -> None:
    """The status page tells what is on the disk, whichever of two workers has noticed that something went."""
    pushed, port = image("shown", layers=(2_000_000,)), free_port()
    told = partial(status, port)
    with chains(workers=2, operations=f"tcp:{port}:interface=127.0.0.1") as chain:
        chain.registry.push("library/removed", pushed, "latest")
        for _ in range(WARM_UP):
            pull(chain, pushed)
        wait_until(lambda: "docker.io" in told()["registries"], "it is told of")
        assert told()["held"] > 2_000_000
        remove(chain, pushed)
        wait_until(lambda: told()["registries"] == [], "it is told of no more")
        assert told()["held"] < 2_000_000
        pull(chain, pushed)
        wait_until(lambda: told()["registries"] == ["docker.io"], "it is told of again")


def status(port: int) -> dict[str, Any]:
    """The status page's figures of the cache, all of the same moment."""
    client = PlainClient(f"http://127.0.0.1:{port}")
    told = json.loads(client.bare("GET", "/status.json", None, {}).body)
    assert told["cache"]["bytes"] == told["usage"]["held"]
    return {**told["usage"], "registries": [each["registry"] for each in told["usage"]["registries"]]}


def pull(chain: Chain, pushed: Image) -> None:
    """Pulls it as a client does that has nothing of it, each time by new connections."""
    client = chain.mirror.client("docker")
    assert client.manifest("library/removed", "latest").body == pushed.manifest.data
    assert client.manifest("library/removed", pushed.digest).body == pushed.manifest.data
    for content in pushed.blobs:
        assert client.blob("library/removed", content.digest).body == content.data


def is_complete(chain: Chain) -> bool:
    """Return True if the command lists the image as complete."""
    listed = json.loads(succeeded(dockmirror(chain.mirror, "ls", "--json", "removed")))
    return [each["complete"] for each in listed] == [True]
