"""The table in docs/how-to/object-store.md of what the bucket is asked, and which of its rows tests hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

_DOCUMENT = Path(__file__).parents[1] / "docs/how-to/object-store.md"
_HEAD = "| for | requests |\n| --- | --- |\n"

Test = TypeVar("Test", bound=Callable[..., None])


def row(what: str, requests: str) -> Callable[[Test], Test]:
    """Say that a test holds this row."""

    def hold(test: Test) -> Test:
        test.__dict__.setdefault("rows", {})[what] = requests
        return test

    return hold


def rows_of(module: ModuleType) -> Mapping[str, str]:
    """Return the rows that the tests of a module hold."""
    held: dict[str, str] = {}
    for test in vars(module).values():
        held |= getattr(test, "rows", {})
    return held


def read_table() -> Mapping[str, str]:
    """Return the rows of the document: for what, and the requests."""
    lines = _DOCUMENT.read_text("utf-8").partition(_HEAD)[2].partition("\n\n")[0].splitlines()
    return dict(line.strip("| ").split(" | ") for line in lines)
