"""A lock file written, put into force and moved, with a real mirror and a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import MakeChain
from .parts.command import dockmirror
from .parts.images import image
from .pulls import succeeded

pytestmark = pytest.mark.integration

NAME = "library/locked"


def test_tags_move_when_the_file_does(chains: MakeChain, tmp_path: Path) -> None:
    """The registry is asked by ``--refresh`` only, without a client's pull."""
    file = tmp_path / "dockmirror.lock"
    file.touch()
    policy = [{"images": "docker.io/**", "lock": str(file), "unlisted": "serve"}]
    with chains(policy=policy, tag_ttl=0) as chain:
        first, second = image("first"), image("second")
        chain.registry.push(NAME, first, "latest")
        client = chain.mirror.client("docker")
        assert client.manifest(NAME, "latest").body == first.manifest.data
        for blob in first.blobs:
            assert client.blob(NAME, blob.digest).status == 200
        [added] = json.loads(succeeded(dockmirror(chain.mirror, "lock", "--json")))["added"]
        assert added.startswith(f"docker.io/{NAME}:latest {first.digest} linux/amd64 ")
        chain.registry.push(NAME, second, "latest")
        update = ["lock", "--update", "--yes", "--json"]
        assert json.loads(succeeded(dockmirror(chain.mirror, *update)))["moved"] == []
        [moved] = json.loads(succeeded(dockmirror(chain.mirror, *update, "--refresh")))["moved"]
        assert (first.digest in moved["from"], second.digest in moved["to"]) == (True, True)
        chain.registry.push(NAME, image("third"), "latest")
        assert client.manifest(NAME, "latest").body == second.manifest.data
        chain.stop_upstream()
        for _ in range(2):  # with the mirror, and without it
            failed = dockmirror(chain.mirror, *update, "--refresh")
            assert failed.returncode == 1
            assert "is left as it was seen before" in failed.stderr
            chain.mirror.stop()
        chain.mirror.start()
