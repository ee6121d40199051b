"""Tests of what all subcommands have: help, completion, the settings file, JSON, aliases, tables."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from dockmirror.cli.command_context import print_table
from dockmirror.cli.main import ALIASES, main
from dockmirror.client_config.clients import CLIENTS
from dockmirror.oci.digest import Digest
from dockmirror.store import layout

from ..integration.parts.process import interpreter
from .shop import AMD, NGINX, Shop

DOCUMENT = (Path(__file__).parents[2] / "docs/reference/command.md").read_text("utf-8")


def completed(*words: str) -> set[str]:
    """Return the completions of the last of these words."""
    *arguments, incomplete = words
    shell = BashComplete(main, {}, "dockmirror", "_DOCKMIRROR_COMPLETE")
    return {each.value for each in shell.get_completions(arguments, incomplete)}


def test_each_command_has_a_complete_sentence_as_help() -> None:
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
    assert completed(*words) == offered


HERE: dict[str, str | None] = {"DOCKMIRROR_CACHE": None}


@pytest.fixture
def file(shop: Shop, tmp_path: Path) -> Path:
    """Return a settings file that names the cache."""
    file = tmp_path / "dockmirror.toml"
    file.write_text(f'cache = "{shop.root}"\n')
    return file


def test_the_settings_file_is_named_before_or_after_the_subcommand_or_by_a_variable(
    shop: Shop, file: Path
) -> None:
    """The one after the subcommand wins."""
    for arguments in (
        ("-c", str(file), "ls"), ("ls", "-c", str(file)), ("-c", "/nowhere", "ls", "--config", str(file))
    ):  # fmt: skip
        assert NGINX.name in shop.run(*arguments, environ=HERE).stdout
    variable = {**HERE, "DOCKMIRROR_CONFIG": str(file)}
    assert NGINX.name in shop.run("ls", environ=variable).stdout


def test_a_command_that_changes_something_says_which_cache_it_works_on(shop: Shop, file: Path) -> None:
    said = shop.run("gc", "-c", str(file), environ=HERE).stderr
    assert said == f"cache: {shop.root} (from {file})\n"
    assert shop.run("pin", "nginx").stderr == f"cache: {shop.root} (from the environment)\n"
    for changing in (("rm", "--yes", "nginx:1.27"), ("unpin", "nginx"), ("verify", "--repair")):
        assert shop.run(*changing).stderr.startswith(f"cache: {shop.root} (")


def test_the_default_cache_is_said_to_be_the_default(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    default = {**HERE, "CACHE_DIRECTORY": str(shop.root)}
    said = shop.run("gc", "-c", str(tmp_path / "empty.toml"), environ=default).stderr
    assert said == f"cache: {shop.root} (the default; settings: {tmp_path}/empty.toml)\n"


def test_a_command_that_only_reads_says_nothing(shop: Shop) -> None:
    for reading in (("ls",), ("usage",), ("verify",)):
        assert shop.run(*reading).stderr == ""


@pytest.mark.parametrize("name", sorted(set(main.commands) - {"serve", "node", "policy"}))
def test_every_command_can_print_json(name: str) -> None:
    command = main.commands[name]
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in commands:
        assert "--json" in {option for each in one.params for option in each.opts}, one.name


def test_changes_are_printed_as_json(shop: Shop, tmp_path: Path) -> None:
    name, archive = f"{NGINX}:1.27", tmp_path / "nginx.tar"
    assert shop.json("pin", "nginx:1.27") == {"pinned": [name]}
    exported = shop.json("export", "nginx:1.27", "-o", str(archive))
    size = archive.stat().st_size
    written = {"output": str(archive), "size": size, "files": ["nginx.tar"], "contents": 4, "assumed": []}
    assert exported == {**written, "images": [name]}
    deleted = shop.json("rm", "--yes", "nginx:1.27")
    assert (deleted["deleted"][0]["repository"], deleted["deleted"][0]["tags"]) == (str(NGINX), ["1.27"])
    assert deleted["freed"] == 0  # the index of the other tag has it too
    imported = shop.json("import", str(archive))
    assert (imported["imported"], imported["added"], imported["held"]) == ([name], 0, 4)
    assert imported["changes"][0]["change"] == "new"
    assert shop.json("unpin", "nginx:1.27") == {"unpinned": [name]}
    assert shop.json("unpin", "nginx:1.27", code=1) == {"unpinned": []}
    assert Digest.of(AMD).hex in shop.run("ls", "--json").stdout


def test_json_and_an_archive_do_not_share_standard_output(shop: Shop) -> None:
    assert "--json needs a file" in shop.run("export", "nginx:1.27", "-o", "-", "--json", code=2).stderr


def test_a_clients_configuration_is_printed_and_written_as_json(shop: Shop, tmp_path: Path) -> None:
    (printed,) = shop.json("client", "k3s")
    assert printed["path"] == "/etc/rancher/k3s/registries.yaml"
    assert "mirrors:" in printed["text"]
    written = shop.json("client", "k3s", "--write", "--root", str(tmp_path))
    assert written["files"] == written["changed"] == [f"{tmp_path}{printed['path']}"]
    assert shop.json("client", "k3s", "--write", "--root", str(tmp_path))["changed"] == []


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_names_of_other_programs_work_too(shop: Shop, alias: str, name: str) -> None:
    assert f"Usage: main {alias} " in shop.run(alias, "--help").stdout
    assert main.commands[name].short_help


def test_the_version_is_told(shop: Shop) -> None:
    assert shop.run("version").stdout.startswith("dockmirror ")
    assert set(json.loads(shop.run("version", "--json").stdout)) == {"dockmirror", "twisted"}


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        ("none", "the setting 'operations' is 'none': the status cannot be read"),
        ("unix:/run/a.sock", "is 'unix:/run/a.sock', which has no TCP port"),
    ],
)
def test_a_status_that_cannot_be_read_is_explained(shop: Shop, operations: str, reason: str) -> None:
    result = shop.run("status", environ={"DOCKMIRROR_OPERATIONS": operations}, code=1)
    assert reason in result.stderr


def test_words_say_that_nothing_matches(shop: Shop, tmp_path: Path) -> None:
    """They go to standard error: a program that reads the output finds none."""
    nothing = shop.run("ls", "httpd")
    assert (nothing.stdout, nothing.stderr) == ("", f"no image in the cache {shop.root} matches httpd\n")
    empty = Shop(tmp_path / "empty")
    assert empty.run("ls").stderr == f"no image is in the cache {empty.root} yet\n"
    assert empty.run("usage").stderr == f"no image is in the cache {empty.root} yet\n"
    assert empty.run("pins").stderr == f"no image is pinned in the cache {empty.root}\n"


def test_each_row_of_a_table_is_one_line_where_no_terminal_shows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("name", "size"), [("a" * 200, "1 B"), ("b\nc", "10 B")], right=("size",))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{'name':200}  size", f"{'a' * 200}   1 B", f"{'b, c':200}  10 B"]


NAMES = {
    "docker.io/library/nginx:1.27", "docker.io/library/nginx:latest", "nginx:1.27", "nginx:latest"
}  # fmt: skip


@pytest.fixture
def _settings(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKMIRROR_CACHE", str(shop.root))
    monkeypatch.delenv("DOCKMIRROR_CONFIG", raising=False)


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("command", ["rm", "export", "pin", "unpin", "warm"])
def test_commands_complete_the_images_in_the_cache(command: str) -> None:
    """Docker Hub's by their short names too."""
    assert completed(command, "") == NAMES
    assert completed(command, "ng") == {"nginx:1.27", "nginx:latest"}
    assert completed(command, "docker.io/library/nginx:l") == {"docker.io/library/nginx:latest"}
    assert completed(command, "httpd") == set()


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("nginx", ":"), {"1.27", "latest"}),
        (("nginx", ":", "1"), {"1.27"}),
        (("nginx:", ""), {"1.27", "latest"}),
        (("nginx", ":", "latest", "ng"), {"nginx:1.27", "nginx:latest"}),
    ],
)
def test_a_tag_is_completed_where_the_shell_splits_words_at_colons(
    words: tuple[str, ...], offered: set[str]
) -> None:
    assert completed("rm", *words) == offered


@pytest.mark.usefixtures("_settings")
def test_ls_completes_repositories() -> None:
    assert completed("ls", "g") == {"ghcr.io/o/r"}
    assert completed("list", "docker") == {"docker.io/library/nginx"}


@pytest.mark.usefixtures("_settings")
def test_nothing_is_completed_where_the_settings_or_the_cache_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert completed("-c", "/nowhere.toml", "rm", "") == set()
    assert completed("rm", "-c", "/nowhere.toml", "") == set()
    monkeypatch.setenv("DOCKMIRROR_CACHE", "/nowhere")
    assert completed("rm", "") == set()


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    """A full disk, or a file that is in the way, brings no traceback; no temporary file is named."""
    (tmp_path / layout.BLOBS).mkdir(parents=True)
    (tmp_path / layout.PINS).parent.mkdir(parents=True)
    (tmp_path / layout.PINS).touch()
    program = str(Path(sys.executable).with_name("dockmirror"))
    environ = {"DOCKMIRROR_CACHE": str(tmp_path), "DOCKMIRROR_MIN_FREE": "0B"}
    result = interpreter().run([program, "pin", "nginx"], environ)
    assert result.returncode == 1
    said = result.stderr.splitlines()[-1]
    assert re.fullmatch(rf"Error: {tmp_path}/{layout.PINS}/\S+: Not a directory", said)
    assert "Traceback" not in result.stderr
