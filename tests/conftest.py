"""Settings of all tests, and the order in which they run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]

from tests.integration.parts.programs import describe_skips
from tests.integration.parts.traces import Traces
from tests.scheduling import PhasedScheduling, order_of

settings.register_profile("dockmirror", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dockmirror")  # a machine that is busy with something else fails no test

Measured = Callable[[str], None]
MEASURED = "measured"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests."""
    items.sort(key=lambda item: order_of(item.nodeid))


def pytest_collection_finish() -> None:
    """Keep the thousands of tests out of the garbage collector's way: each of its runs would look at them."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> PhasedScheduling:
    """Return the scheduler of a run with workers."""
    return PhasedScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, and what was skipped, and why, in one line."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == MEASURED:
                terminalreporter.write_line(f"measured: {value}")
    found = [each.longrepr for each in terminalreporter.getreports("skipped")]
    reasons = [each[2].removeprefix("Skipped: ") for each in found if isinstance(each, tuple)]
    if reasons:
        terminalreporter.write_line(describe_skips(reasons))


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Traces of the run; a worker leaves its own to the last one."""
    traces = Traces(tmp_path_factory.getbasetemp().parent)
    yield traces
    traces.save()


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Prints a figure at the end of the run."""
    return lambda figure: record_property(MEASURED, figure)
