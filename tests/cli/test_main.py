"""Tests of the help and the shell completion of ``dockmirror``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from dockmirror.cli.main import main
from dockmirror.client_config.clients import CLIENTS
from dockmirror.store import layout

DOCUMENT = (Path(__file__).parents[2] / "docs/reference/command.md").read_text("utf-8")


def completed(*words: str) -> set[str]:
    """Return the completions of the last of these words."""
    *arguments, incomplete = words
    shell = BashComplete(main, {}, "dockmirror", "_DOCKMIRROR_COMPLETE")
    return {each.value for each in shell.get_completions(arguments, incomplete)}


def test_each_command_has_a_complete_sentence_as_help() -> None:
    """The overview does not cut it."""
    printed = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert "..." not in printed.partition("Commands:")[2]
    assert all(f"  {name} " in printed for name in main.commands)


@pytest.mark.parametrize("name", main.commands)
def test_each_command_documents_its_exit_status(name: str) -> None:
    """Each command is in the document too."""
    command = main.commands[name]
    subcommands = command.commands.values() if isinstance(command, click.Group) else (command,)
    assert all("Exit status:" in str(each.help) for each in subcommands)
    assert f"dockmirror {name}" in DOCUMENT or name == "client"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ver",), {"verify", "version"}),
        (("",), set(main.commands)),
        (("client", ""), set(CLIENTS)),
        (("client", "gitlab", ""), {"runner"}),
        (("client", "containerd", "gh"), {"ghcr.io"}),
        (("warm", "--ref"), {"--referrers"}),
        (("-c", "x.toml", "un"), {"unpin"}),
    ],
)
def test_commands_options_and_clients_are_completed(words: tuple[str, ...], offered: set[str]) -> None:
    """A shell offers the words that begin with the prefix."""
    assert completed(*words) == offered


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    """A full disk, or a file that is in the way, brings no traceback."""
    (tmp_path / layout.BLOBS).mkdir(parents=True)
    (tmp_path / layout.PINS).parent.mkdir(parents=True)
    (tmp_path / layout.PINS).touch()
    command = "import sys; from dockmirror.cli.main import run; sys.argv[1:] = ['pin', 'nginx']; run()"
    environ = {"DOCKMIRROR_CACHE": str(tmp_path), "DOCKMIRROR_MIN_FREE": "0B"}
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"Error: {tmp_path}/\S+: Not a directory", result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr
