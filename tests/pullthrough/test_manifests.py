"""Manifests: byte for byte as they came, to those who admit them."""

from __future__ import annotations

import json

import pytest

from dockmirror.body.bodies import BytesBody
from dockmirror.interfaces import Answer, ContentKind
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown, ManifestUnknown, Unavailable
from dockmirror.oci.header_fields import format_etag
from dockmirror.oci.manifest import MANIFEST_LIMIT
from dockmirror.oci.media import DOCKER_LIST, DOCKER_MANIFEST, EVERYTHING, OCI_INDEX, OCI_MANIFEST
from dockmirror.oci.request import Tag

from ..answering import Pieces
from ..shelf import image
from .mirrors import CONFIG, LAYER, NAME, TAG, Mirror, body, header
from .origin import Origin, index, repository

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def odd(media_type: str) -> bytes:
    """Return a manifest in an unusual format."""
    kind, config = media_type.encode(), str(Digest.of(CONFIG)).encode()
    return b'{ "mediaType":"%b", "schemaVersion" :2,"x":1.0,"config":{"digest":"%b"},\n"layers":[ ]}\n' % (
        kind,
        config,
    )


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST])
def test_it_is_given_as_it_came(origin: Origin, mirror: Mirror, manifest: bytes, media_type: str) -> None:
    """Cold and warm, by tag and by digest: the bytes, the media type, the digest."""
    is_index = media_type in (OCI_INDEX, DOCKER_LIST)
    data = index(manifest).replace(OCI_INDEX.encode(), media_type.encode()) if is_index else odd(media_type)
    digest = origin.shelf(NAME).put(data, media_type, "latest")
    for path in (TAG, TAG, f"{NAME}/manifests/{digest}"):
        answer = mirror.ask(path)
        assert answer.body.descriptor == Descriptor(media_type, digest, len(data))
        assert body(answer) == data
        head = mirror.ask(path, head=True)
        assert (head.body.descriptor, body(head)) == (answer.body.descriptor, b"")
    assert origin.take() == [f"nobody: GET {TAG}"]


def test_oci_documents_may_not_say_what_they_are(origin: Origin, mirror: Mirror) -> None:
    """The type that they came with is the one that their shape has."""
    data = json.dumps({"schemaVersion": 2, "config": {"digest": str(Digest.of(CONFIG))}}).encode()
    origin.shelf(NAME).put(data, f"{OCI_MANIFEST}; charset=utf-8", "latest")
    mirror.ask(TAG)
    assert mirror.ask(TAG).body.descriptor.media_type == OCI_MANIFEST
    assert origin.take() == [f"nobody: GET {TAG}"]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b'{"schemaVersion":1,"fsLayers":[]}', SCHEMA_1),
        (b'{"schemaVersion":2,"mediaType":"x/y"}', "x/y"),
        (odd(OCI_MANIFEST), DOCKER_MANIFEST),
        (odd(OCI_MANIFEST), "application/json"),
        (b"{", OCI_MANIFEST),
        (odd(OCI_MANIFEST).replace(b"1.0", b"[0%b]" % (b",0" * 40_000)), OCI_MANIFEST),
        (odd(OCI_MANIFEST).replace(b'"x"', b'"Layers"'), OCI_MANIFEST),
        (odd(OCI_MANIFEST).replace(b'"x"', b'"layers"'), OCI_MANIFEST),
        (odd(OCI_MANIFEST).replace(b'"x"', b'"manifests"'), OCI_MANIFEST),
    ],
)
def test_other_kinds_pass(origin: Origin, mirror: Mirror, data: bytes, media_type: str) -> None:
    """Schema 1, artifacts of the past, what says of itself another kind than its server does, what can be
    read in different ways, and what has too many values.
    """
    digest = origin.shelf(NAME).put(data, media_type, "latest")
    for path in (TAG, TAG, f"{NAME}/manifests/{digest}"):
        answer = mirror.ask(path)
        assert answer.body.descriptor.media_type == media_type
        assert header(answer, "Cache-Status") == "dockmirror; fwd=miss"
        assert body(answer) == data
    assert len(origin.take()) == 3
    assert not mirror.store.contents.held


def test_what_is_not_what_its_digest_says_is_not_kept(mirror: Mirror, manifest: bytes) -> None:
    """One whose digest is that of its signed part (schema 1) could be another's under that digest."""
    digest = mirror.origin.shelf("evil/x", {"evil"}).put(manifest, tag="latest")
    lying = Origin()
    lying.says = Answer(BytesBody(b'{"x":1,' + manifest[1:], Descriptor(OCI_MANIFEST, digest, None)))
    other = Mirror(lying, mirror.clock, mirror.store, entry="evil")
    assert body(other.ask("evil/x/manifests/latest")) != manifest
    assert digest not in mirror.store.contents.held


def test_a_narrow_client_is_given_the_upstreams_own(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Cold and warm, by GET and by HEAD; what the tag names stays what it is for all others."""
    shelf = origin.shelf(NAME)
    old = odd(DOCKER_MANIFEST)
    shelf.narrow["latest"] = DOCKER_MANIFEST, old
    for _ in range(2):
        for head in (False, True):
            answer = mirror.ask(TAG, accept=(DOCKER_MANIFEST,), head=head)
            assert answer.body.descriptor.digest == Digest.of(old)
            assert body(answer) == (b"" if head else old)
        assert mirror.get(TAG) == manifest
    shelf.narrow.clear()
    for reference in ("latest", Digest.of(manifest)):
        with pytest.raises(ManifestUnknown):
            mirror.ask(f"{NAME}/manifests/{reference}", accept=("application/json",))
    assert mirror.get(TAG) == manifest
    assert mirror.store.tags.tags[repository(NAME), Tag("latest")].digest == Digest.of(manifest)


@pytest.mark.parametrize("accept", [(), ("*/*",), (f"x/y, {OCI_MANIFEST};q=0.1",), (OCI_MANIFEST, "*/*;q=0")])
def test_any_accepting_client_is_served(mirror: Mirror, manifest: bytes, accept: tuple[str, ...]) -> None:
    """The upstream is asked with the full list of types, so that one answer serves all clients."""
    assert mirror.get(TAG, accept=accept) == mirror.get(TAG) == manifest
    (asked,) = mirror.origin.asked
    assert asked.request.accept == EVERYTHING


def test_a_manifest_by_digest_is_fetched_once(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    path = f"{NAME}/manifests/{Digest.of(manifest)}"
    mirror.get(path)
    assert origin.take() == [f"nobody: GET {path}"]
    mirror.clock.advance(12 * 3600)
    answer = mirror.ask(path)
    assert (body(answer), header(answer, "Age")) == (manifest, None)
    assert header(answer, "Cache-Status") == "dockmirror; hit"
    assert mirror.ask(path, if_none_match=format_etag(Digest.of(manifest))).status == 304
    assert origin.take() == []


def test_manifests_and_blobs_are_separate(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """The upstream is asked for the other kind, and refuses it."""
    mirror.pull(NAME)
    with pytest.raises(BlobUnknown):
        mirror.ask(f"{NAME}/blobs/{Digest.of(manifest)}")
    for blob in (CONFIG, LAYER):
        with pytest.raises(ManifestUnknown):
            mirror.ask(f"{NAME}/manifests/{Digest.of(blob)}")


def test_content_may_be_manifest_and_blob(origin: Origin, mirror: Mirror, manifest: bytes) -> None:
    """Each kind is linked by itself if the upstream has both."""
    digest = Digest.of(manifest)
    origin.shelf(NAME).blobs[digest] = manifest
    mirror.pull(NAME)
    assert mirror.get(f"{NAME}/blobs/{digest}") == manifest
    links = mirror.store.contents.links
    assert {kind for _, each, kind in links if each == digest} == {ContentKind.BLOB, ContentKind.MANIFEST}


@pytest.mark.parametrize("broken", [False, True])
def test_a_lost_manifest_is_fetched_again(mirror: Mirror, manifest: bytes, broken: bool) -> None:
    """A manifest that was evicted or cannot be read is fetched, by tag and by digest."""
    mirror.pull(NAME)
    mirror.origin.take()
    mirror.store.faults.broken = broken
    for path in (TAG, f"{NAME}/manifests/{Digest.of(manifest)}"):
        if not broken:
            mirror.store.evict(Digest.of(manifest))
        assert mirror.get(path) == manifest
    assert mirror.origin.take()[-1] == f"nobody: GET {NAME}/manifests/{Digest.of(manifest)}"


def test_what_is_no_manifest_is_the_upstreams_to_explain(origin: Origin, mirror: Mirror) -> None:
    """It says that a layer is one, and means it, or not."""
    digest = origin.shelf(NAME).put(large := b" " * (MANIFEST_LIMIT + 1))
    mirror.store.contents.held[digest] = large
    with pytest.raises(Unavailable):
        mirror.ask(f"{NAME}/manifests/{digest}")
    assert [line.split()[1] for line in origin.take()] == ["HEAD", "GET"]


def test_a_content_of_any_kind_is_read_once(origin: Origin, mirror: Mirror) -> None:
    """Many may be given it, although a content is delivered once."""
    data = image(CONFIG, LAYER)
    origin.says = Answer(Pieces([data[:5], data[5:]], Descriptor(OCI_MANIFEST, Digest.of(data))))
    answer = mirror.ask(TAG)
    assert (body(answer), answer.body.descriptor.size) == (data, len(data))
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss; stored"
