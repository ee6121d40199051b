"""The table in docs/explanation/reliability.md has the rows that there are."""

from __future__ import annotations

from .rows import NAMES, modules, read_table


def test_documented() -> None:
    """The table has exactly the rows of the tests, with their results."""
    cases = [case for module in modules() for case in getattr(module, "CASES", ())]
    table = read_table()
    assert sorted(table) == sorted(NAMES)
    expected = {case.marks[0].args[0]: case.values[0].gets for case in cases}
    assert {name: table[name] for name in expected} == expected
