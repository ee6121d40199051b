"""The Chinese README says what the English one says, and every command of it."""

from __future__ import annotations

import re

from .test_docs import text

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"


def both(pattern: str) -> tuple[list[str], list[str]]:
    """What is found in each."""
    english, chinese = (
        re.findall(pattern, text(each), re.MULTILINE | re.DOTALL) for each in (ENGLISH, CHINESE)
    )
    return english, chinese


def test_sections() -> None:
    """Are the same, in the same order."""
    english, chinese = both(r"^(#+) ")
    assert english == chinese


def test_blocks() -> None:
    """Are the same, word for word."""
    english, chinese = both(r"^```.*?^```$")
    assert english == chinese


def test_tables() -> None:
    """Have the same rows, with the same names, commands and figures."""
    english, chinese = both(r"^\|[^\n]*\|$")
    assert len(english) == len(chinese)
    for ours, theirs in zip(english, chinese, strict=True):
        marks = r"`[^`]*`|\d[\d.]*|[a-z-]+\.[a-z.]+"
        assert re.findall(marks, ours) == re.findall(marks, theirs), theirs


def test_links() -> None:
    """Lead to the same places in the same order, and from each to the other."""
    english, chinese = both(r"\]\(([^)\s]+)\)")
    others = {ENGLISH, CHINESE, "docs/page.png", "docs/page-zh.png"}
    assert [each for each in english if each not in others] == [
        each for each in chinese if each not in others
    ]
    assert {CHINESE, "docs/page.png"} <= set(english)
    assert {ENGLISH, "docs/page-zh.png"} <= set(chinese)


def test_options() -> None:
    """Are named in both."""
    english, chinese = both(r"`(--[a-z-]+)")
    assert english == chinese
