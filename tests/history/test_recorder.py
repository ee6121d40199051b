"""Requests become pulls, in all processes alike, and the sums agree with the metrics and the access log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.body.bodies import BytesBody
from dockmirror.history.pull_table import PULL_TABLE_SIZE
from dockmirror.history.pulls import Pull, PullFilter
from dockmirror.history.tracker import JOIN_SECONDS
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied, ManifestUnknown, RegistryError, Unauthorized, Unreachable
from dockmirror.oci.header_fields import CacheResult
from dockmirror.oci.request import Manifest, RegistryRequest, Repository, Tag

from ..scraped import scraped
from .kept import KeptHistory
from .traffic import IMAGE, INDEX, LAYER, OTHER_LAYER, PATHS, ScriptedRegistry, Worker

CLIENTS = ("10.0.0.1", "10.0.0.2")
FAILURE = Unreachable("the registry does not answer")


class Mirror:
    """Two workers with one history."""

    def __init__(self, directory: Path) -> None:
        self.kept = KeptHistory(directory)
        self.kept.write()
        self.clock = self.kept.clock
        self.registry = ScriptedRegistry()
        memory = memoryview(bytearray(PULL_TABLE_SIZE))
        self.workers = [Worker(self.registry, memory, self.clock) for _ in range(2)]
        for number, each in enumerate(self.workers):
            each.recorder.process, each.recorder.take = number, self.kept.take

    def ask(self, requests: str, worker: int = 0, **how: str) -> list[str]:
        """Send requests one after the other, such as "HEAD tag, layer"; return the ids of their pulls."""
        found = []
        for number, each in enumerate(requests.split(", ")):
            method, _, name = each.rpartition(" ")
            found.append(self.workers[(worker + number) % 2].ask(method or "GET", name, **how))
        return found

    def pulls(self, **conditions: str) -> list[Pull]:
        for each in self.workers:
            each.recorder.flush()
        return list(self.kept.pulls(**conditions))


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror(tmp_path)
    yield mirror
    mirror.kept.close()


@pytest.mark.parametrize("first", ["HEAD tag, index", "HEAD tag, HEAD tag, tag", "tag", "HEAD tag, tag"])
def test_a_pull_over_two_workers_is_one_row(mirror: Mirror, first: str) -> None:
    """The index, the manifest, the configuration and layers, of which one is resumed."""
    ids = mirror.ask(first)
    ids += mirror.ask("image, config, layer, other")
    mirror.registry.result = CacheResult.HIT
    mirror.clock.advance(30)
    ids += mirror.ask("layer, index")
    assert len(set(ids)) == 1
    (pull,) = mirror.pulls()
    assert str(pull.number) == ids[0]
    assert (pull.reference, pull.platform, pull.layers, pull.cached_layers) == ("latest", "linux/amd64", 2, 1)
    assert pull.digest == PATHS["index"].partition("/")[2]
    assert (pull.cached_bytes, pull.saved_requests, pull.saved_pulls) == (len(LAYER) + len(INDEX), 2, 0)
    assert pull.upstream_bytes == sum(map(len, (INDEX, IMAGE, b"config", LAYER, OTHER_LAYER)))
    assert (pull.seconds, pull.host, pull.client, pull.user) == (30.0, "mirror.example", CLIENTS[0], "")


def test_a_pull_by_digest_is_named_by_it_whichever_worker_reports_first(mirror: Mirror) -> None:
    mirror.ask("index, image")
    mirror.workers[1].recorder.flush()
    (pull,) = mirror.pulls()
    assert pull.reference == pull.digest == PATHS["index"].partition("/")[2]


def test_a_pull_is_not_named_by_an_image_of_its_index_that_another_worker_serves_again(
    mirror: Mirror,
) -> None:
    for worker, name in enumerate(("index", "image", "image")):
        mirror.workers[worker // 2].ask("GET", name)
    mirror.workers[1].recorder.flush()
    (pull,) = mirror.pulls()
    assert pull.reference == pull.digest == PATHS["index"].partition("/")[2]


def test_a_flush_tells_the_other_workers_of_the_last_byte(mirror: Mirror) -> None:
    """The pull began 60.3 seconds before the last request, and its last byte was sent 59.8 seconds before."""
    first, second = mirror.workers
    image = first.ask("GET", "image")
    second.ask("GET", "config")
    mirror.clock.advance(0.5)
    first.ask("GET", "layer")
    first.recorder.flush()
    mirror.clock.advance(59.8)
    assert second.ask("GET", "other") == image


def test_a_late_note_of_a_transfer_does_not_age_its_pull(mirror: Mirror) -> None:
    """A blob was sent before, and another one is being sent."""
    first, second = mirror.workers
    image = first.ask("GET", "image")
    first.ask("GET", "config")
    first.begin_slow("layer")
    mirror.clock.advance(30)
    first.recorder.flush()
    mirror.clock.advance(59)
    assert second.ask("GET", "other") == image


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ("HEAD tag", []),
        ("HEAD tag, HEAD layer", []),
        ("layer", []),
        ("image", ["served"]),
        ("tag, image, layer", ["served"]),
        ("index, manifests/sha256-" + "0" * 64 + ".sig", ["served"]),
        ("manifests/nope", ["failed"]),
        ("tag, manifests/nope", ["failed", "served"]),
    ],
)
def test_outcomes(mirror: Mirror, requests: str, expected: list[str]) -> None:
    fetch = mirror.registry.fetch

    async def fetch_known(request: RegistryRequest) -> object:
        if any(word in str(request.target) for word in ("nope", "sha256-")):
            raise ManifestUnknown
        return await fetch(request)

    mirror.registry.fetch = fetch_known  # type: ignore[method-assign, assignment]
    mirror.ask(requests)
    mirror.clock.advance(10)
    assert [each.outcome for each in mirror.pulls()] == expected


def test_a_failed_request_that_is_tried_again_fails_no_pull(mirror: Mirror) -> None:
    mirror.ask("image")
    mirror.registry.error = FAILURE
    mirror.ask("layer, other")
    assert [each.reason for each in mirror.pulls()] == ["the registry does not answer"]
    mirror.registry.error = None
    mirror.ask("layer")
    assert [each.outcome for each in mirror.pulls()] == ["failed"]
    mirror.registry.breaks = True
    mirror.ask("other")
    (pull,) = mirror.pulls()
    assert (pull.outcome, pull.reason) == ("failed", "the upstream broke off")
    mirror.registry.breaks = False
    mirror.ask("other")
    mirror.clock.advance(4)
    (pull,) = mirror.pulls()
    assert (pull.outcome, pull.reason, pull.layers) == ("served", "", 2)


def test_a_challenge_begins_no_pull_and_the_next_request_has_its_id(mirror: Mirror) -> None:
    mirror.registry.error = Unauthorized()
    ids = mirror.ask("tag")
    assert mirror.pulls() == []
    mirror.registry.error = None
    assert mirror.ask("tag") == ids
    assert len(mirror.pulls()) == 1


def test_a_tag_that_moves_without_a_stated_digest_names_its_new_contents(mirror: Mirror) -> None:
    """The digest is that of the bytes, each time."""
    fetch = mirror.registry.fetch
    references = iter((Tag("latest"), Digest.parse(PATHS["image"].partition("/")[2])))

    async def fetch_bare(request: RegistryRequest) -> Answer:
        target = Manifest(Repository("library/nginx"), next(references))
        body: Any = (await fetch(evolve(request, target=target))).body
        return Answer(BytesBody(body.data, Descriptor(body.descriptor.media_type)))

    mirror.registry.fetch = fetch_bare  # type: ignore[method-assign]
    ids = [mirror.workers[0].ask("GET", "tag") for _ in range(2)]
    mirror.registry.fetch = fetch  # type: ignore[method-assign]
    ids.append(mirror.workers[1].ask("GET", "layer"))
    assert len(set(ids)) == 1
    assert ids[0]


def test_clients_users_and_repositories_have_pulls_of_their_own(mirror: Mirror) -> None:
    ids = {
        *mirror.ask("tag, image"),
        *mirror.ask("tag, image", client=CLIENTS[1]),
        *mirror.ask("tag", repository="library/redis"),
    }
    assert len(ids) == len(mirror.pulls()) == 3


@pytest.mark.parametrize("is_limited", [True, False])
def test_limited_pulls_are_counted_by_platform(mirror: Mirror, is_limited: bool) -> None:
    """An upstream that does not limit pulls has none to save."""
    mirror.registry.result = CacheResult.HIT
    for worker in mirror.workers:
        worker.is_limited = is_limited
    mirror.ask("HEAD tag, tag, image, layer")
    assert [each.saved_pulls for each in mirror.pulls()] == [int(is_limited)]


def test_a_long_pull_is_live_and_stays_one(mirror: Mirror) -> None:
    """A client that takes its time is noted each second, and what comes later joins."""
    mirror.ask("image")
    worker = mirror.workers[0]
    waiting = worker.begin_slow("layer")
    for _ in range(100):
        mirror.clock.advance(1)
        worker.recorder.flush()
    (pull,) = mirror.pulls()
    assert (pull.outcome, pull.seconds) == ("running", 100.0)
    waiting.callback(None)
    assert mirror.ask("other") == [str(pull.number)]
    assert [each.layers for each in mirror.pulls()] == [2]


@pytest.mark.parametrize("name", ["tag", "index"])
@pytest.mark.parametrize("pause", [0.5, 30])
def test_a_refusal_after_an_image_was_served_is_a_pull_of_its_own(
    mirror: Mirror, name: str, pause: float
) -> None:
    """The client has the image; all refusals that follow are one pull, by whichever worker."""
    [served, *_] = mirror.ask(f"HEAD {name}, {name}, image, config, layer, other")
    mirror.clock.advance(pause)
    mirror.registry.error = Denied("it was recalled")
    refused = mirror.ask(f"{name}, {name}, HEAD {name}")
    mirror.clock.advance(pause)
    refused += mirror.ask(f"{name}, {name}")
    assert len({served, *refused}) == 2
    mirror.clock.advance(10)
    assert [(str(each.number), each.outcome, each.digest != "") for each in mirror.pulls()] == [
        (refused[0], "failed", False),
        (served, "served", True),
    ]


def test_a_refusal_after_the_image_of_a_moved_tag_was_served_is_a_pull_of_its_own(mirror: Mirror) -> None:
    """The tag is requested twice within seconds, and names the image of its index the second time."""
    [served] = mirror.ask("tag")
    fetch = mirror.registry.fetch

    async def fetch_moved(request: RegistryRequest) -> Answer:
        digest = Digest.parse(PATHS["image"].partition("/")[2])
        return await fetch(evolve(request, target=Manifest(Repository("library/nginx"), digest)))

    mirror.registry.fetch = fetch_moved  # type: ignore[method-assign]
    assert mirror.workers[0].ask("GET", "tag") == served
    mirror.registry.fetch = fetch  # type: ignore[method-assign]
    mirror.registry.error = Denied("it was recalled")
    assert mirror.workers[0].ask("GET", "image") != served


def test_a_refusal_before_an_image_was_served_belongs_to_its_pull(mirror: Mirror) -> None:
    """A HEAD serves nothing, and neither does an index whose image is refused."""
    ids = mirror.ask("HEAD index, index")
    mirror.registry.error = Denied("no")
    ids += mirror.ask("image, image")
    assert len(set(ids)) == 1
    assert [each.outcome for each in mirror.pulls()] == ["failed"]


def test_a_challenge_after_an_image_was_served_belongs_to_its_pull(mirror: Mirror) -> None:
    ids = mirror.ask("HEAD tag, tag")
    mirror.registry.error = Unauthorized()
    ids += mirror.ask("tag, tag")
    assert len(set(ids)) == 1
    mirror.clock.advance(10)
    assert [each.outcome for each in mirror.pulls()] == ["served"]


def test_nothing_secret_reaches_the_file(mirror: Mirror) -> None:
    """Queries and credentials are left out, in the write-ahead log, too."""
    worker = mirror.workers[0]
    worker.ask("GET", "manifests/latest?token=s3cret", headers=["Authorization: Basic czNjcmV0OnNlY3JldA=="])
    mirror.registry.error = RegistryError("no", status=403)
    worker.ask("GET", "manifests/other?token=s3cret", headers=["Authorization: Bearer t0ken"])
    assert len(mirror.pulls()) == 2
    written = b"".join(each.read_bytes() for each in mirror.kept.path.parent.iterdir())
    for secret in (b"s3cret", b"czNjcmV0", b"t0ken", b"secret"):
        assert secret not in written


@define(eq=False)
class ModelPull:
    """A pull as the model sees it."""

    client: str
    last: float
    names: set[str] = field(factory=set)
    layers: set[str] = field(factory=set)
    failed: set[str] = field(factory=set)
    served: set[str] = field(factory=set)
    gets: int = 0


CHILDREN = {"index": {"image"}, "image": {"layer", "other", "config"}}


class Model:
    """All pulls in a list, with nothing hashed, shared or forgotten."""

    def __init__(self) -> None:
        self.pulls: list[ModelPull] = []
        self.children: dict[str, set[str]] = {}

    def ask(self, method: str, name: str, client: str, ok: bool, now: float) -> ModelPull | None:
        live = [each for each in self.pulls if each.client == client and now - each.last <= JOIN_SECONDS]
        same = [each for each in live if name in each.names]
        named = [each for each in live if any(name in self.children.get(by, ()) for by in each.names)]
        pull = max(same or named, key=lambda each: each.last, default=None)
        is_manifest = name in ("tag", "index", "image")
        if method == "GET" and not ok and pull is not None and name in pull.served:
            unserved = [each for each in same if name not in each.served]
            pull = max(unserved, key=lambda each: each.last, default=None)
        is_new = pull is None
        if pull is None and is_manifest:
            pull = ModelPull(client, now)
        if pull is None:
            return None
        if is_new and (ok or method == "GET"):
            self.pulls.append(pull)
        if method == "GET" or (is_new and ok):
            pull.last = now
            pull.names |= {name} if is_manifest else set()
        if name == "tag" and ok:
            pull.names |= {"index"}
        if method == "GET":
            pull.gets += 1
            manifest = "index" if name == "tag" else name
            if ok and manifest in CHILDREN:
                self.children[manifest] = CHILDREN[manifest]
            pull.layers |= {name} & {"layer", "other"}
            pull.failed = pull.failed - {name} if ok else pull.failed | {name}
            if ok and is_manifest:
                pull.served |= {name, manifest}
        return pull


STEPS = st.tuples(
    st.sampled_from([("HEAD", "tag"), *(("GET", name) for name in PATHS)]),
    st.sampled_from(CLIENTS),
    st.integers(0, 1),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0.01, 1.0, 25.0, 100.0]),
)


@settings(max_examples=20)
@given(st.lists(STEPS, min_size=2, max_size=8))
def test_pulls_are_those_of_a_simple_model(
    steps: list[tuple[tuple[str, str], str, int, bool, float]],
) -> None:
    """Whichever worker serves a request, it joins the same pull, and the rows say the same."""
    with TemporaryDirectory() as directory:
        mirror, model = Mirror(Path(directory)), Model()
        ids: dict[ModelPull, str] = {}
        for (method, name), client, worker, ok, pause in steps:
            if pause > 1:
                mirror.pulls()
            mirror.clock.advance(pause)
            mirror.registry.error = None if ok else FAILURE
            found = mirror.workers[worker].ask(method, name, client)
            expected = model.ask(method, name, client, ok, mirror.clock.seconds())
            if expected is None:
                assert found == ""
            else:
                assert ids.setdefault(expected, found) == found
        assert len(set(ids.values())) == len(ids)
        mirror.clock.advance(10)
        rows = {str(each.number): (each.layers, each.outcome) for each in mirror.pulls()}
        assert rows == {
            ids[each]: (len(each.layers), "failed" if each.failed else "served")
            for each in model.pulls
            if each.gets
        }
        mirror.kept.close()


def test_blobs_that_peers_request_count_where_a_client_has_asked_the_peer(mirror: Mirror) -> None:
    """A client that asks for a manifest does not hide its pull by the mark of a peer."""
    hop = f"CDN-Loop: dockmirror-{'a' * 32}; pull=7"
    assert mirror.workers[0].ask("GET", "layer", headers=[f"{hop}; peer"]) == ""
    assert (mirror.pulls(), mirror.kept.reader.sums("registry", PullFilter())) == ([], [])
    assert mirror.workers[0].ask("GET", "tag", headers=[f"{hop}; peer"])
    assert len(mirror.pulls()) == 1


def test_sums_of_random_traffic_agree_with_the_metrics_and_the_log(mirror: Mirror) -> None:
    """The bytes of contents, hits and requests, over all pulls and outside of them."""
    random = Random(16)
    for _ in range(250):
        mirror.clock.advance(random.choice([0.1, 1.0, 20.0]))
        mirror.registry.result = random.choice(list(CacheResult))
        mirror.registry.error = FAILURE if random.random() < 0.1 else None
        mirror.registry.breaks = random.random() < 0.1
        worker = mirror.workers[random.randrange(2)]
        worker.ask(random.choice(["GET", "GET", "HEAD"]), random.choice(list(PATHS)), random.choice(CLIENTS))
        if random.random() < 0.3:
            worker.recorder.flush()
    pulls = mirror.pulls()
    lines = [line for worker in mirror.workers for line in worker.lines]
    ids = [each for worker in mirror.workers for each in worker.pull_ids]
    sent = [line["bytes"] if line["status"] == 200 and line["method"] == "GET" else 0 for line in lines]
    by_id: dict[str, int] = defaultdict(int)
    for number, count in zip(ids, sent, strict=True):
        by_id[number] += count
    for pull in pulls:
        assert pull.cached_bytes + pull.upstream_bytes == by_id[str(pull.number)]
    for by in ("hour", "day", "registry", "repository", "client"):
        sums = mirror.kept.reader.sums(by, PullFilter())
        assert sum(each.cached_bytes + each.upstream_bytes for each in sums) == sum(sent)
        assert sum(each.pulls for each in sums) == len(pulls)
        assert sum(each.failed for each in sums) == sum(each.outcome == "failed" for each in pulls)
    metrics = [scraped(worker.metrics.registry) for worker in mirror.workers]
    hits = sum(
        value
        for each in metrics
        for (name, labels), value in each.items()
        if name == "dockmirror_cache_results_total"
        and labels[1] in ("hit", "stale_while_revalidate", "redirected")
    )
    assert sum(each.saved_requests for each in sums) == hits
    errors = sum(line["bytes"] for line in lines) - sum(sent)
    exposed = sum(each["dockmirror_sent_bytes_total", ("mirror.example",)] for each in metrics)
    assert exposed - errors == sum(sent)
