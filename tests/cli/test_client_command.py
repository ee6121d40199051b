"""Tests of ``dockmirror client``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import Result

from dockmirror.client_config.clients import CLIENTS

from .shop import run

MIRROR = "--mirror=http://192.168.1.5:8080"


def write(root: Path, *arguments: str, code: int = 0) -> Result:
    """Run the command with ``--write`` below a directory, and return the result."""
    return run("client", MIRROR, "--write", f"--root={root}", *arguments, code=code)


@pytest.fixture
def daemon_json(tmp_path: Path) -> Path:
    """Return the path of dockerd's file in a directory that exists."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_has_lines_with_the_mirrors_address(client: str) -> None:
    assert "192.168.1.5:8080" in run("client", MIRROR, client).stdout


def test_standard_output_is_a_valid_file() -> None:
    """Hints go to standard error."""
    result = run("client", MIRROR, "docker")
    assert json.loads(result.stdout)["registry-mirrors"] == ["http://192.168.1.5:8080"]
    assert "systemctl reload docker" in result.stderr
    assert tomllib.loads(run("client", MIRROR, "podman").stdout)["registry"]


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
    assert words in run("client", MIRROR, client, part).stdout
    assert part in run("client", MIRROR, client, "nope", code=2).stderr
    run("client", MIRROR, "--write", client, part, code=2)


def test_write_names_the_files_to_edit_by_hand(tmp_path: Path) -> None:
    """containerd's own file has other tables too."""
    assert (
        "/etc/containerd/config.toml needs these lines too: dockmirror client containerd config"
        in write(tmp_path, "containerd").stdout
    )
    assert "as well" not in write(tmp_path, "podman").stdout


def test_the_default_address_comes_from_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "dockmirror.toml"
    for listen, address in (
        ('"tcp:8081"', "http://m.example:8081"), ('"tcp:80"', "http://m.example"), ("", "http://m.example:8080"),
        ('"tcp:80", "https:443:interface=127.0.0.1"', "https://m.example"),
        ('"ssl:8443:privateKey=a"', "https://m.example:8443"), ('"tcp6:8081"', "http://m.example:8081"),
        ('"https:tcp6:8443"', "https://m.example:8443"), ('"tls:/etc/pem:8443"', "https://m.example:8443"),
        ('"tcp:interface=127.0.0.1:port=8081"', "http://m.example:8081"),
    ):  # fmt: skip
        file.write_text(f'domain = "m.example"\nlisten = [{listen}]\n')
        result = run("-c", str(file), "client", "docker")
        assert json.loads(result.stdout)["registry-mirrors"] == [address]


def test_containerd_finds_a_registry_below_a_path(tmp_path: Path) -> None:
    """The path begins the names of repositories, behind ``/v2``."""
    file = tmp_path / "dockmirror.toml"
    file.write_text('[upstreams.docker]\nurl = "https://h.example/hub-proxy/a/"\n')
    hosts = tomllib.loads(run("-c", str(file), "client", MIRROR, "containerd", "docker.io").stdout)
    assert (hosts["server"], hosts["override_path"]) == ("https://h.example/v2/hub-proxy/a", True)


@pytest.mark.parametrize("listen", ["unix:/run/mirror.sock", "https:systemd:domain=INET6:index=0"])
def test_an_address_that_the_settings_do_not_have_is_asked_for(tmp_path: Path, listen: str) -> None:
    """Only the operator knows the port of a mirror behind a socket unit or a proxy."""
    file = tmp_path / "dockmirror.toml"
    file.write_text(f'domain = "m.example"\nlisten = ["{listen}"]\n')
    assert "with --mirror" in run("-c", str(file), "client", "docker", code=2).stderr
    assert (
        "https://m.example" in run("-c", str(file), "client", "--mirror=https://m.example", "docker").stdout
    )


@pytest.mark.parametrize("address", ["192.168.1.5", "ftp://a", "http://a/path", "http://a b", "http://u:p@a"])
def test_an_invalid_address_is_refused(address: str) -> None:
    run("client", f"--mirror={address}", "docker", code=2)


def test_daemon_json_is_merged_once(tmp_path: Path, daemon_json: Path) -> None:
    """The file keeps its other settings and permissions; a backup is made once."""
    file = daemon_json
    before = '{"debug": true, "registry-mirrors": ["https://other.example"]}'
    file.write_text(before)
    file.chmod(0o600)
    result = write(tmp_path, "docker")
    assert json.loads(file.read_text()) == {
        "debug": True,
        "registry-mirrors": ["http://192.168.1.5:8080", "https://other.example"],
        "insecure-registries": ["http://192.168.1.5:8080"],
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert f"{file}: written" in result.stdout
    assert "systemctl reload docker" in result.stdout
    assert write(tmp_path, "docker").stdout == f"{file}: unchanged\n"
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert sorted(each.name for each in file.parent.iterdir()) == ["daemon.json", "daemon.json.bak"]
    file.write_text("{}")
    write(tmp_path, "docker")
    assert (file.parent / "daemon.json.bak").read_text() == before
    assert (file.parent / "daemon.json.bak2").read_text() == "{}"


def test_a_missing_daemon_json_is_created(tmp_path: Path) -> None:
    write(tmp_path, "docker")
    file = tmp_path / "etc/docker/daemon.json"
    assert json.loads(file.read_text())["registry-mirrors"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in file.parent.iterdir()] == ["daemon.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"registry-mirrors": "x"}', "\ufeff"])
def test_an_invalid_daemon_json_is_not_changed(tmp_path: Path, daemon_json: Path, text: str) -> None:
    daemon_json.write_text(text)
    assert str(daemon_json) in write(tmp_path, "docker", code=1).stderr
    assert daemon_json.read_text() == text
    assert [each.name for each in daemon_json.parent.iterdir()] == ["daemon.json"]


def test_a_linked_daemon_json_is_written_at_its_target(tmp_path: Path, daemon_json: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text("{}")
    daemon_json.symlink_to(target)
    write(tmp_path, "docker")
    assert daemon_json.is_symlink()
    assert json.loads(target.read_text())["registry-mirrors"]


@pytest.mark.parametrize("client", ["docker", "containerd", "podman"])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, client: str, is_dangling: bool) -> None:
    """An absolute link of an image means a file of the image, and not one of the machine."""
    write(tmp_path / "image", client)
    outside = tmp_path / "outside"
    link = max(file for file in (tmp_path / "image").rglob("*") if file.is_file())
    text = link.read_text().replace("192.168.1.5:8080", "m.example")
    link.unlink()
    link.symlink_to(outside)
    if not is_dangling:
        outside.write_text(text)
    refused = write(tmp_path / "image", client, code=1).stderr
    assert f"{link}: a link leads out of {tmp_path / 'image'}" in refused
    assert not outside.exists() if is_dangling else outside.read_text() == text
    assert [each.name for each in link.parent.iterdir()] == [link.name]


@pytest.mark.parametrize("client", ["containerd", "podman", "k3s", "buildkit"])
def test_only_files_of_this_command_are_overwrite(tmp_path: Path, client: str) -> None:
    write(tmp_path, client)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == (12 if client == "containerd" else 1)
    assert all("192.168.1.5:8080" in file.read_text() for file in files)
    run("client", "--mirror=https://m.example", "--write", f"--root={tmp_path}", client)
    assert all("m.example" in file.read_text() for file in files)
    files[0].write_text("mine\n")
    before = {file: file.read_text() for file in files}
    assert str(files[0]) in write(tmp_path, client, code=1).stderr
    assert {file: file.read_text() for file in files} == before


@pytest.mark.parametrize(
    "name", ["registries.conf", "registries.conf.d/10-own.conf", "registries.conf.d/99.conf"]
)
@pytest.mark.parametrize(
    "text",
    ['[[registry]]\nlocation = "quay.io/"\nblocked = true\n', '[[registry]]\nprefix = "quay.io"\n', "[["],
)
def test_podmans_tables_of_the_same_registry_are_not_replaced(tmp_path: Path, name: str, text: str) -> None:
    """podman takes the whole table from the file that it reads last."""
    file = tmp_path / "etc/containers" / name
    file.parent.mkdir(parents=True)
    file.write_text('[[registry]]\nprefix = "hub.example"\nlocation = "quay.io"\n')
    write(tmp_path, "podman")
    file.write_text(text)
    written = tmp_path / "etc/containers/registries.conf.d/50-dockmirror.conf"
    written.unlink()
    assert str(file) in write(tmp_path, "podman", code=1).stderr
    assert not written.exists()


@pytest.mark.parametrize("client", ["kaniko", "gitlab", "desktop", "helm"])
def test_write_is_refused_for_clients_without_a_file(tmp_path: Path, client: str) -> None:
    write(tmp_path, client, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_write_error_is_reported(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    assert "etc" in write(tmp_path, "podman", code=1).stderr
