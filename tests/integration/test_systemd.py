"""The units for systemd, and the sockets that it hands over, without a systemd that runs."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import curl
from .parts.images import image
from .parts.machine import Machine
from .parts.mirror import DOMAIN
from .parts.process import free_port, wait_until
from .pulls import skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
EXPOSURE = 15
"""In tenths, of what systemd-analyze makes of a unit: from 0, shut in, to 100."""

# As systemd does: one socket for IPv6 and IPv4, from the third descriptor on, for the process of that id.
LAUNCHER = """
import fcntl, os, socket, sys
ports, moved = sys.argv[1].split(","), []
for port in ports:
    listening = socket.socket(socket.AF_INET6)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.bind(("::", int(port)))
    listening.listen(1024)
    moved.append(fcntl.fcntl(listening.detach(), fcntl.F_DUPFD, 10))
for number, descriptor in enumerate(moved, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
names = ":".join(["dockmirror.socket"] * len(ports))
os.environ.update(LISTEN_FDS=str(len(ports)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def units(make_machine: MakeMachine, directory: MakeDirectory) -> tuple[Machine, Path]:
    """A machine on which the units lie, whose program is the one of these tests."""
    machine, lying = make_machine("systemd-analyze"), directory("units")
    program = str(Path(sys.executable).with_name("dockmirror"))
    copies = {
        "dockmirror.service": "dockmirror.service",
        "dockmirror.socket": "dockmirror.socket",
        "dockmirror-next.service": "dockmirror.service",
        "dockmirror-next.service.d/next.conf": "dockmirror-next.conf",
    }
    for copy, name in copies.items():
        text = (EXAMPLES / name).read_text("utf-8")
        (lying / copy).parent.mkdir(exist_ok=True)
        (lying / copy).write_text(re.sub(r"/opt/dockmirror(-new)?/bin/dockmirror", program, text))
    return machine, lying


def test_units(units: tuple[Machine, Path]) -> None:
    """systemd finds nothing wrong with them, and no line in them that it does not know."""
    machine, lying = units
    names = ("dockmirror.service", "dockmirror.socket", "dockmirror-next.service")
    paths = [str(lying / name) for name in names]
    verified = machine.run("systemd-analyze", "--man=no", "verify", *paths)
    assert succeeded(verified) == ""
    assert "dockmirror" not in verified.stderr


def test_exposure(units: tuple[Machine, Path]) -> None:
    """The service is shut in well."""
    machine, lying = units
    options = ["--offline=true", f"--threshold={EXPOSURE}"]
    succeeded(machine.run("systemd-analyze", "security", *options, str(lying / "dockmirror.service")))


class Activated:
    """A mirror that is given two sockets, the second of them for https."""

    def __init__(self, chain: Chain, authority: Authority, certificates: Path) -> None:
        self.chain = chain
        self.secured = free_port("127.0.0.1")
        issued = authority.issue(f"*.{DOMAIN}")
        shutil.copy(issued.certificate, certificates)
        shutil.copy(issued.key, certificates)
        mirror = chain.mirror
        mirror.stop()
        mirror.configure(
            listen=["systemd:domain=INET6:index=0", "https:systemd:domain=INET6:index=1"],
            certificates=str(certificates),
            networks=["private"],
        )
        program = mirror.command.index(str(Path(sys.executable).with_name("twistd")))
        launcher = [sys.executable, "-c", LAUNCHER, f"{mirror.port},{self.secured}"]
        mirror.command[program:program] = launcher
        mirror.start()


@pytest.fixture
def activated(chains: MakeChain, authority: Authority, directory: MakeDirectory) -> Iterator[Activated]:
    """A mirror of a new registry."""
    with chains() as chain:
        yield Activated(chain, authority, directory("certificates"))


def test_sockets(activated: Activated, skopeo_machine: Machine, authority: Authority) -> None:
    """Clients of both families are served on a socket that was handed over, and pull over TLS on another."""
    chain = activated.chain
    for address in ("127.0.0.1", "[::1]"):
        url = f"http://{address}:{chain.mirror.port}/v2/"
        assert succeeded(curl(skopeo_machine, "-g", url)) == "{}"
    for client in ("127.0.0.1", "::1"):
        wait_until(lambda client=client: f" {client} " in chain.mirror.read_log(), f"{client} is logged")  # type: ignore[misc]
    pushed = image("activated")
    chain.registry.push("library/activated", pushed, "latest")
    host = f"docker.{DOMAIN}:{activated.secured}"
    skopeo_machine.trust(authority.certificate, host)
    skopeo_pulls(skopeo_machine, f"{host}/activated:latest", pushed, verified=True)
