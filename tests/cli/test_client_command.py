"""Tests of ``dockmirror client``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dockmirror.cli.main import main
from dockmirror.client_config.clients import CLIENTS

MIRROR = "--mirror=http://192.168.1.5:8080"


def ran(*arguments: str) -> Result:
    """Run the command and return the result."""
    return CliRunner().invoke(main, ["client", *arguments], env={"DOCKMIRROR_CONFIG": None})


def written(root: Path, *arguments: str) -> Result:
    """Run the command with ``--write`` below a directory, and return the result."""
    return ran(MIRROR, "--write", f"--root={root}", *arguments)


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_has_lines_with_the_mirrors_address(client: str) -> None:
    """The printed lines of every client name the mirror."""
    result = ran(MIRROR, client)
    assert result.exit_code == 0, result.output
    assert "192.168.1.5:8080" in result.stdout


def test_standard_output_is_a_valid_file() -> None:
    """Hints go to standard error."""
    result = ran(MIRROR, "docker")
    assert json.loads(result.stdout)["registry-mirrors"] == ["http://192.168.1.5:8080"]
    assert "systemctl restart docker" in result.stderr
    assert tomllib.loads(ran(MIRROR, "podman").stdout)["registry"]


@pytest.mark.parametrize(
    ("client", "part", "words"),
    [
        ("containerd", "config", "config_path"),
        ("containerd", "ghcr.io", "https://ghcr.io"),
        ("gitlab", "runner", "[[runners]]"),
        ("docker", "names", "docker pull 192.168.1.5:8080/ghcr.io/"),
    ],
)
def test_a_part_is_printed_by_its_name(client: str, part: str, words: str) -> None:
    """The names are those on the mirror's page."""
    assert words in ran(MIRROR, client, part).stdout
    unknown = ran(MIRROR, client, "nope")
    assert unknown.exit_code == 2
    assert part in unknown.stderr
    assert ran(MIRROR, "--write", client, part).exit_code == 2


def test_write_names_the_files_to_edit_by_hand(tmp_path: Path) -> None:
    """containerd's own file has other tables too."""
    assert (
        "/etc/containerd/config.toml needs these lines too: dockmirror client containerd config"
        in written(tmp_path, "containerd").stdout
    )
    assert "as well" not in written(tmp_path, "podman").stdout


def test_the_default_address_comes_from_the_settings(tmp_path: Path) -> None:
    """The address is the domain, with the port that the mirror listens on."""
    file = tmp_path / "dockmirror.toml"
    for listen, address in (
        ('"tcp:8081"', "http://m.example:8081"), ('"tcp:80"', "http://m.example"), ("", "http://m.example:8080"),
        ('"tcp:80", "https:443:interface=127.0.0.1"', "https://m.example"),
        ('"ssl:8443:privateKey=a"', "https://m.example:8443"), ('"tcp6:8081"', "http://m.example:8081"),
        ('"https:tcp6:8443"', "https://m.example:8443"), ('"tls:/etc/pem:8443"', "https://m.example:8443"),
        ('"tcp:interface=127.0.0.1:port=8081"', "http://m.example:8081"),
    ):  # fmt: skip
        file.write_text(f'domain = "m.example"\nlisten = [{listen}]\n')
        result = CliRunner().invoke(main, ["-c", str(file), "client", "docker"])
        assert json.loads(result.stdout)["registry-mirrors"] == [address]


@pytest.mark.parametrize("address", ["192.168.1.5", "ftp://a", "http://a/path", "http://a b", "http://u:p@a"])
def test_an_invalid_address_is_refused(address: str) -> None:
    """The exit status is 2."""
    assert ran(f"--mirror={address}", "docker").exit_code == 2


def test_daemon_json_is_merged_once(tmp_path: Path) -> None:
    """The file keeps its other settings and permissions; a backup is made once."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    before = '{"debug": true, "registry-mirrors": ["https://other.example"]}'
    file.write_text(before)
    file.chmod(0o600)
    result = written(tmp_path, "docker")
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text()) == {
        "debug": True,
        "registry-mirrors": ["http://192.168.1.5:8080", "https://other.example"],
        "insecure-registries": ["http://192.168.1.5:8080"],
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert f"{file}: written" in result.stdout
    assert "systemctl restart docker" in result.stdout
    again = written(tmp_path, "docker")
    assert again.stdout == f"{file}: unchanged\n"
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["daemon.json", "daemon.json.bak"]
    file.write_text("{}")
    assert written(tmp_path, "docker").exit_code == 0
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert (file.parent / "daemon.json.bak2").read_text() == "{}"


def test_a_missing_daemon_json_is_created(tmp_path: Path) -> None:
    """Everybody may read the new file."""
    assert written(tmp_path, "docker").exit_code == 0
    file = tmp_path / "etc/docker/daemon.json"
    assert json.loads(file.read_text())["registry-mirrors"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in file.parent.iterdir()] == ["daemon.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"registry-mirrors": "x"}', "\ufeff"])
def test_an_invalid_daemon_json_is_not_changed(tmp_path: Path, text: str) -> None:
    """The exit status is 1."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    result = written(tmp_path, "docker")
    assert result.exit_code == 1
    assert str(file) in result.stderr
    assert file.read_text() == text
    assert [each.name for each in file.parent.iterdir()] == ["daemon.json"]


def test_a_linked_daemon_json_is_written_at_its_target(tmp_path: Path) -> None:
    """The link stays a link."""
    target, link = tmp_path / "kept.json", tmp_path / "etc/docker/daemon.json"
    target.write_text("{}")
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    assert written(tmp_path, "docker").exit_code == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["registry-mirrors"]


@pytest.mark.parametrize("client", ["containerd", "podman", "k3s", "buildkit"])
def test_only_files_of_this_command_are_overwritten(tmp_path: Path, client: str) -> None:
    """A file that someone else wrote is refused and not changed."""
    assert written(tmp_path, client).exit_code == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == (12 if client == "containerd" else 1)
    assert all("192.168.1.5:8080" in file.read_text() for file in files)
    other = ran("--mirror=https://m.example", "--write", f"--root={tmp_path}", client)
    assert other.exit_code == 0, other.output
    assert all("m.example" in file.read_text() for file in files)
    files[0].write_text("mine\n")
    before = {file: file.read_text() for file in files}
    refused = written(tmp_path, client)
    assert refused.exit_code == 1
    assert str(files[0]) in refused.stderr
    assert {file: file.read_text() for file in files} == before


@pytest.mark.parametrize("client", ["kaniko", "gitlab", "desktop", "helm"])
def test_write_is_refused_for_clients_without_a_file(tmp_path: Path, client: str) -> None:
    """The exit status is 2."""
    assert written(tmp_path, client).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_write_error_is_reported(tmp_path: Path) -> None:
    """The exit status is 1, and the message has the reason."""
    (tmp_path / "etc").write_text("a file")
    result = written(tmp_path, "podman")
    assert result.exit_code == 1
    assert "etc" in result.stderr
