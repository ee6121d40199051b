"""A systemd that runs, as the first process of a machine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .machine import Machine
from .process import CLEAN_ENVIRONMENT, Process, wait_until
from .programs import require

UNITS = "etc/systemd/system"
_DEBIAN_UNITS = Path("/lib/systemd/system")
_JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
_NEEDED = (
    "basic.target", "multi-user.target", "network-online.target", "shutdown.target", "slices.target",
    "sockets.target", "sysinit.target", *_JOURNAL,
)  # fmt: skip
"""Debian's units that a service or its log needs; the machine has no others."""
_CHECKOUT = Path(__file__).parents[3]
_BOUND = {
    "python": sys.base_prefix,
    "packages": sysconfig.get_path("purelib"),
    "checkout": str(_CHECKOUT),
}
"""What the mirror's program needs, where users may read it: the home of root is none of these places."""
_BYTECODE = sys.pycache_prefix or "/nonexistent"
_PROGRAM = """#!/bin/sh
export PYTHONPATH={path}/opt/checkout:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
export PYTHONPYCACHEPREFIX=/opt/bytecode
exec /opt/python/bin/python3.{minor} -c 'from dockmirror.cli.main import run; run()' "$@"
"""
_BOOT = """
echo $$ > "$1/cgroup.procs"
shift
exec unshare --mount --pid --fork --kill-child --mount-proc --uts --ipc --cgroup sh -ec '
cd "$1"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys  # systemd would change limits of the host
bytecode=$2
shift
for each in python packages checkout; do
    shift
    mount --bind "$1" opt/$each
    if [ -d "$bytecode$1" ]; then mount --bind "$bytecode$1" opt/bytecode/opt/$each; fi
done
for each in etc opt; do mount --rbind $each /$each; done
mount -t tmpfs -o mode=755 tmpfs dev
for each in null zero full random urandom tty; do
    touch dev/$each
    mount --bind /dev/$each dev/$each
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --rbind dev /dev
for each in /run /var /tmp; do mount -t tmpfs -o mode=755 tmpfs $each; done
mkdir -m 1777 /var/tmp
mkdir /var/cache /var/lib /var/log
chmod 1777 /tmp
mount --make-rshared /
shift
cd /
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH=/etc/systemd/system "$@"
' sh "$@"
"""


class Systemd(Process):
    """A systemd with the units in the machine's ``/etc``; what it writes elsewhere is in memory."""

    def __init__(self, machine: Machine, group: Path) -> None:
        self._group = group
        super().__init__(
            [*_boot(machine, group), "/lib/systemd/systemd", "--unit=multi-user.target", "--show-status=no"],
            machine.directory / "systemd.log",
            lambda: self.run("systemctl", "is-system-running").returncode == 0,
        )

    @property
    def root(self) -> Path:
        """The root directory of the machine."""
        return Path(f"/proc/{self._first_process()}/root")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine, successful or not."""
        enter = ("nsenter", "--mount", "--pid", f"--target={self._first_process()}")
        return subprocess.run(  # noqa: S603
            [*enter, *command],
            env=CLEAN_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def stop(self, seconds: float = 0) -> None:
        """Kill all that runs on the machine, and remove its control groups."""
        self.kill()
        wait_until(lambda: _remove(self._group), "all processes of the machine have ended")

    def _first_process(self) -> str:
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().strip() or "0"


@contextmanager
def running_systemd(machine: Machine) -> Iterator[Systemd]:
    """Start systemd on a machine, or skip where no process may make namespaces and control groups."""
    require("systemd-analyze", "unshare")
    bound = (f"{place}/{name}" for place in ("opt", "opt/bytecode/opt") for name in _BOUND)
    for each in ("dev", *bound):
        (machine.directory / each).mkdir(parents=True, exist_ok=True)
    group = _make_group()
    try:
        tried = subprocess.run(  # noqa: S603
            [*_boot(machine, group), "true"],
            env=CLEAN_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode:
            pytest.skip(f"this machine lets no systemd run in namespaces: {tried.stderr.strip()}")
        with Systemd(machine, group) as systemd:
            yield systemd
    finally:
        _remove(group)


def add_debian_units(machine: Machine) -> None:
    """Give a machine the units without which no service starts."""
    (machine.etc / "machine-id").write_text(f"{1:032x}\n")  # without one, systemd enables all units
    wanted = machine.directory / UNITS / "sysinit.target.wants"
    wanted.mkdir(parents=True)
    for each in _NEEDED:
        (wanted.parent / each).symlink_to(_DEBIAN_UNITS / each)
    for each in _JOURNAL:
        (wanted / each).symlink_to(_DEBIAN_UNITS / each)


def install_program(machine: Machine, directory: str, path: str = "") -> None:
    """Install the mirror of this checkout, with modules of its own before all others if a path is given."""
    program = machine.directory / directory / "bin/dockmirror"
    program.parent.mkdir(parents=True)
    program.write_text(_PROGRAM.format(path=path and f"{path}:", minor=sys.version_info.minor))
    program.chmod(0o755)


def _boot(machine: Machine, group: Path) -> list[str]:
    return ["sh", "-ec", _BOOT, "sh", str(group), str(machine.directory), _BYTECODE, *_BOUND.values()]


def _make_group() -> Path:
    """Make a control group of this process's own."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, place, kind, *_ in mounts:
        if kind == "cgroup2":
            group = Path(place) / f"dockmirror-tests-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                pytest.skip(f"this machine lets nobody make a control group: {error.strerror}")
            return group
    pytest.skip("this machine has no control groups of version 2")


def _remove(group: Path) -> bool:
    """Remove a control group and those in it; return False while a process is in one of them."""
    try:
        for each, _, _ in os.walk(group, topdown=False):
            os.rmdir(each)
    except OSError:
        return False
    return True
