"""Sizes and habits of the source, counted: ``python -m tests.measures`` prints them as a table."""

from __future__ import annotations

import ast
import gc
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS, BENCH, DEMO = "dockmirror", "tests", "bench", "demo"
MOST_PARAMETERS, MOST_LINES = 6, 400
OPENINGS = re.compile(r"(What|Whether|How|Who|Whoever|Where|Those|Of|That)\b")
"""Words with which a sentence begins that does not say what a thing is or does."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | _Function


@cache
def sources(directory: str) -> Mapping[Path, str]:
    """Return the source of each module below a directory."""
    return {path: path.read_text("utf-8") for path in sorted((ROOT / directory).rglob("*.py"))}


@cache
def statements(directory: str) -> Mapping[Path, Sequence[ast.AST]]:
    """Return each module below a directory, after which come its statements.

    The expressions in them, which are most of a tree, are left out of the search.
    """
    gc.disable()  # it would look at all trees again and again
    try:
        return {path: [*_walk(ast.parse(text))] for path, text in sources(directory).items()}
    finally:
        gc.enable()


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for each in getattr(node, field, ()):
            yield from _walk(each)


def nodes(directory: str) -> Iterator[ast.AST]:
    """Yield every module below a directory, and every statement."""
    return (node for found in statements(directory).values() for node in found)


def modules(directory: str) -> int:
    """Count modules, the ``__init__.py`` of packages among them."""
    return len(sources(directory))


def lines(directory: str) -> int:
    """Count all lines."""
    return sum(len(text.splitlines()) for text in sources(directory).values())


def lines_of_code(directory: str) -> int:
    """Count lines without blank ones, comments, docstrings and imports."""
    return sum(len(_code(text, statements(directory)[path])) for path, text in sources(directory).items())


def _code(text: str, found: Iterable[ast.AST]) -> list[str]:
    left_out: set[int] = set()
    for node in found:
        match node:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Import() | ast.ImportFrom():
                left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [line for number, line in numbered if number not in left_out and line and line[0] != "#"]


def long_files(directory: str) -> list[str]:
    """Return the modules that have too many lines."""
    found = sources(directory).items()
    return [str(path.relative_to(ROOT)) for path, text in found if len(text.splitlines()) > MOST_LINES]


def parameters(directory: str) -> Iterator[tuple[int, str]]:
    """Yield the number of parameters of each function, ``self`` and ``cls`` aside, and its name."""
    for node in nodes(directory):
        if isinstance(node, _Function):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            yield sum(each is not None and each.arg not in ("self", "cls") for each in every), node.name


def long_signatures(directory: str) -> int:
    """Count functions with too many parameters."""
    return sum(count > MOST_PARAMETERS for count, _ in parameters(directory))


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def classes(directory: str) -> list[str]:
    """Return the names of all classes."""
    return [node.name for node in nodes(directory) if isinstance(node, ast.ClassDef)]


def repeated_classes(directory: str) -> list[str]:
    """Return the public class names that are defined more than once."""
    return [name for name in repeated(classes(directory)) if not name.startswith("_")]


def repeated_files(directory: str) -> list[str]:
    """Return the file names that more than one module has, ``__init__.py`` aside."""
    return repeated(path.name for path in sources(directory) if path.name != "__init__.py")


def docstrings(directory: str) -> list[str]:
    """Return the docstrings of modules, classes and functions."""
    found = (ast.get_docstring(node) for node in nodes(directory) if isinstance(node, _Documented))
    return [each for each in found if each]


def riddles(directory: str) -> int:
    """Count docstrings that begin with one of the openings."""
    return sum(bool(OPENINGS.match(each)) for each in docstrings(directory))


def mocks(directory: str) -> int:
    """Count imports of ``unittest.mock``."""
    return sum(
        (isinstance(node, ast.Import) and any(alias.name == "unittest.mock" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module in ("unittest.mock", "mock"))
        for node in nodes(directory)
    )


def table() -> Iterator[tuple[str, object]]:
    """Yield the rows: what was counted, and the number."""
    from .passages import passages  # which starts a reactor

    yield f"lines of code in {PACKAGE}/", lines_of_code(PACKAGE)
    yield "modules", modules(PACKAGE)
    yield f"files over {MOST_LINES} lines", len(long_files(PACKAGE))
    hit, miss, login = passages()
    yield "files passed by: a held blob", hit.files
    yield "files passed by: a miss with two clients", miss.files
    yield "files passed by: a login", login.files
    yield "changes of file on the way of a held blob", hit.changes
    most, name = max(parameters(PACKAGE))
    yield "parameters of a function, most", f"{most} ({name})"
    yield f"functions with more than {MOST_PARAMETERS}", long_signatures(PACKAGE)
    yield "public class names that stand for two or more things", len(repeated_classes(PACKAGE))
    yield "class names, a leading _ aside", len(repeated(each.lstrip("_") for each in classes(PACKAGE)))
    yield "file names that stand for two or more things", len(repeated_files(PACKAGE))
    share = riddles(PACKAGE) / len(docstrings(PACKAGE))
    yield f"docstrings of {PACKAGE}/ with an unwanted opening", f"{riddles(PACKAGE)} ({share:.0%})"
    for each in (TESTS, BENCH, DEMO):
        yield f"docstrings of {each}/ with an unwanted opening", riddles(each)
    yield "imports of mocks", mocks(PACKAGE) + mocks(TESTS)
    yield f"lines in {TESTS}/", lines(TESTS)


if __name__ == "__main__":
    for row, number in table():
        print(f"{row:<60} {number}")
