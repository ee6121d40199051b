"""The values of the chart in the documents are those that it has."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-not-found, import-untyped, unused-ignore]

from .test_docs import ROOT, table, text

PAGE = "docs/how-to/kubernetes.md"
VALUES: dict[str, Any] = yaml.safe_load(text("charts/dockmirror/values.yaml"))


def value(path: str) -> Any:
    """Return the default of a value."""
    found: Any = VALUES
    for key in path.split("."):
        assert key in found, path
        found = found[key]
    return found


def test_values() -> None:
    """Each value in the table exists, and has the default that the table says."""
    for names, default, _ in table(PAGE, "value"):
        paths, cells = re.findall(r"`([^`]+)`", names), re.findall(r"`([^`]+)`", default)
        values = [value(path) for path in paths]
        if len(cells) == len(paths):
            assert [str(each).removesuffix("\n").lower() for each in values] == [
                cell.lower() for cell in cells
            ]
        elif default == "off":
            assert values[0] is False


def test_named_values() -> None:
    """Each value that the text names exists."""
    for path in re.findall(
        r"`((?:nodes|ingress|gateway|networkPolicy|persistence)\.[A-Za-z.]+)`",
        text(PAGE),
    ):
        value(path)


def test_modes() -> None:
    """The table has the modes that values.yaml explains."""
    modes = [re.findall(r"`([^`]+)`", row[0])[0] for row in table(PAGE, "`nodes.mode`")]
    explained = re.search(
        r"How nodes reach the mirror:\n((?:  #   .*\n)+)", text("charts/dockmirror/values.yaml")
    )
    assert explained
    assert modes == re.findall(r"^  #   (\w+)", explained[1], re.MULTILINE)
    assert value("nodes.mode") == modes[0]


def test_pages_that_the_chart_names() -> None:
    """They exist; the README names them by their addresses, since it is shown without this repository."""
    files = [*(ROOT / "charts").rglob("*.md"), *(ROOT / "charts").rglob("*.yaml")]
    named = {page for each in files for page in re.findall(r"\bdocs/[\w/-]+\.md", each.read_text("utf-8"))}
    assert PAGE in named
    assert [page for page in named if not (ROOT / page).exists()] == []
