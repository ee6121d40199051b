"""A disk that is full, and a budget that is spent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeDirectory
from .parts.authority import Authority
from .parts.chain import Chain, new_chain
from .parts.disk import SmallDisk
from .parts.images import Image, artifact, image
from .parts.kept import blob_file, blobs, forget_figures, holds, length, wrong_blobs
from .parts.machine import EVICTS_OFTEN, Machine
from .parts.media import sha256
from .parts.process import wait_until
from .parts.programs import require
from .parts.stream import begun, digest_of, fetched
from .pulls import skopeo_pulls

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
BUDGET = 12 * MIB
NAME = "library/disk"


@pytest.fixture
def small(directory: MakeDirectory) -> SmallDisk:
    """A machine with a disk of 8 MiB."""
    require("unshare", "docker-registry")
    machine = SmallDisk(directory("small"), 8 * MIB)
    machine.prepare()
    return machine


@pytest.fixture
def cramped(small: SmallDisk, directory: MakeDirectory, authority: Authority) -> Iterator[Chain]:
    """A mirror that keeps what it fetches on that disk."""
    with new_chain(directory("cramped"), small, authority, cache=str(small.disk)) as chain:
        yield chain


def test_full_disk(cramped: Chain, small: SmallDisk) -> None:
    """Clients get every byte of blobs that the disk cannot take, the log says so once, and it goes on."""
    first, second = artifact("too large", size=12 * MIB), artifact("too large, too", size=10 * MIB)
    after = artifact("small enough", size=MIB)
    for number, pushed in enumerate((first, second, after)):
        cramped.registry.push(NAME, pushed, f"t{number}")
    large = [first.layers[0].digest] * 3 + [second.layers[0].digest]
    with ThreadPoolExecutor(4) as pool:
        got = [pool.submit(fetched, cramped.mirror, NAME, digest) for digest in large]
        assert [each.result() for each in got] == large
    said = [line for line in cramped.mirror.read_log().splitlines() if "the cache keeps no new blobs" in line]
    assert len(said) == 1, said
    disk = small.seen_by(cramped.mirror.pid)
    assert not blob_file(disk, large[0]).exists()
    digest = after.layers[0].digest
    assert fetched(cramped.mirror, NAME, digest) == digest
    wait_until(blob_file(disk, digest).exists, "what the disk can take is kept")
    with begun(cramped.mirror, _path(digest)) as response:
        assert (digest_of(response), response.headers["Cache-Status"]) == (digest, "dockmirror; hit")
    assert wrong_blobs(disk) == []


def test_disk_without_a_byte(cramped: Chain, small: SmallDisk, skopeo_machine: Machine) -> None:
    """With a disk that is full images are pulled nevertheless, and stored once there is room again."""
    pushed = image("nowhere to be kept")
    cramped.registry.push(NAME, pushed, "latest")
    source, disk = f"{cramped.mirror.host('docker')}/{NAME}:latest", small.seen_by(cramped.mirror.pid)
    filler = _fill(disk)
    for _ in range(2):
        skopeo_pulls(skopeo_machine, source, pushed)
    assert blobs(disk) == []
    assert cramped.mirror.read_log().count("the cache keeps no new blobs") == 1
    filler.unlink()
    skopeo_pulls(skopeo_machine, source, pushed)
    wait_until(lambda: holds(disk, f"docker.io/{NAME}", pushed), "the image is held")
    asked = cramped.asked()
    skopeo_pulls(skopeo_machine, source, pushed)
    assert cramped.asked() == asked


def test_budget(chains: MakeChain) -> None:
    """Blobs used least recently are evicted over the budget; a client that reads one gets all of it."""
    with chains(cache_size=str(BUDGET), patched=EVICTS_OFTEN) as chain:
        cache = chain.mirror.cache
        images = [_held(chain, number, 4 * MIB if number == 0 else 3 * MIB // 4) for number in range(9)]
        assert _total(cache) < BUDGET
        read = images[0].layers[0].digest
        with begun(chain.mirror, _path(read)) as response:
            response.read(1000)
            for hours, pushed in enumerate(reversed(images)):
                _age(cache, pushed, hours)
            forget_figures(cache)
            images.append(_held(chain, len(images), 6 * MIB))
            wait_until(lambda: not blob_file(cache, read).exists(), "what was used least recently is evicted")
            wait_until(lambda: _total(cache) <= BUDGET, "the budget is kept")
            assert digest_of(response) == sha256(images[0].layers[0].data[1000:])
        wait_until(lambda: "evicted " in chain.mirror.read_log(), "the log says so")
        assert [_is_hit(chain, each) for each in images[-3:]] == [True] * 3
        for each in images:
            if blob_file(cache, each.digest).exists():  # a manifest goes before what it names
                assert all(blob_file(cache, blob.digest).exists() for blob in each.blobs)
        assert fetched(chain.mirror, NAME, read) == read


def _fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def _held(chain: Chain, number: int, size: int) -> Image:
    """An image that is held."""
    pushed = artifact(f"budget {number}", size=size)
    chain.registry.push(NAME, pushed, f"b{number}")
    assert chain.mirror.client().manifest(f"docker.io/{NAME}", f"b{number}").status == 200
    for blob in pushed.blobs:
        assert fetched(chain.mirror, NAME, blob.digest) == blob.digest
    wait_until(lambda: holds(chain.mirror.cache, f"docker.io/{NAME}", pushed), "it is held")
    return pushed


def _age(cache: Path, pushed: Image, hours: int) -> None:
    """Set the times at which an image was used last."""
    then = time.time() - 3600 * hours
    for content in pushed.everything():
        os.utime(blob_file(cache, content.digest), (then, then))


def _total(cache: Path) -> int:
    return sum(map(length, blobs(cache)))


def _is_hit(chain: Chain, pushed: Image) -> bool:
    with begun(chain.mirror, _path(pushed.layers[0].digest)) as response:
        return response.headers["Cache-Status"] == "dockmirror; hit"


def _path(digest: str) -> str:
    return f"/v2/docker.io/{NAME}/blobs/{digest}"
