"""The order in which contents are evicted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.store.eviction.store_scan import lru_order

DIGESTS = [Digest.of(bytes([number])) for number in range(12)]


def eviction_order(used: dict[int, float], references: dict[int, list[int]]) -> list[int]:
    """Return numbers of contents in the order of their eviction."""
    found = lru_order(
        {DIGESTS[n]: when for n, when in used.items()},
        {DIGESTS[n]: [DIGESTS[p] for p in parts] for n, parts in references.items()},
    )
    return [DIGESTS.index(digest) for digest in sorted(found, key=found.__getitem__)]


def test_least_recently_used_first() -> None:
    """The least recently used content is evicted first."""
    assert eviction_order({0: 30.0, 1: 10.0, 2: 20.0}, {}) == [1, 2, 0]


def test_manifest_before_its_layers() -> None:
    """A manifest is evicted before its layers, even if these were used much longer ago."""
    assert eviction_order({0: 30.0, 1: 10.0, 2: 20.0}, {0: [1]}) == [2, 0, 1]


def test_index_before_its_manifests() -> None:
    """An index is evicted before its manifests, and these before their layers, if all were used at once."""
    assert eviction_order({3: 10.0, 0: 10.0, 1: 10.0, 2: 10.0}, {2: [1], 1: [0], 0: [3]}) == [2, 1, 0, 3]


def test_shared_layer() -> None:
    """A shared layer is evicted with the manifest that was used last."""
    assert eviction_order({0: 10.0, 1: 30.0, 2: 5.0, 3: 20.0}, {0: [2], 1: [2]}) == [0, 3, 1, 2]


def test_layers_used_by_themselves() -> None:
    """Layers that were used by themselves may outlive their manifests."""
    assert eviction_order({0: 10.0, 1: 30.0, 2: 20.0}, {0: [1]}) == [0, 2, 1]


def test_missing_contents() -> None:
    """A content that is referred to and not stored is not evicted."""
    assert eviction_order({0: 10.0}, {0: [5], 7: [0]}) == [0]


@given(
    st.dictionaries(st.integers(0, 11), st.floats(0, 3).map(float), min_size=2),
    st.dictionaries(st.integers(0, 11), st.lists(st.integers(0, 11), max_size=4)),
)
def test_never_a_part_before_its_manifest(used: dict[int, float], references: dict[int, list[int]]) -> None:
    """No content is evicted before a manifest that refers to it; references have no cycles."""
    references = {n: [p for p in parts if p < n] for n, parts in references.items()}
    gone = eviction_order(used, references)
    assert sorted(gone) == sorted(used)
    for manifest, parts in references.items():
        if manifest in used:
            assert all(gone.index(manifest) < gone.index(part) for part in parts if part in used)
    free = [n for n in gone if not any(n in parts for parts in references.values())]
    assert all(used[one] <= used[other] for one, other in pairwise(free))
