"""Print the tree of the package: one line for each file, the first of its docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_COLUMN = 30


def tree() -> str:
    """Return the whole tree."""
    plugin = _line("  dockmirror_plugin.py", ROOT / "twisted/plugins/dockmirror_plugin.py")
    tac = _line("mirror.tac", ROOT / "mirror.tac")
    return "\n".join(["twisted/plugins/", plugin, tac, *_package(ROOT / "dockmirror", 0), ""])


def _package(directory: Path, depth: int) -> Iterator[str]:
    """Yield the lines of a package: its folder, its modules, the packages in it."""
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
    print(tree(), end="")
