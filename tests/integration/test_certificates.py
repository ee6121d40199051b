"""The mirror's own TLS: certificates that are renewed while real clients pull."""

from __future__ import annotations

import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import MakeDirectory
from .parts.accounts import ALICE
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import Dockerd, curl
from .parts.command import dockmirror
from .parts.images import image
from .parts.machine import Machine
from .parts.mirror import DOMAIN
from .parts.process import free_port, listens, wait_until
from .pulls import docker_pulls, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

LARGE = 4 * 1024 * 1024
NAMES = (DOMAIN, f"*.{DOMAIN}")


class Secured:
    """A chain whose mirror listens by https as well, with the certificates of a directory."""

    def __init__(self, chain: Chain, authority: Authority, directory: Path) -> None:
        self.chain = chain
        self.port = free_port()
        self._authority = authority
        self._directory = directory
        self.renew()
        mirror = chain.mirror
        mirror.stop()
        listen = [f"{kind}:{port}:interface=127.0.0.1" for kind, port in self._ports()]
        mirror.configure(listen=listen, certificates=str(directory))
        mirror.start()
        wait_until(lambda: listens("127.0.0.1", self.port), "the mirror listens by https")

    def renew(self) -> None:
        """Replace one file after the other, as certbot's hook does."""
        issued = self._authority.issue(*NAMES)
        shutil.copy(issued.certificate, self._directory / "fullchain.pem")
        shutil.copy(issued.key, self._directory / "privkey.pem")
        (self._directory / "privkey.pem").chmod(0o600)

    @property
    def certificate(self) -> str:
        """The certificate that the next connection is shown."""
        return ssl.get_server_certificate(("127.0.0.1", self.port))

    def host(self, name: str = "", machine: Machine | None = None) -> str:
        """A host by https; the machine trusts its certificate."""
        host = f"{name}.{DOMAIN}:{self.port}" if name else f"{DOMAIN}:{self.port}"
        if machine:
            machine.trust(self._authority.certificate, host)
        return host

    def _ports(self) -> list[tuple[str, int]]:
        return [("tcp", self.chain.mirror.port), ("https", self.port)]


@pytest.fixture(scope="module")
def secured(chain: Chain, authority: Authority, directory: MakeDirectory) -> Secured:
    """A mirror by https."""
    return Secured(chain, authority, directory("certificates"))


def test_renewed_while_skopeo_pulls(secured: Secured, skopeo_machine: Machine) -> None:
    """A running pull ends right; new connections are shown the new certificate."""
    pushed = image("renewed", layers=(LARGE, 1000))
    chain = secured.chain
    chain.registry.push("public/renewed", pushed, "latest")
    reference = f"{secured.host('docker', skopeo_machine)}/public/renewed:latest"
    before = secured.certificate
    with chain.blobs.valve.shut(LARGE // 2), ThreadPoolExecutor() as pool:
        pull = pool.submit(skopeo_pulls, skopeo_machine, reference, pushed, verified=True)
        wait_until(lambda: len(chain.blobs.requests) > 0, "a blob is on its way")
        secured.renew()
        wait_until(lambda: secured.certificate != before, "the new certificate is shown")
        assert not pull.done()
        chain.blobs.valve.open()
        pull.result()


def test_renewed_while_curl_downloads(
    secured: Secured, skopeo_machine: Machine, authority: Authority
) -> None:
    """A slow download from the store goes on over the connection that it has."""
    pushed = image("slowly", layers=(LARGE,))
    secured.chain.registry.push("library/slowly", pushed, "latest")
    layer, file = pushed.layers[0], skopeo_machine.home / "layer"
    url = f"https://{secured.host()}/v2/docker.io/library/slowly/blobs/{layer.digest}"
    trusting = ["--cacert", str(authority.certificate), "-o", str(file)]
    succeeded(curl(skopeo_machine, *trusting, url))
    file.unlink()
    before = secured.certificate
    with ThreadPoolExecutor() as pool:
        download = pool.submit(curl, skopeo_machine, *trusting, "--limit-rate", "1M", url)
        wait_until(file.exists, "the download has begun")
        secured.renew()
        wait_until(lambda: secured.certificate != before, "the new certificate is shown")
        assert not download.done()
        succeeded(download.result())
    assert file.read_bytes() == layer.data


def test_dockerd(secured: Secured, dockerd: Dockerd) -> None:
    """dockerd logs in and pulls by https from the mirror itself."""
    pushed = image("dockerd by https")
    secured.chain.registry.push("private/secured", pushed, "latest")
    reference = f"{secured.host('docker', dockerd.machine)}/private/secured:latest"
    docker_pulls(dockerd, reference, pushed, ALICE)


def test_warmed(secured: Secured, authority: Authority) -> None:
    """``dockmirror warm`` verifies the mirror's certificate, by its own name."""
    chain = secured.chain
    chain.registry.push("library/warmed", image("warmed by https"), "latest")
    chain.mirror.configure(listen=[f"https:{secured.port}:interface=127.0.0.1"])  # for the command alone
    stranger = dockmirror(chain.mirror, "warm", "warmed")
    assert (stranger.returncode, "TLS handshake" in stranger.stdout) == (1, True), stranger.stdout
    succeeded(dockmirror(chain.mirror, "warm", "warmed", "--ca-file", str(authority.certificate)))
