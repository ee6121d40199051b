"""Prose that can be checked by a machine.  The numbers may fall and not rise; see ``test_measures``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .measures import riddles
from .test_measures import only_falls

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))
]  # fmt: skip
RIDDLES = {"dockmirror": 0, "tests": 0, "bench": 0, "demo": 0}
"""Docstrings that begin with What, Whether, How, Who, Whoever, Where, Those, Of or That."""
UNWANTED = {
    "whoever": 1, "one who": 0, "those who": 0, "who has": 0, "what is": 39, "nobody needs": 0,
    "to be had": 0, "behind the back": 0, "leave the building": 0,
}  # fmt: skip
"""Words of documents that have plainer ones, such as "the client", "the operator", "the mirror"."""


@pytest.mark.parametrize(("directory", "allowed"), RIDDLES.items())
def test_docstrings(directory: str, allowed: int) -> None:
    """A docstring's first sentence says what the thing is or does."""
    only_falls(f"docstrings in {directory}/ with an unwanted opening", riddles(directory), allowed)


@pytest.mark.parametrize(("words", "allowed"), UNWANTED.items())
def test_documents(words: str, allowed: int) -> None:
    """Documents say who does something."""
    pattern = re.compile(r"\b" + words.replace(" ", r"\s+") + r"\b", re.IGNORECASE)
    found = sum(len(pattern.findall(path.read_text("utf-8"))) for path in DOCUMENTS)
    only_falls(f'"{words}" in README.md, SECURITY.md, CONTRIBUTING.md and docs/', found, allowed)
