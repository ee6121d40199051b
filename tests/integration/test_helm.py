"""The real helm with charts that are OCI artifacts: pushed to a registry, and pulled through the mirror."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.helm import HELM
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.programs import require
from .parts.registry import Registry
from .pulls import refused, succeeded

pytestmark = pytest.mark.integration

CHART = "apiVersion: v2\nname: shop\nversion: 1.2.3\n"
LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
"""The media type of a chart: https://github.com/helm/helm/blob/main/pkg/registry/constants.go"""


@frozen
class Charts:
    """A registry with a chart, a mirror of it, and a machine with helm.

    :ivar packed: the chart's file, as helm packed and pushed it.
    """

    registry: Registry
    mirror: Mirror
    machine: Machine
    packed: Path

    def helm(self, *arguments: str) -> str:
        """Run helm, and return what it printed; it must have ended well."""
        return succeeded(self.machine.run(HELM, *arguments))

    def pull(self, place: str) -> bytes:
        """Pull the chart from the repository *place*, and return its file."""
        target = self.machine.home / "pulled"
        self.helm("pull", f"oci://{place}/shop", "--version=1.2.3", "--plain-http", f"--destination={target}")
        [file] = target.iterdir()
        pulled = file.read_bytes()
        file.unlink()
        return pulled


@pytest.fixture
def charts(chains: MakeChain, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Charts]:
    """All of them, with a cache that has nothing yet."""
    require("docker-registry", HELM)
    machine = make_machine()
    (machine.home / "shop").mkdir()
    (machine.home / "pulled").mkdir()
    (machine.home / "shop/Chart.yaml").write_text(CHART)
    with (
        Registry(directory("charts")) as registry,
        chains(others={"open": {"url": registry.url, "registry": "charts.test"}}, tag_ttl=0) as chain,
    ):
        charts = Charts(registry, chain.mirror, machine, machine.home / "shop-1.2.3.tgz")
        charts.helm("package", "shop")
        charts.helm("push", str(charts.packed), f"oci://{registry.netloc}/team", "--plain-http")
        yield charts


@pytest.mark.parametrize("host", ["open", ""])
def test_a_chart(charts: Charts, host: str) -> None:
    """helm gets the chart by the virtual host and by the mirror's own, also while the registry is stopped."""
    place = f"{charts.mirror.host(host)}/{'team' if host else 'charts.test/team'}"
    packed = charts.packed.read_bytes()
    assert charts.pull(place) == packed
    assert LAYER in charts.registry.plain.manifest("team/shop", "1.2.3").body.decode()
    secure = charts.machine.run(HELM, "pull", f"oci://{place}/shop", "--version=1.2.3")
    refused(secure, "http: server gave HTTP response to HTTPS client")
    with tarfile.open(charts.packed) as archive:
        assert "shop/Chart.yaml" in archive.getnames()
    with charts.registry.killed():
        assert charts.pull(place) == packed
        assert "version: 1.2.3" in charts.helm(
            "show", "chart", f"oci://{place}/shop", "--version=1.2.3", "--plain-http"
        )
