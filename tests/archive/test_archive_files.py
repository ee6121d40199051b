"""Archives without manifests, as docker wrote them before version 25."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from dockmirror.archive.archive_files import MAX_DOCUMENT_SIZE, MAX_DOCUMENTS_SIZE, ArchiveRefused
from dockmirror.archive.image_archive import ImageArchive
from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestDocument

from .packing import Counting, make_member, write_tar

BASE, TOP = b"base" * 1000, b"top" * 500


def config(*layers: bytes) -> bytes:
    """Return a configuration of an image with these layers."""
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(each)) for each in layers]}
    return json.dumps({"os": "linux", "rootfs": rootfs}).encode()


ONE, TWO = config(BASE, TOP), config(BASE)


def contents() -> dict[str, Any]:
    """Return two images; the second has a layer that is a link to one of the first."""
    return {
        "one.json": ONE, "two.json": TWO, "a/layer.tar": BASE, "b/layer.tar": TOP, "repositories": b"{}",
        "manifest.json": [
            {"Config": "two.json", "RepoTags": None, "Layers": ["c/layer.tar"]},
            {"Config": "one.json", "RepoTags": ["a:1", "b:2"], "Layers": ["a/layer.tar", "b/layer.tar"]},
        ],
    }  # fmt: skip


def pack(files: dict[str, Any]) -> Counting:
    """Return an archive of these files, with the link."""
    data = {
        name: each if isinstance(each, bytes) else json.dumps(each).encode() for name, each in files.items()
    }
    return Counting(write_tar(data, make_member("c/layer.tar", tarfile.SYMTYPE, "../a/layer.tar")))


def unpack(files: dict[str, Any]) -> list[bytes]:
    """Return the contents of all images."""
    archive = ImageArchive.open(pack(files))
    parts = (part for image in archive.images() for part, _ in archive.parts(image.descriptor))
    return [b"".join(archive.pieces(part)) for part in parts]


def test_each_image_gets_a_manifest() -> None:
    """It keeps its names, and the manifest describes its layers; a second import gives the same."""
    archive = ImageArchive.open(pack(contents()))
    images = archive.images()
    assert ImageArchive.open(pack(contents())).images() == images
    assert [image.name for image in images] == [None, "a:1", "b:2"]
    assert images[1].descriptor == images[2].descriptor
    for image, expected in ((images[0], [TWO, BASE]), (images[1], [ONE, BASE, TOP])):
        *blobs, (described, data) = archive.parts(image.descriptor)
        assert described == image.descriptor
        assert [b"".join(archive.pieces(part)) for part, _ in blobs] == expected
        assert data is not None
        manifest = ManifestDocument.parse(data)
        assert manifest is not None
        assert {each.media_type for each in manifest.layers} == {"application/vnd.oci.image.layer.v1.tar"}


def test_a_shared_configuration_is_read_once() -> None:
    """Many images may name the same configuration."""
    files = {**contents(), "one.json": config(*[BASE] * 1000)}
    files["manifest.json"] = [{"Config": "one.json", "Layers": ["a/layer.tar"] * 1000}] * 50
    file = pack(files)
    assert len({image.descriptor for image in ImageArchive.open(file).images()}) == 1
    assert file.count < 2 * len(file.getbuffer())


def test_archives_that_would_fill_the_memory_are_refused() -> None:
    layers = {**contents(), "one.json": config(*[BASE] * 1000)}
    layers["manifest.json"] = [{"Config": "one.json", "Layers": ["a/layer.tar"] * 1000}] * 101
    with pytest.raises(ArchiveRefused, match="too many layers"):
        unpack(layers)
    count = MAX_DOCUMENTS_SIZE // MAX_DOCUMENT_SIZE + 1
    configs = {f"{number}.json": ONE.ljust(MAX_DOCUMENT_SIZE - number) for number in range(count)}
    images = [{"Config": name, "Layers": ["a/layer.tar", "b/layer.tar"]} for name in configs]
    with pytest.raises(ArchiveRefused, match="too large together"):
        unpack({**contents(), **configs, "manifest.json": images})


@pytest.mark.parametrize(
    "change",
    [
        {"a/layer.tar": BASE[:-1] + b"!"},
        {"b/layer.tar": None},
        {"one.json": None},
        {"one.json": b"[]"},
        {"manifest.json": [{"Config": "one.json", "RepoTags": ["a:1"], "Layers": ["b/layer.tar"]}]},
        {"manifest.json": {"Config": 1}},
        {"manifest.json": []},
        {"manifest.json": [{"Config": "two.json", "RepoTags": 7, "Layers": ["c/layer.tar"]}]},
    ],
)
def test_a_malformed_archive_is_refused(change: dict[str, Any]) -> None:
    files = {name: data for name, data in {**contents(), **change}.items() if data is not None}
    with pytest.raises(ArchiveRefused):
        unpack(files)
