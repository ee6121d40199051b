"""Sizes of the package: they may fall and not rise.  When one has fallen, its number here is lowered too.

``python -m tests.measures`` prints all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sized

import pytest

from . import measures
from .measures import PACKAGE, TESTS

LINES_OF_CODE, LINES_OF_TESTS, SLACK = 36_050, 89_250, 500
"""Lines; they may be fewer by the slack before the number has to be lowered."""
MODULES = 264
LONG_SIGNATURES, MOST_PARAMETERS = 0, 6
REPEATED_CLASSES, REPEATED_FILES = 0, 0


def only_falls(what: str, found: int, allowed: int, slack: int = 0) -> None:
    """Fail where a number has risen, and where one has fallen that is not written down yet."""
    assert found <= allowed, f"{what}: {found}, where {allowed} are allowed: see CONTRIBUTING.md"
    assert found >= allowed - slack, f"{what}: {found}, fewer than {allowed}: lower the number in the test"


def test_lines() -> None:
    """The package and its tests do not grow unnoticed."""
    only_falls("lines of code", measures.lines_of_code(PACKAGE), LINES_OF_CODE, SLACK)
    only_falls("lines of tests", measures.lines(TESTS), LINES_OF_TESTS, SLACK)


def test_modules() -> None:
    """There are no more modules, and none is too long."""
    only_falls("modules", measures.modules(PACKAGE), MODULES)
    assert measures.long_files(PACKAGE) == []


def test_parameters() -> None:
    """No more functions take more than six parameters, and none takes more than the most that one did."""
    only_falls("long signatures", measures.long_signatures(PACKAGE), LONG_SIGNATURES)
    most, name = max(measures.parameters(PACKAGE))
    only_falls(f"parameters ({name})", most, MOST_PARAMETERS)


@pytest.mark.parametrize(
    ("count", "allowed"),
    [(measures.repeated_classes, REPEATED_CLASSES), (measures.repeated_files, REPEATED_FILES)],
)
def test_names(count: Callable[[str], Sized], allowed: int) -> None:
    """One name stands for one thing: a search for a class or a file finds one."""
    found = count(PACKAGE)
    only_falls(f"{count.__name__}: {found}", len(found), allowed)


def test_no_mocks() -> None:
    """Nothing inside the code is replaced."""
    assert measures.mocks(PACKAGE) + measures.mocks(TESTS) == 0
