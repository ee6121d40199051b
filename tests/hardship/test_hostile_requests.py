"""Clients that send what no client sends: each is refused, and nothing of it reaches anybody else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror
from tests.long import LONG

from .grammar import WRITTEN, statuses
from .hostile import CANARY, DIGEST, Hostile, forms, framing, sizes, traversals
from .raw import sent
from .rows import Record, hardship
from .spoilt import changes, mutations, questions
from .touched import touched_by
from .witness import Witness

pytestmark = pytest.mark.integration

SEED = int(os.environ.get("HOSTILE_SEED", "7"))
COUNT = int(os.environ.get("HOSTILE_COUNT", "20000" if LONG else "300"))
TIMEOUTS = {"head_timeout": 1, "body_timeout": 1, "idle_timeout": 1, "stall_timeout": 2}
LATEST = 60
"""Seconds after which no connection is left: ten times the time-outs and the 5 seconds for a body that nobody
reads, for a machine that is busy."""
AT_ONCE = 64
INJECTED = re.compile(rb"\r\nX-Injected", re.IGNORECASE)


@pytest.fixture(scope="module")
def image() -> Image:
    """The image of the upstream."""
    return artifact("hostile")


@pytest.fixture(scope="module")
def witness(image: Image) -> Iterator[Witness]:
    """An upstream that looks at what it is asked."""
    with Witness(image) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def taking(image: Image) -> Iterator[Witness]:
    """An upstream that takes writes, too."""
    with Witness(image, WRITTEN) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def mirror(
    directory: MakeDirectory, make_machine: MakeMachine, witness: Witness, taking: Witness
) -> Iterator[Mirror]:
    """A mirror that is not patient."""
    upstreams = {
        "docker": {"url": witness.url, "timeout": 5},
        "pushed": {"url": taking.url, "timeout": 5, "writes": True},
    }
    settings = {"access": TIMEOUTS, "export": True, "tag_ttl": 0}
    with Mirror(directory("mirror"), make_machine(), upstreams, **settings) as process:
        yield process


@hardship("hostile: requests that no client sends")
def test_hostile(mirror: Mirror, witness: Witness, image: Image, came: Record) -> None:
    """Each request gets a right response or none, reaches no upstream, and reads no other file."""
    hosts = mirror.host("docker"), mirror.host()
    known = tuple(part + path for part in ("/v2", "/docker.io/v2") for path in _paths(image))
    hostile = [
        *framing(hosts[0]), *forms(hosts[0]), *sizes(hosts[0]), *traversals(hosts if LONG else hosts[:1]),
        *mutations(questions((*hosts, "127.0.0.1", "evil.test"), known), Random(SEED), COUNT),
    ]  # fmt: skip
    came(_nothing_came_of(mirror, witness, hostile))


@hardship("hostile: pushes that no client makes")
def test_hostile_writes(mirror: Mirror, taking: Witness, came: Record) -> None:
    """A hostile push reaches the upstream only as a request that a client could have made."""
    begun = mirror.client("pushed").request("POST", "/v2/team/a/blobs/uploads/")
    assert begun.status == 202
    right = changes(mirror.host("pushed"), begun.headers["Location"], "team/a")
    hostile = list(mutations(right, Random(SEED), COUNT // 2))
    told = _nothing_came_of(mirror, taking, hostile)
    assert len([line for line in taking.asked if not line.startswith(("GET", "HEAD"))]) > len(hostile) // 10
    came(told)


def _nothing_came_of(mirror: Mirror, witness: Witness, hostile: Sequence[Hostile]) -> str:
    with touched_by(mirror.pids()) as touched:
        slowest = _all_answered(mirror, hostile)
    outside = touched.outside(mirror.cache, mirror.state)
    smuggled = [line for line in witness.asked if CANARY in line]
    wrong = [*smuggled, *witness.faults, *outside]
    assert not wrong, "\n".join(wrong)
    assert touched.count > 0
    assert mirror.failures() == ""
    assert "Unhandled" not in mirror.read_log()
    return (
        f"{len(hostile)} answered or closed, the last after {slowest:.1f} s; {len(witness.asked)} requests"
        f" upstream, {touched.count} names of files"
    )


def _paths(image: Image) -> Iterable[str]:
    layer = image.layers[0].digest
    return (
        "/", "/_catalog", "/auth?scope=repository:library/a:pull&service=a", "/library/a/manifests/latest",
        f"/library/a/manifests/{image.digest}", f"/library/a/blobs/{layer}", f"/library/a/blobs/{DIGEST}",
        "/library/a/tags/list?n=5&last=a", f"/library/a/referrers/{image.digest}?artifactType=a/b",
    )  # fmt: skip


def _all_answered(mirror: Mirror, hostile: Iterable[Hostile]) -> float:
    def answered(each: Hostile) -> tuple[str | None, float]:
        cut = len(each.data) // 3
        try:
            received, seconds = sent(mirror.port, (each.data[:cut], each.data[cut:]), LATEST)
            got = tuple(statuses(received))
        except (TimeoutError, ValueError) as error:
            return f"{each.name}: {error} of {each.data[:200]!r}", 0
        if each.gets not in (None, got) or INJECTED.search(received) or 500 in got:
            return f"{each.name}: {got} and not {each.gets}: {each.data[:200]!r}", 0
        return None, seconds

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(answered, hostile))
    wrong = [outcome for outcome, _ in outcomes if outcome]
    assert not wrong, "\n".join(wrong)
    return max(seconds for _, seconds in outcomes)
