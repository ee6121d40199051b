"""Nothing that is recalled is given out, at any address."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from dockmirror.admission.recall_filter import RecallContext, RecallFilter, RunningDeliveries
from dockmirror.admission.recalls import Recall, Recalled, Recalls
from dockmirror.interfaces import Answer, IBody, IRegistry, Sighting
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import TooManyRequests, Unreachable
from dockmirror.oci.header_fields import format_etag
from dockmirror.oci.media import OCI_INDEX
from dockmirror.oci.request import RegistryRequest, Repository, Tag

from ..answering import Recorder, now, watch
from ..pullthrough.mirrors import CONFIG, LAYER, Mirror, header
from ..pullthrough.origin import Origin, index

NAME = "library/busybox"
OTHER = b"other"


class Filtered(Mirror):
    """A mirror with recalls."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.recalls = Recalls()
        self.deliveries = RunningDeliveries()
        self.named: dict[str, list[Digest]] = {}
        self.fails = False
        self.counted: list[str] = []
        self.registry: IRegistry = self.filtered(self.registry)

    def filtered(self, registry: IRegistry) -> IRegistry:
        context = RecallContext(
            lambda: self.recalls, self.deliveries, self.sightings, self.counted.append, self.clock
        )
        return RecallFilter(registry, context)

    async def sightings(self, _: Repository, tag: Tag) -> list[Sighting]:
        """Each digest was seen for a second."""
        if self.fails:
            raise OSError("the disk is gone")
        return [Sighting(each, n, n + 1) for n, each in enumerate(self.named.get(str(tag), ()))]

    def recall(self, data: bytes, *layers: bytes) -> None:
        at = self.clock.seconds()
        recall = Recall(Digest.of(data), "CVE-1", at, at, layers=tuple(map(Digest.of, layers)))
        self.recalls = Recalls.of([*self.recalls.by_digest.values(), recall])
        self.deliveries.cut(self.recalls, at)


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def mirror(origin: Origin) -> Filtered:
    """A mirror that has served everything of a repository."""
    shelf = origin.shelf(NAME)
    shelf.publish(CONFIG, LAYER, tag="bad")
    shelf.publish(CONFIG, OTHER, tag="good")
    image, good = (shelf.manifests[shelf.tags[tag]][1] for tag in ("bad", "good"))
    shelf.put(index(image, good), OCI_INDEX, tag="index")
    mirror = Filtered(origin)
    for tag in ("bad", "good"):
        mirror.docker(NAME, tag)
    mirror.get(f"{NAME}/manifests/index")
    origin.take()
    return mirror


def addresses(origin: Origin) -> dict[str, str]:
    """The addresses of everything in the repository, by a word for each."""
    tags = origin.shelf(NAME).tags
    return {
        **{f"{tag} by tag": f"{NAME}/manifests/{tag}" for tag in tags},
        **{f"{tag} by digest": f"{NAME}/manifests/{digest}" for tag, digest in tags.items()},
        **{f"{tag} as a blob": f"{NAME}/blobs/{digest}" for tag, digest in tags.items()},
        "the layer": f"{NAME}/blobs/{Digest.of(LAYER)}",
        "the config": f"{NAME}/blobs/{Digest.of(CONFIG)}",
    }


BAD = {"bad by tag", "bad by digest", "bad as a blob"}
INDEX = {"index by tag", "index by digest"}


@pytest.mark.parametrize(("is_warm", "head"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(
    ("recalled", "refused"), [("image", BAD | INDEX), ("layer", BAD | {"the layer"} - {"bad as a blob"})]
)
def test_routes(
    origin: Origin, mirror: Filtered, recalled: str, refused: set[str], head: bool, is_warm: bool
) -> None:
    """Each address gives out what it did, or refuses it, whether or not the mirror has it."""
    if not is_warm:
        mirror = Filtered(origin)
    shelf = origin.shelf(NAME)
    mirror.recall(shelf.manifests[shelf.tags["bad"]][1] if recalled == "image" else LAYER)
    for name, path in addresses(origin).items():
        if name.endswith("as a blob") and name not in refused:
            continue
        for conditional in (None, format_etag(shelf.tags["bad"])):
            (outcome,) = mirror.later(path, head=head, if_none_match=conditional)
            assert isinstance(outcome, Recalled) == (name in refused), (name, outcome)
            if isinstance(outcome, Recalled):
                assert outcome.status == 403
                assert "CVE-1" in str(outcome)


def test_head_of_what_is_not_held_costs_no_pull(origin: Origin) -> None:
    """It gives out no manifest; once the repository is known to be affected, HEAD and GET agree."""
    origin.shelf(NAME).publish(CONFIG, LAYER)
    path, mirror = f"{NAME}/manifests/latest", Filtered(origin)
    mirror.recall(LAYER)
    assert mirror.ask(path, head=True).status == 200
    assert origin.take() == [f"nobody: HEAD {path}"]
    assert isinstance(mirror.later(path)[0], Recalled)
    for each in (path, f"{NAME}/manifests/{origin.shelf(NAME).tags['latest']}"):
        assert isinstance(mirror.later(each, head=True)[0], Recalled)


def test_no_recall_no_request(origin: Origin, mirror: Filtered) -> None:
    """A manifest that is held costs no request to the upstream while something else is recalled."""
    mirror.recall(b"something else")
    for path in addresses(origin).values():
        if "/manifests/" in path:
            mirror.ask(path, head=True)
            mirror.ask(path)
    assert origin.take() == []


def test_recalled_tag_costs_no_pull(origin: Origin, mirror: Filtered) -> None:
    """A tag that named a recalled manifest is looked up with HEAD, and served again when it moves."""
    shelf = origin.shelf(NAME)
    bad = shelf.manifests[shelf.tags["bad"]][1]
    mirror.recall(bad)
    for _ in range(2):
        mirror.store.evict(Digest.of(bad))
        origin.take()
        assert isinstance(mirror.later(f"{NAME}/manifests/bad")[0], Recalled)
    assert origin.take() == [f"nobody: HEAD {NAME}/manifests/bad"]
    shelf.tags["bad"] = shelf.tags["good"]
    mirror.clock.advance(3600)
    assert mirror.get(f"{NAME}/manifests/bad") == shelf.manifests[shelf.tags["good"]][1]


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_recalled_while_the_upstream_is_asked(origin: Origin, kind: str) -> None:
    """An answer that comes after the recall is refused."""
    mirror, shelf = Filtered(origin), origin.shelf(NAME)
    image = shelf.publish(CONFIG, LAYER)
    origin.held_up = True
    recalled = image if kind == "manifests" else LAYER
    waiting = mirror.later(f"{NAME}/{kind}/{'latest' if kind == 'manifests' else Digest.of(LAYER)}")
    assert waiting == []
    mirror.recall(recalled)
    origin.go_on()
    assert isinstance(waiting[0], Recalled)


class _Limited(Origin):
    """A registry that answers no GET of a manifest until ``limited`` is False."""

    limited = True

    async def answer(self, request: RegistryRequest, who: str) -> Answer:
        if self.limited and not request.head:
            raise TooManyRequests("limit", status=429)
        return await super().answer(request, who)


def test_head_while_manifests_are_limited() -> None:
    """The headers of a manifest that cannot be looked into are given, and the manifest is not."""
    origin = _Limited()
    mirror = Filtered(origin)
    origin.shelf(NAME).publish(CONFIG, LAYER)
    mirror.recall(LAYER)
    assert mirror.ask(f"{NAME}/manifests/latest", head=True).status == 200
    origin.limited = False
    mirror.clock.advance(3600)
    assert isinstance(mirror.later(f"{NAME}/manifests/latest")[0], Recalled)


def test_lifted(origin: Origin, mirror: Filtered) -> None:
    """A recall that was lifted refuses nothing."""
    shelf = origin.shelf(NAME)
    mirror.recall(shelf.manifests[shelf.tags["bad"]][1])
    assert isinstance(mirror.later(f"{NAME}/manifests/index")[0], Recalled)
    mirror.recalls = Recalls()
    for path in addresses(origin).values():
        if "/manifests/" in path:
            mirror.ask(path)


def test_fallback(origin: Origin, mirror: Filtered) -> None:
    """A tag that names a recalled manifest is what it was before, for GET and HEAD alike, with a warning."""
    shelf = origin.shelf(NAME)
    bad, good, index_ = (shelf.tags[tag] for tag in ("bad", "good", "index"))
    mirror.named["bad"] = [Digest.of(b"deleted"), good, Digest.of(b"deleted too"), index_, bad]
    mirror.recall(shelf.manifests[bad][1])
    for head in (False, True):
        answer = mirror.ask(f"{NAME}/manifests/bad", head=head)
        assert answer.body.descriptor.digest == good
        assert (
            header(answer, "Warning") == f'299 - "{good} is served in place of a version that was recalled"'
        )
        assert header(answer, "Cache-Control") is None
    assert mirror.counted == ["replaced", "replaced"]
    assert isinstance(mirror.later(f"{NAME}/manifests/{bad}")[0], Recalled)
    assert mirror.counted.pop() == "refused"
    mirror.named["bad"] = [Digest.of(b"deleted"), bad]
    assert isinstance(mirror.later(f"{NAME}/manifests/bad")[0], Recalled)
    mirror.fails = True
    assert isinstance(mirror.later(f"{NAME}/manifests/bad")[0], Recalled)


def test_fallback_while_the_upstream_is_down(origin: Origin, mirror: Filtered) -> None:
    """The earlier version is served if it is held, as stale content is; else the upstream's error counts."""
    shelf = origin.shelf(NAME)
    bad, good = shelf.tags["bad"], shelf.tags["good"]
    mirror.named["bad"] = [good, bad]
    mirror.recall(shelf.manifests[bad][1])
    mirror.store.evict(bad)
    origin.trouble = Unreachable("no route")
    mirror.clock.advance(3600)
    assert mirror.get(f"{NAME}/manifests/bad") == shelf.manifests[good][1]
    mirror.store.evict(good)
    assert isinstance(mirror.later(f"{NAME}/manifests/bad")[0], Unreachable)
    mirror.named["bad"] = [good]
    assert isinstance(mirror.later(f"{NAME}/manifests/bad")[0], Unreachable)


@implementer(IBody)
class _Slow:
    """A body that is being delivered until it is cancelled."""

    def __init__(self, digest: Digest) -> None:
        self.descriptor = Descriptor(None, digest)
        self.cancelled = 0

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        return Deferred(cancel)

    def discard(self) -> None:
        raise AssertionError


@implementer(IRegistry)
class _SlowRegistry:
    def __init__(self) -> None:
        self.bodies: list[_Slow] = []

    async def fetch(self, request: RegistryRequest) -> Answer:
        digest = getattr(request.target, "digest", None)
        assert digest is not None
        self.bodies.append(_Slow(digest))
        return Answer(self.bodies[-1])


def test_cut_off(origin: Origin) -> None:
    """Running transfers of what is recalled, and of the layers that only it needs, are cut off."""
    mirror = Filtered(origin)
    slow = _SlowRegistry()
    mirror.registry = mirror.filtered(slow)
    image, layer, other = b"image", LAYER, OTHER
    paths = [
        f"{NAME}/manifests/{Digest.of(image)}",
        f"{NAME}/blobs/{Digest.of(layer)}",
        f"{NAME}/blobs/{Digest.of(layer)}",
        f"{NAME}/blobs/{Digest.of(other)}",
    ]
    deliveries = [watch(mirror.ask(path).body.deliver(Recorder())) for path in paths]
    leaving = mirror.ask(paths[1]).body.deliver(Recorder())
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    mirror.recall(image, layer)
    assert [bool(each) for each in deliveries] == [True, True, True, False]
    assert all(isinstance(each[0], Recalled) for each in deliveries[:3])
    assert [each.cancelled for each in slow.bodies] == [1, 1, 1, 0, 1]
    mirror.deliveries.cut(mirror.recalls, mirror.clock.seconds())
    assert [each.cancelled for each in slow.bodies] == [1, 1, 1, 0, 1]


def test_finished_deliveries_are_forgotten(origin: Origin, mirror: Filtered) -> None:
    """Nothing is remembered of a delivery that has ended."""
    mirror.docker(NAME, "good")
    mirror.recall(OTHER)
    assert mirror.deliveries.cut(mirror.recalls, mirror.clock.seconds()) == 0
    assert isinstance(mirror.later(f"{NAME}/blobs/{Digest.of(OTHER)}")[0], Recalled)
    assert now(mirror.registry.fetch(mirror.request(f"{NAME}/tags/list"))).status == 200
