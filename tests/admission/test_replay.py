"""A replay of tags over a year: what the mirror serves against a model of the cool-down."""

from __future__ import annotations

from random import Random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.admission.admit import Serve, ServeInstead, Subject, TagAges, check_age
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, ManifestUnknown, RegistryError, Unreachable
from dockmirror.oci.manifest import parse_references
from dockmirror.pullthrough.authorization import PUBLIC_STALE_TTL
from dockmirror.store.tag_history import TagRecord

from ..long import LONG
from ..pullthrough.mirrors import NAME
from .gated import DAY, LATEST, REPOSITORY, Gated

MIN_AGE = 7 * DAY
HOUR = 3600.0


@define
class Model:
    """The cool-down as its definition says, sighting by sighting."""

    min_age: float = MIN_AGE
    admitted: set[Digest] = field(factory=set)
    value: Digest | None = None
    since: float = 0.0
    served: Digest | None = None

    def observe(self, digest: Digest, now: float) -> Digest | None:
        """Return what the tag is served as when the upstream names this digest."""
        if self.value is None:
            self.admitted.add(digest)
        if digest != self.value:
            self.value, self.since = digest, now
        if now - self.since >= self.min_age:
            self.admitted.add(digest)
        if digest in self.admitted:
            self.served = digest
        return self.served


@define
class Figures:
    """The outcome of a replay."""

    pulls: int = 0
    replaced: int = 0
    offline: int = 0
    refused: int = 0
    failed: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)


class Replay:
    """A year of one tag: moves, withdrawals, deletions, re-pushes, rollbacks, outages and evictions."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.gated = Gated({"min_age": "7d"})
        self.shelf = self.gated.registry_behind.shelf(NAME)
        self.model, self.figures = Model(), Figures()
        self.published: dict[Digest, bytes] = {}
        self.versions = [self.publish("0")]
        self.consented = 0.0
        self.pace = self.random.choice([0.5, 3.0, 10.0, 30.0])
        self.actions = [
            self.move,
            self.withdraw,
            self.delete,
            self.repush,
            self.roll_back,
            self.untag,
            self.evict,
        ]

    def run(self, days: float) -> Figures:
        """Change the tag as often as its pace says, and pull it in between."""
        clock = self.gated.clock
        end, change = clock.seconds() + days * DAY, clock.seconds()
        while clock.seconds() < end:
            if clock.seconds() >= change:
                self.random.choice(self.actions)()
                change = clock.seconds() + self.random.expovariate(1 / self.pace) * DAY
            self.gated.registry_behind.trouble = Unreachable("down") if self.random.random() < 0.1 else None
            self.pull()
            clock.advance(self.random.uniform(1, 36) * HOUR)
        return self.figures

    def publish(self, version: str) -> bytes:
        manifest = self.gated.publish(version)
        self.published[Digest.of(manifest)] = manifest
        return manifest

    def point(self, manifest: bytes) -> None:
        digest = self.shelf.put(manifest)
        self.shelf.tags["latest"] = digest

    def move(self) -> None:
        self.versions.append(self.publish(str(len(self.versions))))

    def withdraw(self) -> None:
        """Publish something bad, which is pulled, and take it back hours later."""
        before = self.shelf.tags.get("latest")
        self.publish(f"bad {self.random.random()}")
        self.gated.registry_behind.trouble = None
        self.pull()
        self.gated.clock.advance(self.random.uniform(0.1, 3 * 24) * HOUR)
        self.pull()
        if before in self.shelf.manifests:
            self.shelf.tags["latest"] = before
        self.gated.clock.advance(HOUR)  # the mirror asks again only after a minute

    def delete(self) -> None:
        """Delete an old manifest from the registry."""
        digest = Digest.of(self.random.choice(self.versions))
        if digest not in self.shelf.tags.values():
            self.shelf.manifests.pop(digest, None)

    def repush(self) -> None:
        self.point(self.versions[-1])

    def roll_back(self) -> None:
        self.point(self.random.choice(self.versions))

    def untag(self) -> None:
        """Delete the tag for some days."""
        before = self.shelf.tags.pop("latest", None)
        self.gated.registry_behind.trouble = None
        self.pull()
        self.gated.clock.advance(self.random.uniform(1, 10) * DAY)
        if before in self.shelf.manifests:
            self.shelf.tags["latest"] = before

    def evict(self) -> None:
        """Lose a random content, as an eviction does that needs its place."""
        if self.gated.store.contents.held:
            self.gated.store.evict(self.random.choice(sorted(self.gated.store.contents.held, key=str)))

    def pull(self) -> None:
        """Pull the tag, and compare with the model."""
        figures, now = self.figures, self.gated.clock.seconds()
        figures.pulls += 1
        current = self.shelf.tags.get("latest")
        is_down = self.gated.registry_behind.trouble is not None
        expected = self.model.served
        if not is_down and current is not None:
            expected = self.model.observe(current, now)
            self.consented = now
        is_public = now - self.consented < PUBLIC_STALE_TTL
        was_held = expected is not None and self.is_whole(expected) and is_public
        try:
            manifest = self.gated.get(f"{NAME}/manifests/latest")
            self.gated.fetch_blobs(manifest)
        except RegistryError as error:
            self.check_failure(error, was_held, is_down, current)
            return
        digest = Digest.of(manifest)
        figures.offline += is_down
        figures.replaced += digest != current
        if digest not in self.model.admitted or (not is_down and digest != expected):
            figures.wrong.append(f"{now}: {digest} in place of {expected}")

    def check_failure(
        self, error: RegistryError, was_held: bool, is_down: bool, current: Digest | None
    ) -> None:
        """A tag that is gone fails; so may a pull of which nothing admitted is held."""
        if not is_down and current is None:
            assert isinstance(error, ManifestUnknown)
        elif was_held:
            self.figures.failed.append(f"{self.gated.clock.seconds()}: {error}")
        else:
            self.figures.refused += isinstance(error, Denied)

    def is_whole(self, digest: Digest) -> bool:
        """Return whether the manifest is held with its two blobs."""
        held = self.gated.store.contents.held
        references = parse_references(self.published.get(digest, b""))
        return digest in held and references is not None and all(each in held for each in references.blobs)


@pytest.mark.parametrize("seed", range(200 if LONG else 5))
def test_a_year_of_a_tag(seed: int) -> None:
    """No pull fails that had an admitted digest held, and nothing is served that the model refuses."""
    replay = Replay(seed)
    figures = replay.run(365)
    print(
        f"{figures.pulls} pulls, {figures.replaced} replaced, {figures.offline} offline,"
        f" {figures.refused} refused, {len(figures.failed)} failed, {len(figures.wrong)} wrong"
    )
    assert figures.failed == []
    assert figures.wrong == []
    assert figures.pulls > 50
    assert replay.gated.history.get("docker", REPOSITORY, LATEST).sightings


SIGHTINGS = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10)), min_size=1, max_size=30)


@given(SIGHTINGS)
def test_the_rule_is_the_model(sightings: list[tuple[int, float]]) -> None:
    """For any sequence of digests and days between them."""
    record, model, now = TagRecord(), Model(), 0.0
    for number, days in sightings:
        now += days * DAY
        digest = Digest.of(str(number).encode())
        record = record.with_sighting(digest, now)
        expected = model.observe(digest, now)
        verdict = check_age(Subject("docker", REPOSITORY, LATEST, digest), TagAges(record.sightings, MIN_AGE))
        assert isinstance(verdict, Serve | ServeInstead)
        assert (verdict.digest if isinstance(verdict, ServeInstead) else digest) == expected
