"""``python -m bench.image``: an image of 40 layers and 400 MB by skopeo, cold and warm."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from attrs import frozen

from .clients import skopeo
from .command import run
from .images import push_image
from .peers import distribution
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer, repository
from .rounds import in_turn
from .table import Row, at_most

LAYERS = 40
LAYER_BYTES = 10_000_000


@frozen
class Pulled:
    """Seconds of a pull with an empty cache, and of a second pull."""

    cold: float
    warm: float


def rows(rounds: int) -> Iterator[Row]:
    """Measure pulls beside direct pulls from the registry."""
    case = f"image of {LAYERS} layers, {LAYERS * LAYER_BYTES // 10**6} MB, by skopeo"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        push_image(upstream, [repository(NAME), repository(upstream.name)], LAYERS, LAYER_BYTES, directory)
        direct: list[float] = []
        got = in_turn(rounds, {"direct": partial(_direct, upstream), NAME: partial(_mirrored, upstream)})
        direct = [pulled.warm for pulled in got["direct"]]
        cold, warm = [pulled.cold for pulled in got[NAME]], [pulled.warm for pulled in got[NAME]]
        yield Row(f"{case}, cold", "s", cold, "docker-registry itself", direct)
        yield Row(f"{case}, warm", "s", warm, "docker-registry itself", direct, at_most(1.0))


def _direct(upstream: Peer, number: int) -> Pulled:
    seconds = skopeo.pull(_image(upstream))
    return Pulled(seconds, seconds)


def _mirrored(upstream: Peer, number: int) -> Pulled:
    with mirrored(upstream.url.partition("/v2/")[0]) as peer:
        return Pulled(skopeo.pull(_image(peer)), skopeo.pull(_image(peer)))


def _image(peer: Peer) -> str:
    host, _, path = peer.url.partition("//")[2].partition("/v2/")
    return f"{host}/{path}:latest"


if __name__ == "__main__":
    run(rows)
