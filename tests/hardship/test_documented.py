"""The table in docs/explanation/reliability.md has the rows that there are."""

from __future__ import annotations

from .rows import NAMES, modules, read_table


def test_documented() -> None:
    """Each, and no other; and of those that always end alike it says how."""
    cases = [case for module in modules() for case in getattr(module, "CASES", ())]
    table = read_table()
    assert sorted(table) == sorted(NAMES)
    expected = {case.marks[0].args[0]: case.values[0].gets for case in cases}
    assert {name: table[name] for name in expected} == expected
