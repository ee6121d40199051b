"""The law of imports: they go down, and siblings do not meet."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import dockmirror

ROOT = Path(dockmirror.__file__).parent
LAYERS = [
    ["oci"],
    ["interfaces", "system"],
    ["body", "client_config", "headers", "metrics", "status"],
    ["archive", "concurrency", "config", "http"],
    ["history", "pull", "pullthrough", "store", "tls", "upstream", "users", "workers"],
    ["admission"],
    ["middleware", "web"],
    ["app"],
    ["cli"],
]
"""From the ground up; a module or package may import from layers below its own and from itself."""
OF_THE_GROUND = set(sys.stdlib_module_names) | {"attrs"}
SETTINGS = {"os.environ", "os.environb", "os.getenv", "tomllib"}


def name(path: Path) -> str:
    """The module in that file, within the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(path): path for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {name(path.parent / "__init__.py") for path in MODULES.values()}


@cache
def nodes(module: str) -> list[ast.AST]:
    """The nodes of a module's syntax tree."""
    return list(ast.walk(ast.parse(MODULES[module].read_bytes())))


def imported(module: str) -> Iterator[str]:
    """Everything that a module imports, wherever in it; our own with a dot in front."""
    base = [part for part in module.split(".") if part]
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = base[: len(base) - node.level + (module in PACKAGES)] if node.level else []
            source = [*up, *filter(None, [node.module])]
            for alias in node.names:
                yield "." * bool(node.level) + ".".join([*source, alias.name])


def own(module: str) -> set[str]:
    """Our own modules that a module imports."""
    names = [name.removeprefix(".") for name in imported(module) if name.startswith(".")]
    return {n if n in MODULES else n.rpartition(".")[0] for n in names}


@cache
def mentioned(module: str) -> set[str]:
    """The dotted names that a module uses, and what it imports."""
    attributes = [node for node in nodes(module) if isinstance(node, ast.Attribute)]
    return {ast.unparse(node) for node in attributes} | set(imported(module))


def part(module: str) -> str:
    """Return the package that a module belongs to."""
    return module.partition(".")[0]


def height(module: str) -> int:
    """The layer that it lies in."""
    return next((number for number, layer in enumerate(LAYERS) if part(module) in layer), 0)


def test_every_module_has_a_place() -> None:
    """In exactly one layer."""
    known = [name for layer in LAYERS for name in layer]
    assert len(known) == len(set(known))
    assert {part(module) for module in MODULES} - {""} <= set(known)


def test_imports_go_down() -> None:
    """Or stay within a package; nobody names the package itself, in which there is nothing."""
    for module in filter(None, MODULES):
        for other in own(module):
            assert part(other) == part(module) or height(other) < height(module), (module, other)
        assert not any(part(other) == "dockmirror" for other in imported(module)), module


def test_there_is_no_circle() -> None:
    """Not even within a package."""
    TopologicalSorter({module: own(module) for module in MODULES}).prepare()


def test_the_ground_does_no_io() -> None:
    """The field's words need nothing but Python and attrs."""
    for module in MODULES:
        if part(module) == "oci":
            others = {part(other) for other in imported(module) if not other.startswith(".")}
            assert others <= OF_THE_GROUND, module


def test_who_knows_the_reactor() -> None:
    """All others are given a clock, or what else they need of it; workers and commands run their own."""
    known = {"twisted.internet.reactor", "twisted.internet.task.react"}
    places = {module for module in MODULES if mentioned(module) & known}
    assert places <= {"app.service", "app.worker", "cli.command_context"}


def test_settings_are_read_in_one_place() -> None:
    """The file in ``config``, the environment with the command lines; containerd's and podman's are not ours.

    The environment of a worker is set by whoever starts it.
    """
    assert {module for module in MODULES if mentioned(module) & SETTINGS} <= {
        *("config.load", "config.explain", "config.options", "app.worker"),
        *("cli.main", "cli.arguments", "cli.client_command", "cli.node_command", "workers.worker_program"),
    }
