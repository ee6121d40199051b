"""A mirror that asks no registry, and the programs that people pull with."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import MakeChain, MakeMachine
from .parts.chain import Chain
from .parts.command import dockmirror
from .parts.images import image
from .parts.kept import holds
from .parts.process import wait_until
from .pulls import skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

PLACE = "docker.io/library/packed"
PULLED = image("offline")


@pytest.fixture
def pulled(chains: MakeChain, make_machine: MakeMachine) -> Iterator[Chain]:
    """A mirror with an image of a public registry, which still answers."""
    with chains() as chain:
        chain.registry.push("library/packed", PULLED, "1")
        skopeo_pulls(make_machine("skopeo"), f"{chain.mirror.host('docker')}/packed:1", PULLED)
        wait_until(lambda: holds(chain.mirror.cache, PLACE, PULLED), "all of it is held")
        yield chain


def test_nothing_is_asked(pulled: Chain, make_machine: MakeMachine) -> None:
    """The image is pulled, what is not held is a 404, and the log and the commands say why."""
    mirror = pulled.mirror
    mirror.stop()
    mirror.configure(offline=True)
    pulled.registry.push("library/packed", image("later"), "2")
    mirror.start()
    asked = len(pulled.asked())
    skopeo_pulls(make_machine("skopeo"), f"{mirror.host('docker')}/packed:1", PULLED)
    for host, name in (("docker", "library/packed"), ("", PLACE)):
        client = mirror.client(host)
        assert json.loads(client.request("GET", f"/v2/{name}/tags/list").body)["tags"] == ["1"]
        missed = client.request("GET", f"/v2/{name}/manifests/2")
        assert missed.status == 404
        [error] = json.loads(missed.body)["errors"]
        assert error["code"] == "MANIFEST_UNKNOWN"
        assert "the mirror is offline" in error["message"]
    catalog = mirror.client("docker").request("GET", "/v2/_catalog")
    assert json.loads(catalog.body) == {"repositories": ["library/packed"]}
    assert len(pulled.asked()) == asked
    assert "; offline: no registry is asked" in mirror.read_log()
    checked = succeeded(dockmirror(mirror, "check", "docker"))
    assert "not asked: 'offline' is set" in checked
    assert "docker" in json.loads(succeeded(dockmirror(mirror, "config", "--check", "--json")))["offline"]
    assert len(pulled.asked()) == asked
