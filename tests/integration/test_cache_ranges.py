"""Parts of blobs and conditions, as curl and containerd ask for them."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import MakeChain
from .parts.cdn import CdnRequest
from .parts.chain import Chain
from .parts.clients import curl
from .parts.images import artifact
from .parts.kept import blob_file, blocks_file, growing_file, layer_link, length
from .parts.machine import Machine
from .parts.media import Content
from .parts.process import wait_until
from .parts.stream import begun, fetched
from .pulls import succeeded

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "public/ranges"
HELD = artifact("ranges of what is held", size=MIB).layers[0]
END = MIB - 1


@dataclass(frozen=True)
class Answer:
    """A response as curl received it."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def cached(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that holds one blob whole."""
    with chains() as chain:
        chain.registry.push(NAME, artifact("ranges of what is held", size=MIB), "latest")
        assert fetched(chain.mirror, NAME, HELD.digest) == HELD.digest
        wait_until(blob_file(chain.mirror.cache, HELD.digest).exists, "the blob is held")
        yield chain


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("100-299", 100, 299),
        ("-500", END - 499, END),
    ],
)
def test_one_part(cached: Chain, skopeo_machine: Machine, asked: str, first: int, last: int) -> None:
    """A part of a cached blob is served without a request upstream."""
    before = cached.asked()
    answer = _curl(cached, skopeo_machine, HELD, "--range", asked)
    assert (answer.status, answer.body) == (206, HELD.data[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{MIB}"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["etag"] == f'"{HELD.digest}"'
    assert answer.headers["cache-status"] == "dockmirror; hit"
    assert cached.asked() == before


def test_several_parts(cached: Chain, skopeo_machine: Machine) -> None:
    """Several parts come as one multipart body."""
    answer = _curl(cached, skopeo_machine, HELD, "--range", "0-9,500-599,-5")
    assert answer.status == 206
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = list(email.message_from_bytes(head + answer.body, policy=email.policy.HTTP).iter_parts())
    bodies = [part.get_payload(decode=True) for part in parts]
    assert bodies == [HELD.data[:10], HELD.data[500:600], HELD.data[-5:]]
    ranges = [part["Content-Range"] for part in parts]
    assert ranges == [f"bytes 0-9/{MIB}", f"bytes 500-599/{MIB}", f"bytes {END - 4}-{END}/{MIB}"]
    assert answer.headers["content-length"] == str(len(answer.body))


def test_part_of_what_is_not_held(cached: Chain, skopeo_machine: Machine) -> None:
    """Only the blocks of a part are kept, apart from what is held, and serve the next client."""
    pushed = artifact("only a part", size=3 * MIB)
    cached.registry.push(NAME, pushed, "part")
    layer = pushed.layers[0]
    for asked, part in (("100-299", layer.data[100:300]), ("500-599", layer.data[500:600])):
        answer = _curl(cached, skopeo_machine, layer, "--range", asked)
        assert (answer.status, answer.body) == (206, part)
        assert answer.headers["cache-status"] == "dockmirror; fwd=miss"
    assert not blob_file(cached.mirror.cache, layer.digest).exists()
    assert not growing_file(cached.mirror.cache, layer.digest).exists()
    assert blocks_file(cached.mirror.cache, layer.digest).exists()
    assert [each.range for each in _of_cdn(cached, layer)] == ["bytes=0-1048575"]
    assert _curl(cached, skopeo_machine, layer, "--range", f"{3 * MIB}-").status == 416


def test_part_of_what_grows(cached: Chain, skopeo_machine: Machine) -> None:
    """A part of a blob that is on its way in comes from what is there, without another fetch."""
    pushed = artifact("growing parts", size=2 * MIB)
    cached.registry.push(NAME, pushed, "growing")
    layer = pushed.layers[0]
    with ThreadPoolExecutor(1) as pool, cached.blobs.valve.shut(MIB):
        whole = pool.submit(fetched, cached.mirror, NAME, layer.digest)
        _wait_for(cached, layer, MIB)
        for asked, part in (("0-99", layer.data[:100]), ("500000-500009", layer.data[500_000:500_010])):
            answer = _curl(cached, skopeo_machine, layer, "--range", asked)
            assert (answer.status, answer.body) == (206, part)
            assert answer.headers["cache-status"] == "dockmirror; fwd=miss; collapsed"
        assert _curl(cached, skopeo_machine, layer, "--range", f"{2 * MIB}-").status == 416
        cached.blobs.valve.open()
        assert whole.result() == layer.digest
    assert [each.range for each in _of_cdn(cached, layer)] == [None]


@pytest.mark.parametrize("offset", [0, 100, MIB // 2])
def test_closed_early(cached: Chain, offset: int) -> None:
    """containerd opens ``bytes=N-`` and closes it early: the download goes on, and nobody complains."""
    pushed = artifact(f"closed early at {offset}", size=2 * MIB)
    cached.registry.push(NAME, pushed, f"early-{offset}")
    layer, log = pushed.layers[0], len(cached.mirror.read_log())
    with ThreadPoolExecutor(1) as pool, cached.blobs.valve.shut(MIB):
        whole = pool.submit(fetched, cached.mirror, NAME, layer.digest)
        _wait_for(cached, layer, MIB)
        with begun(cached.mirror, _path(layer), {"Range": f"bytes={offset}-"}) as response:
            assert response.status == 206
            assert response.read(1000) == layer.data[offset : offset + 1000]
        wait_until(lambda: f"{layer.digest} 206" in cached.mirror.read_log(), "it is closed")
        cached.blobs.valve.open()
        assert whole.result() == layer.digest
    assert [each.range for each in _of_cdn(cached, layer)] == [None]
    assert "#error" not in cached.mirror.read_log()[log:]
    assert "Unhandled" not in cached.mirror.read_log()[log:]


def test_all_of_it_closed_early(cached: Chain) -> None:
    """``bytes=0-``, closed early by the only one who asks, begins a fetch that goes on to the end."""
    pushed = artifact("from 0 and closed", size=2 * MIB)
    cached.registry.push(NAME, pushed, "from-0")
    layer = pushed.layers[0]
    with cached.blobs.valve.shut(MIB):
        with begun(cached.mirror, _path(layer), {"Range": "bytes=0-"}) as response:
            assert response.read(1000) == layer.data[:1000]
        wait_until(lambda: f"{layer.digest} 206" in cached.mirror.read_log(), "it is closed")
    wait_until(layer_link(cached.mirror.cache, f"docker.io/{NAME}", layer.digest).exists, "it is held")
    assert fetched(cached.mirror, NAME, layer.digest) == layer.digest
    assert [each.range for each in _of_cdn(cached, layer)] == [f"bytes=0-{8 * MIB - 1}"]


def _path(blob: Content) -> str:
    return f"/v2/docker.io/{NAME}/blobs/{blob.digest}"


def _curl(chain: Chain, machine: Machine, blob: Content, *options: str) -> Answer:
    head, body = machine.home / "head", machine.home / "body"
    body.unlink(missing_ok=True)
    output = [] if "--head" in options else ["--output", str(body)]
    url = f"http://{chain.mirror.host()}{_path(blob)}"
    succeeded(curl(machine, "--dump-header", str(head), *output, *options, url))
    return _parsed(head, body.read_bytes() if body.exists() else b"")


def _parsed(head: Path, body: bytes) -> Answer:
    status, *lines = head.read_text().strip().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)


def _wait_for(chain: Chain, blob: Content, size: int) -> None:
    file = growing_file(chain.mirror.cache, blob.digest)
    wait_until(lambda: length(file) == size, f"{size} bytes have come")


def _of_cdn(chain: Chain, blob: Content) -> list[CdnRequest]:
    return [each for each in chain.blobs.requests if each.path.endswith(blob.digest.removeprefix("sha256:"))]
