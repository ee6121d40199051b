"""Images as an archive that everybody loads."""

from __future__ import annotations

import io
import json
import tarfile

from dockmirror.archive.archive_plan import ContentSlice
from dockmirror.archive.images import archive_of, path_of
from dockmirror.archive.tar import tar_of
from dockmirror.oci.digest import Digest

from .packing import archive, files, index, manifest, packed

CONFIG, LAYER, OTHER = b'{"os":"linux"}', b"layer" * 200, b"other"
IMAGE = manifest(CONFIG, LAYER, LAYER)
NAME = "docker.io/library/nginx:1.27"


def test_a_layout() -> None:
    """Has the contents under their digests, and an index with the names by which each loader looks."""
    found = files(archive(packed(NAME, IMAGE, blobs=(CONFIG, LAYER)), blobs=(CONFIG, LAYER)))
    for data in (IMAGE, CONFIG, LAYER):
        assert found.pop(path_of(Digest.of(data))) == data
    assert json.loads(found.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    [described] = json.loads(found.pop("index.json"))["manifests"]
    assert (described["digest"], described["size"]) == (str(Digest.of(IMAGE)), len(IMAGE))
    assert described["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "1.27",
    }
    paths = [path_of(Digest.of(LAYER))] * 2
    saved = {"Config": path_of(Digest.of(CONFIG)), "RepoTags": [NAME], "Layers": paths}
    assert json.loads(found.pop("manifest.json")) == [saved]
    assert found == {}


def test_always_the_same() -> None:
    """Of no time and of nobody, and sorted, in whichever order things were found."""
    blobs = (CONFIG, LAYER)
    data = archive(packed(NAME, IMAGE, blobs=blobs), blobs=blobs)
    assert data == archive(packed(NAME, IMAGE, blobs=blobs[::-1]), blobs=blobs)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    names = [member.name + "/" * member.isdir() for member in members]
    assert names == sorted(names)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_several_platforms() -> None:
    """Docker is given the one for linux/amd64, wherever the archive is made."""
    other = manifest(OTHER)
    both = index(arm64=other, amd64=IMAGE)
    blobs = (CONFIG, LAYER, OTHER)
    found = files(archive(packed(NAME, both, IMAGE, other, blobs=blobs), blobs=blobs))
    [saved] = json.loads(found["manifest.json"])
    assert saved["Config"] == path_of(Digest.of(CONFIG))
    assert path_of(Digest.of(other)) in found


def test_names() -> None:
    """Two of one image are one for docker; one by digest is no tag; an artifact is nothing to run."""
    blobs = (CONFIG, LAYER)
    twice = (packed(NAME, IMAGE, blobs=blobs), packed("docker.io/a/b:2", IMAGE, blobs=blobs))
    found = files(archive(*twice, blobs=blobs))
    assert [each["RepoTags"] for each in json.loads(found["manifest.json"])] == [[NAME, "docker.io/a/b:2"]]
    by_digest = files(archive(packed(f"docker.io/a/b@{Digest.of(IMAGE)}", IMAGE, blobs=blobs), blobs=blobs))
    assert json.loads(by_digest["manifest.json"])[0]["RepoTags"] is None
    artifact = manifest(CONFIG, kind="application/vnd.example")
    assert json.loads(files(archive(packed(NAME, artifact)))["manifest.json"]) == []


def test_length_beforehand() -> None:
    """Is known without a file being opened, also of what does not fit into an ordinary header."""
    huge = 20 * 1024**3
    plan = tar_of(
        {"blobs/sha256/" + "a" * 64: ContentSlice(Digest.of(b""), huge), "blobs/sha512/" + "b" * 128: b"x"}
    )
    assert plan.size > huge
    assert plan.size % 512 == 0
    header = next(piece for piece in plan.pieces if isinstance(piece, bytes) and b"a" * 64 in piece)
    assert tarfile.TarInfo.frombuf(header, "ascii", "strict").size == huge
    assert archive_of([]).size == len(archive())
