"""The cool-down, line by line, in front of a whole cache."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from dockmirror.admission.recalls import Recall, Recalls
from dockmirror.admission.tag_facts import HubPushTimes, parse_push_time
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, ManifestUnknown, Unavailable, Unreachable
from dockmirror.oci.header_fields import CacheResult, format_etag
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST

from ..answering import now
from ..fakes import Reply, World
from ..pullthrough.mirrors import NAME, header
from ..pullthrough.origin import index
from ..stacks import client
from .gated import DAY, LATEST, REPOSITORY, Gated

WEEK: dict[str, Any] = {"min_age": "7d"}
D1, D2 = Digest.of(b"1"), Digest.of(b"2")


@pytest.fixture
def gated() -> Gated:
    """A mirror that has served version 1 for a day, whole."""
    mirror = Gated(WEEK)
    manifest = mirror.publish("1")
    assert mirror.served() == manifest
    mirror.fetch_blobs(manifest)
    mirror.pass_days(1)
    return mirror


def image(gated: Gated, version: str) -> bytes:
    """Return the manifest of a version, without moving a tag to it."""
    return gated.publish(version, tag=f"version-{version}")


def test_a_tag_moves_when_its_new_digest_is_old_enough(gated: Gated) -> None:
    first, second = image(gated, "1"), gated.publish("2")
    gated.pass_days(7)
    assert gated.served() == first
    gated.pass_days(0.5)
    assert gated.served() == second
    assert ("ages", "replaced") in gated.counts


def test_what_was_withdrawn_starts_anew(gated: Gated) -> None:
    """The sum of its ages does not count."""
    first = image(gated, "1")
    for _ in range(3):
        gated.publish("bad")
        gated.pass_days(6)
        gated.publish("1")
        gated.pass_days(1)
        assert gated.served() == first
    bad = gated.publish("bad")
    gated.pass_days(7)
    assert gated.served() == first
    gated.pass_days(0.5)
    assert gated.served() == bad


def test_a_rollback_is_immediate(gated: Gated) -> None:
    second = gated.publish("2")
    gated.pass_days(8)
    assert gated.served() == second
    first = gated.publish("1")
    gated.pass_days(0.1)
    assert gated.served() == first


def test_a_tag_that_moves_faster_stays(gated: Gated) -> None:
    first = image(gated, "1")
    for version in range(2, 12):
        gated.publish(str(version))
        gated.pass_days(2)
        assert gated.served() == first
    assert gated.held == {LATEST: Digest.of(first)}


def test_a_clock_of_ours_that_is_ahead_makes_nothing_older(gated: Gated) -> None:
    """The upstream's Date counts, and a tag never grows younger."""
    first = image(gated, "1")
    gated.publish("2")
    gated.poll()
    origin = gated.registry_behind
    date = "Tue, 14 Nov 2023 22:13:20 GMT"
    real = origin.answer

    async def answer(request: Any, who: str) -> Answer:
        return evolve(await real(request, who), date=date)

    origin.answer = answer  # type: ignore[method-assign]
    gated.clock.advance(30 * DAY)
    gated.poll()
    assert gated.served() == first


@pytest.mark.parametrize(
    ("first_pull", "pushed", "refused"),
    [
        ("serve", None, False), ("refuse", None, True), ("refuse", 30, True),
        ("registry", 8, False), ("registry", 6, True), ("registry", None, True),
    ],
)  # fmt: skip
def test_a_tag_that_was_never_seen(first_pull: str, pushed: float | None, refused: bool) -> None:
    """It is served, or not, or by the registry's own time of push; it is refused until it is old enough."""

    async def find_push(*_: object) -> float | None:
        return None if pushed is None else mirror.clock.seconds() - pushed * DAY

    mirror = Gated({**WEEK, "first_pull": first_pull}, find_push=find_push)
    first = mirror.publish("1")
    answer = mirror.served()
    assert (answer != first) is refused
    if refused:
        assert "too new for the cool-down of 7 d" in str(answer)
        assert mirror.counts == [("ages", "refused")]
        mirror.pass_days(7.5)
        assert mirror.served() == first
    mirror.publish("2")
    mirror.pass_days(1)
    assert mirror.served() == first


def test_by_digest_nothing_is_cooled(gated: Gated) -> None:
    """A pin is a decision."""
    second = gated.publish("2")
    assert gated.get(f"{NAME}/manifests/{Digest.of(second)}") == second


def test_only_digests_that_are_known() -> None:
    """They are what tags are served as, and what indexes among these list."""
    gated = Gated({**WEEK, "digests": "known"})
    child = image(gated, "child")
    shelf = gated.registry_behind.shelf(NAME)
    del shelf.tags["version-child"]
    first = index(child)
    shelf.put(first, OCI_INDEX, "latest")
    path = f"{NAME}/manifests"
    with pytest.raises(Denied, match="is not known: no tag of the repository was served as this digest"):
        gated.get(f"{path}/{Digest.of(child)}")
    assert gated.served() == first
    assert gated.get(f"{path}/{Digest.of(first)}") == first
    assert gated.get(f"{path}/{Digest.of(child)}") == child
    second = gated.publish("2")
    gated.clock.advance(DAY)
    assert gated.served() == first
    with pytest.raises(Denied, match="is not known"):
        gated.get(f"{path}/{Digest.of(second)}")


def test_an_index_of_a_recalled_image_is_no_replacement(gated: Gated) -> None:
    """The digest that was admitted before it is; without one, the tag is refused."""
    shelf = gated.registry_behind.shelf(NAME)
    first, bad = index(image(gated, "good")), image(gated, "bad")
    second = index(bad, image(gated, "other"))
    for admitted in (first, second):
        shelf.put(admitted, OCI_INDEX, "multi")
        gated.served("multi")
        gated.pass_days(8, tag="multi")
        assert gated.served("multi") == admitted
    shelf.put(index(image(gated, "young")), OCI_INDEX, "multi")
    gated.pass_days(1, tag="multi")
    assert gated.served("multi") == second
    for recalled, served in ((bad, first), (second, first)):
        gated.recalls = Recalls.of([Recall(Digest.of(recalled), "CVE-1", 0, 0)])
        gated.generation += 1
        assert gated.served("multi") == served
    gated.recalls = Recalls.of(Recall(Digest.of(each), "CVE-1", 0, 0) for each in (first, bad))
    gated.generation += 1
    assert "every version of it that was admitted has been recalled" in gated.served("multi")


def test_clients_that_accept_no_index(gated: Gated) -> None:
    """They are served the manifest that their registry gives them, if an admitted index lists it."""
    child, young = image(gated, "child"), image(gated, "young")
    shelf = gated.registry_behind.shelf(NAME)
    narrow = (OCI_MANIFEST,)
    shelf.put(index(child), OCI_INDEX, "multi")
    assert gated.served("multi") == index(child)
    shelf.tags["multi"] = Digest.of(child)  # what the registry gives them, while the tag is fresh here
    assert gated.served("multi", accept=narrow) == child
    shelf.tags["multi"] = Digest.of(young)
    with pytest.raises(ManifestUnknown, match="is an index, which the client does not accept"):
        gated.get(f"{NAME}/manifests/multi", accept=narrow)


def test_a_client_without_indexes_is_given_the_admitted_image_for_linux(gated: Gated) -> None:
    """As registries choose; of the index that is served in place of the young one."""
    child, young = image(gated, "child"), image(gated, "young")
    shelf = gated.registry_behind.shelf(NAME)
    admitted = json.loads(index(image(gated, "other"), child))
    for entry, architecture in zip(admitted["manifests"], ("arm64", "amd64"), strict=True):
        entry |= {"mediaType": OCI_MANIFEST, "platform": {"os": "linux", "architecture": architecture}}
    shelf.put(json.dumps(admitted).encode(), OCI_INDEX, "multi")
    assert gated.served("multi") == json.dumps(admitted).encode()
    gated.fetch_blobs(child)
    shelf.put(index(young), OCI_INDEX, "multi")
    gated.clock.advance(DAY)
    assert gated.served("multi") == json.dumps(admitted).encode()
    shelf.tags["multi"] = Digest.of(young)  # what the registry gives clients without indexes
    narrow = (OCI_MANIFEST,)
    assert gated.served("multi", accept=narrow) == child
    answer = gated.ask(f"{NAME}/manifests/multi", accept=narrow, head=True)
    assert answer.body.descriptor.digest == Digest.of(child)


def test_known_digests_are_read_once() -> None:
    """Histories are read again only when one has changed."""
    gated = Gated({**WEEK, "digests": "known"})
    for number in range(5):
        gated.publish(str(number), f"v{number}")
        gated.served(f"v{number}")
    path = f"{NAME}/manifests/{Digest.of(image(gated, '3'))}"
    assert gated.get(path) == image(gated, "3")
    gated.history.reads = 0
    with pytest.raises(Denied, match="is not known"):
        gated.get(f"{NAME}/manifests/{Digest.of(image(gated, 'unknown'))}")
    assert gated.history.reads == 0
    gated.served("version-unknown")
    assert gated.get(f"{NAME}/manifests/{Digest.of(image(gated, 'unknown'))}") == image(gated, "unknown")


def test_head_and_get_agree(gated: Gated) -> None:
    """So do their validators; a header and a warning name the newer digest."""
    first, second = Digest.of(image(gated, "1")), Digest.of(gated.publish("2"))
    gated.pass_days(0.5)
    path = f"{NAME}/manifests/latest"
    head, get = gated.ask(path, head=True), gated.ask(path)
    for answer in (head, get):
        assert answer.body.descriptor.digest == first
        assert header(answer, "Dockmirror-Newer-Digest") == str(second)
        assert str(second) in (header(answer, "Warning") or "")
        assert header(answer, "Cache-Control") is None
    assert gated.ask(path, if_none_match=format_etag(first)).status == 304
    assert gated.ask(path, if_none_match=format_etag(second)).status == 200


def test_a_revalidated_tag_that_is_replaced_says_if_the_registry_confirmed_it(gated: Gated) -> None:
    """While the registry is down, nothing has: the status is that of the replacement."""
    gated.publish("2")

    def ask() -> CacheResult | None:
        status = gated.ask(f"{NAME}/manifests/latest", head=True, revalidate=True).cache
        return None if status is None else status.result

    assert [ask(), ask()] == [CacheResult.STORED, CacheResult.CONFIRMED]
    gated.registry_behind.trouble = Unreachable("it is down")
    assert ask() is CacheResult.HIT


def test_a_tag_that_is_gone_is_gone(gated: Gated) -> None:
    del gated.registry_behind.shelf(NAME).tags["latest"]
    gated.clock.advance(DAY)
    with pytest.raises(ManifestUnknown):
        gated.get(f"{NAME}/manifests/latest")


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_admitted_digest_was_deleted_upstream(gated: Gated, is_whole: bool) -> None:
    """It is served if it is held whole, else refused with the reason."""
    first = image(gated, "1")
    gated.publish("2")
    shelf = gated.registry_behind.shelf(NAME)
    del shelf.manifests[Digest.of(first)]
    if not is_whole:
        gated.store.evict(Digest.of(b"layer 1"))
    gated.pass_days(0.5)
    answer = gated.served()
    if is_whole:
        assert answer == first
    else:
        assert f"{Digest.of(first)} is neither held whole nor given by its registry" in str(answer)


def test_offline_the_last_admitted_digest_is_served(gated: Gated) -> None:
    """Although the tag had moved, and nothing of the new digest is held."""
    first, second = image(gated, "1"), gated.publish("2")
    gated.poll()
    gated.store.evict(Digest.of(second))
    gated.registry_behind.trouble = Unreachable("it is down")
    gated.clock.advance(600)
    answer = gated.ask(f"{NAME}/manifests/latest")
    assert answer.body.descriptor.digest == Digest.of(first)
    assert answer.cache is not None
    assert answer.cache.result in (CacheResult.HIT, CacheResult.STALE)


@pytest.mark.parametrize(
    ("exception", "excepted"),
    [
        ({"image": "docker.io/library/busybox:latest", "until": "2023-11-20"}, True),
        ({"image": "docker.io/library/*", "until": "2023-11-20"}, True),
        ({"image": "docker.io/library/busybox:latest", "until": "2023-11-14"}, False),
        ({"image": "docker.io/library/busybox:1.*", "until": "2023-11-20"}, False),
        ({"image": "SECOND", "until": "2023-11-20"}, True),
        ({"image": "docker.io/library/busybox@SECOND", "until": "2023-11-20"}, True),
        ({"image": "FIRST", "until": "2023-11-20"}, False),
    ],
)
def test_an_exception_has_an_end(exception: dict[str, str], excepted: bool) -> None:
    """It is by digest or pattern, and its use stands in the audit log."""
    origin = Gated()
    names = {name: str(Digest.of(image(origin, v))) for name, v in (("FIRST", "1"), ("SECOND", "2"))}
    text = exception["image"]
    for name, digest in names.items():
        text = text.replace(name, digest)
    gated = Gated({**WEEK, "exceptions": [{**exception, "image": text, "reason": "CVE-1"}]})
    first = gated.publish("1")
    gated.served()
    gated.clock.advance(DAY)
    second = gated.publish("2")
    assert gated.served() == (second if excepted else first)
    assert [event["image"] for event in gated.audit][-1:] == (
        ["docker.io/library/busybox:latest"] if excepted else []
    )
    if excepted:
        assert gated.audit[-1]["digest"] == str(Digest.of(second))
        assert gated.audit[-1]["reason"] == "CVE-1"


@pytest.mark.parametrize(("mode", "version"), [("enforce", "1"), ("warn", "2"), ("off", "2")])
def test_modes(mode: str, version: str) -> None:
    gated = Gated({**WEEK, "mode": mode})
    gated.publish("1")
    gated.served()
    gated.publish("2")
    gated.clock.advance(600)
    answer = gated.ask(f"{NAME}/manifests/latest")
    assert answer.body.descriptor.digest == Digest.of(image(gated, version))
    assert (header(answer, "Warning") is not None) == (mode != "off")
    outcomes = {"enforce": "replaced", "warn": "would_replace"}
    assert gated.counts == ([("ages", outcomes[mode])] if mode in outcomes else [])


def test_a_history_that_cannot_be_read_admits_nothing(gated: Gated) -> None:
    """Clients are not told about the mirror's disk."""
    gated.history.broken = OSError("the disk is broken")
    gated.clock.advance(600)
    known = Gated({**WEEK, "digests": "known"})
    known.publish("1")
    known.served()
    known.history.broken = gated.history.broken
    with pytest.raises(Denied, match="the rule digests cannot be checked: the reason is in"):
        known.get(f"{NAME}/manifests/{Digest.of(image(known, '1'))}")
    with pytest.raises(Denied, match="the rule min_age cannot be checked: the reason is in"):
        gated.get(f"{NAME}/manifests/latest")


def test_what_clients_ask_for_is_polled(gated: Gated) -> None:
    record = gated.history.get("docker", REPOSITORY, LATEST)
    assert record.pulled >= gated.clock.seconds() - DAY


HUB_TAG = "/v2/namespaces/library/repositories/busybox/tags/latest"
PUSHED = '"tag_last_pushed": "2023-11-14T22:13:20.5Z"'


@pytest.mark.parametrize(
    ("answer", "pushed"),
    [
        (f'{{"digest": "{D1}", "images": [{{"digest": "{D2}"}}], {PUSHED}}}', 1_700_000_000.5),
        (f'{{"digest": "{D1}", "tag_last_pushed": "2023-11-14T22:13:20.500000123Z"}}', 1_700_000_000.5),
        (f'{{"images": [{{"digest": "{D1}"}}], {PUSHED}}}', 1_700_000_000.5),
        (f'{{"digest": null, "images": [{{"digest": "{D1}"}}, {{"digest": "{D2}"}}], {PUSHED}}}', None),
        (f'{{"digest": "{D2}", "images": [{{"digest": "{D1}"}}], {PUSHED}}}', None),
        (f'{{"digest": "{D1}", "tag_last_pushed": null}}', None),
        (f'{{"digest": "{D1}", "tag_last_pushed": "0001-01-01T00:00:00Z"}}', None),
        (f'{{"digest": "{D1}", "tag_last_pushed": "2023-11-14"}}', None),
        (f'{{"digest": "{D1}", "images": 1, {PUSHED}}}', None),
        ('{"images": [1], "tag_last_pushed": 1}', None),
        ("[]", None),
        ("<html>", None),
    ],
)
def test_push_times_of_docker_hub(answer: str, pushed: float | None) -> None:
    """They count only for the digest that the tag has now."""
    assert parse_push_time(answer.encode(), D1) == pushed


@pytest.mark.parametrize(("status", "pushed"), [(200, 1_700_000_000.5), (404, None)])
def test_docker_hub_is_asked_once(status: int, pushed: float | None) -> None:
    world = World()
    world.reply("hub.docker.com", HUB_TAG, Reply(status, f'{{"digest": "{D1}", {PUSHED}}}'.encode()))
    times = HubPushTimes(client(world.agent), Clock())
    assert now(times.find(REPOSITORY, LATEST, D1)) == pushed
    world.reply("hub.docker.com", HUB_TAG, Reply(503))
    assert now(times.find(REPOSITORY, LATEST, D1)) == pushed


def test_an_api_that_fails_is_an_error() -> None:
    world = World()
    world.reply("hub.docker.com", HUB_TAG, Reply(503))
    with pytest.raises(Unavailable, match="503"):
        now(HubPushTimes(client(world.agent), Clock()).find(REPOSITORY, LATEST, D1))
