"""What was written through the mirror is what it serves, at once, and by whichever of its processes."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IContents, IWrites
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, ManifestInvalid, RegistryError, Unauthorized, Unreachable
from dockmirror.oci.reference import Tag
from dockmirror.pullthrough.changes import Changes, Present

from ..answering import watch
from ..store.memory import MemoryContents, MemoryDocuments
from .images import image, publish
from .mirrors import Mirror
from .origin import Origin, repository

NAME = "library/busybox"
TAG = f"{NAME}/manifests/latest"
LIST = f"{NAME}/tags/list"
OLD_LAYER, NEW_LAYER = b"old", b"new"


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    """One that may be written through."""
    return Mirror(origin, writable=True)


@pytest.fixture
def other(mirror: Mirror) -> Mirror:
    """Another process of the same mirror."""
    return mirror.restarted(writable=True)


@pytest.fixture
def old(origin: Origin, mirror: Mirror, other: Mirror) -> bytes:
    """What the tag names, which both processes have served."""
    manifest = publish(origin.shelf(NAME), b"c", OLD_LAYER)
    for each in (mirror, other):
        each.pull(NAME)
        each.get(LIST)
    origin.take()
    return manifest


@pytest.fixture
def new(origin: Origin) -> bytes:
    """What is pushed; its layers have been."""
    origin.shelf(NAME).blobs[Digest.of(NEW_LAYER)] = NEW_LAYER
    return image(b"c", NEW_LAYER)


def test_it_is_written_to() -> None:
    """As a registry is."""
    assert verifyObject(IWrites, Mirror(Origin(), writable=True).writes)
    assert verifyObject(IContents, Present(MemoryContents(), Changes("a", MemoryDocuments())))


def test_a_manifest_is_kept(origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes) -> None:
    """By its tag and by its digest, and nobody is asked for it."""
    mirror.write("PUT", TAG, new)
    for each in (mirror, other):
        assert each.get(TAG) == new
        assert each.get(f"{NAME}/manifests/{Digest.of(new)}") == new
    assert origin.take() == []


def test_it_entitles_nobody(origin: Origin, mirror: Mirror, new: bytes) -> None:
    """Who could push has yet to show that he may pull, and so has everybody else."""
    origin.shelf("me/private", {"alice"})
    mirror.write("PUT", "me/private/manifests/1", new, "pusher")
    for who in ("pusher", None, "bob"):
        for reference in ("1", Digest.of(new)):
            with pytest.raises(Unauthorized):
                mirror.ask(f"me/private/manifests/{reference}", who)
    assert mirror.get("me/private/manifests/1", "alice") == new


def test_lists_are_asked_for_anew(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes
) -> None:
    """Tags and referrers, with every query, by every process."""
    subject = f"{NAME}/referrers/{Digest.of(old)}"
    for path in (LIST, subject):
        other.get(path)
        other.get(path, query=(("n", "1"),))
    mirror.write("PUT", f"{NAME}/manifests/more", new)
    origin.take()
    assert json.loads(other.get(LIST))["tags"] == ["latest", "more"]
    other.get(LIST, query=(("n", "1"),))
    other.get(subject)
    assert len(origin.take()) == 3
    other.get(LIST)
    assert origin.take() == []


def test_several_tags_at_once(origin: Origin, mirror: Mirror, old: bytes, new: bytes) -> None:
    """Are all of it."""
    mirror.write("PUT", f"{NAME}/manifests/{Digest.of(new)}?tag=a&tag=b", new)
    origin.take()
    assert mirror.get(f"{NAME}/manifests/a") == mirror.get(f"{NAME}/manifests/b") == new
    assert origin.take() == []


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"no manifest", "a/b"), (image(b"c"), "application/vnd.docker.distribution.manifest.v2+json")],
)
def test_what_cannot_be_kept(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, data: bytes, kind: str
) -> None:
    """Is forgotten, and asked for."""
    mirror.write("PUT", TAG, data, kind=kind)
    for each in (mirror, other):
        each.later(TAG)
        assert origin.take()


def test_a_disk_that_takes_nothing(origin: Origin, mirror: Mirror, old: bytes, new: bytes) -> None:
    """Costs the cache and not the push."""
    mirror.store.faults.writing = True
    assert mirror.write("PUT", TAG, new).status == 201


def test_a_refusal_changes_nothing(origin: Origin, mirror: Mirror, old: bytes, new: bytes) -> None:
    """What was held is believed as before."""
    for refusal in (ManifestInvalid(upstream_status=400), Denied(upstream_status=403)):
        origin.writing = False, refusal
        with pytest.raises(RegistryError):
            mirror.write("PUT", TAG, new)
    assert mirror.get(TAG) == old
    assert origin.take() == []


@pytest.mark.parametrize("done", [True, False])
def test_nobody_knows(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes, done: bool
) -> None:
    """Whether the upstream has done it, when it did not answer: then it is asked."""
    origin.writing = done, Unreachable("it broke off")
    with pytest.raises(Unreachable):
        mirror.write("PUT", TAG, new)
    assert other.get(TAG) == (new if done else old)
    assert origin.take()


def test_who_pushes_leaves(origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes) -> None:
    """Before he has the answer: it counts as if nobody knew."""
    origin.held_up = True
    writing = Deferred.fromCoroutine(mirror.write_later("PUT", TAG, new))
    writing.addErrback(lambda _: None)
    writing.cancel()
    origin.go_on()
    assert other.get(TAG) == new


class TestMeanwhile:
    """A pull that began before the push, and ends after it."""

    @pytest.mark.parametrize("age", [0.0, 61.0])
    def test_is_not_kept(self, origin: Origin, mirror: Mirror, other: Mirror, new: bytes, age: float) -> None:
        """Whatever it was that it asked."""
        publish(origin.shelf(NAME), b"c", OLD_LAYER)
        if age:
            other.pull(NAME)
            other.clock.advance(age)
        origin.held_up = True
        pulling = other.later(TAG)
        origin.held_up = False
        mirror.write("PUT", TAG, new)
        origin.go_on()
        assert len(pulling) == 1
        assert other.get(TAG) == mirror.get(TAG) == new

    def test_is_not_joined(self, origin: Origin, mirror: Mirror, other: Mirror, new: bytes) -> None:
        """Who asks after the push does not get what was asked before."""
        publish(origin.shelf(NAME), b"c", OLD_LAYER)
        origin.held_up = True
        other.later(TAG)
        origin.held_up = False
        origin.writing = True, Unreachable("it broke off")
        with pytest.raises(Unreachable):
            mirror.write("PUT", TAG, new)
        origin.held_up = True
        asking = other.later(TAG)
        assert len(origin.take()) == 2
        origin.go_on()
        assert len(asking) == 1

    def test_a_tag_that_was_told(self, origin: Origin, mirror: Mirror, new: bytes) -> None:
        """By a HEAD: when the manifest comes, the tag may be another one's."""
        manifest = publish(origin.shelf(NAME), b"c", OLD_LAYER)
        mirror.ask(TAG, head=True)
        mirror.write("PUT", TAG, new)
        assert mirror.get(f"{NAME}/manifests/{Digest.of(manifest)}") == manifest
        assert mirror.get(TAG) == new


class TestDeleted:
    """What is not there any more."""

    def test_a_tag(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        """Is gone at once; what it named is not."""
        mirror.write("DELETE", TAG)
        (error,) = other.later(TAG)
        assert error.status == 404
        assert other.get(f"{NAME}/manifests/{Digest.of(old)}") == old

    def test_a_manifest(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        """Is gone by its digest and by its tags; pushed again it is back."""
        by_digest = f"{NAME}/manifests/{Digest.of(old)}"
        mirror.write("DELETE", by_digest)
        for path in (TAG, by_digest):
            (error,) = other.later(path)
            assert error.status == 404
        mirror.write("PUT", TAG, old)
        origin.take()
        assert other.get(TAG) == other.get(by_digest) == old
        assert origin.take() == []

    def test_a_blob(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        """Is gone from there alone, although its bytes are held."""
        publish(origin.shelf("library/other"), b"c", OLD_LAYER)
        other.pull("library/other")
        path = f"blobs/{Digest.of(OLD_LAYER)}"
        mirror.write("DELETE", f"{NAME}/{path}")
        for each in (mirror, other):
            (error,) = each.later(f"{NAME}/{path}")
            assert error.status == 404
            assert each.get(f"library/other/{path}") == OLD_LAYER
        origin.shelf(NAME).blobs[Digest.of(OLD_LAYER)] = OLD_LAYER
        assert other.get(f"{NAME}/{path}") == OLD_LAYER


def test_what_is_written_elsewhere(origin: Origin, mirror: Mirror, new: bytes) -> None:
    """Is passed on: uploads leave no trace here."""
    before = dict(mirror.store.documents.documents)
    assert mirror.write("POST", f"{NAME}/blobs/uploads/").status == 202
    assert mirror.store.documents.documents == before


def test_a_mirror_that_is_only_read() -> None:
    """Looks for no marks."""
    origin = Origin()
    mirror = Mirror(origin)
    publish(origin.shelf(NAME), b"c", OLD_LAYER)
    mirror.pull(NAME)
    mirror.get(LIST)
    assert not [name for name in mirror.store.documents.documents if name.startswith(("changed", "gone"))]
    assert watch(mirror.store.tags.get(repository(NAME), Tag("latest")))
