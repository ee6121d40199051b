"""The distribution of tests over workers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scheduling import ALONE, TOGETHER, PhasedScheduling, order_of, scope_of

ALONE_TEST = next(iter(ALONE))
TESTS = [
    "tests/integration/test_a.py::test_1",
    "tests/integration/test_a.py::test_2",
    "tests/oci/test_b.py::test_1",
    "tests/oci/test_c.py::test_1",
    "tests/oci/test_d.py::test_1",
    "tests/oci/test_d.py::test_2",
    f"{ALONE_TEST}::test_1",
    f"{ALONE_TEST}::test_2",
]


class Worker:
    """Takes tests, and runs one when it knows what follows: another test, or the end."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.tests: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        """Called by the scheduler."""
        self.tests.extend(indices)

    def shutdown(self) -> None:
        """Called by the scheduler."""
        self.shutting_down = True

    @property
    def can_run(self) -> bool:
        """Return whether it may run its next test."""
        return len(self.tests) > (0 if self.shutting_down else 1)


def run(tests: list[str], workers: int) -> list[tuple[str, str, int]]:
    """Run the tests; return of each the worker, the test and how many workers there were."""
    option = SimpleNamespace(loadscopereorder=True)
    config: Any = SimpleNamespace(option=option, getvalue=lambda name: [f"{workers}*popen"])
    scheduling: Any = PhasedScheduling(config, SimpleNamespace(loadscopesched=lambda *_: None))
    running = [Worker(f"gw{number}") for number in range(workers)]
    for each in running:
        scheduling.add_node(each)
        scheduling.add_node_collection(each, tests)
    scheduling.schedule()
    ran = []
    while running:
        assert any(each.can_run or each.shutting_down for each in running), "no worker goes on"
        for each in [each for each in running if each.shutting_down and not each.tests]:
            running.remove(each)
            if each in scheduling.nodes:
                assert scheduling.remove_node(each) is None
        for each in [each for each in running if each.can_run]:
            index = each.tests.pop(0)
            ran.append((each.gateway.id, tests[index], len(running)))
            scheduling.mark_test_complete(each, index)
    return ran


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
@pytest.mark.parametrize("count", range(1, len(TESTS) + 1))
def test_each_runs_once(workers: int, count: int) -> None:
    """Each test runs once, those that run alone at the end, when one worker is left."""
    tests = TESTS[-count:]
    ran = run(tests, workers)
    assert sorted(test for _, test, _ in ran) == sorted(tests)
    alone = [each for each in ran if each[1].startswith(ALONE_TEST)]
    assert ran[len(ran) - len(alone) :] == alone
    assert {left for _, _, left in alone} == {1}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_files_stay_together(workers: int) -> None:
    """One worker runs all tests of a file, and those of files that share what they parse."""
    where: dict[str, set[str]] = {}
    tests = [*(f"{file}::test" for file in TOGETHER), *TESTS]
    for worker, test, _ in run(tests, workers):
        where.setdefault(scope_of(test).partition("::")[0], set()).add(worker)
    assert {len(each) for each in where.values()} == {1}


def test_order() -> None:
    """Tests that wait start first; those that run alone come last."""
    last = [f"{each}::test" for each in ALONE]
    tests = [*reversed(last), "tests/oci/test_b.py::test", "tests/integration/test_a.py::test"]
    assert sorted(tests, key=order_of) == [*reversed(tests[-2:]), *last]


@pytest.mark.parametrize("test", [*ALONE, *TOGETHER])
def test_listed(test: str) -> None:
    """Each entry of the lists names a test that exists."""
    file, _, name = test.partition("::")
    assert name.split("::")[-1] in (Path(__file__).parents[1] / file).read_text("utf-8")
