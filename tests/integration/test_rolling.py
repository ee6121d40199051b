"""A version is replaced by another one while clients pull, and no request fails."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import ssl
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.activation import SocketUnit
from .parts.authority import Authority
from .parts.balancers import Balancer
from .parts.chain import Chain
from .parts.images import image
from .parts.load import Load
from .parts.machine import Machine
from .parts.mirror import DOMAIN, Mirror
from .parts.plain import ACCEPT, PlainClient
from .parts.process import free_port, wait_until
from .parts.programs import require
from .parts.sharing import Sharing, status

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
VERSION_OF_FILE = """
import os
from importlib import metadata
from pathlib import Path
version = metadata.version
def written(name):
    file = Path(os.environ.get("STATE_DIRECTORY", "/nonexistent"), "version")
    return file.read_text() if name == "dockmirror" and file.exists() else version(name)
metadata.version = written
"""
"""For :meth:`Machine.patch`: the version that the mirror believes to be."""
OTHER = "999.0"


def replace_version(mirror: Mirror) -> None:
    """Have the mirror be another version from its next start on."""
    mirror.state.mkdir(exist_ok=True)
    (mirror.state / "version").write_text(OTHER)


class Service(Mirror):
    """A version of the mirror as an instance of the service: with the socket, and operations of its own."""

    def __init__(self, directory: Path, machine: Machine, unit: SocketUnit, chain: Chain) -> None:
        directory.mkdir()
        self.operations = PlainClient(f"http://127.0.0.1:{free_port()}")
        port = self.operations.url.rpartition(":")[2]
        super().__init__(
            directory, machine, chain.mirror.setting("upstreams"),
            listen=["systemd:domain=INET:index=0"], operations=f"tcp:{port}:interface=127.0.0.1", workers=2,
            cache=str(chain.mirror.cache), history=str(chain.mirror.directory / "history"), grace=600,
        )  # fmt: skip
        self.port, self.url = unit.port, f"http://127.0.0.1:{unit.port}"
        program = self.command.index(str(Path(sys.executable).with_name("twistd")))
        self.command[program:program] = unit.launcher

    def told(self, path: str) -> Any:
        """The JSON at a path of its operations endpoint."""
        return json.loads(self.operations.bare("GET", path, None, {}).body)

    def terminate(self) -> None:
        """Ask it to end, as systemd does."""
        os.kill(self.pid, signal.SIGTERM)

    def has_ended(self) -> bool:
        """Return True if none of its processes runs."""
        assert self._popen is not None
        return self._popen.poll() is not None

    def _answers(self) -> bool:
        try:
            return self.operations.bare("GET", "/readyz", None, {}).status == 200
        except OSError:
            return False


@pytest.fixture
def chain(chains: MakeChain) -> Iterator[Chain]:
    """An upstream, and a cache whose mirror does not run."""
    with chains() as parts:
        parts.mirror.stop()
        yield parts


@pytest.fixture
def services(
    chain: Chain, directory: MakeDirectory, make_machine: MakeMachine
) -> Iterator[tuple[Service, Service]]:
    """Two versions on one socket, one cache and one history; the first of them runs."""
    with ExitStack() as stack:
        made = directory("rolling")
        unit = stack.enter_context(SocketUnit(made))
        machine = make_machine()
        machine.patch(VERSION_OF_FILE)
        first, second = (Service(made / name, machine, unit, chain) for name in ("first", "second"))
        replace_version(second)
        stack.enter_context(first)
        stack.callback(second.stop)
        yield first, second
    assert first.failures() == second.failures() == ""


def bytes_in_history(file: Path) -> int:
    """The bytes that clients were sent, as the sums of all hours say."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = "SELECT sum(cached_bytes + upstream_bytes) FROM sums WHERE kind = 0"
        return int(connection.execute(query).fetchone()[0] or 0)


def blobs_in_growth(chain: Chain) -> Sequence[Path]:
    return list((chain.mirror.cache / "dockmirror/growing/docker.io").glob("sha256-*"))


def test_a_version_is_replaced_under_load(chain: Chain, services: tuple[Service, Service]) -> None:
    """Every request of the load is answered, and the old version finishes the transfer that runs.

    The new one reads the file of that transfer meanwhile, so the upstream sends the blob once (and the sample
    that admits another client), and both write the same history.
    """
    old, new = services
    rolled, slow = image("rolled", layers=(MIB, 300_000)), image("slow", layers=(4 * MIB,))
    chain.registry.push("library/rolled", rolled, "latest")
    chain.registry.push("library/slow", slow, "latest")
    client = old.client("docker")
    layer = slow.layers[0]
    path = f"/v2/library/slow/blobs/{layer.digest}"
    headers = {"Host": old.host("docker"), "Accept": ACCEPT}
    history = chain.mirror.directory / "history/pulls.db"
    connect = partial(http.client.HTTPConnection, "127.0.0.1", old.port, timeout=120)
    with ThreadPoolExecutor() as pool, Load(connect, headers, "library/rolled", rolled) as load:
        load.go_on()
        with chain.blobs.valve.shut(2 * MIB):
            running = pool.submit(client.bare, "GET", path, None, headers)
            wait_until(lambda: len(blobs_in_growth(chain)) > 0, "the old version fetches it")
            new.start()
            load.go_on()
            old.terminate()
            wait_until(lambda: "finishing " in old.read_log(), "the old version finishes it")
            load.go_on()
            joined = pool.submit(client.bare, "GET", path, None, headers)
            assert new.told("/status.json")["version"] == OTHER
            assert not running.done()
            assert not old.has_ended()
            load.go_on()
        assert running.result().body == joined.result().body == layer.data
        wait_until(old.has_ended, "the old version ends")
        load.go_on()
    assert load.failures == []
    name = layer.digest.removeprefix("sha256:")
    assert [each.range for each in chain.blobs.requests if name in each.path].count(None) == 1
    sent = load.received + 2 * len(layer.data)
    wait_until(lambda: bytes_in_history(history) == sent, "the history has all that both have sent")
    print(f"\nreplaced on one machine: {load.count} requests, {len(load.failures)} failed")


def test_mirrors_behind_a_load_balancer_are_replaced_under_load(
    sharing: Sharing, directory: MakeDirectory, authority: Authority
) -> None:
    """Both versions use one bucket meanwhile; every request of the load is answered."""
    require("haproxy")
    sharing.patch = VERSION_OF_FILE
    for _ in range(3):
        sharing.add(trust_proxy=["127.0.0.1"])
    rolled = image("rolled behind", layers=(MIB, 300_000))
    sharing.registry.push("library/rolled", rolled, "latest")
    certificate = authority.issue("127.0.0.1", DOMAIN, f"*.{DOMAIN}")
    servers = {number: mirror.port for number, mirror in enumerate(sharing.mirrors, 1)}
    context = ssl.create_default_context(cafile=authority.certificate)
    with Balancer(directory("balancer"), "haproxy", certificate, servers) as balancer:
        connect = partial(
            http.client.HTTPSConnection, "127.0.0.1", balancer.port, timeout=120, context=context
        )
        headers = {"Host": f"docker.{balancer.netloc}", "Accept": ACCEPT}
        with Load(connect, headers, "library/rolled", rolled) as load:
            load.go_on()
            for number, mirror in enumerate(sharing.mirrors, 1):
                with balancer.without(number):
                    mirror.stop(60)
                    load.go_on()
                    replace_version(mirror)
                    mirror.start()
                load.go_on()
                assert status(mirror)["version"] == OTHER
    assert load.failures == []
    print(f"\nreplaced behind a load balancer: {load.count} requests, {len(load.failures)} failed")
