"""Tags are polled by one of the mirrors of a bucket, and all of them know what it has seen."""

from __future__ import annotations

import json
import time

import pytest

from dockmirror.oci.request import Repository, Tag
from dockmirror.store.tag_history import TagHistoryFiles

from .parts.command import dockmirror
from .parts.images import Image, image
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.seaweed import CREDENTIALS
from .parts.sharing import Sharing, pulled
from .pulls import succeeded

pytestmark = pytest.mark.integration

NAME = "library/polled"
TURN = 3
POLLS_OFTEN = f"""
from dockmirror.admission import sightings
from dockmirror.store import tag_history
from dockmirror.store.bucket import bucket_tag_history
sightings.CHECK_INTERVAL, sightings.SHORTEST, sightings.LONGEST = 0.3, {TURN}, 0
tag_history.EXTEND_INTERVAL = 0
bucket_tag_history.CHECK_INTERVAL = bucket_tag_history.UPLOAD_INTERVAL = 0.5
"""
"""A turn is that of one mirror for three seconds instead of an hour, and tags are always due."""


def seen(mirror: Mirror) -> list[str]:
    """Return the digests that a mirror knows the tag to have named."""
    record = TagHistoryFiles(mirror.cache).read(("docker", Repository(NAME), Tag("latest")))
    return [str(each.digest) for each in record.sightings]


def is_known(mirror: Mirror, *named: Image) -> bool:
    """Ask for the tag, which the mirror answers out of its cache, and return whether it knows these moves."""
    assert mirror.client("docker").manifest(NAME, "latest").body == named[0].manifest.data
    return seen(mirror) == [each.digest for each in named]


def test_one_mirror_polls_for_all(sharing: Sharing) -> None:
    """Each move is noticed by HEAD; in each turn one of the two mirrors asks, once."""
    sharing.patch = POLLS_OFTEN
    first, second = image("first"), image("second")
    sharing.registry.push(NAME, first, "latest")
    policy = [{"images": "docker.io/**", "min_age": "7d"}]
    mirrors = [sharing.add(policy=policy, tag_ttl=3600, workers=2) for _ in range(2)]
    for mirror in mirrors:
        pulled(mirror.client("docker"), NAME, first)
    sharing.registry.push(NAME, second, "latest")
    sharing.upstream.requests.clear()
    began = time.time()

    def polls() -> int:
        asked = [each for each in sharing.upstream.requests if each.path.endswith("/manifests/latest")]
        assert {each.method for each in asked} <= {"HEAD"}
        return sum(each.status != 401 for each in asked)  # each worker has tokens of its own

    for mirror in mirrors:
        wait_until(lambda at=mirror: is_known(at, first, second), "the move is known")  # type: ignore[misc]
    wait_until(lambda: polls() >= 5, "the tag is polled again")
    count = polls()
    assert count <= int(time.time() // TURN) - int(began // TURN) + 1
    for mirror in mirrors:
        [decision] = json.loads(
            succeeded(dockmirror(mirror, "policy", "test", "--json", "polled", environ=CREDENTIALS))
        )
        assert (decision["verdict"], decision["digest"]) == ("replaced", first.digest)
        assert decision["current"] == second.digest
    for mirror in mirrors:
        mirror.stop()
