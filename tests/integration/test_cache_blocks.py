"""Blobs that clients fetch in parts, through one worker and two, from a real registry."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dockmirror.store.downloads.block_file import BLOCK

from .conftest import MakeDirectory, MakeMachine
from .parts.images import artifact
from .parts.kept import blob_file, wrong_blobs
from .parts.media import Content
from .parts.mirror import Mirror
from .parts.parted import PartedClient
from .parts.process import wait_until
from .parts.registry import Access, Registry

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "parts/layer"
WAITS_LONG = """
from importlib import import_module
for name in ("block_waiter", "context", "downloads", "progress"):
    module = import_module(f"dockmirror.store.downloads.{name}")
    if hasattr(module, "MAX_WAIT"):
        module.MAX_WAIT = 600.0
"""
"""A reader that has waited for five seconds fetches its part by itself, which costs bytes."""


class Upstream:
    """A registry with one blob, and the requests for it."""

    def __init__(self, registry: Registry, seed: str, size: int) -> None:
        self.registry = registry
        pushed = artifact(seed, size=size)
        registry.push(NAME, pushed, "latest")
        self.layer: Content = pushed.layers[0]
        self.path = f"/v2/{NAME}/blobs/{self.layer.digest}"

    def requests(self) -> list[Access]:
        return [each for each in self.registry.accesses("GET", self.layer.digest) if each.status < 300]

    @property
    def sent(self) -> int:
        return sum(each.size for each in self.requests())


@pytest.fixture
def mirrored(
    directory: MakeDirectory, make_machine: MakeMachine, open_registry: Registry, workers: int
) -> Iterator[Mirror]:
    upstreams, machine = {"open": {"url": open_registry.url, "prefetch": False}}, make_machine()
    machine.patch(WAITS_LONG)
    with Mirror(directory("parts"), machine, upstreams, workers=workers) as mirror:
        yield mirror
    assert mirror.failures() == ""
    assert wrong_blobs(mirror.cache) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("is_open_ended", [True, False])
def test_sixteen_clients_in_parts(
    mirrored: Mirror, open_registry: Registry, workers: int, is_open_ended: bool
) -> None:
    """Clients that fetch a layer in parts of 8 MiB cost one copy, and the layer is held afterwards."""
    upstream = Upstream(open_registry, f"parts {workers} {is_open_ended}", 19 * MIB + 17)
    size, digest = len(upstream.layer.data), upstream.layer.digest
    client = PartedClient(mirrored, mirrored.host("open"), is_open_ended)
    with ThreadPoolExecutor(16) as pool:
        fetched = list(pool.map(lambda _: client.fetch(upstream.path, size), range(16)))
    assert fetched == [digest] * 16
    wait_until(blob_file(mirrored.cache, digest).exists, "the layer is held")
    wait_until(lambda: upstream.sent >= size, "the registry has logged what it sent")
    assert upstream.sent <= 1.1 * size


def _cost(parts: Iterable[tuple[int, int]], unit: int) -> int:
    """Return the bytes of the blocks from each part's first one on, up to a multiple of the unit."""
    blocks: set[int] = set()
    for first, length in parts:
        blocks.update(range(first // BLOCK, -(-(first + length) // unit) * (unit // BLOCK)))
    return len(blocks) * BLOCK


@pytest.mark.parametrize("workers", [1, 2])
def test_scattered_parts(mirrored: Mirror, open_registry: Registry, workers: int) -> None:
    """Clients that read the same parts cost the blocks from these to the next full MiB at most, each once."""
    upstream = Upstream(open_registry, f"scattered {workers}", 80 * MIB)
    size, choice = len(upstream.layer.data), random.Random(workers)
    parts = [(choice.randrange(size - 300_000), 300_000) for _ in range(25)]
    client = PartedClient(mirrored, mirrored.host("open"), is_open_ended=False)
    wanted = [upstream.layer.data[first : first + length] for first, length in parts]
    with ThreadPoolExecutor(20) as pool:
        for read in pool.map(lambda _: client.read_all(upstream.path, parts), range(20)):
            assert read == wanted
    wait_until(lambda: upstream.sent >= _cost(parts, BLOCK), "the registry has logged what it sent")
    assert upstream.sent <= 1.1 * _cost(parts, MIB)
    assert len(upstream.requests()) <= 35
    assert not blob_file(mirrored.cache, upstream.layer.digest).exists()
