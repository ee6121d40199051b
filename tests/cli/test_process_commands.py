"""Tests of the search for the process of the running mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.cli.process_commands import find_mirror

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
