"""Three mirrors of one registry that fetch its blobs for each other, without a bucket or a load balancer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE, Account
from .parts.chain import Chain
from .parts.command import dockmirror
from .parts.images import Image, artifact, image
from .parts.kept import leaks, wrong_blobs
from .parts.mirror import PATIENT_PEERS, Mirror, make_peers
from .parts.process import wait_until
from .test_members import names

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
MIRRORS = 3
CAROL = Account("carol", "car0l's")
PATIENT = f"""{PATIENT_PEERS}
import dockmirror.concurrency.backoff
dockmirror.concurrency.backoff.FIRST = 600.0
"""
"""The same, and a mirror does not try a dead peer again: that would cost bytes, too."""


class Fleet:
    """Mirrors that list each other as peers.

    :ivar chain: the registry, and the first mirror.
    """

    def __init__(self, chain: Chain, others: list[Mirror]) -> None:
        self.chain = chain
        self.mirrors = [chain.mirror, *others]

    def publish(self, name: str, published: Image) -> Image:
        self.chain.registry.push(name, published, "latest")
        self.chain.blobs.requests.clear()
        return published

    def copies(self, published: Image) -> list[int]:
        """Return how often each blob of an image has left the registry as a whole."""
        paths = [each.path for each in self.chain.blobs.requests if each.range is None]
        return [
            sum(path.endswith(blob.digest.partition(":")[2]) for path in paths) for blob in published.blobs
        ]


@pytest.fixture
def secrets(directory: MakeDirectory) -> Path:
    path = directory("peers")
    (path / "htpasswd").write_text(names(CAROL))
    return path


@pytest.fixture
def fleet(
    chains: MakeChain,
    directory: MakeDirectory,
    make_machine: MakeMachine,
    request: pytest.FixtureRequest,
    secrets: Path,
) -> Iterator[Fleet]:
    """Three mirrors; a test may say which settings they have."""
    make: Callable[[Path], Mapping[str, Any]] = getattr(request, "param", lambda _: {})
    settings = make(secrets)
    with ExitStack() as stack:
        chain = stack.enter_context(chains(PATIENT, **settings))
        upstreams = {"docker": {"url": chain.front.url, "realms": [chain.tokens.url]}}
        others: list[Mirror] = []
        for _ in range(MIRRORS - 1):
            machine = make_machine()
            machine.patch(PATIENT)
            others.append(stack.enter_context(Mirror(directory("peer"), machine, upstreams, **settings)))
        fleet = Fleet(chain, others)
        make_peers(fleet.mirrors)
        yield fleet
        for mirror in others:
            assert mirror.failures() == ""
            assert wrong_blobs(mirror.cache) == []
            assert leaks(mirror.directory, chain.secrets()) == []


def pulls(mirror: Mirror) -> list[int]:
    """Return the numbers of layers of the pulls in a mirror's history."""
    history = dockmirror(mirror, "history", "--json", environ={"STATE_DIRECTORY": str(mirror.state)})
    return [each["layers"] for each in json.loads(history.stdout)]


def logins(secrets: Path) -> Mapping[str, Any]:
    """The settings of mirrors that require a login, and have the same keys."""
    return {"access": {"htpasswd": str(secrets / "htpasswd"), "keys": str(secrets / "keys")}}


def test_a_blob_that_all_mirrors_want_leaves_the_registry_once(fleet: Fleet) -> None:
    """Each mirror has clients; the blobs are on their way when the others begin to ask, and all keep them."""
    wanted = fleet.publish("library/wanted", image("wanted", layers=(3 * MIB // 2, 2 * MIB, 900_000)))

    def pull(number: int, digest: str) -> bytes:
        client = fleet.mirrors[number % MIRRORS].client()
        return client.blob("docker.io/library/wanted", digest).body

    for mirror in fleet.mirrors:
        assert mirror.client().manifest("docker.io/library/wanted", "latest").status == 200
    with ThreadPoolExecutor(64) as pool, fleet.chain.blobs.valve.shut(MIB // 2):
        pulling = {
            blob.digest: [pool.submit(pull, number, blob.digest) for number in range(4 * MIRRORS)]
            for blob in wanted.blobs
        }
        asked = [f"/v2/library/wanted/blobs/{blob.digest}" for blob in wanted.layers]
        wait_until(lambda: sum(fleet.copies(wanted)) >= len(asked), "the registry is asked")
        fleet.chain.blobs.valve.open()
        for blob in wanted.blobs:
            assert all(each.result() == blob.data for each in pulling[blob.digest])
    assert fleet.copies(wanted) == [1] * len(wanted.blobs)
    for mirror in fleet.mirrors:
        with fleet.chain.upstream_stopped():
            assert pull(fleet.mirrors.index(mirror), wanted.layers[0].digest) == wanted.layers[0].data


def test_a_private_image_is_given_to_its_owner_by_each_mirror(fleet: Fleet) -> None:
    """The owner's token travels to the peer; without a login, every mirror refuses what all hold by now."""
    private = fleet.publish("private/peers", image("private peers"))
    for mirror in fleet.mirrors:
        client = mirror.client("docker", ALICE)
        assert client.manifest("private/peers", "latest").body == private.manifest.data
        for blob in private.blobs:
            assert client.blob("private/peers", blob.digest).body == blob.data
    assert fleet.copies(private) == [1] * len(private.blobs)
    for mirror in fleet.mirrors:
        wait_until(lambda at=mirror: pulls(at) == [len(private.layers)], "each has one pull of a client")  # type: ignore[misc]
        for blob in private.blobs:
            assert mirror.client("docker").blob("private/peers", blob.digest).status in (401, 403)
            assert mirror.client().blob("docker.io/private/peers", blob.digest).status in (401, 403)


@pytest.mark.parametrize("fleet", [logins], indirect=True, ids=[""])
def test_mirrors_that_require_a_login_let_each_other_in(fleet: Fleet) -> None:
    """By tokens that the keys which they share sign."""
    wanted = fleet.publish("library/members", image("members"))
    for mirror in fleet.mirrors:
        for blob in wanted.blobs:
            assert mirror.client("", CAROL).blob("docker.io/library/members", blob.digest).body == blob.data
    assert fleet.copies(wanted) == [1] * len(wanted.blobs)


def test_parts_of_a_blob_leave_the_registry_once(fleet: Fleet) -> None:
    """Three mirrors whose clients read the same parts of a blob cost the registry its blocks once."""
    published = fleet.publish("library/parts", artifact("parts of peers", size=6 * MIB))
    layer = published.layers[0]
    for offset in range(0, 6 * MIB, 1_500_000):
        for mirror in fleet.mirrors:
            part = {"Range": f"bytes={offset}-{offset + 999}"}
            answer = mirror.client().blob("docker.io/library/parts", layer.digest, part)
            assert (answer.status, answer.body) == (206, layer.data[offset : offset + 1000])
    whole = [mirror.client().blob("docker.io/library/parts", layer.digest).body for mirror in fleet.mirrors]
    assert {hashlib.sha256(each).hexdigest() for each in whole} == {layer.digest.partition(":")[2]}
    ranges = [each.range for each in fleet.chain.blobs.requests if each.path.endswith(layer.digest[7:])]
    assert len(set(ranges)) == len(ranges)


def test_a_peer_that_dies_is_replaced_by_the_next(fleet: Fleet) -> None:
    """Clients of the others notice nothing, and what the dead one was to fetch is fetched once."""
    with fleet.mirrors[0].killed():
        wanted = fleet.publish("library/dead", image("dead", layers=(400_000, 500_000, 600_000, 700_000)))
        for mirror in fleet.mirrors[1:]:
            for blob in wanted.blobs:
                answer = mirror.client().blob("docker.io/library/dead", blob.digest)
                assert answer.body == blob.data
    assert max(fleet.copies(wanted)) <= 2
    assert sum(fleet.copies(wanted)) <= len(wanted.blobs) + 1
