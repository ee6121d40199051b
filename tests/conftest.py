"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.integration.parts.programs import describe_skips

settings.register_profile("dockmirror", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dockmirror")  # a machine that is busy with something else fails no test


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was skipped, and why, in one line."""
    found = [each.longrepr for each in terminalreporter.getreports("skipped")]
    reasons = [each[2].removeprefix("Skipped: ") for each in found if isinstance(each, tuple)]
    if reasons:
        terminalreporter.write_line(describe_skips(reasons))
