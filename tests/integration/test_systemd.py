"""The units for systemd: verified, run by a systemd, and their sockets handed over without one."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import curl
from .parts.images import image
from .parts.kept import growing_file
from .parts.load import Load
from .parts.machine import Machine
from .parts.mirror import DOMAIN, Mirror
from .parts.plain import ACCEPT, PlainClient
from .parts.process import free_port, wait_until
from .parts.systemd import UNITS, add_debian_units, install_program, running_systemd
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


def copy_units(directory: Path, replacements: Mapping[str, str]) -> None:
    """Copy the units of the documents, with each pattern replaced."""
    copies = {
        "dockmirror.service": "dockmirror.service",
        "dockmirror.socket": "dockmirror.socket",
        "dockmirror-next.service": "dockmirror.service",
        "dockmirror-next.service.d/next.conf": "dockmirror-next.conf",
    }
    for copy, name in copies.items():
        text = (EXAMPLES / name).read_text("utf-8")
        for pattern, replacement in replacements.items():
            text = re.sub(pattern, replacement, text)
        (directory / copy).parent.mkdir(exist_ok=True)
        (directory / copy).write_text(text)


@pytest.fixture
def units(make_machine: MakeMachine, directory: MakeDirectory) -> tuple[Machine, Path]:
    """A machine on which the units lie, whose program is the one of these tests."""
    machine, lying = make_machine("systemd-analyze"), directory("units")
    program = str(Path(sys.executable).with_name("dockmirror"))
    copy_units(lying, {r"/opt/dockmirror(-new)?/bin/dockmirror": program})
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


MIB = 1024 * 1024
SERVICE = f"/{UNITS}/dockmirror.service"
OTHER = "999.0"
OTHER_VERSION = f"""
from importlib import metadata
version = metadata.version
metadata.version = lambda name: "{OTHER}" if name == "dockmirror" else version(name)
"""


class Installed:
    """Two versions of the mirror on a machine with their units, for one socket; neither runs yet."""

    def __init__(self, chain: Chain, machine: Machine, settings: Path) -> None:
        self.chain, self.machine = chain, machine
        first, second = free_port(), free_port()
        self.operations = [PlainClient(f"http://127.0.0.1:{each}") for each in (first, second)]
        self.mirror = Mirror(
            settings, machine, chain.mirror.setting("upstreams"), cache="/var/cache/dockmirror", workers=2,
            listen=["systemd:domain=INET6:index=0"], operations=f"tcp:{first}:interface=127.0.0.1",
        )  # fmt: skip
        shutil.copy(self.mirror.configuration, machine.etc / "dockmirror.toml")
        add_debian_units(machine)
        ports = {
            "ListenStream=80": f"ListenStream={self.mirror.port}",
            "ListenStream=443\n": "",
            "9465": f"{second}",
        }
        copy_units(machine.directory / UNITS, ports)
        install_program(machine, "opt/dockmirror")
        install_program(machine, "opt/dockmirror-new", "/opt/new")
        (machine.directory / "opt/new").mkdir()
        (machine.directory / "opt/new/sitecustomize.py").write_text(OTHER_VERSION)

    def is_ready(self, service: int) -> bool:
        """Return True if a service serves: the first or the second."""
        return self.operations[service].bare("GET", "/readyz", None, {}).status == 200

    def version(self, service: int) -> object:
        """Return the version that a service says it is."""
        return json.loads(self.operations[service].bare("GET", "/status.json", None, {}).body)["version"]


@pytest.fixture
def installed(chains: MakeChain, make_machine: MakeMachine, directory: MakeDirectory) -> Iterator[Installed]:
    """A machine with the mirror of a new registry."""
    with chains() as chain:
        chain.mirror.stop()
        yield Installed(chain, make_machine("systemd-analyze"), directory("settings"))


def test_versions_are_replaced_under_load(installed: Installed) -> None:
    """No request fails while both services have the socket; the history has both, and root reads it."""
    chain, mirror = installed.chain, installed.mirror
    rolled, slow = image("rolled", layers=(200_000, 30_000)), image("slow", layers=(4 * MIB,))
    chain.registry.push("library/rolled", rolled, "latest")
    chain.registry.push("library/slow", slow, "latest")
    headers = {"Host": mirror.host("docker"), "Accept": ACCEPT}
    connect = partial(http.client.HTTPConnection, "127.0.0.1", mirror.port, timeout=120)
    with running_systemd(installed.machine) as systemd, ThreadPoolExecutor() as pool:

        def systemctl(*arguments: str) -> None:
            succeeded(systemd.run("systemctl", *arguments))

        systemctl("enable", "--now", "dockmirror.socket", "dockmirror.service")
        assert installed.is_ready(0)
        with Load(connect, headers, "library/rolled", rolled) as load:
            load.go_on()
            with chain.blobs.valve.shut(2 * MIB):
                running = pool.submit(mirror.client("docker").blob, "library/slow", slow.layers[0].digest)
                growing = growing_file(systemd.root / "var/cache/dockmirror", slow.layers[0].digest)
                wait_until(growing.exists, "the first version fetches it")
                systemctl("start", "dockmirror-next")
                assert installed.is_ready(1)
                load.go_on()
                succeeded(systemd.run("sed", "-i", "s#/opt/dockmirror/#/opt/dockmirror-new/#g", SERVICE))
                systemctl("daemon-reload")
                restarting = pool.submit(systemctl, "restart", "dockmirror")
                load.go_on()
                assert not restarting.done()
            assert running.result().body == slow.layers[0].data
            restarting.result()
            assert installed.is_ready(0)
            assert installed.version(0) == installed.version(1) == OTHER
            systemctl("stop", "dockmirror-next")
            load.go_on()
        assert load.failures == []
        assert "library/rolled" in succeeded(systemd.run("/opt/dockmirror/bin/dockmirror", "history"))
        log = succeeded(systemd.run("journalctl", "--unit=dockmirror*", "--output=cat"))
    assert "finishing " in log
    assert "Traceback" not in log
    print(f"\nreplaced by systemd: {load.count} requests, {len(load.failures)} failed")


def test_wrong_settings_fail_the_reload_and_the_start(installed: Installed) -> None:
    """A reload leaves the mirror as it is; after a start, `systemctl` says that it failed."""
    settings = "etc/dockmirror.toml"
    with running_systemd(installed.machine) as systemd:

        def has_failed(verb: str) -> bool:
            return systemd.run("systemctl", verb, "dockmirror").returncode != 0

        succeeded(systemd.run("systemctl", "enable", "--now", "dockmirror.socket", "dockmirror.service"))
        right = (systemd.root / settings).read_text()
        (systemd.root / settings).write_text(f'{right}\n[access]\naudit = "/nowhere/log"\n')
        assert has_failed("reload")
        assert installed.is_ready(0)
        assert has_failed("restart")
        (systemd.root / settings).write_text(right)
        assert not has_failed("restart")
        assert installed.is_ready(0)
        assert not has_failed("reload")
        log = succeeded(systemd.run("journalctl", "--unit=dockmirror", "--output=cat"))
    assert "access.audit: the directory /nowhere does not exist" in log
    assert "settings reloaded; changed: none" in log
