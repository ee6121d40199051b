"""Sightings of tags: from which answers they come, and how tags are polled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from attrs import evolve

from dockmirror.admission.sightings import (
    CHECK_INTERVAL,
    LIMITED_SECONDS,
    PolledUpstream,
    PushSightings,
    TagPolling,
    TagRecorder,
    find_sighted_digest,
    parse_date,
    poll_interval,
)
from dockmirror.body.bodies import NoBody
from dockmirror.interfaces import Answer, ITagHistory
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RegistryError, TooManyRequests, Unauthorized
from dockmirror.oci.media import DOCKER_MANIFEST, EVERYTHING
from dockmirror.oci.request import Manifest, RegistryRequest, Repository, Tag

from ..answering import watch
from ..pullthrough.mirrors import NAME, Mirror
from ..pullthrough.origin import Origin
from ..stacks import logged
from .gated import DAY, LATEST, REPOSITORY, Gated, MemoryTagHistory

D1, D2 = Digest.of(b"1"), Digest.of(b"2")
GET = RegistryRequest(Manifest(REPOSITORY, LATEST), accept=EVERYTHING)
ANSWER = Answer(NoBody(Descriptor("x", D1, 1)), consents=True)
NOT_MODIFIED = Answer(NoBody(Descriptor("x", None, None)), 304, consents=True)


@pytest.mark.parametrize(
    ("request_changes", "answer", "digest"),
    [
        ({}, ANSWER, D1),
        ({"head": True}, ANSWER, D1),
        ({}, evolve(ANSWER, consents=False), None),
        ({}, evolve(ANSWER, from_other_host=True), None),
        ({"accept": (DOCKER_MANIFEST,)}, ANSWER, None),
        ({"accept": ()}, ANSWER, None),
        ({"if_none_match": f'"{D2}"'}, NOT_MODIFIED, D2),
        ({"if_none_match": f'W/"{D2}"'}, NOT_MODIFIED, D2),
        ({"if_none_match": f'"{D1}", "{D2}"'}, NOT_MODIFIED, None),
        ({"if_none_match": "*"}, NOT_MODIFIED, None),
    ],
)
def test_which_answers_are_sightings(
    request_changes: dict[str, Any], answer: Answer, digest: Digest | None
) -> None:
    """Only those of the registry itself, to requests that accept every kind of manifest."""
    assert find_sighted_digest(evolve(GET, **request_changes), answer) == digest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000.0), (None, float("inf")),
        ("yesterday", float("inf")), ("Tue, 99 Nov 2023 22:13:20 GMT", float("inf")),
    ],
)  # fmt: skip
def test_dates(text: str | None, seconds: float) -> None:
    assert parse_date(text) == seconds


def test_pushes_are_sightings() -> None:
    """They are those of the path's tag, and of the tags that the registry reports."""
    mirror, history = Mirror(Origin(), writable=True), MemoryTagHistory()
    recorder = TagRecorder("docker", history, mirror.clock)
    mirror.writes = PushSightings(mirror.writes, recorder)  # type: ignore[assignment]
    manifest = Gated().publish("1")
    mirror.write("PUT", f"{NAME}/manifests/latest?tag=1.27", manifest)
    mirror.write("PUT", f"{NAME}/manifests/{Digest.of(manifest)}", manifest)
    mirror.write("DELETE", f"{NAME}/manifests/latest")
    for tag in (LATEST, Tag("1.27")):
        (sighting,) = history.get("docker", REPOSITORY, tag).sightings
        assert sighting.digest == Digest.of(manifest)


@pytest.mark.parametrize(("days", "hours"), [(1 / 24, 1), (1, 24 / 14), (7, 12), (30, 12)])
def test_the_interval_follows_the_age(days: float, hours: float) -> None:
    assert poll_interval(days * DAY) == pytest.approx(hours * 3600)


class Polled:
    """A mirror whose tags are polled."""

    def __init__(self, *tags: str, **policy: Any) -> None:
        self.gated = Gated({"min_age": "7d", **policy})
        self.turns = True
        self.is_public = True
        self.account = ""
        self.released = 0
        for tag in tags:
            self.gated.publish("1", tag)
            self.gated.served(tag)
        self.origin.take()
        self.begin(["docker"], self.gated.history)

    def begin(self, names: Iterable[str], history: ITagHistory) -> None:
        """Poll upstreams of these names."""
        gated = self.gated
        upstream = PolledUpstream(
            gated.policies, gated.source, gated.gateway, self._is_public, self._account_of
        )
        self.polling = TagPolling(lambda: dict.fromkeys(names, upstream), history, self._claim, gated.clock)

    @property
    def origin(self) -> Origin:
        return self.gated.registry_behind

    async def _is_public(self, _: Repository) -> bool:
        return self.is_public

    async def _claim(self) -> Any:
        return self._release if self.turns else None

    def _account_of(self, _: Repository) -> str:
        return self.account

    def _release(self) -> None:
        self.released += 1

    def poll(self) -> list[str]:
        """Poll, and return the requests that came of it, with the second of each."""
        outcome = watch(self.polling.poll())
        requests = []
        for second in range(10):
            requests += [f"{second} {each.partition(': ')[2]}" for each in self.origin.take()]
            self.gated.clock.advance(1.0)
        assert outcome == [None]
        return requests


def test_tags_are_polled() -> None:
    """By HEAD, one a second, when they are due; what was admitted is held when the tag has moved."""
    polled = Polled("latest", "two")
    assert polled.poll() == []
    polled.gated.clock.advance(12 * 3600)
    moved = polled.gated.publish("2")
    assert polled.poll() == [f"0 HEAD {NAME}/manifests/latest", f"1 HEAD {NAME}/manifests/two"]
    sightings = polled.gated.history.get("docker", REPOSITORY, LATEST).sightings
    assert [each.digest for each in sightings] == [
        *polled.gated.held.values(), Digest.of(moved),
    ]  # fmt: skip
    assert polled.poll() == []
    assert polled.released == 3


def test_a_mirror_that_stops_between_two_polls_logs_no_error() -> None:
    polled = Polled("latest", "two")
    polled.gated.clock.advance(DAY)
    with logged() as lines:
        polled.polling.startService()
        polled.gated.clock.advance(CHECK_INTERVAL)
        assert len(polled.origin.take()) == 1
        polled.polling.stopService()
    assert (lines, polled.released) == ([], 1)


class PartlyUnreadableHistory(MemoryTagHistory):
    async def tags(
        self, upstream: str, repository: Repository | None = None
    ) -> Sequence[tuple[Repository, Tag]]:
        if upstream == "unreadable":
            raise OSError("the disk is gone")
        return await super().tags(upstream, repository)


def test_records_that_cannot_be_read_leave_other_upstreams_alone() -> None:
    polled = Polled("latest")
    history = PartlyUnreadableHistory()
    history.records = polled.gated.history.records
    polled.begin(["unreadable", "docker"], history)
    polled.gated.clock.advance(12 * 3600)
    with logged() as lines:
        assert polled.poll() == [f"0 HEAD {NAME}/manifests/latest"]
    assert len(lines) == 1
    assert "cannot poll the tags of unreadable: the disk is gone" in lines[0]


@pytest.mark.parametrize(
    ("condition", "requests"),
    [("another's turn", 0), ("private", 0), ("not pulled", 0), ("off", 0), ("refused", 2), ("limited", 1)],
)
def test_what_is_not_polled(condition: str, requests: int) -> None:
    """After a 429 the upstream is left alone for hours."""
    polled = Polled("latest", "two", **({"mode": "off"} if condition == "off" else {}))
    polled.turns = condition != "another's turn"
    polled.is_public = condition != "private"
    errors: dict[str, RegistryError] = {
        "limited": TooManyRequests(status=429), "refused": Unauthorized(status=401),
    }  # fmt: skip
    polled.origin.trouble = errors.get(condition)
    polled.gated.clock.advance(31 * DAY if condition == "not pulled" else DAY)
    assert len(polled.poll()) == requests
    if condition == "limited":
        polled.origin.trouble = None
        polled.gated.clock.advance(LIMITED_SECONDS - 100)
        assert polled.poll() == []
        polled.gated.clock.advance(100)
        assert len(polled.poll()) == 2


def test_a_limit_of_one_account_does_not_stop_the_polls_of_another() -> None:
    """An account that got a 429 polls no tag for hours."""
    polled = Polled("latest", "two")
    polled.origin.trouble = TooManyRequests(status=429)
    polled.gated.clock.advance(DAY)
    assert len(polled.poll()) == 1
    polled.origin.trouble = None
    polled.gated.clock.advance(100)
    assert polled.poll() == []
    polled.account = "team-a"
    assert len(polled.poll()) == 2
