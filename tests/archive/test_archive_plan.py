"""Archives as plans: their pieces, and the images in them."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.archive.archive_plan import (
    ArchiveContentError,
    ArchivePlan,
    ContentSlice,
    blob_path,
    plan_archive,
    plan_tar,
    read_archive,
)
from dockmirror.oci.digest import Digest

from .packing import archive, files, index, manifest, packed

PIECES = st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=8)


@given(PIECES, st.integers(0, 200), st.integers(0, 200))
def test_any_part_of_a_plan_can_be_read(pieces: list[tuple[bool, bytes]], start: int, stop: int) -> None:
    """The length is known before anything is read."""
    held = {Digest.of(data): data for _, data in pieces}
    plan = ArchivePlan(
        tuple(ContentSlice(Digest.of(data), len(data)) if stored else data for stored, data in pieces)
    )
    whole = b"".join(data for _, data in pieces)
    assert plan.size == len(whole)
    for bounds, expected in (((), whole), ((start, stop), whole[start:stop])):
        assert b"".join(read_archive(plan, lambda digest: io.BytesIO(held[digest]), *bounds)) == expected


@pytest.mark.parametrize("there", [b"wrong", b"rig"])
def test_a_corrupt_content_stops_the_archive(there: bytes) -> None:
    """Nothing that follows it is read."""
    plan = ArchivePlan((b"before", ContentSlice(Digest.of(b"right"), 5), b"after"))
    passed: list[bytes] = []
    with pytest.raises(ArchiveContentError, match=str(Digest.of(b"right"))):
        passed.extend(read_archive(plan, lambda _: io.BytesIO(there)))
    assert b"after" not in passed


CONFIG, LAYER, OTHER = b'{"os":"linux"}', b"layer" * 200, b"other"
IMAGE = manifest(CONFIG, LAYER, LAYER)
NAME = "docker.io/library/nginx:1.27"


def test_an_archive_is_an_oci_layout() -> None:
    """Contents have their digests as paths, and the index has the names that each program reads."""
    found = files(archive(packed(NAME, IMAGE, blobs=(CONFIG, LAYER)), blobs=(CONFIG, LAYER)))
    for data in (IMAGE, CONFIG, LAYER):
        assert found.pop(blob_path(Digest.of(data))) == data
    assert json.loads(found.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    [described] = json.loads(found.pop("index.json"))["manifests"]
    assert (described["digest"], described["size"]) == (str(Digest.of(IMAGE)), len(IMAGE))
    assert described["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "1.27",
    }
    paths = [blob_path(Digest.of(LAYER))] * 2
    saved = {"Config": blob_path(Digest.of(CONFIG)), "RepoTags": [NAME], "Layers": paths}
    assert json.loads(found.pop("manifest.json")) == [saved]
    assert set(found) == {"dockmirror.json"}


def test_the_same_images_give_the_same_bytes() -> None:
    """Entries are sorted, without times and owners."""
    blobs = (CONFIG, LAYER)
    data = archive(packed(NAME, IMAGE, blobs=blobs), blobs=blobs)
    assert data == archive(packed(NAME, IMAGE, blobs=blobs[::-1]), blobs=blobs)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    names = [member.name + "/" * member.isdir() for member in members]
    assert names == sorted(names)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_docker_gets_linux_amd64() -> None:
    """The machine that packs the archive does not matter."""
    other = manifest(OTHER)
    both = index(arm64=other, amd64=IMAGE)
    blobs = (CONFIG, LAYER, OTHER)
    found = files(archive(packed(NAME, both, IMAGE, other, blobs=blobs), blobs=blobs))
    [saved] = json.loads(found["manifest.json"])
    assert saved["Config"] == blob_path(Digest.of(CONFIG))
    assert blob_path(Digest.of(other)) in found


def test_the_names_for_docker() -> None:
    """Two names of an image make one entry; a digest is no tag; an artifact has no entry."""
    blobs = (CONFIG, LAYER)
    twice = (packed(NAME, IMAGE, blobs=blobs), packed("docker.io/a/b:2", IMAGE, blobs=blobs))
    found = files(archive(*twice, blobs=blobs))
    assert [each["RepoTags"] for each in json.loads(found["manifest.json"])] == [[NAME, "docker.io/a/b:2"]]
    by_digest = files(archive(packed(f"docker.io/a/b@{Digest.of(IMAGE)}", IMAGE, blobs=blobs), blobs=blobs))
    assert json.loads(by_digest["manifest.json"])[0]["RepoTags"] is None
    artifact = manifest(CONFIG, kind="application/vnd.example")
    assert json.loads(files(archive(packed(NAME, artifact)))["manifest.json"]) == []


def test_the_length_is_known_without_opening_a_file() -> None:
    """Sizes beyond an ordinary header are included."""
    huge = 20 * 1024**3
    plan = plan_tar(
        {"blobs/sha256/" + "a" * 64: ContentSlice(Digest.of(b""), huge), "blobs/sha512/" + "b" * 128: b"x"}
    )
    assert plan.size > huge
    assert plan.size % 512 == 0
    header = next(piece for piece in plan.pieces if isinstance(piece, bytes) and b"a" * 64 in piece)
    assert tarfile.TarInfo.frombuf(header, "ascii", "strict").size == huge
    assert plan_archive([]).size == len(archive())
