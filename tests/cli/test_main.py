"""What ``dockmirror`` says of itself, and how a shell completes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from dockmirror.cli.main import main
from dockmirror.client_config.clients import CLIENTS

DOCUMENT = (Path(__file__).parents[2] / "docs/command.md").read_text("utf-8")


def completed(*words: str) -> set[str]:
    """What a shell offers for the last of these words."""
    *arguments, incomplete = words
    shell = BashComplete(main, {}, "dockmirror", "_DOCKMIRROR_COMPLETE")
    return {each.value for each in shell.get_completions(arguments, incomplete)}


def test_help() -> None:
    """Has a whole sentence for each command."""
    printed = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert "..." not in printed.partition("Commands:")[2]
    assert all(f"  {name} " in printed for name in main.commands)


@pytest.mark.parametrize("name", main.commands)
def test_exit_status(name: str) -> None:
    """Is told of by each command; each of them is in the document."""
    assert "Exit status:" in str(main.commands[name].help)
    assert f"dockmirror {name}" in DOCUMENT or name == "client"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ver",), {"verify"}),
        (("",), set(main.commands)),
        (("client", ""), set(CLIENTS)),
        (("client", "gitlab", ""), {"runner"}),
        (("client", "containerd", "gh"), {"ghcr.io"}),
        (("warm", "--ref"), {"--referrers"}),
        (("-c", "x.toml", "un"), {"unpin"}),
    ],
)
def test_completion(words: tuple[str, ...], offered: set[str]) -> None:
    """Of commands, of options and of the clients that there are."""
    assert completed(*words) == offered
