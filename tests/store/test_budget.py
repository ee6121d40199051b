"""How much may be held."""

from __future__ import annotations

import os

import pytest

from dockmirror.store.eviction.budget import Budget, Shortfall

GB = 10**9


def status(
    size: int = 1000 * GB, free: int = 500 * GB, inodes: int = 10_000, free_inodes: int = 5000
) -> os.statvfs_result:
    """A file system of blocks of 1000 bytes, of which some are free for root alone."""
    blocks, left = size // 1000, free // 1000
    of_inodes = inodes, free_inodes + 7, free_inodes
    return os.statvfs_result((4096, 1000, blocks, left + 7, left, *of_inodes, 0, 255))


@pytest.mark.parametrize(
    ("size", "default"), [(50 * GB, 10 * GB), (500 * GB, 100 * GB), (900 * GB, 100 * GB)]
)
def test_default(size: int, default: int) -> None:
    """A fifth of the file system, at most 100 GB; a fifth stays free, of inodes too."""
    assert Budget.default(status(size)) == Budget(default, size // 5, 2000)


@pytest.mark.parametrize(("held", "bytes_"), [(0, 0), (1000, 0), (1001, 101), (5000, 4100)])
def test_size(held: int, bytes_: int) -> None:
    """What is over the budget goes, until a tenth of it is spare; what just fits stays."""
    need = Budget(1000).shortfall(held, status())
    assert need == Shortfall(bytes_, 0)
    assert bool(need) == (bytes_ > 0)


@pytest.mark.parametrize(("free", "bytes_"), [(200, 0), (199, 21), (0, 220)])
def test_free_bytes(free: int, bytes_: int) -> None:
    """Where too little is free, the cache gives way, whoever fills the disk."""
    need = Budget(1000 * GB, free_bytes=200 * GB).shortfall(GB, status(free=free * GB))
    assert need == Shortfall(bytes_ * GB, 0)


@pytest.mark.parametrize(("free", "inodes"), [(2000, 0), (1999, 201), (0, 2200)])
def test_free_inodes(free: int, inodes: int) -> None:
    """Inodes are counted by themselves."""
    need = Budget(1000 * GB, free_inodes=2000).shortfall(GB, status(free_inodes=free))
    assert need == Shortfall(0, inodes)


def test_file_system_without_a_number_of_inodes() -> None:
    """One that makes them as they are needed says that it has none, and lacks none."""
    unlimited = status(inodes=0, free_inodes=0)
    assert Budget.default(unlimited).free_inodes == 0
    assert not Budget(GB, free_inodes=2000).shortfall(0, unlimited)


def test_the_greater_need() -> None:
    """Counts, where both the budget and the disk are short."""
    budget = Budget(10 * GB, free_bytes=200 * GB)
    assert budget.shortfall(11 * GB, status(free=100 * GB)) == Shortfall(120 * GB, 0)
    assert budget.shortfall(500 * GB, status(free=199 * GB)) == Shortfall(491 * GB, 0)


def test_freed() -> None:
    """What was freed is needed no more; more than enough is enough."""
    need = Shortfall(10, 4) - Shortfall(10, 2)
    assert need == Shortfall(0, 2)
    assert need
    assert not need - Shortfall(5, 3)
