"""In which order contents go."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.store.eviction.store_scan import lru_order

DIGESTS = [Digest.of(bytes([number])) for number in range(12)]


def order(used: dict[int, float], references: dict[int, list[int]]) -> list[int]:
    """Numbers of contents in the order in which they go."""
    found = lru_order(
        {DIGESTS[n]: when for n, when in used.items()},
        {DIGESTS[n]: [DIGESTS[p] for p in parts] for n, parts in references.items()},
    )
    return [DIGESTS.index(digest) for digest in sorted(found, key=found.__getitem__)]


def test_least_recently_used() -> None:
    """Goes first."""
    assert order({0: 30.0, 1: 10.0, 2: 20.0}, {}) == [1, 2, 0]


def test_manifest_before_its_layers() -> None:
    """However long its layers have not been asked for."""
    assert order({0: 30.0, 1: 10.0, 2: 20.0}, {0: [1]}) == [2, 0, 1]


def test_index_before_its_manifests() -> None:
    """And these before their layers, when all were used at one time."""
    assert order({3: 10.0, 0: 10.0, 1: 10.0, 2: 10.0}, {2: [1], 1: [0], 0: [3]}) == [2, 1, 0, 3]


def test_shared_layer() -> None:
    """Goes with the manifest that was used last."""
    assert order({0: 10.0, 1: 30.0, 2: 5.0, 3: 20.0}, {0: [2], 1: [2]}) == [0, 3, 1, 2]


def test_layers_used_by_themselves() -> None:
    """May outlive their manifests."""
    assert order({0: 10.0, 1: 30.0, 2: 20.0}, {0: [1]}) == [0, 2, 1]


def test_what_is_not_held() -> None:
    """Is nothing to go."""
    assert order({0: 10.0}, {0: [5], 7: [0]}) == [0]


@given(
    st.dictionaries(st.integers(0, 11), st.floats(0, 3).map(float), min_size=2),
    st.dictionaries(st.integers(0, 11), st.lists(st.integers(0, 11), max_size=4)),
)
def test_never_a_part_before_its_manifest(used: dict[int, float], references: dict[int, list[int]]) -> None:
    """Whatever refers to what: a manifest refers to what was there before it, so there is no circle."""
    references = {n: [p for p in parts if p < n] for n, parts in references.items()}
    gone = order(used, references)
    assert sorted(gone) == sorted(used)
    for manifest, parts in references.items():
        if manifest in used:
            assert all(gone.index(manifest) < gone.index(part) for part in parts if part in used)
    free = [n for n in gone if not any(n in parts for parts in references.values())]
    assert all(used[one] <= used[other] for one, other in pairwise(free))
