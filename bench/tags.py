"""``python -m bench.tags``: a tag that is pulled again and again, with the upstream 200 ms away."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from .command import run
from .images import push_image
from .line import line
from .peers import distribution
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer, repository
from .rounds import in_turn
from .table import Row, at_most

AWAY = 0.2
"""Seconds until the upstream answers."""
TTL = 4
"""Seconds for which the tag is fresh."""
EACH = 0.1
"""Seconds from one pull to the next."""
PULLS = 300
"""In a round: several times to live."""
ROUNDS = 2
"""At most: the line and the clock set the pace, so that rounds hardly differ."""
_RATE = 20_000_000
_WITHOUT = "without refreshes"
_BY_DIGEST = "the same by digest"


def rows(rounds: int) -> Iterator[Row]:
    """Measure the slowest of a hundred pulls, with the settings as they come and without refreshes."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        digest = push_image(upstream, [repository(NAME)], 1, 1024, directory)
        far = stack.enter_context(line(urlsplit(upstream.url).port or 0, _RATE, AWAY))
        url = f"http://127.0.0.1:{far}"
        ours = stack.enter_context(mirrored(url, tag_ttl=TTL))
        without = stack.enter_context(mirrored(url, tag_ttl=TTL, refresh_ahead=False))
        measures = {
            NAME: partial(_pull, ours, "latest"),
            _BY_DIGEST: partial(_pull, ours, digest),
            _WITHOUT: partial(_pull, without, "latest"),
        }
        got = in_turn(min(rounds, ROUNDS), measures)
    case = (
        f"tag pulled each {EACH * 1000:g} ms, {PULLS * EACH / TTL:.0f} times to live, {AWAY * 1000:g} ms away"
    )
    yield Row(case, "p99, ms", got[NAME], aim=at_most(10))
    for beside in (_BY_DIGEST, _WITHOUT):
        yield Row(case, "p99, ms", got[NAME], beside, got[beside])


def _pull(peer: Peer, reference: str, number: int) -> float:
    """Return the milliseconds that the slowest pull but one in a hundred took."""
    url = urlsplit(peer.manifest(reference))
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    took: list[float] = []
    due = time.monotonic()
    for _ in range(PULLS):
        time.sleep(max(0.0, due - time.monotonic()))
        due += EACH
        began = time.monotonic()
        connection.request("GET", url.path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise ValueError(f"{url.path}: status {response.status}")
        took.append((time.monotonic() - began) * 1e3)
    connection.close()
    return sorted(took)[-1 - PULLS // 100]


if __name__ == "__main__":
    run(rows)
