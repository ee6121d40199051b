"""Certificates that the mirror gets by itself, from pebble, while real clients pull."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockmirror.config.known_registries import KNOWN
from tests.scraped import parsed

from .conftest import MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.balancers import Balancer
from .parts.chain import Chain, new_chain
from .parts.clients import Containerd
from .parts.images import image
from .parts.machine import Machine
from .parts.mirror import DOMAIN
from .parts.pebble import Names, Pebble
from .parts.plain import PlainClient
from .parts.process import free_port, wait_until
from .parts.programs import require
from .parts.sharing import Sharing
from .pulls import ctr_pulls, skopeo_pulls

pytestmark = pytest.mark.integration

DOCKER, GHCR = f"docker.{DOMAIN}", f"ghcr.{DOMAIN}"
NOBODY = "127.0.0.9"
LARGE = 4 * 1024 * 1024
PAUSE = 1
RENEWS_OFTEN = f"""
from dockmirror.tls import acme_renewal
acme_renewal.CHECK_PERIOD = 0.3
acme_renewal.FIRST = acme_renewal.LONGEST = {PAUSE}.0
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 10)  # between two polls of the authority
"""
"""For :meth:`Machine.patch`: periods that no operator needs to set."""


class Certified:
    """A chain whose mirror is to listen by https with what an authority gives it; neither runs at first."""

    def __init__(self, chain: Chain, directory: Path, authority: Authority, names: Names) -> None:
        self.chain = chain
        self.mirror = chain.mirror
        self.port, self._operations = free_port(), free_port()
        self.names = names
        self.pebble = Pebble(directory, authority, names, self.mirror.port)
        self.folder = directory / "certificates/acme"
        self._directory = directory
        self.mirror.stop()
        self.mirror.configure(
            listen=[
                f"{kind}:interface=127.0.0.1" for kind in (f"tcp:{self.mirror.port}", f"https:{self.port}")
            ],
            operations=f"tcp:{self._operations}:interface=127.0.0.1",
            certificates=str(self.folder.parent),
            acme="operator@mirror.example",
            acme_directory=self.pebble.url,
            acme_ca_file=str(self.pebble.ca_file),
        )

    def shown(self, name: str) -> str | None:
        """The certificate that who asks for that name is shown; None where no connection comes about."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), 5) as plain,
                context.wrap_socket(plain, server_hostname=name) as secured,
            ):
                return ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True) or b"")
        except ssl.SSLError as error:
            if error.reason != "SSLV3_ALERT_HANDSHAKE_FAILURE":
                raise
            return None

    def has(self, name: str) -> bool:
        """Return True if the mirror has a certificate for the name."""
        return (self.folder / f"{name}.pem").exists()

    def told_end(self, name: str) -> float:
        """When the metric says that its certificate ends."""
        metrics = PlainClient(f"http://127.0.0.1:{self._operations}").bare("GET", "/metrics", None, {}).body
        samples = parsed(metrics.decode())
        return samples["dockmirror_certificate_not_after_seconds", (str(self.folder / f"{name}.pem"),)]

    def host(self, machine: Machine, *roots: Path) -> str:
        """The virtual host that is pulled from; the machine trusts these."""
        trusted = self._directory / "trusted.pem"
        trusted.write_bytes(b"".join(root.read_bytes() for root in roots or [self.pebble.root()]))
        host = f"{DOCKER}:{self.port}"
        machine.trust(trusted, host)
        return host


Certify = Callable[[int], AbstractContextManager[Certified]]


@pytest.fixture(scope="module")
def certified(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Certify:
    """Makes a mirror with so many processes."""
    require("docker-registry", "pebble", "pebble-challtestsrv")

    @contextmanager
    def certify(workers: int) -> Iterator[Certified]:
        path, machine = directory("acme"), make_machine()
        machine.patch(RENEWS_OFTEN)
        with (
            new_chain(directory("chain"), machine, authority, workers=workers) as chain,
            Names(path) as names,
        ):
            yield Certified(chain, path, authority, names)

    return certify


@pytest.fixture
def alone(certified: Certify) -> Iterator[Certified]:
    """A mirror of one process."""
    with certified(1) as parts:
        yield parts


@pytest.fixture(scope="module")
def together(certified: Certify) -> Iterator[Certified]:
    """Two processes, and what they run with."""
    with certified(2) as parts, parts.pebble:
        parts.mirror.start()
        wait_until(lambda: parts.has(DOCKER), "the first certificates are there")
        yield parts


def test_authority_is_down(alone: Certified, skopeo_machine: Machine) -> None:
    """Without its authority a mirror has no certificates and serves HTTP; later HTTPS begins by itself."""
    pushed = image("meanwhile")
    alone.chain.registry.push("library/meanwhile", pushed, "latest")
    alone.mirror.start()
    assert alone.shown(DOCKER) is None
    assert alone.told_end(DOCKER) == 0
    skopeo_pulls(skopeo_machine, f"{alone.mirror.host('docker')}/meanwhile:latest", pushed)
    wait_until(lambda: "the certificate authority is unavailable" in alone.mirror.read_log(), "that is told")
    assert f"no certificate yet for {DOMAIN}, {DOCKER}, " in alone.mirror.read_log()
    with alone.pebble:
        wait_until(lambda: alone.has(DOCKER), "it is asked again", 120)
        wait_until(lambda: alone.shown(DOCKER) is not None, "the certificate is shown")
        host = alone.host(skopeo_machine)
        skopeo_pulls(skopeo_machine, f"{host}/meanwhile:latest", pushed, verified=True)
        assert alone.told_end(DOCKER) > 80 * 86_400 + time.time()


def test_refused_then_renewed_while_skopeo_pulls(
    alone: Certified, authority: Authority, skopeo_machine: Machine
) -> None:
    """A name that is refused keeps what it has, and the others get theirs.

    Once it is not, its certificate is replaced; a pull that runs goes on over its old connection.
    """
    pushed = image("renewed by acme", layers=(LARGE, 1000))
    chain, mirror = alone.chain, alone.mirror
    chain.registry.push("library/renewed", pushed, "latest")
    old = authority.issue(DOCKER, ends=datetime.now(UTC) + timedelta(days=30))
    alone.folder.mkdir(parents=True)
    (alone.folder / f"{DOCKER}.pem").write_bytes(old.key.read_bytes() + old.certificate.read_bytes())
    alone.names.lead(DOCKER, NOBODY)
    with alone.pebble:
        mirror.start()
        wait_until(lambda: alone.has(GHCR), "others have one")
        assert f"no certificate for {DOCKER}; retrying in {PAUSE} s: " in mirror.read_log()
        assert alone.shown(DOCKER) == old.certificate.read_text()
        host = alone.host(skopeo_machine, authority.certificate, alone.pebble.root())
        with chain.blobs.valve.shut(LARGE // 2), ThreadPoolExecutor() as pool:
            pull = pool.submit(skopeo_pulls, skopeo_machine, f"{host}/renewed:latest", pushed, verified=True)
            wait_until(lambda: len(chain.blobs.requests) > 0, "a blob is on its way")
            alone.names.lead(DOCKER, "127.0.0.1")
            wait_until(lambda: alone.shown(DOCKER) != old.certificate.read_text(), "it is renewed", 120)
            assert not pull.done()
            chain.blobs.valve.open()
            pull.result()


def test_each_name_once(together: Certified) -> None:
    """One process requests one certificate for each name, and a second start requests nothing."""
    names = [DOMAIN, *(f"{known.name}.{DOMAIN}" for known in KNOWN)]
    wait_until(lambda: all(map(together.has, names)), "every name has one", 120)
    assert together.pebble.issued() == len(names)
    shown = {name: together.shown(name) for name in names}
    assert len(set(shown.values()) - {None}) == len(names)
    account = (together.folder / "account").read_bytes()
    together.mirror.stop()
    together.mirror.start()
    assert {name: together.shown(name) for name in names} == shown
    together.mirror.configure(names=["new.test"])
    os.kill(together.mirror.pid, signal.SIGHUP)
    wait_until(lambda: together.has("new.test"), "a new name has one as well")
    assert together.pebble.issued() == len(names) + 1
    assert together.pebble.accounts() == 1
    assert (together.folder / "account").read_bytes() == account
    assert {stat.S_IMODE(path.stat().st_mode) for path in together.folder.glob("[!p]*")} == {0o600}
    assert list((together.folder / "proofs").iterdir()) == []


def test_containerd(together: Certified, containerd: Containerd) -> None:
    """containerd verifies the certificate by the authority's root."""
    pushed = image("containerd by acme")
    together.chain.registry.push("library/certified", pushed, "containerd")
    shutil.copy(together.pebble.root(), containerd.machine.etc / "root.pem")
    host = f"{DOCKER}:{together.port}"
    toml = f'server = "https://{host}"\n[host."https://{host}"]\nca = "/etc/root.pem"\n'
    hosts = containerd.hosts(host, toml)
    ctr_pulls(containerd, f"{host}/certified:containerd", pushed, f"--hosts-dir={hosts}")


def test_mirrors_behind_a_load_balancer(
    sharing: Sharing, directory: MakeDirectory, authority: Authority
) -> None:
    """Each of two mirrors gets certificates, although all challenges reach the first; no key is shared."""
    require("haproxy", "pebble", "pebble-challtestsrv")
    sharing.patch = RENEWS_OFTEN
    path, port = directory("acme"), free_port()
    mirrors = [sharing.add(trust_proxy=["127.0.0.1"]) for _ in range(2)]
    plain = f"\nfrontend plain\n    bind 127.0.0.1:{port}\n    default_backend mirrors\n"
    servers = {number: mirror.port for number, mirror in enumerate(mirrors, 1)}
    certificate = authority.issue(DOMAIN)
    names = [DOMAIN, *(f"{known.name}.{DOMAIN}" for known in KNOWN)]
    with (
        Names(path) as dns,
        Pebble(path, authority, dns, port) as pebble,
        Balancer(directory("balancer"), "haproxy", certificate, servers, beside=plain) as balancer,
        balancer.without(2),
    ):
        for mirror in mirrors:
            mirror.stop()
            mirror.configure(
                listen=[f"tcp:{mirror.port}:interface=127.0.0.1"],
                certificates=str(mirror.directory / "certificates"),
                acme="operator@mirror.example",
                acme_directory=pebble.url,
                acme_ca_file=str(pebble.ca_file),
            )
            mirror.start()
        files = [mirror.directory / f"certificates/acme/{name}.pem" for mirror in mirrors for name in names]
        wait_until(lambda: all(map(Path.exists, files)), "both have all certificates")
        assert pebble.issued() == len(files)
        assert pebble.accounts() == len(mirrors)
    asked = ["GET /.well-known/acme-challenge/" in mirror.read_log() for mirror in mirrors]
    assert asked == [True, False]
    proofs = "dockmirror/acme/"
    wait_until(lambda: not any(map(re.compile(proofs).match, sharing.keys())), "no proof is left")
    keys = {each.read_bytes().partition(b"-----BEGIN CERT")[0] for each in files}
    bucket, stored = sharing.store, sharing.keys()
    assert not any(secret in bytes(bucket.get(key).bytes()) for key in stored for secret in keys)
