"""The order of the tests, and how pytest-xdist distributes them over its workers."""

from __future__ import annotations

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

EARLY = (
    "tests/integration/",
    "tests/hardship/",
    "tests/conformance/",
    "tests/test_packaging.py",
    "tests/store/test_crash.py",
    "tests/app/test_accounts_model.py",
)
"""Tests that wait for programs, or whose files take long; they start first, and the others fill the gaps."""
TOGETHER = ("tests/test_measures.py", "tests/test_prose.py")
"""Files that parse the source of all tests, which one worker does once."""
ALONE = {
    "tests/hardship/test_load.py": "loads the whole machine",
    "tests/hardship/test_crowd.py": "loads the whole machine",
    "tests/hardship/test_secrets.py": "searches the logs and caches of all mirrors of the run",
}
"""Tests that run when all others have ended, in this order, and why: by the start of their ids."""


def order_of(nodeid: str) -> tuple[int, bool]:
    """Return the key by which tests are sorted."""
    return _alone(nodeid), not nodeid.startswith(EARLY)


def scope_of(nodeid: str) -> str:
    """Return the name of the group that one worker runs without a break: that of its file, or its own."""
    if _alone(nodeid) >= 0:
        return nodeid
    file = nodeid.partition("::")[0]
    return TOGETHER[0] if file in TOGETHER else file


def _alone(nodeid: str) -> int:
    """Return the position among those that run alone, or -1."""
    return next((number for number, each in enumerate(ALONE) if nodeid.startswith(each)), -1)


class PhasedScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Distributes the tests file by file, and gives those that run alone to the last worker that is left.

    One worker stays until the others have ended, with at most one test that it keeps until it is told
    what follows: so pytest-xdist does it.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # they are sorted
        super().__init__(config, log)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker that has ended; the last one goes on with what runs alone."""
        crashed: str | None = super().remove_node(node)
        if self.collection is not None:
            for each in self.nodes * 2:  # a worker runs its first test when it has a second, or the end
                self._reschedule(each)
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if _alone(next(iter(self.workqueue))) < 0 or self.nodes == [node]:
            super()._assign_work_unit(node)
        elif any(not each.shutting_down for each in self.nodes if each is not node):
            node.shutdown()  # another one stays
