"""The Chinese README and tutorials say what the English ones say, and every command of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .test_docs import ROOT, text

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))

each_tutorial = pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)


def both(pattern: str) -> tuple[list[str], list[str]]:
    """Return the matches in each of the two documents."""
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
    """Lead to the same places in the same order, to the tutorials in Chinese, and from each to the other."""
    english, chinese = both(r"\]\(([^)\s]+)\)")
    others = {ENGLISH, CHINESE, "docs/page.png", "docs/page-zh.png"}
    assert [
        each.replace("docs/tutorials/", "docs/zh/tutorials/") for each in english if each not in others
    ] == [each for each in chinese if each not in others]
    assert {CHINESE, "docs/page.png"} <= set(english)
    assert {ENGLISH, "docs/page-zh.png"} <= set(chinese)


def test_options() -> None:
    """Are named in both."""
    english, chinese = both(r"`(--[a-z-]+)")
    assert english == chinese


def in_chinese(tutorial: Path) -> Path:
    """The same tutorial in Chinese."""
    return ROOT / "docs/zh/tutorials" / tutorial.name


@each_tutorial
def test_tutorials(tutorial: Path) -> None:
    """Have the same steps, with the same commands and files, in the same order."""
    pattern = re.compile(r"^(#+) |^(```.*?^```)$|^(- |\*\*\d)", re.MULTILINE | re.DOTALL)
    english, chinese = (each.read_text("utf-8") for each in (tutorial, in_chinese(tutorial)))
    assert pattern.findall(english) == pattern.findall(chinese)


@each_tutorial
def test_links_of_tutorials(tutorial: Path) -> None:
    """Lead to the same places, among the tutorials to those in Chinese; first to the other language."""
    (to_chinese, *english), (to_english, *chinese) = links(tutorial), links(in_chinese(tutorial))
    assert (to_chinese, to_english) == (
        f"docs/zh/tutorials/{tutorial.name}",
        f"docs/tutorials/{tutorial.name}",
    )
    assert [each.replace("docs/tutorials/", "docs/zh/tutorials/") for each in english] == chinese


@each_tutorial
def test_names_in_tutorials(tutorial: Path) -> None:
    """Commands, paths and names within sentences are the same."""
    code = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
    english, chinese = (each.read_text("utf-8") for each in (tutorial, in_chinese(tutorial)))
    assert sorted(set(code.findall(english))) == sorted(set(code.findall(chinese)))


def links(document: Path) -> list[str]:
    """The addresses and the files to which it links, with their headings."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    return [
        each if ":" in each else str((document.parent / each).resolve().relative_to(ROOT.resolve()))
        for each in found
    ]
