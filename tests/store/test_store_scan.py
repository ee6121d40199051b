"""The order in which contents are evicted."""

from __future__ import annotations

from itertools import pairwise

import pytest
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


@pytest.mark.parametrize(
    ("used", "references", "order"),
    [
        ({0: 30.0, 1: 10.0, 2: 20.0}, {}, [1, 2, 0]),
        ({0: 30.0, 1: 10.0, 2: 20.0}, {0: [1]}, [2, 0, 1]),
        ({3: 10.0, 0: 10.0, 1: 10.0, 2: 10.0}, {2: [1], 1: [0], 0: [3]}, [2, 1, 0, 3]),
        ({0: 10.0, 1: 30.0, 2: 5.0, 3: 20.0}, {0: [2], 1: [2]}, [0, 3, 1, 2]),
        ({0: 10.0, 1: 30.0, 2: 20.0}, {0: [1]}, [0, 2, 1]),
        ({0: 10.0}, {0: [5], 7: [0]}, [0]),
    ],
    ids=["blobs", "old layer", "index", "shared layer", "used layer", "missing contents"],
)
def test_order(used: dict[int, float], references: dict[int, list[int]], order: list[int]) -> None:
    """The least recently used comes first, and a part after the last used of those that refer to it."""
    assert eviction_order(used, references) == order


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
