"""Each command in the documents is run by a test, or marked with the reason why not."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from dockmirror.app.service import Options
from dockmirror.cli.main import main

from .documented_commands import RUN, find_test, read_commands
from .test_docs import DOCUMENTS, ROOT

TESTS = ROOT / "tests"
FOR_USERS = [each for each in DOCUMENTS if each.name not in ("CONTRIBUTING.md", "development.md")]
each_document = pytest.mark.parametrize("document", FOR_USERS, ids=lambda path: str(path.relative_to(ROOT)))


@each_document
def test_each_command_is_run_or_marked(document: Path) -> None:
    for command in read_commands(document):
        assert command.not_run or find_test(command.line), f"no test, and no mark: {command.line}"


@pytest.mark.parametrize("test", sorted(set(RUN.values())))
def test_the_tests_exist(test: str) -> None:
    file, _, function = test.partition("::")
    assert re.search(rf"^(async )?def {function or 'test_'}", (TESTS / file).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("pattern", RUN)
def test_each_pattern_is_used(pattern: str) -> None:
    lines = {each.line for document in FOR_USERS for each in read_commands(document)}
    assert any(re.fullmatch(pattern, line) for line in lines)


@each_document
def test_options_exist(document: Path) -> None:
    """The command, and the plugin of twistd, have the subcommands and the options."""
    for command in read_commands(document):
        program, *words = command.line.split(" > ")[0].split(" | ")[0].split()
        if Path(program).name == "dockmirror":
            known, words = _known_to_the_command(words)
        elif Path(program).name == "twistd" and "dockmirror" in words:
            words = words[words.index("dockmirror") + 1 :]
            known = {f"--{option.removesuffix('=')}" for option in Options().longOpt}
        else:
            continue
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, command.line


def _known_to_the_command(words: list[str]) -> tuple[set[str], list[str]]:
    """Return the options of a subcommand, and the words after its name."""
    if words[0] == "-c":
        words = words[2:]
    if words[0] == "serve":  # takes what the plugin of twistd takes
        return {f"--{option.removesuffix('=')}" for option in Options().longOpt}, words[1:]
    subcommand = main.commands[words[0]]
    if isinstance(subcommand, click.Group):
        words = words[1:] if words[1] in subcommand.commands else ["digest", *words[1:]]  # 'recall DIGEST'
        subcommand = subcommand.commands[words[0]]
    return {option for each in subcommand.params for option in each.opts}, words[1:]
