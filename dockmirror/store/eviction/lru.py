"""In which order contents go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from ...oci.digest import Digest

Age = tuple[float, int]
"""When something was used last, and how deep below what was used then."""


def lru_order(
    used: Mapping[Digest, float], references: Mapping[Digest, Sequence[Digest]]
) -> dict[Digest, Age]:
    """When each content was used last, by itself or by way of a manifest that refers to it, and how deep.

    Sorted by these what was used least recently comes first, and each manifest before what it refers to.

    :param references: of manifests, each of which is the content of its digest: so there is no circle.
    """
    found = {digest: (when, 0) for digest, when in used.items()}
    for manifest in _from_the_top(references):
        when, depth = found.get(manifest, (0.0, 0))
        for part in references[manifest]:
            if part in found:
                found[part] = max(found[part], (when, depth + 1))
    return found


def with_descendants(
    manifests: Iterable[Digest], references: Mapping[Digest, Sequence[Digest]]
) -> set[Digest]:
    """These, and all that they refer to, and so on."""
    found: set[Digest] = set()
    unseen = list(manifests)
    while unseen:
        digest = unseen.pop()
        if digest not in found:
            found.add(digest)
            unseen += references.get(digest, ())
    return found


def _from_the_top(references: Mapping[Digest, Sequence[Digest]]) -> Iterator[Digest]:
    """Manifests, each after all that refer to it."""
    sorter: TopologicalSorter[Digest] = TopologicalSorter(dict.fromkeys(references, ()))
    for manifest, parts in references.items():
        for part in parts:
            if part in references:
                sorter.add(part, manifest)
    return iter(sorter.static_order())
