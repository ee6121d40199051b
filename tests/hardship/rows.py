"""Hardships as rows of one table: each has a name and a result."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

TABLE = Path(__file__).parents[2] / "docs/explanation/reliability.md"
HEAD = "| what happens | what came of it |\n| --- | --- |\n"
KINDS = ("manifest", "blob", "private blob", "range", "push", "gate", "machine", "load", "hostile")
"""The first words of the rows' names, in the order of the table."""
NAMES: list[str] = []
"""The names of all rows, collected as their tests are imported."""
Record = Callable[[object], None]
"""Says what came of the row that is being tried."""


def hardship(name: str) -> pytest.MarkDecorator:
    """The row that a test, or one of its cases, tries."""
    assert name not in NAMES, name
    assert _kind(name) < len(KINDS), name
    NAMES.append(name)
    return pytest.mark.hardship(name)


def name_of(test: pytest.Item) -> str | None:
    """The row that it tries, where it tries one."""
    mark = test.get_closest_marker("hardship")
    return mark.args[0] if mark else None


def modules() -> list[ModuleType]:
    """The modules with rows, imported if they are not yet."""
    return [
        importlib.import_module(f"{__package__}.{path.stem}")
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
    ]


def read_table() -> dict[str, str]:
    """The results in docs/explanation/reliability.md by name."""
    after = TABLE.read_text("utf-8").partition(HEAD)[2]
    rows = re.match(r"(?:\|.*\|\n)*", after)
    assert rows
    cells = (line.strip("|").split(" | ") for line in rows[0].splitlines())
    return {name.strip(): gets.strip() for name, gets in cells}


def write_table(came: Mapping[str, str]) -> None:
    """Writes it anew; what was not tried just now keeps what was said of it."""
    modules()
    before, _, after = TABLE.read_text("utf-8").partition(HEAD)
    known = {**read_table(), **came}
    rest = re.sub(r"\A(?:\|.*\|\n)*", "", after)
    TABLE.write_text(before + HEAD + "".join(_lines(known)) + rest, "utf-8")


def _lines(rows: Mapping[str, str]) -> Iterable[str]:
    """In the order in which they stood; new ones come last of their kind."""
    names = [name for name in dict.fromkeys([*rows, *NAMES]) if name in NAMES and name in rows]
    return (f"| {name} | {rows[name]} |\n" for name in sorted(names, key=_kind))


def _kind(name: str) -> int:
    return KINDS.index(name.partition(": ")[0])
