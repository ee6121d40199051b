"""``dockmirror reload``: let the running mirror read its settings again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click

from ..app.endpoints import listening_ports, operations_endpoint, parse_port
from ..config.settings import Settings
from .context import Context
from .options import json_option
from .output import print_json

_PROC = Path("/proc")
_LISTENING = "0A"
"""The state of a listening socket in ``/proc/net/tcp``: TCP_LISTEN of the kernel's ``tcp_states.h``."""
_PROGRAMS = (b"dockmirror", b"mirror.tac")
"""Words of the command line of a mirror."""


@click.command("reload", short_help="Let the running mirror read its settings again.")
@json_option
@click.pass_obj
def reload(context: Context, as_json: bool) -> None:
    """Let this machine's running mirror read its settings again, without interrupting transfers.

    The settings are checked first: invalid ones are reported here, and the mirror is left alone.  The mirror
    is the process that listens on the ports in the settings; its log says which changes need a restart.

    Exit status: 0; 1 when no mirror is found or it belongs to another user, 2 when the settings are invalid.
    """
    process = find_mirror(_ports(context.settings), _PROC)
    if process is None:
        raise click.ClickException(
            "no process of a mirror that this user may see listens on the ports in the settings"
        )
    try:
        os.kill(process, signal.SIGHUP)
    except PermissionError:
        raise click.ClickException(f"process {process} belongs to another user") from None
    if as_json:
        print_json({"process": process})
    else:
        click.echo(f"process {process} reads its settings again; its log says what changed")


def _ports(settings: Settings) -> set[int]:
    operations = parse_port(operations_endpoint(settings))
    ports = [*listening_ports(settings), *([operations] if operations else [])]
    return {int(port.number) for port in ports}


def find_mirror(ports: set[int], proc: Path) -> int | None:
    """Return the process of a mirror that listens on one of the TCP ports, or None.

    Workers have their parent's sockets, so the process is that whose parent has none of them.

    :param proc: the directory of the kernel's files about processes.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(ports, proc)}
    found = {process for process in _mirrors(proc) if sockets & set(_open_files(process))}
    return next((int(each.name) for each in sorted(found) if _parent(each) not in found), None)


def _listening_inodes(ports: set[int], proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for _, local, _, state, *others in map(str.split, lines):
            if state == _LISTENING and int(local.rpartition(":")[2], 16) in ports:
                yield others[5]


def _mirrors(proc: Path) -> Iterator[Path]:
    for process in proc.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if any(word in command for word in _PROGRAMS):
            yield process


def _open_files(process: Path) -> Iterator[str]:
    try:
        names = os.listdir(process / "fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(process / "fd" / name)
        except OSError:  # closed meanwhile
            continue


def _parent(process: Path) -> Path:
    """Return the parent, which ``/proc/PID/stat`` names after the state that follows the program's name."""
    try:
        state = (process / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return process
    return process.with_name(state[1])
