"""pebble, an authority for tests of ACME, with a DNS in which every name leads to the loopback interface."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from .authority import Authority
from .process import CLEAN_ENVIRONMENT, Process, free_port, listens


class Names(Process):
    """The DNS that pebble asks."""

    def __init__(self, directory: Path) -> None:
        self.port, self._management = free_port(), free_port()
        command = [
            "pebble-challtestsrv", f"-dns01=127.0.0.1:{self.port}", "-defaultIPv4=127.0.0.1", "-defaultIPv6=",
            "-http01=", "-https01=", "-tlsalpn01=", f"-management=127.0.0.1:{self._management}",
        ]  # fmt: skip
        ready = lambda: listens("127.0.0.1", self._management)  # noqa: E731
        super().__init__(command, log=directory / "names.log", ready=ready)

    def lead(self, name: str, address: str) -> None:
        """A name has that address, and no other."""
        body = json.dumps({"host": f"{name}.", "addresses": [address]}).encode()
        for path in ("clear-a", "add-a"):
            url = f"http://127.0.0.1:{self._management}/{path}"
            urllib.request.urlopen(urllib.request.Request(url, body)).close()


class Pebble(Process):
    """The authority; its root is another one each time that it starts, and what it knew is forgotten.

    :param port: where it looks for proof, on the address of the name.
    """

    def __init__(self, directory: Path, authority: Authority, names: Names, port: int) -> None:
        self._port, self._management = free_port(), free_port()
        self.url = f"https://localhost:{self._port}/dir"
        self.ca_file = authority.certificate
        self._directory = directory
        own = authority.issue("localhost", "127.0.0.1")
        configuration: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(own.certificate),
            "privateKey": str(own.key),
            "httpPort": port,
            "tlsPort": 1,
            "certificateValidityPeriod": 90 * 86_400,
        }
        file = directory / "pebble.json"
        file.write_text(json.dumps({"pebble": configuration}))
        super().__init__(
            ["pebble", "-config", str(file), "-dnsserver", f"127.0.0.1:{names.port}"],
            log=directory / "pebble.log",
            ready=lambda: listens("127.0.0.1", self._port) and listens("127.0.0.1", self._management),
            environment={**CLEAN_ENVIRONMENT, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        )

    def root(self) -> Path:
        """A file with the root certificate of the authority."""
        trusting = ssl.create_default_context(cafile=str(self.ca_file))
        url = f"https://localhost:{self._management}/roots/0"
        file = self._directory / "root.pem"
        with urllib.request.urlopen(url, context=trusting) as answer:
            file.write_bytes(answer.read())
        return file

    def issued(self) -> int:
        """The number of certificates issued since the first start."""
        return self._told("Issued certificate serial")

    def accounts(self) -> int:
        """The number of accounts made since the first start."""
        return self._told("accounts in memory")

    def _told(self, what: str) -> int:
        return self.log.read_text(errors="replace").count(what)
