"""The mirror itself, started as its operator starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar

from .accounts import Account
from .interpreter import Fork
from .machine import Machine
from .plain import PlainClient
from .process import Process, free_port

DOMAIN = "mirror.test"
_LOOPBACK = {"allow_networks": ["127.0.0.0/8"], "public": True}
_CHECKOUT = Path(__file__).parents[3]
_FAILURE = re.compile(
    r"Traceback \(most recent call last\)|a worker exited, (?!killed by signal 9\b|with status 0\b)"
)


class Mirror(Process):
    """A dockmirror process with a configuration of its own on a free port, which it keeps over a restart.

    :cvar directories: of all mirrors of the run: logs, settings and stores.
    """

    directories: ClassVar[list[Path]] = []

    def __init__(
        self,
        directory: Path,
        machine: Machine,
        upstreams: Mapping[str, Mapping[str, Any]],
        **settings: Any,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.directories.append(directory)
        self.configuration = directory / "dockmirror.toml"
        self.state = directory / "state"
        self._settings: dict[str, Any] = {
            "domain": DOMAIN,
            "listen": [f"tcp:{self.port}:interface=127.0.0.1"],
            "operations": "",
            "workers": 1,
            "networks": ["127.0.0.0/8"],
            "cache": str(directory / "cache"),
            "cache_size": "10GB",
            "min_free": "1MB",
            "upstreams": {name: {**_LOOPBACK, **upstreams[name]} for name in upstreams},
        }
        self.configure(**settings)
        paths = filter(None, (str(_CHECKOUT), machine.environment.get("PYTHONPATH")))
        environment = {
            **machine.environment,
            "STATE_DIRECTORY": str(self.state),
            "PYTHONPATH": ":".join(paths),
        }
        self._machine = machine
        super().__init__([], log=directory / "mirror.log", ready=self._answers, environment=environment)
        twistd = str(Path(sys.executable).with_name("twistd"))
        self.use(twistd, "-n", "--pidfile=", "dockmirror", "--config", str(self.configuration))

    @property
    def cache(self) -> Path:
        """The directory of the store."""
        return Path(self._settings["cache"])

    def setting(self, key: str) -> Any:
        """The value of a setting in its file."""
        return self._settings[key]

    def use(self, *program: str) -> None:
        """Let this program be the mirror from the next start on."""
        self._program = program
        self.command = self._machine.command(*program)

    def configure(self, **settings: Any) -> None:
        """Write these settings over those before; they are in force at the next start."""
        self._settings.update(settings)
        self.configuration.write_text(_toml(self._settings))

    def host(self, name: str = "") -> str:
        """The virtual host of an upstream with its port, or the mirror's own host."""
        return f"{name}.{DOMAIN}:{self.port}" if name else f"{DOMAIN}:{self.port}"

    def client(self, name: str = "", account: Account | None = None) -> PlainClient:
        """A plain client of one of the mirror's hosts."""
        return PlainClient(self.url, account, host=self.host(name))

    def read_log(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")

    def failures(self) -> str:
        """The log from the first failure that nothing in the mirror expected; empty where there is none.

        A worker that exits is one, unless a test has killed it.
        """
        log = self.read_log()
        first = _FAILURE.search(log)
        return log[first.start() :] if first else ""

    def pids(self) -> list[int]:
        """Its process and those that it has started."""
        return _family(self.pid)

    def rss(self) -> int:
        """The memory, in bytes, that the mirror and its workers have resident."""
        return sum(_resident(pid) for pid in _family(self.pid))

    def has_open(self, file: Path) -> bool:
        """Return True if a process of the mirror has that file open."""
        return any(_same(opened, file) for pid in _family(self.pid) for opened in _opened(pid))

    def _run(self, out: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes] | Fork:
        """Fork it, unless a test starts it in another way."""
        if not self._machine.can_fork or self.command != self._machine.command(*self._program):
            return super()._run(out, errors)
        return self._machine.fork(self._program, self._environment, out, errors)

    def _answers(self) -> bool:
        try:
            return self.client().bare("GET", "/v2/", None, {}).status > 0
        except OSError:
            return False


PATIENT_PEERS = """
import dockmirror.middleware.peers
import dockmirror.store.downloads.block_waiter
dockmirror.middleware.peers.PATIENCE = 600.0
dockmirror.store.downloads.block_waiter.MAX_WAIT = 600.0
"""
"""A patch: on a slow machine, a mirror that has waited for long asks the registry, which costs bytes."""


def make_peers(mirrors: Sequence[Mirror]) -> None:
    """Tell running mirrors of each other, and start them again."""
    peers = [mirror.url for mirror in mirrors]
    for mirror in mirrors:
        mirror.stop()
        mirror.configure(peers=peers)
        mirror.start()


def _same(opened: str, file: Path) -> bool:
    try:
        return os.path.samefile(opened, file)
    except FileNotFoundError:  # closed meanwhile
        return False


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _opened(pid: int) -> list[str]:
    directory = f"/proc/{pid}/fd"
    opened = [f"{directory}/{name}" for name in os.listdir(directory)]
    return [file for file in opened if os.path.exists(file)]


def opened_names(pid: int) -> list[str]:
    """Return the targets of a process's open descriptors; those closed meanwhile are left out."""
    names = []
    for file in _opened(pid):
        with suppress(FileNotFoundError):
            names.append(os.readlink(file))
    return names


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _toml(settings: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """*settings* as TOML, without those that are None."""
    tables = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in settings.items() if name not in tables and value is not None}
    lines = [f"{json.dumps(name)} = {_toml_value(value)}" for name, value in plain.items()]
    head = [f"[{'.'.join(map(json.dumps, path))}]"] if path else []
    return "\n".join([*head, *lines, "", *(_toml(table, (*path, name)) for name, table in tables.items())])


def _toml_value(value: Any) -> str:
    """*value* as TOML; JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        tables = (", ".join(f"{key} = {_toml_value(each[key])}" for key in each) for each in value)
        return f"[{', '.join(f'{{ {table} }}' for table in tables)}]"
    return json.dumps(value)
