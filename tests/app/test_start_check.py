"""Tests of the check of everything that would prevent a start."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from dockmirror.app.start_check import find_start_problems
from dockmirror.config.load import load
from dockmirror.store import layout


def problems(tmp_path: Path, text: str = "", **environ: str) -> list[str]:
    """Return what would prevent a start with the settings in a file."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(text)
    options = {"config": path, "operations": "none", "cache": tmp_path / "cache"}
    if "listen" not in text:
        options["listen"] = ["unix:" + str(tmp_path / "socket")]
    return find_start_problems(load(options, environ), environ, reactor)


@pytest.fixture
def taken_port() -> Iterator[socket.socket]:
    """Return a socket that listens on a port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def test_sensible_settings_have_no_problems_and_nothing_is_written(tmp_path: Path) -> None:
    """The cache, the socket and the keys are created by a start."""
    assert problems(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["dockmirror.toml"]


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    htpasswd, keys, ca_file = tmp_path / "htpasswd", tmp_path / "keys", tmp_path / "ca.pem"
    htpasswd.write_text("alice:plain\n")
    keys.write_text("short\n")
    keys.chmod(0o600)
    ca_file.write_text("nothing")
    found = problems(
        tmp_path,
        f"""
        listen = ["https:tcp\\\\:0:certificates=/nowhere", "unix:/nowhere/socket"]
        redirect = true
        [access]
        htpasswd = "{htpasswd}"
        keys = "{keys}"
        audit = "/nowhere/audit"
        [upstreams.quay]
        username = "me"
        proxy = "ftp://proxy"
        [upstreams.ghcr]
        credential_helper = "that-nobody-has"
        ca_file = "{ca_file}"
        """,
        DOCKMIRROR_PASSWORD_NOBODY="secret",  # noqa: S106
    )
    assert {problem.partition(": ")[0] for problem in found} == {
        "the environment", "redirect", "access.htpasswd", "access.keys", "access.audit", "listen",
        "upstreams.quay.username", "upstreams.quay.proxy", "upstreams.ghcr.credential_helper",
        "upstreams.ghcr.ca_file",
    }  # fmt: skip
    assert "listen: the directory /nowhere does not exist" in found
    assert not any("secret" in problem or "plain" in problem for problem in found)


def test_a_cache_that_is_no_directory_is_found(tmp_path: Path) -> None:
    """So is one below a file."""
    (tmp_path / "cache").write_text("")
    assert problems(tmp_path) == [f"cache: {tmp_path / 'cache'} is not a directory"]


def test_a_cache_of_a_newer_version_is_found(tmp_path: Path) -> None:
    number = tmp_path / "cache" / layout.FORMAT
    number.parent.mkdir(parents=True)
    number.write_text("2")
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"cache: {tmp_path / 'cache'} cannot be used: it has format '2' of a newer")


def test_settings_that_need_a_cache_are_found(tmp_path: Path) -> None:
    """A start without a cache refuses them."""
    text = """
        cache_size = 0
        [[policy]]
        images = "**"
        min_age = "7d"
        [[sync]]
        upstream = "docker"
        repositories = ["nginx"]
        [upstreams.quay]
        offline = true
        """
    assert [each.partition(":")[0] for each in problems(tmp_path, text)] == [
        "upstreams.quay.offline", "policy", "sync"
    ]  # fmt: skip


def test_a_socket_of_systemd_is_no_problem(tmp_path: Path) -> None:
    """Only the service gets it; the certificates of such an endpoint are checked all the same."""
    assert problems(tmp_path, 'listen = ["systemd:domain=INET6:index=0"]') == []
    found = problems(tmp_path, 'listen = ["https:systemd:domain=INET6:index=1:certificates=/nowhere"]')
    assert [problem.partition(";")[0] for problem in found] == [
        "listen: /nowhere: no certificate with its key found"
    ]
    assert problems(tmp_path, 'listen = ["systemd:index=x"]') != []


def test_a_port_of_another_program_is_found(tmp_path: Path, taken_port: socket.socket) -> None:
    port = taken_port.getsockname()[1]
    listen = f'listen = ["tcp:{port}:interface=127.0.0.1"]'
    closing = threading.Thread(target=answer, args=(taken_port, b"no HTTP"))
    closing.start()
    assert problems(tmp_path, listen) == [f"listen: another program has port {port} of 127.0.0.1"]
    closing.join()


def test_the_port_of_a_running_mirror_is_no_problem(tmp_path: Path, taken_port: socket.socket) -> None:
    port = taken_port.getsockname()[1]
    answering = threading.Thread(target=answer, args=(taken_port, b"HTTP/1.0 200 OK\r\n\r\nok"))
    answering.start()
    assert problems(tmp_path, f'listen = ["tcp:{port}:interface=127.0.0.1"]') == []
    answering.join()


def answer(listening: socket.socket, response: bytes) -> None:
    """Answer one connection."""
    listening.settimeout(60)
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(response)
