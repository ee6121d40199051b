"""A machine of a client's own: mounts, names, settings and home are private, only the loopback is shared."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .cdn import CDN_ADDRESS, CDN_HOST
from .interpreter import Fork, Interpreter, is_program
from .process import BYTECODE, CLEAN_ENVIRONMENT, interpreter

#: The world's registries lie on this machine too, where nobody listens: nothing asked by mistake leaves it.
NAMES = {
    "127.0.0.1": (
        "localhost mirror.test docker.mirror.test direct.mirror.test basic.mirror.test open.mirror.test "
        "k8s.mirror.test tls.mirror.test wrong.mirror.test tls.test wrong.test "
        "docker.io registry-1.docker.io index.docker.io auth.docker.io quay.io ghcr.io"
    ),
    CDN_ADDRESS: CDN_HOST,
}
_ENTER = """
root=$1 private=$2; shift 2
for each in $private; do mount --bind "$root/$each" "/$each"; done
cd "$root/home"
exec "$@"
"""
_STORAGE = """[storage]
driver = "vfs"
graphroot = "{root}/images"
runroot = "/run/containers/storage"
"""


EVICTS_OFTEN = """
from dockmirror.store.eviction import eviction
eviction.CHECK_INTERVAL = eviction.SCAN_INTERVAL = 0.3
"""
"""For :meth:`Machine.patch`: the budget is checked every moment, which no operator needs to set."""


class Machine:
    """Runs commands that see an ``/etc`` and a ``/run`` of their own; needs root.

    :ivar variables: what they find in their environment beside what is there always.
    :cvar can_fork: a fork of an interpreter sees all that a program sees which is started.
    """

    can_fork = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.run_directory = directory / "run"
        self.home = directory / "home"
        self.variables: dict[str, str] = {}
        self._patch = ""

    def prepare(self, names: Mapping[str, str] = NAMES) -> None:
        """Write what a machine needs under its directory."""
        for each in ("etc/containers", "etc/docker", "opt", "run", "home", "images"):
            (self.directory / each).mkdir(parents=True)
        for each in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            shutil.copy(f"/etc/{each}", self.etc)
        (self.etc / "hosts").write_text("".join(f"{ip} {hosts}\n" for ip, hosts in names.items()))
        (self.etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        containers = self.etc / "containers"
        (containers / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (containers / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
        (containers / "storage.conf").write_text(_STORAGE.format(root=self.directory))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands on this machine."""
        return {**CLEAN_ENVIRONMENT, **BYTECODE, "HOME": str(self.home), **self.variables}

    def command(self, *command: str) -> list[str]:
        """The command that enters the machine and becomes *command*."""
        return self._enter("etc run", *command)

    def daemon(self, *command: str) -> list[str]:
        """The same for a daemon: it ends with all that it starts, and may write to ``/opt``."""
        enter = self._enter("etc opt run", *command)
        return [enter[0], "--pid", "--fork", "--kill-child", "--mount-proc", *enter[1:]]

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run *command* to its end, successful or not."""
        if self.can_fork and is_program(command):
            return self.interpreter.run(command, self.environment, self.directory, timeout)
        return subprocess.run(  # noqa: S603
            self.command(*command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def fork(
        self, command: Sequence[str], environment: Mapping[str, str], out: IO[bytes], errors: IO[bytes]
    ) -> Fork:
        """Start *command*, one of those that an interpreter forks."""
        with open(os.devnull) as nothing:
            return self.interpreter.fork(command, environment, (nothing, out, errors), self.directory)

    @property
    def interpreter(self) -> Interpreter:
        """The interpreter that has run the patch."""
        return interpreter(self._patch)

    def patch(self, code: str) -> None:
        """Have Python run *code* at the start of each program, as its ``sitecustomize``."""
        self._patch, directory = code, self.directory / "patch"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(code)
        self.variables["PYTHONPATH"] = str(directory)

    def trust(self, certificate: Path, registry: str) -> None:
        """Let the clients trust *certificate* for one registry."""
        for each in ("containers", "docker"):
            directory = self.etc / each / "certs.d" / registry
            directory.mkdir(parents=True)
            shutil.copy(certificate, directory / "ca.crt")

    def _enter(self, private: str, *command: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(self.directory), private, *command]
