"""Writes through the mirror are served at once, by each of its processes."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    Denied,
    ManifestInvalid,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.oci.request import Tag
from dockmirror.pullthrough.generations import MAX_DOUBTS

from ..answering import now, watch
from ..shelf import image
from .mirrors import NAME, TAG, Mirror, body
from .origin import CHALLENGE, Origin, repository

LIST = f"{NAME}/tags/list"
OLD_LAYER, NEW_LAYER = b"old", b"new"


@pytest.fixture
def mirror(origin: Origin) -> Mirror:
    return Mirror(origin, writable=True)


@pytest.fixture
def other(mirror: Mirror) -> Mirror:
    """Another process of the same mirror."""
    return mirror.restarted(writable=True)


@pytest.fixture
def old(origin: Origin, mirror: Mirror, other: Mirror) -> bytes:
    """The tag's manifest, which both processes have served."""
    manifest = origin.shelf(NAME).publish(b"c", OLD_LAYER)
    for each in (mirror, other):
        each.pull(NAME)
        each.get(LIST)
    origin.take()
    return manifest


@pytest.fixture
def new(origin: Origin) -> bytes:
    """A manifest to push; its layers have been pushed."""
    origin.shelf(NAME).blobs[Digest.of(NEW_LAYER)] = NEW_LAYER
    return image(b"c", NEW_LAYER)


def test_a_push_is_served(origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes) -> None:
    """By tag and by digest, without a request upstream; a full disk does not fail the push."""
    mirror.write("PUT", TAG, new)
    for each in (mirror, other):
        assert each.get(TAG) == new
        assert each.get(f"{NAME}/manifests/{Digest.of(new)}") == new
    assert origin.take() == []
    mirror.store.faults.writing = True
    assert mirror.write("PUT", TAG, old).status == 201


def test_a_push_grants_no_pull(origin: Origin, mirror: Mirror, new: bytes) -> None:
    """Clients that pushed must be allowed to pull by the upstream, like all others."""
    origin.shelf("me/private", {"alice"})
    mirror.write("PUT", "me/private/manifests/1", new, "pusher")
    for who in ("pusher", None, "bob"):
        for reference in ("1", Digest.of(new)):
            with pytest.raises(Unauthorized):
                mirror.ask(f"me/private/manifests/{reference}", who)
    assert mirror.get("me/private/manifests/1", "alice") == new


def test_lists_are_asked_for_anew(mirror: Mirror, other: Mirror, old: bytes, new: bytes) -> None:
    """Tags and referrers, with every query, by every process."""
    subject = f"{NAME}/referrers/{Digest.of(old)}"
    for path in (LIST, subject):
        other.get(path)
        other.get(path, query=(("n", "1"),))
    mirror.write("PUT", f"{NAME}/manifests/more", new)
    mirror.origin.take()
    assert json.loads(other.get(LIST))["tags"] == ["latest", "more"]
    other.get(LIST, query=(("n", "1"),))
    other.get(subject)
    assert len(mirror.origin.take()) == 3
    other.get(LIST)
    assert mirror.origin.take() == []


@pytest.mark.parametrize("path", ["latest", "new", "digest"])
def test_tags_that_the_registry_does_not_set(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes, path: str
) -> None:
    """Tags that the registry reports are stored; a parameter that it ignores moves no tag."""
    mirror.write("PUT", f"{NAME}/manifests/{Digest.of(new)}?tag=a&tag=b", new)
    origin.take()
    assert mirror.get(f"{NAME}/manifests/a") == mirror.get(f"{NAME}/manifests/b") == new
    assert origin.take() == []
    origin.several = False
    origin.shelf(NAME).tags["stable"] = Digest.of(old)
    assert other.get(f"{NAME}/manifests/stable") == old
    path = str(Digest.of(new)) if path == "digest" else path
    mirror.write("PUT", f"{NAME}/manifests/{path}?tag=stable&tag=never", new)
    for each in (mirror, other):
        assert each.get(f"{NAME}/manifests/stable") == old
        (error,) = each.later(f"{NAME}/manifests/never")
        assert error.status == 404
    if ":" not in path:
        assert other.get(f"{NAME}/manifests/{path}") == new
    origin.trouble = Unreachable()
    assert other.get(f"{NAME}/manifests/stable") == old


@pytest.mark.parametrize("first", [True, False])
def test_two_pushes_of_one_tag(mirror: Mirror, other: Mirror, old: bytes, new: bytes, first: bool) -> None:
    """The registry's own order counts, whichever answer comes first."""
    newer = image(b"c", NEW_LAYER, OLD_LAYER)
    mirror.origin.held_up = True
    pushing = [watch(mirror.write_later("PUT", TAG, data)) for data in (new, newer)]
    if first:
        mirror.origin.go_on_once()
    else:
        mirror.origin.go_on_with_the_last()
        mirror.origin.go_on_once()
    mirror.origin.go_on()
    assert [len(each) for each in pushing] == [1, 1]
    for each in (mirror, other):
        assert each.get(TAG) == newer


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_two_writes_of_one_tag_in_two_processes(
    mirror: Mirror, other: Mirror, old: bytes, new: bytes, method: str
) -> None:
    """Neither process has recorded its write when the other one ends."""
    origin, faults = mirror.origin, mirror.store.faults
    origin.held_up = True
    watch(other.write_later("PUT", TAG, new))
    watch(mirror.write_later(method, TAG, image(b"c", OLD_LAYER, NEW_LAYER) if method == "PUT" else b""))
    faults.stalled = True
    origin.go_on_with_the_last()
    origin.go_on()
    faults.go_on()
    expected = other.later(TAG)
    assert origin.take(), "the upstream is asked"
    if method == "PUT":
        assert body(expected[0]) == image(b"c", OLD_LAYER, NEW_LAYER)
    else:
        assert expected[0].status == 404


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"no manifest", "a/b"), (image(b"c"), "application/vnd.docker.distribution.manifest.v2+json")],
)
def test_a_manifest_that_cannot_be_stored_is_requested(
    mirror: Mirror, other: Mirror, old: bytes, data: bytes, kind: str
) -> None:
    mirror.write("PUT", TAG, data, kind=kind)
    for each in (mirror, other):
        each.later(TAG)
        assert mirror.origin.take()


def test_a_refused_write_changes_nothing(origin: Origin, mirror: Mirror, old: bytes, new: bytes) -> None:
    for refusal in (ManifestInvalid(upstream_status=400), Denied(upstream_status=403)):
        origin.writing = False, refusal
        with pytest.raises(RegistryError):
            mirror.write("PUT", TAG, new)
    assert mirror.get(TAG) == old
    assert origin.take() == []


@pytest.mark.parametrize("status", [None, 303])
@pytest.mark.parametrize("done", [True, False])
def test_an_unknown_outcome_is_asked_about(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes, done: bool, status: int | None
) -> None:
    """The upstream is asked for the tag after a push that it has neither accepted nor refused."""
    origin.writing = done, Unavailable("it broke off", upstream_status=status)
    with pytest.raises(Unavailable):
        mirror.write("PUT", TAG, new)
    assert other.get(TAG) == (new if done else old)
    assert origin.asked[0].request.if_none_match is None, (
        "docker-registry has 304 for tags without a manifest"
    )


@pytest.mark.parametrize("status", [200, 202, 204])
def test_another_success_than_201_is_asked_about(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes, status: int
) -> None:
    """Some registries accept a manifest with another status; the tag and the lists are requested."""
    origin.accepts_with = status
    mirror.write("PUT", f"{NAME}/manifests/more", old)
    mirror.write("PUT", TAG, new)
    for each in (mirror, other):
        assert each.get(TAG) == new
        assert json.loads(each.get(LIST))["tags"] == ["latest", "more"]


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_goes_on_if_its_client_leaves(
    origin: Origin, mirror: Mirror, other: Mirror, old: bytes, new: bytes, method: str, answered: bool
) -> None:
    """It is recorded, whether the upstream has answered by then or only the disk is slow."""
    path = TAG if method == "PUT" else f"{NAME}/manifests/{Digest.of(old)}"
    origin.held_up, mirror.store.faults.stalled = not answered, answered
    writing = Deferred.fromCoroutine(mirror.write_later(method, path, new if method == "PUT" else b""))
    writing.addErrback(lambda _: None)
    writing.cancel()
    origin.go_on()
    mirror.store.faults.go_on()
    if method == "PUT":
        assert other.get(path) == new
        assert origin.take() == []
    else:
        (error,) = other.later(path)
        assert error.status == 404


class TestMeanwhile:
    """A pull that began before the push and ends after it."""

    @pytest.mark.parametrize("age", [0.0, 61.0])
    def test_is_not_stored(
        self, origin: Origin, mirror: Mirror, other: Mirror, new: bytes, age: float
    ) -> None:
        origin.shelf(NAME).publish(b"c", OLD_LAYER)
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
        """A request after the push does not join one from before it."""
        origin.shelf(NAME).publish(b"c", OLD_LAYER)
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

    def test_a_tag_from_an_older_head_is_dropped(self, origin: Origin, mirror: Mirror, new: bytes) -> None:
        manifest = origin.shelf(NAME).publish(b"c", OLD_LAYER)
        mirror.ask(TAG, head=True)
        mirror.write("PUT", TAG, new)
        assert mirror.get(f"{NAME}/manifests/{Digest.of(manifest)}") == manifest
        assert mirror.get(TAG) == new


class TestDeleted:
    def test_a_tag_is_gone(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        mirror.write("DELETE", TAG)
        (error,) = other.later(TAG)
        assert error.status == 404
        assert other.get(f"{NAME}/manifests/{Digest.of(old)}") == old

    def test_a_manifest_is_gone(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        """Pushed again, it is back."""
        by_digest = f"{NAME}/manifests/{Digest.of(old)}"
        mirror.write("DELETE", by_digest)
        for path in (TAG, by_digest):
            (error,) = other.later(path)
            assert error.status == 404
        mirror.write("PUT", TAG, old)
        origin.take()
        assert other.get(TAG) == other.get(by_digest) == old
        assert origin.take() == []

    def test_a_blob_is_gone(self, origin: Origin, mirror: Mirror, other: Mirror, old: bytes) -> None:
        origin.shelf("library/other").publish(b"c", OLD_LAYER)
        other.pull("library/other")
        path = f"blobs/{Digest.of(OLD_LAYER)}"
        mirror.write("DELETE", f"{NAME}/{path}")
        for each in (mirror, other):
            (error,) = each.later(f"{NAME}/{path}")
            assert error.status == 404
            assert each.get(f"library/other/{path}") == OLD_LAYER
        origin.shelf(NAME).blobs[Digest.of(OLD_LAYER)] = OLD_LAYER
        assert other.get(f"{NAME}/{path}") == OLD_LAYER
        origin.take()
        assert other.get(f"{NAME}/{path}") == OLD_LAYER
        assert origin.take() == []

    @pytest.mark.parametrize("evicted", [True, False])
    def test_for_mirrors_that_only_read(self, mirror: Mirror, old: bytes, evicted: bool) -> None:
        """Mirrors of the same registry under any name see the deletion, even without its documents."""
        manifest, layer = f"manifests/{Digest.of(old)}", f"blobs/{Digest.of(OLD_LAYER)}"
        for path in (manifest, layer):
            mirror.write("DELETE", f"{NAME}/{path}")
        if evicted:
            mirror.store.documents.documents = {
                name: data
                for name, data in mirror.store.documents.documents.items()
                if name.startswith("public")
            }
        for entry in ("docker", "another"):
            reading = mirror.restarted(entry=entry)
            for path in ("manifests/latest", manifest, layer):
                (error,) = reading.later(f"{NAME}/{path}")
                assert error.status == 404

    def test_while_it_is_fetched(self, mirror: Mirror, old: bytes) -> None:
        """A content that arrives after its deletion is not linked."""
        digest, place = Digest.of(OLD_LAYER), repository(NAME)
        mirror.write("DELETE", f"{NAME}/blobs/{digest}")
        reading = mirror.restarted()
        assert not now(reading.contents.link(place, digest, ContentKind.BLOB))
        assert not now(reading.contents.add(place, digest, ContentKind.BLOB, OLD_LAYER))
        assert now(reading.contents.open(place, digest, ContentKind.BLOB)) is None

    def test_by_another_mirror(self, mirror: Mirror, old: bytes) -> None:
        """Whose deletion is all that is known of it here: the link goes when it is asked for."""
        key = repository(NAME), Digest.of(OLD_LAYER), ContentKind.BLOB
        mirror.write("DELETE", f"{NAME}/blobs/{Digest.of(OLD_LAYER)}")
        mirror.store.contents.links.add(key)
        assert now(mirror.restarted().contents.open(*key)) is None
        assert key not in mirror.store.contents.links


NO_TOKEN = Unauthorized(challenges=(CHALLENGE,), upstream_status=401)
GONE = ManifestUnknown(upstream_status=404)


class TestStrangers:
    """Clients whose writes the upstream has not accepted."""

    @pytest.fixture
    def paths(self, old: bytes) -> dict[str, bytes]:
        """Stored contents by their paths."""
        return {
            TAG: old,
            f"{NAME}/manifests/{Digest.of(old)}": old,
            f"{NAME}/blobs/{Digest.of(OLD_LAYER)}": OLD_LAYER,
        }

    @pytest.mark.parametrize("said", [NO_TOKEN, GONE, Unreachable("reset"), Unreachable(upstream_status=502)])
    @pytest.mark.parametrize("method", ["DELETE", "PUT"])
    def test_take_nothing_away(
        self, origin: Origin, mirror: Mirror, other: Mirror, paths: dict[str, bytes], said: RegistryError,
        method: str, new: bytes,
    ) -> None:  # fmt: skip
        """Also while the upstream is down nothing of what is held is lost, lists included."""
        listed = other.get(LIST)
        origin.writing = False, said
        for path in paths:
            if method == "DELETE" or "blobs" not in path:
                with pytest.raises(RegistryError):
                    mirror.write(method, path, new if method == "PUT" else b"", who="stranger")
        origin.trouble = Unreachable("it is down")
        for each in (mirror, other):
            for path, data in paths.items():
                assert each.get(path) == data
            assert each.get(LIST) == listed

    def test_leave_few_documents(self, origin: Origin, mirror: Mirror, paths: dict[str, bytes]) -> None:
        origin.writing = False, Unreachable("it is down")
        before = len(mirror.store.documents.documents)
        for number in range(1000):
            for path in (f"a{number}/manifests/1", f"{NAME}/blobs/{Digest.of(b'%d' % number)}"):
                with pytest.raises(Unreachable):
                    mirror.write("DELETE", path, who="stranger")
        for path in paths:
            with pytest.raises(Unreachable):
                mirror.write("DELETE", path, who="stranger")
        assert len(mirror.store.documents.documents) <= before + 2 * MAX_DOUBTS + 2

    @pytest.mark.parametrize("kind", ["manifests", "blobs"])
    @pytest.mark.parametrize("done", [True, False])
    def test_an_unknown_deletion_is_asked_about(
        self, origin: Origin, mirror: Mirror, other: Mirror, paths: dict[str, bytes], done: bool, kind: str
    ) -> None:
        """The next request asks the upstream once."""
        path = next(path for path in paths if f"/{kind}/sha256:" in path)
        origin.writing = done, Unreachable("it broke off")
        with pytest.raises(Unreachable):
            mirror.write("DELETE", path)
        origin.take()
        if not done:
            assert other.get(path) == paths[path]
            assert origin.take() != []
            assert mirror.get(path) == other.get(path) == paths[path]
            assert origin.take() == []
            return
        for _ in range(2):
            (error,) = other.later(path)
            assert error.status == 404
        origin.trouble = Unreachable("it is down")
        assert isinstance(other.later(path)[0], RegistryError)

    @pytest.mark.parametrize("granted", [True, False])
    def test_a_404_deletes_for_authorized_clients_only(
        self, origin: Origin, mirror: Mirror, other: Mirror, paths: dict[str, bytes], granted: bool
    ) -> None:
        if granted:
            mirror.get(TAG, "alice", head=True)
        origin.writing = False, GONE
        for path in paths:
            with pytest.raises(ManifestUnknown):
                mirror.write("DELETE", path)
        origin.trouble = Unreachable("it is down")
        for path, data in paths.items():
            if granted:
                assert isinstance(other.later(path)[0], RegistryError)
            else:
                assert other.get(path) == data


def test_uploads_are_passed_on(origin: Origin, mirror: Mirror) -> None:
    before = dict(mirror.store.documents.documents)
    assert mirror.write("POST", f"{NAME}/blobs/uploads/").status == 202
    assert mirror.store.documents.documents == before


def test_a_mirror_without_writes_stores_no_generations() -> None:
    origin = Origin()
    mirror = Mirror(origin)
    origin.shelf(NAME).publish(b"c", OLD_LAYER)
    mirror.pull(NAME)
    mirror.get(LIST)
    assert not [name for name in mirror.store.documents.documents if name.startswith(("changed", "gone"))]
    assert watch(mirror.store.tags.get(repository(NAME), Tag("latest")))
