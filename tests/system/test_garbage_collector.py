"""The garbage collector while modules are imported."""

from __future__ import annotations

import gc
import weakref

from dockmirror.system.garbage_collector import young_collections


class Node:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_new_garbage_is_found_and_nothing_is_searched_twice() -> None:
    thresholds, old = gc.get_threshold(), [each["collections"] for each in gc.get_stats()[1:]]
    with young_collections():
        node = weakref.ref(Node())
        kept = [Node() for _ in range(100_000)]
        assert node() is None
        assert [each["collections"] for each in gc.get_stats()[1:]] == old
    assert (gc.get_threshold(), gc.isenabled()) == (thresholds, True)
    assert gc.get_freeze_count() >= len(kept)
    gc.unfreeze()
