"""Writes the tree of the house into architecture.md: a line for each file, which is its docstring's first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/architecture.md"
_BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- end of tree -->)", re.DOTALL)
_COLUMN = 30


def tree() -> str:
    """The tree as it is."""
    plugin = _line("  dockmirror_plugin.py", ROOT / "twisted/plugins/dockmirror_plugin.py")
    tac = _line("mirror.tac", ROOT / "mirror.tac")
    return "\n".join(["twisted/plugins/", plugin, tac, *_package(ROOT / "dockmirror", 0), ""])


def written() -> str:
    """The tree as it stands in the document."""
    found = _BLOCK.search(DOCUMENT.read_text("utf-8"))
    assert found is not None
    return found[0]


def main() -> None:
    """Brings the document up to date."""
    DOCUMENT.write_text(_BLOCK.sub(lambda _: tree(), DOCUMENT.read_text("utf-8")), "utf-8")


def _package(directory: Path, depth: int) -> Iterator[str]:
    """A package: its folder, its modules, the packages in it."""
    yield _line("  " * depth + f"{directory.name}/", directory / "__init__.py")
    for module in sorted(directory.glob("*.py")):
        if module.name != "__init__.py":
            yield _line("  " * (depth + 1) + module.name, module)
    for package in sorted(path.parent for path in directory.glob("*/__init__.py")):
        yield from _package(package, depth + 1)


def _line(name: str, file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return f"{name:{_COLUMN}}  {docstring.partition(chr(10))[0].replace('``', '')}"


if __name__ == "__main__":
    main()
