"""``python -m bench.admission``: cached manifests under a cool-down, beside a mirror without policies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from demo.mirror import Mirror, mirror

from .command import run
from .images import push_image
from .peers import distribution
from .peers.mirror import NAME
from .peers.peer import repository
from .requests import Case, measure
from .rounds import in_turn
from .table import Row, at_least

_OPEN, _COOLED = "no policy", "a cool-down"
_POLICY = """
[[policy]]
images = "docker.io/**"
min_age = "7d"
"""
_REQUESTS = 300
_PATH = f"/v2/docker.io/{repository(NAME)}/manifests/latest"


def rows(rounds: int) -> Iterator[Row]:
    """Measure a tag whose digest is admitted, and one that is served as the digest before.

    The rate is that of a processor: requests by the seconds of processor time that they take.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        url = upstream.url.partition("/v2/")[0]
        mirrors = {
            _OPEN: stack.enter_context(mirror(url)),
            _COOLED: stack.enter_context(mirror(url, own=_POLICY)),
        }
        push_image(upstream, [repository(NAME)], 40, 1024, directory / "first")
        yield _row("admitted", rounds, mirrors)
        push_image(upstream, [repository(NAME)], 41, 1024, directory / "second")
        yield _row("replaced", rounds, mirrors)


def _row(case: str, rounds: int, mirrors: dict[str, Mirror]) -> Row:
    rates = in_turn(rounds, {name: partial(_rate, each) for name, each in mirrors.items()})
    what = f"manifest by tag, {case}"
    return Row(what, "requests/s of a processor", rates[_COOLED], _OPEN, rates[_OPEN], at_least(0.9))


def _rate(running: Mirror, _: int) -> float:
    return 1 / measure(running, Case("manifest", "GET", _PATH, {}), _REQUESTS)


if __name__ == "__main__":
    run(rows)
