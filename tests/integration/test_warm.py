"""Images pulled into a running mirror's cache, and kept there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from .conftest import MakeChain
from .parts.chain import Chain
from .parts.command import AtTerminal, dockmirror
from .parts.images import Image, artifact, image, index
from .parts.kept import blob_file, blobs, forget_figures, holds
from .parts.machine import EVICTS_OFTEN, Machine
from .parts.process import wait_until
from .parts.stream import fetched
from .pulls import skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


def is_held(chain: Chain, name: str, pushed: Image) -> bool:
    """Return True if the mirror has cached all of the image."""
    place = f"docker.io/library/{name}"
    return all(holds(chain.mirror.cache, place, each) for each in (pushed, *pushed.children))


def test_an_image(chain: Chain, skopeo_machine: Machine, tmp_path: Path) -> None:
    """``warm`` caches all platforms of the images; the second time it fetches nothing."""
    pushed, other = index("warmed"), image("warmed, too")
    chain.registry.push("library/warmed", pushed, "latest")
    chain.registry.push("library/warmed", other, "two")
    listed = tmp_path / "images"
    listed.write_text("# what we need\nwarmed\n\nwarmed:two  # and this\n")
    for blobs_fetched in (len({blob.digest for each in pushed.children for blob in each.blobs}), 0):
        warmed = json.loads(succeeded(dockmirror(chain.mirror, "warm", "--json", "-f", str(listed))))
        names = [each["image"] for each in warmed]
        assert names == ["docker.io/library/warmed:latest", "docker.io/library/warmed:two"]
        assert warmed[0]["fetched"] == blobs_fetched
        assert warmed[0]["manifests"] == 1 + len(pushed.children)
        wait_until(lambda: all(is_held(chain, "warmed", each) for each in (pushed, other)), "both are cached")
    with chain.upstream_stopped():
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host()}/docker.io/library/warmed:latest", pushed)
    chain.wait_for_upstream()


def test_some_platforms(chain: Chain) -> None:
    """``warm`` fetches the platforms that are named, and fails if there are none."""
    pushed = index("for some")
    chain.registry.push("library/platforms", pushed, "latest")
    done = dockmirror(chain.mirror, "warm", "platforms", "--platform", "linux/amd64", "--jobs", "1")
    succeeded(done)
    amd, *others = pushed.children
    wait_until(lambda: holds(chain.mirror.cache, "docker.io/library/platforms", amd), "it is cached")
    assert not any(blob_file(chain.mirror.cache, each.digest).exists() for each in others)
    none = dockmirror(chain.mirror, "warm", "platforms", "--platform", "plan9/mips")
    assert none.returncode == 1
    assert "plan9/mips" in none.stdout


def test_interrupted(chain: Chain) -> None:
    """Ctrl-C ends ``warm`` at once with a sentence, and the next run goes on."""
    pushed = image("interrupted", layers=(2 * MIB, MIB))
    chain.registry.push("library/interrupted", pushed, "latest")
    with chain.blobs.valve.shut(MIB // 2):
        warming = AtTerminal(chain.mirror, "warm", "interrupted")
        warming.read_until(pushed.layers[0].digest.removeprefix("sha256:")[:12])
        assert warming.interrupt() == 1
    assert "docker.io/library/interrupted:latest" in warming.printed
    assert "run the command again to pull the rest" in warming.printed
    assert "Traceback" not in warming.printed
    succeeded(dockmirror(chain.mirror, "warm", "interrupted"))
    wait_until(lambda: is_held(chain, "interrupted", pushed), "it is cached")


def test_missing_image(chain: Chain) -> None:
    """An image that does not exist is an error of its own, and the others are pulled."""
    pushed = image("there")
    chain.registry.push("library/partly", pushed, "there")
    done = dockmirror(chain.mirror, "warm", "--json", "partly:gone", "partly:there")
    assert done.returncode == 1
    gone, there = json.loads(done.stdout)
    assert (gone["fetched"], there["error"], there["fetched"]) == (0, None, len(pushed.blobs))
    assert gone["error"]
    chain.mirror.stop()
    down = dockmirror(chain.mirror, "warm", "partly:there")
    assert down.returncode == 1
    assert f"no mirror answered at http://{chain.mirror.host()}: " in " ".join(down.stdout.split())
    chain.mirror.start()


def test_pinned(chains: MakeChain, skopeo_machine: Machine) -> None:
    """A pinned image is fetched, outlives a spent budget, and can be pulled when the upstream is gone."""
    with chains(cache_size=str(4 * MIB), patched=EVICTS_OFTEN) as chain:
        pushed = artifact("pinned", size=MIB)
        chain.registry.push("library/warmed", pushed, "pinned")
        succeeded(dockmirror(chain.mirror, "pin", "warmed:pinned"))
        wait_until(lambda: is_held(chain, "warmed", pushed), "it is cached")
        others = [artifact(f"filling {number}", size=MIB) for number in range(4)]
        for number, other in enumerate(others):
            chain.registry.push("library/warmed", other, f"f{number}")
            assert fetched(chain.mirror, "library/warmed", other.layers[0].digest) == other.layers[0].digest
        then = time.time() - 9000
        for file in blobs(chain.mirror.cache):
            os.utime(file, (then, then))
        for content in pushed.everything():
            os.utime(blob_file(chain.mirror.cache, content.digest), (then - 9000, then - 9000))
        forget_figures(chain.mirror.cache)
        wait_until(lambda: "evicted " in chain.mirror.read_log(), "the budget is kept")
        assert is_held(chain, "warmed", pushed)
        assert not all(blob_file(chain.mirror.cache, each.layers[0].digest).exists() for each in others)
        chain.stop_upstream()
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host()}/docker.io/library/warmed:pinned", pushed)
        [pin] = json.loads(succeeded(dockmirror(chain.mirror, "pins", "--json")))
        assert (pin["image"], bool(pin["refreshed"])) == ("docker.io/library/warmed:pinned", True)
        succeeded(dockmirror(chain.mirror, "unpin", "warmed:pinned"))
        assert dockmirror(chain.mirror, "unpin", "warmed:pinned").returncode == 1
