"""Images pulled as a client pulls them, and thrown away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    Unreadable,
)
from dockmirror.oci.manifest import Platform
from dockmirror.oci.request import Blob, Referrers, RegistryRequest, Tag, Tags, Target
from dockmirror.oci.request import Manifest as Asked
from dockmirror.pull import (
    HELD_PAUSES,
    MAX_DEPTH,
    TAG_PAGES,
    HeldCheck,
    ImagePuller,
    PulledImage,
    Wanted,
    read_names,
)

from .answering import Feed, json_answer, now, watch
from .shelf import AMD, FOR_AMD, FOR_ARM, LATEST, PLACE, SIGNATURE, Shelf, image, index
from .stacks import Outcome


@pytest.fixture
def shelf() -> Shelf:
    """With an image for two platforms, and an attestation."""
    return Shelf()


def pulled(shelf: Shelf, *platforms: Platform, referrers: bool = False) -> PulledImage:
    """Return the outcome of a pull."""
    counted = PulledImage()
    now(ImagePuller(shelf).image(Wanted(PLACE, LATEST, platforms, referrers), counted))
    return counted


def test_all_platforms_are_pulled_once(shelf: Shelf) -> None:
    """Blobs that the mirror holds are not read again."""
    first = pulled(shelf)
    assert first == PulledImage(4, 0, 6, len(b"amdarm{}baseaattested"))
    assert shelf.fetched() == sorted(["amd", "arm", "{}", "base", "a", "attested"])
    shelf.asked.clear()
    assert pulled(shelf) == PulledImage(4, 6, 0, 0)
    assert shelf.fetched() == []


def test_a_list_that_is_nested_too_deeply_cannot_be_read(shelf: Shelf) -> None:
    shelf.contents[str(Tags(PLACE))] = b"[" * 100_000
    with pytest.raises(Unreadable, match="the upstream's list of tags cannot be read"):
        now(read_names(shelf, RegistryRequest(Tags(PLACE)), "tags"))


def test_missing_content_is_checked_again(shelf: Shelf) -> None:
    """A mirror stores a blob a moment after it was sent."""
    clock = Clock()
    asked = now(ImagePuller(shelf).image(Wanted(PLACE, LATEST), PulledImage()))
    assert len(asked) == 10
    check = HeldCheck(shelf, clock, jobs=3)
    late = str(Blob(PLACE, Digest.of(b"base")))
    shelf.held.remove(late)
    outcome = watch(check.missing(asked))
    clock.advance(HELD_PAUSES[0])
    assert outcome == []
    shelf.held.add(late)
    clock.advance(HELD_PAUSES[1])
    assert outcome == [[]]


def test_missing_content_is_reported(shelf: Shelf) -> None:
    """After some checks: content that was not stored, and content that is gone."""
    clock = Clock()
    asked = now(ImagePuller(shelf).image(Wanted(PLACE, LATEST), PulledImage()))
    kept = str(Blob(PLACE, Digest.of(b"base")))
    gone = str(Asked(PLACE, Digest.of(FOR_ARM)))
    shelf.held.remove(kept)
    del shelf.contents[gone]
    outcome = Outcome(HeldCheck(shelf, clock).missing(asked))
    clock.pump(HELD_PAUSES)
    assert sorted(str(each.target) for each in outcome.get()) == sorted([kept, gone])


def test_chosen_platforms_are_pulled(shelf: Shelf) -> None:
    """Without attestations; a variant that is not named matches any."""
    assert pulled(shelf, AMD).manifests == 2
    assert shelf.fetched() == sorted(["amd", "base", "a"])
    assert pulled(shelf, Platform("linux", "arm")).fetched == 1
    with pytest.raises(ManifestUnknown, match="plan9/mips"):
        pulled(shelf, Platform("plan9", "mips"))
    shelf.put(FOR_ARM)
    assert pulled(shelf, AMD).manifests == 1


@pytest.mark.parametrize("api", [True, False])
def test_referrers_are_pulled(shelf: Shelf, api: bool) -> None:
    """By the API, or by the tag schema if the registry has none; an image may have none."""
    shelf.put(FOR_AMD)
    assert pulled(shelf, referrers=True).manifests == 1
    digest = Digest.of(FOR_AMD)
    shelf.lists(FOR_AMD, str(Referrers(PLACE, digest) if api else Asked(PLACE, Tag(f"sha256-{digest.hex}"))))
    assert pulled(shelf, referrers=True).manifests == 2
    assert "signature" in shelf.fetched()
    assert pulled(shelf).manifests == 1


@pytest.mark.parametrize("suffix", ["sig", "att", "sbom"])
def test_artifacts_are_pulled_by_the_tags_of_cosign(shelf: Shelf, suffix: str) -> None:
    """No tag is requested that the repository is known not to have."""
    tag = f"sha256-{Digest.of(FOR_AMD).hex}.{suffix}"
    shelf.put(SIGNATURE, Tag(tag))
    assert pulled(shelf, AMD, referrers=True).manifests == 3
    assert "signature" in shelf.fetched()
    shelf.asked.clear()
    wanted = Wanted(PLACE, LATEST, [AMD], referrers=True, tags={tag, "latest"})
    now(ImagePuller(shelf).image(wanted, PulledImage()))
    assert [each for each in shelf.asked if "manifests/sha256-" in each] == [f"GET {Asked(PLACE, Tag(tag))}"]


def test_tags_are_listed_once_for_all_artifacts(shelf: Shelf) -> None:
    """No tag is requested that the list does not have."""
    tag = f"sha256-{Digest.of(FOR_AMD).hex}.sig"
    shelf.put(SIGNATURE, Tag(tag))
    shelf.contents[str(Tags(PLACE))] = json.dumps({"tags": ["latest", tag]}).encode()
    assert pulled(shelf, referrers=True).manifests == 5
    assert [each for each in shelf.asked if each.endswith("/tags/list")] == [f"GET {Tags(PLACE)}"]
    assert [each for each in shelf.asked if "manifests/sha256-" in each] == [f"GET {Asked(PLACE, Tag(tag))}"]


def test_a_list_of_many_tags_is_not_read_to_its_end() -> None:
    """Artifacts are requested by the tags that they would have, then."""

    class Crowded(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            if not isinstance(request.target, Tags):
                return await super().fetch(request)
            self.asked.append("a page")
            number = str(len(self.asked))
            return json_answer({"tags": [number]}, (("last", number),))

    crowded = Crowded()
    crowded.put(SIGNATURE, Tag(f"sha256-{Digest.of(FOR_AMD).hex}.sig"))
    assert pulled(crowded, referrers=True).manifests == 5
    assert crowded.asked.count("a page") == TAG_PAGES


@pytest.mark.parametrize("asks_tags", [True, False])
def test_an_artifact_of_its_own_ends(shelf: Shelf, asks_tags: bool) -> None:
    """A tag of cosign may name the very manifest that it belongs to; that is pulled once."""
    signature = f"sha256-{Digest.of(FOR_AMD).hex}.sig"
    shelf.put(FOR_AMD)
    shelf.put(FOR_AMD, Tag(signature))
    wanted = Wanted(PLACE, LATEST, referrers=True, tags={signature} if asks_tags else None)
    counted = PulledImage()
    now(ImagePuller(shelf).image(wanted, counted))
    assert counted.manifests == 1
    assert len([each for each in shelf.asked if each.endswith(".sig")]) == 1


def chain(shelf: Shelf, length: int) -> None:
    """Put an image behind so many indexes, each of which has only the next one."""
    data = FOR_AMD
    for _ in range(length):
        data = index(amd64=data)
        shelf.put(data)


def test_indexes_in_indexes_are_pulled(shelf: Shelf) -> None:
    """Up to a depth that no image needs."""
    chain(shelf, MAX_DEPTH)
    assert pulled(shelf).manifests == MAX_DEPTH + 1
    chain(shelf, MAX_DEPTH + 1)
    with pytest.raises(ManifestInvalid, match="chain of more than 16"):
        pulled(shelf)


def test_signatures_of_signatures_have_an_end(shelf: Shelf) -> None:
    """A registry that always has another one fails the image instead of filling the cache."""

    class Endless(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            target = request.target
            if isinstance(target, Asked) and isinstance(target.reference, Tag) and ".sig" in str(target):
                self.put(image(b"{}", target.reference.name.encode()), target.reference)
            return await super().fetch(request)

    endless = Endless()
    endless.put(FOR_AMD)
    with pytest.raises(ManifestInvalid, match="chain of more than 16"):
        pulled(endless, referrers=True)
    assert len(endless.asked) < 100


@pytest.mark.parametrize(
    "refused",
    [
        Asked(PLACE, Tag(f"sha256-{Digest.of(FOR_AMD).hex}.sig")),
        Asked(PLACE, Digest.of(SIGNATURE)),
        Referrers(PLACE, Digest.of(FOR_AMD)),
    ],
)
def test_an_artifact_that_a_policy_refuses_is_left_out(refused: Target) -> None:
    """The image is pulled without it, and the refusal is noted."""

    class Refusing(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            if str(request.target) == str(refused):
                raise Denied("nobody has signed it")
            return await super().fetch(request)

    guarded, notes = Refusing(), list[str]()
    guarded.put(FOR_AMD, LATEST)
    guarded.lists(FOR_AMD, str(Referrers(PLACE, Digest.of(FOR_AMD))))
    guarded.put(SIGNATURE, Tag(f"sha256-{Digest.of(FOR_AMD).hex}.sig"))
    counted = PulledImage()
    now(ImagePuller(guarded, note=notes.append).image(Wanted(PLACE, LATEST, referrers=True), counted))
    assert counted.manifests in (1, 2)
    assert notes
    assert all(each.endswith(": nobody has signed it") for each in notes)
    assert all("is left out" in each for each in notes)


@pytest.mark.parametrize("error", [TooManyRequests(), Unreachable(), Unauthorized()])
def test_an_artifact_that_cannot_be_asked_for_fails_the_image(error: RegistryError) -> None:
    class Failing(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            if str(request.target).endswith(".sig"):
                raise error
            return await super().fetch(request)

    failing = Failing()
    failing.put(FOR_AMD, LATEST)
    with pytest.raises(type(error)):
        pulled(failing, referrers=True)


def test_an_image_that_a_policy_refuses_is_not_pulled() -> None:
    class Refusing(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            raise Denied

    with pytest.raises(Denied):
        pulled(Refusing(), referrers=True)


def test_a_failed_artifact_fails_the_image(shelf: Shelf) -> None:
    shelf.put(b"{}", Tag(f"sha256-{Digest.of(FOR_AMD).hex}.sig"))
    with pytest.raises(ManifestInvalid):
        pulled(shelf, AMD, referrers=True)


def test_a_failed_blob_fails_the_image(shelf: Shelf) -> None:
    """The other blobs are read all the same."""
    missing = str(Blob(PLACE, Digest.of(b"base")))
    del shelf.contents[missing]
    counted = PulledImage()
    with pytest.raises(BlobUnknown):
        now(ImagePuller(shelf, jobs=1).image(Wanted(PLACE, LATEST), counted))
    assert counted.fetched == 5
    shelf.put(b"{}")
    with pytest.raises(ManifestInvalid):
        pulled(shelf)


def test_a_failed_list_of_referrers_fails_the_image() -> None:
    """It does not count as an empty list, unless the registry has no such API."""

    class Broken(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            if isinstance(request.target, Referrers):
                raise RegistryError
            return await super().fetch(request)

    broken = Broken()
    broken.put(FOR_AMD)
    with pytest.raises(RegistryError):
        pulled(broken, referrers=True)


def test_blobs_are_read_a_few_at_a_time(shelf: Shelf) -> None:
    """Each with its progress; a cancelled pull cancels them all."""
    shelf.put(FOR_AMD)
    paths = {str(Blob(PLACE, Digest.of(data))): data for data in (b"amd", b"base", b"a")}
    feeds = {path: Feed() for path in paths}
    shelf.feeds.update(feeds)
    shown: dict[str, int] = {}

    @contextmanager
    def bar(blob: Descriptor) -> Iterator[Callable[[int], None]]:
        path = f"/v2/{PLACE}/blobs/{blob.digest}"
        shown[path] = 0

        def took(count: int) -> None:
            shown[path] += count

        yield took
        del shown[path]

    work = Deferred.fromCoroutine(
        ImagePuller(shelf, 2, bar).image(Wanted(PLACE, LATEST), counted := PulledImage())
    )
    outcome = watch(work)
    first, second = shown
    feeds[first].send(paths[first])
    assert (shown, outcome) == ({first: len(paths[first]), second: 0}, [])
    feeds[first].end()
    third = next(path for path in shown if path != second)
    assert counted.fetched == 1
    work.cancel()
    assert [feeds[second].state, feeds[third].state] == ["cancelled"] * 2
    assert len(outcome) == 1


def test_a_refused_head_leads_to_a_get() -> None:
    """The blob is fetched."""

    class Headless(Shelf):
        async def fetch(self, request: RegistryRequest) -> Answer:
            if request.head:
                raise NameUnknown
            return await super().fetch(request)

    assert pulled(Headless(), AMD).fetched == 3
