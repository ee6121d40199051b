"""Which repositories are pulled most."""

from __future__ import annotations

from dockmirror.status.cache_series import PULL_COUNTS_SIZE, PullCounts, RepositoryPulls


def test_the_most_pulled_repositories_come_first() -> None:
    """Whichever process has counted them."""
    memory = memoryview(bytearray(PULL_COUNTS_SIZE))
    one, other = PullCounts(memory), PullCounts(memory)
    for each in (one, other, one):
        each.sent("docker.io/library/busybox", manifests=1, bytes=500)
    one.sent("ghcr.io/a/b", manifests=1, bytes=7)
    other.sent("ghcr.io/a/b", bytes=1_000)
    other.sent("ghcr.io/a/only-blobs", bytes=9)
    assert one.most(2) == [
        RepositoryPulls("docker.io/library/busybox", 3, 1500),
        RepositoryPulls("ghcr.io/a/b", 1, 1007),
    ]


def test_a_full_table_drops_the_least_pulled() -> None:
    """The list is bounded."""
    popular = PullCounts(memoryview(bytearray(PULL_COUNTS_SIZE // 100)))
    for _ in range(3):
        popular.sent("often", manifests=1)
    for number in range(1000):
        popular.sent(f"once/{number}", manifests=1)
    most = popular.most(1000)
    assert most[0] == RepositoryPulls("often", 3, 0)
    assert len(most) <= 41


def test_long_names_are_cut() -> None:
    """They are told apart by what is left."""
    popular = PullCounts(memoryview(bytearray(PULL_COUNTS_SIZE)))
    popular.sent("é" * 200, manifests=1)
    ((only),) = popular.most(9)
    assert only.repository == "é" * 150
