"""Tests of the search for the process of the running mirror."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockmirror.cli.process_commands import find_mirror, read_environ, read_serve_options

from ..integration.parts.process import interpreter

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Machine:
    """The kernel's files about processes."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory
        (directory / "net").mkdir()
        self._sockets = ""

    def listens(self, port: int, inode: int, state: str = "0A") -> None:
        """Add a socket."""
        self._sockets += f"   0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 0:0 0 0 0 {inode} 1\n"
        (self.proc / "net/tcp").write_text(HEAD + self._sockets)

    def runs(self, process: int, command: str, parent: int, *inodes: int) -> None:
        """Add a process with these sockets."""
        directory = self.proc / str(process)
        (directory / "fd").mkdir(parents=True)
        (directory / "cmdline").write_bytes(command.replace(" ", "\0").encode())
        (directory / "stat").write_text(f"{process} (a program) S {parent} 0 0\n")
        for number, inode in enumerate(inodes, 3):
            (directory / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_mirror_is_the_process_that_listens_on_its_port(machine: Machine) -> None:
    machine.listens(8080, 77)
    machine.runs(10, "python dockmirror serve", 1, 77)
    machine.runs(11, "python dockmirror serve --listen 9000", 1, 78)
    assert find_mirror({8080}, machine.proc) == 10
    assert find_mirror({9000}, machine.proc) is None


def test_the_mirror_is_the_parent_of_its_workers(machine: Machine) -> None:
    machine.listens(8080, 77)
    machine.runs(20, "python -m dockmirror.app.worker", 30, 77)
    machine.runs(30, "twistd -n dockmirror", 1, 77)
    assert find_mirror({8080}, machine.proc) == 30


def test_other_programs_on_the_port_are_left_alone(machine: Machine) -> None:
    """systemd holds the sockets that it passes; docker-proxy those of published ports."""
    machine.listens(8080, 77)
    machine.listens(8081, 78, state="01")
    machine.runs(1, "/sbin/init", 0, 77)
    machine.runs(5, "docker-proxy", 1, 77)
    machine.runs(6, "python dockmirror serve", 1, 78)
    assert find_mirror({8080, 8081}, machine.proc) is None


def test_the_environment_of_a_process_is_read_unless_it_is_another_users(machine: Machine) -> None:
    machine.runs(10, "python dockmirror serve", 1)
    assert read_environ(10, machine.proc) is None
    (machine.proc / "10/environ").write_bytes(b"A=1\0DOCKMIRROR_DOMAIN=a=b\0\0")
    assert read_environ(10, machine.proc) == {"A": "1", "DOCKMIRROR_DOMAIN": "a=b"}


PROGRAM = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
signal.sigwait([signal.SIGHUP])
print("reloaded", flush=True)
"""


@pytest.fixture
def mirror() -> Iterator[subprocess.Popen[str]]:
    """Run a program that the command takes for the mirror: it prints its port, and a line at SIGHUP."""
    environ = {"DOCKMIRROR_PASSWORD_GHCR": "secret"}
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", PROGRAM, "dockmirror", "--networks=private"],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as running:
        yield running
        running.kill()


def reload(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an environment without the mirror's password."""
    program = str(Path(sys.executable).with_name("dockmirror"))
    return interpreter().run([program, "-c", str(file), "reload", *options], {})


def test_settings_that_the_mirror_would_reject_are_reported_and_not_sent(
    mirror: subprocess.Popen[str], tmp_path: Path
) -> None:
    """The mirror's own environment counts, which may have passwords that the command's lacks."""
    assert mirror.stdout is not None
    file, port = tmp_path / "dockmirror.toml", mirror.stdout.readline().strip()
    text = f"""
        listen = ["127.0.0.1:{port}"]
        operations = "none"
        networks = ["private"]
        [upstreams.ghcr]
        username = "alice"
        [access]
        """
    file.write_text(f'{text}audit = "{tmp_path}/missing/log"')
    refused = reload(file)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"Error: access.audit: the directory {tmp_path}/missing does not exist\n"
    file.write_text(text)
    accepted = reload(file)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert accepted.stdout == (
        f"process {mirror.pid} reads its settings again; its log names those that changed\n"
    )
    assert mirror.stdout.readline() == "reloaded\n"


def test_a_process_that_is_named_needs_no_port(mirror: subprocess.Popen[str], tmp_path: Path) -> None:
    """systemd's sockets have none in the settings.  The options with which it was started count as well."""
    assert mirror.stdout is not None
    file, _ = tmp_path / "dockmirror.toml", mirror.stdout.readline()
    file.write_text("""
        listen = ["systemd:domain=INET6:index=0"]
        operations = "none"
        [upstreams.ghcr]
        username = "alice"
        """)
    accepted = reload(file, "--process", str(mirror.pid))
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert mirror.stdout.readline() == "reloaded\n"
    file.write_text('networks = ["private"]')
    missing = reload(file, "--process", "4194304")
    assert (missing.returncode, missing.stderr) == (1, "Error: there is no process 4194304\n")
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        spared = reload(file, "--process", str(other.pid))
        assert (spared.returncode, spared.stderr) == (1, f"Error: process {other.pid} is no mirror\n")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("python dockmirror -c a serve --networks private -c b --tag-ttl=5m --networks public --offline",
         {"networks": ["private", "public"], "tag_ttl": "5m", "offline": True}),
        ("python twistd -n --pidfile= dockmirror --listen 80", {"listen": ["80"]}),
        ("python twistd -y mirror.tac", {}),
        ("python dockmirror serve", {}),
    ],
)  # fmt: skip
def test_the_options_of_a_running_mirror_are_read(
    machine: Machine, command: str, options: dict[str, object]
) -> None:
    machine.runs(10, command, 1)
    found = read_serve_options(10, machine.proc)
    assert {name: value for name, value in found.items() if value} == options
    assert read_serve_options(11, machine.proc) == {}
