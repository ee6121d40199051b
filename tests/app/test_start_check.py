"""Tests of the check of everything that would prevent a start."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from dockmirror.app.endpoints import Port, find_overlaps
from dockmirror.app.service import make_mirror
from dockmirror.app.start_check import find_reload_problems, find_start_losses, find_start_problems
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings
from dockmirror.store import layout

from ..integration.parts.process import free_port


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    """Return the settings in a file, with defaults that have no problems."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(text)
    options: dict[str, Any] = {"config": path}
    defaults = {
        "operations": "none",
        "cache": tmp_path / "cache",
        "history": tmp_path / "history",
        "listen": ["unix:" + str(tmp_path / "socket")],
    }
    options |= {key: value for key, value in defaults.items() if f"{key} = " not in text}
    return load(options, environ)


def problems(tmp_path: Path, text: str = "", **environ: str) -> list[str]:
    """Return what would prevent a start with the settings in a file."""
    return find_start_problems(read(tmp_path, text, **environ), environ, reactor)


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


def test_a_cache_that_cannot_be_created_is_found(tmp_path: Path) -> None:
    """Root may write to the directory, whose file system has no room for new ones."""
    (problem,) = problems(tmp_path, 'cache = "/proc/x"')
    assert problem.startswith("cache: /proc cannot be written: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('operations = 0\napi_tokens_file = "{file}"', "api_tokens_file: line 1: expected NAME:HASH:SCOPES"),
        ('[[policy]]\nimages = "**"\nsigned_by = ["{file}"]', "policy.0.signed_by: expected a public key"),
        ('[[policy]]\nimages = "**"\nhook = true', "gate.url: is missing: a policy has 'hook = true'"),
        (
            '[[policy]]\nimages = "**"\nhook = true\n[gate]\nurl = "https://gate.lan"\nca_file = "{file}"',
            "gate.ca_file: expected PEM certificates",
        ),
        (
            '[[policy]]\nimages = "**"\nsigned_by = [{{ issuer = "https://i.lan", subject = "me@i.lan" }}]'
            '\n[gate]\ntrust_root = "{file}"',
            "gate.trust_root: {file} is no root of trust",
        ),
        ('listen = ["unix:{file}"]', "listen.0: {file} exists and is no socket"),
        ('[[policy]]\nimages = "**"\nlock = "{file}"', "policy.0.lock: {file}: line 1: expected an image"),
    ],
)
def test_a_malformed_file_is_found_in_the_words_of_the_start(
    tmp_path: Path, text: str, expected: str
) -> None:
    """The start reads it in the same way."""
    file = tmp_path / "file"
    file.write_text("nonsense\n")
    text = "workers = 1\n" + text.format(file=file)
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(expected.format(file=file))
    with pytest.raises(ConfigurationError) as raised:
        make_mirror(lambda: read(tmp_path, text), {})
    assert str(raised.value) == problem


def test_tokens_of_an_api_that_is_off_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("nonsense\n")
    assert problems(tmp_path, f'api_tokens_file = "{tmp_path / "tokens"}"') == []


def test_lock_files_of_a_policy_that_is_off_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("nonsense\n")
    text = f'[[policy]]\nimages = "**"\nmode = "off"\nlock = "{tmp_path / "lock"}"'
    assert problems(tmp_path, text) == []


def test_an_audit_log_that_is_a_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    text = f'[access]\naudit = "{tmp_path / "audit"}"'
    assert problems(tmp_path, text) == ["access.audit: cannot be written: Is a directory"]


def test_a_history_that_would_not_be_kept_prevents_no_start(tmp_path: Path) -> None:
    """It is told all the same: the mirror would only log it."""
    (tmp_path / "file").touch()
    for directory, reason in (
        (tmp_path / "history", None),
        (tmp_path / "file", f"{tmp_path / 'file'} is not a directory"),
        (Path("/proc/history"), "/proc cannot be written: No such file or directory"),
    ):
        text = f'history = "{directory}"'
        assert problems(tmp_path, text) == []
        expected = [] if reason is None else [f"history: the mirror would keep no history: {reason}"]
        assert find_start_losses(read(tmp_path, text)) == expected
    assert find_start_losses(read(tmp_path, "history = false")) == []


def test_a_reload_has_no_problem_with_what_only_a_start_reads(tmp_path: Path) -> None:
    text = """
        listen = ["unix:/nowhere/socket"]
        cache = "/proc/x"
        [access]
        audit = "/nowhere/audit"
        """
    assert len(problems(tmp_path, text)) == 3
    assert find_reload_problems(read(tmp_path, text), {}, reactor) == [
        "access.audit: the directory /nowhere does not exist"
    ]


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


def test_a_port_that_the_mirror_would_bind_twice_is_found_in_the_words_of_the_start(tmp_path: Path) -> None:
    port = free_port()
    text = f"""
        workers = 1
        listen = ["tcp:{port}:interface=127.0.0.1"]
        operations = "tcp:{port}:interface=0.0.0.0"
        """
    expected = (
        f"operations: port {port} of 0.0.0.0 cannot be bound beside listen.0, port {port} of 127.0.0.1;"
        " choose another one"
    )
    assert problems(tmp_path, text) == [expected]
    with pytest.raises(ConfigurationError) as raised:
        make_mirror(lambda: read(tmp_path, text), {})
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        (Port("http", "80"), Port("https", "80", "127.0.0.1"), "always"),
        (Port("http", "80", "127.0.0.1"), Port("http", "80", "127.0.0.1"), "always"),
        (Port("http", "80", "::1"), Port("http", "80", "::"), "always"),
        (Port("http", "80", "::"), Port("http", "80", "0.0.0.0"), "dual stack"),  # noqa: S104
        (Port("http", "80", "127.0.0.1"), Port("http", "80", "::"), "dual stack"),
        (Port("http", "80", "127.0.0.1"), Port("http", "80", "127.0.0.2"), "never"),
        (Port("http", "80"), Port("http", "80", "::1"), "never"),
        (Port("http", "80"), Port("http", "81"), "never"),
        (Port("http", "0"), Port("http", "0"), "never"),
        (Path("/run/m"), Path("/run/m"), "always"),
        (Path("/run/m"), Path("/run/n"), "never"),
        (Path("/run/m"), Port("http", "80"), "never"),
    ],
)
def test_addresses_overlap_as_the_kernel_sees_it(one: Port | Path, other: Port | Path, overlaps: str) -> None:
    found = [bool(find_overlaps([("a", one), ("b", other)], is_dual)) for is_dual in (False, True)]
    assert found == [overlaps == "always", overlaps != "never"]


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
