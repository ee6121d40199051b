"""The table in docs/reliability.md has the rows that there are."""

from __future__ import annotations

import importlib
from pathlib import Path

from .rows import NAMES, read_table


def test_documented() -> None:
    """Each, and no other; and of those that always end alike it says how."""
    modules = [
        importlib.import_module(f"{__package__}.{path.stem}")
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
    ]
    table = read_table()
    assert sorted(table) == sorted(NAMES)
    cases = [case for module in modules for case in getattr(module, "CASES", ())]
    expected = {case.marks[0].args[0]: case.values[0].gets for case in cases}
    assert {name: table[name] for name in expected} == expected
