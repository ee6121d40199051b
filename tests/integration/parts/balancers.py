"""Load balancers in front of several mirrors, configured by the examples of the documents."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .authority import Certificate
from .mirror import DOMAIN
from .nginx import GROUP, MAIN, USER
from .process import Process, free_port, listens, wait_until

_EXAMPLES = Path(__file__).parents[3] / "docs/examples"
ENVOY = str(Path(sys.executable).parent / "envoy")
"""The program, which ``tests/envoy.txt`` installs."""
ANYBODY = ["0.0.0.0/0", "::/0"]
"""The networks of a mirror behind Envoy, which names its own address for a client on the loopback."""
EXAMPLES = {"nginx": "nginx-several.conf", "haproxy": "haproxy.cfg", ENVOY: "envoy.yaml"}
"""The example for each program."""
_SERVERS = re.compile(
    r"^ *server \S*\s*10\.0\.0\.\d+:8080.*\n|^ *- endpoint: .*\b10\.0\.0\.\d+.*\n.*\n", re.MULTILINE
)


class Balancer(Process):
    """Listens on a free port of the loopback interface; names, ports and the certificate are the tests'.

    :param servers: the number of each mirror, which it keeps for ever, and its port.
    :param changed: further words of the example and what stands in their place.
    :param beside: further configuration, after the example's.
    """

    def __init__(
        self,
        directory: Path,
        program: str,
        certificate: Certificate,
        servers: Mapping[int, int],
        changed: Mapping[str, str] | None = None,
        beside: str = "",
    ) -> None:
        self.port = free_port()
        self.netloc = f"{DOMAIN}:{self.port}"
        self._directory = directory
        self._admin = directory / "admin.sock"
        self._certificate = certificate
        self._changed = changed or {}
        self._beside = beside
        (directory / "both.pem").write_bytes(
            certificate.certificate.read_bytes() + certificate.key.read_bytes()
        )
        main = MAIN.format(directory=directory, user=USER, group=GROUP)
        (directory / "nginx.conf").write_text(main)
        self._program = program
        self._file = directory / ("mirror.yaml" if program == ENVOY else "mirror.conf")
        self.configure(servers)
        commands = {
            "nginx": ["nginx", "-c", str(directory / "nginx.conf")],
            "haproxy": ["haproxy", "-db", "-f", str(self._file)],
            ENVOY: [ENVOY, "-c", str(self._file), "--disable-hot-restart", "--concurrency", "2"],
        }
        super().__init__(
            commands[program],
            log=directory / f"{Path(program).name}.log",
            ready=lambda: listens("127.0.0.1", self.port) and (program != "haproxy" or self._admin.exists()),
        )

    def configure(self, servers: Mapping[int, int]) -> None:
        """Write the example with these servers."""
        example = (_EXAMPLES / EXAMPLES[self._program]).read_text("utf-8")
        found = _SERVERS.findall(example)
        assert len(found) == 3
        example = example.replace("".join(found), "".join(_line(found[0], *each) for each in servers.items()))
        here = {
            "stats socket /run/haproxy/admin.sock": f"stats socket {self._admin}",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            "bind :443 ssl": f"bind 127.0.0.1:{self.port} ssl",
            "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {self.port}",
            "server_name mirror.example.com *.mirror.example.com;": f"server_name {DOMAIN} *.{DOMAIN};",
            "/etc/ssl/mirror.example.com/fullchain.pem": str(self._certificate.certificate),
            "/etc/ssl/mirror.example.com/privkey.pem": str(self._certificate.key),
            "/etc/ssl/mirror.example.com/haproxy.pem": str(self._directory / "both.pem"),
        }
        assert all(there in example for there in self._changed)
        for there, replaced in {**here, **self._changed}.items():
            example = example.replace(there, replaced)
        self._file.write_text(example + self._beside)

    def reload(self) -> None:
        """Lets nginx read the servers anew."""
        os.kill(self.pid, signal.SIGHUP)

    @contextmanager
    def without(self, number: int) -> Iterator[None]:
        """Take a mirror out of HAProxy's service: it gets no new requests, and has finished those it got."""
        self._administer(f"set server mirrors/mirror-{number} state drain")
        wait_until(lambda: self._state(number)["scur"] == "0", "the mirror has finished its requests")
        yield
        self._administer(f"set server mirrors/mirror-{number} state ready")
        wait_until(lambda: self._state(number)["status"] == "UP", "the mirror is in service")

    def _state(self, number: int) -> dict[str, str]:
        rows = csv.DictReader(self._administer("show stat").removeprefix("# ").splitlines())
        return next(row for row in rows if row["svname"] == f"mirror-{number}")

    def _administer(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._admin))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                return answer.read().strip()


def _line(pattern: str, number: int, port: int) -> str:
    """Return the example's line of the first mirror, written for another one."""
    line = re.sub(r"10\.0\.0\.\d+:8080", f"127.0.0.1:{port}", pattern)
    line = re.sub(r"10\.0\.0\.\d+, port_value: 8080", f"127.0.0.1, port_value: {port}", line)
    return line.replace("mirror-1", f"mirror-{number}").replace(" id 1", f" id {number}")
