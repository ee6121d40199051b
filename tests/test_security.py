"""The tests that SECURITY.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
PROMISED, _, AFTER = TEXT.partition("## How each is tested")
TESTED, _, NOT_PROMISED = AFTER.partition("## What is not")
ROWS = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \|$", TESTED, re.MULTILINE)


def test_each_promise_is_tested() -> None:
    """In the order in which they are made."""
    assert [promise for promise, _ in ROWS] == re.findall(r"^- \*\*(.+?)\*\*", PROMISED, re.MULTILINE)


def test_the_tests_are_there() -> None:
    """Each that is named."""
    named = [name for _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)]
    assert len(named) >= len(ROWS) > 0
    for name in named:
        file, _, test = name.partition("::")
        assert re.search(rf"^ *(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), name


def test_it_says_what_is_not_promised() -> None:
    """Too."""
    assert NOT_PROMISED.count("- **") >= 5
