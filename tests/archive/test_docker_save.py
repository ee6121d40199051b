"""Tests of archives without manifests, as docker wrote them before version 25."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from dockmirror.archive.archive_files import MAX_DOCUMENT_SIZE, MAX_DOCUMENTS_SIZE, ArchiveRefused
from dockmirror.archive.image_archive import ImageArchive
from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestDocument

from .packing import Counting

BASE, TOP = b"base" * 1000, b"top" * 500
Change = Callable[[dict[str, Any]], None]


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


def opened(files: dict[str, Any]) -> ImageArchive:
    """Open an archive of these files, with the link."""
    return ImageArchive.open(archived(files))


def archived(files: dict[str, Any]) -> Counting:
    """Return the archive as a file."""
    out = Counting()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("c/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    return out


def taken(files: dict[str, Any]) -> list[bytes]:
    """Return the contents of all images."""
    archive = opened(files)
    parts = (part for image in archive.images() for part, _ in archive.parts(image.descriptor))
    return [b"".join(archive.pieces(part)) for part in parts]


def test_each_image_gets_a_manifest() -> None:
    """It keeps its names, and the manifest describes its layers."""
    archive = opened(contents())
    images = archive.images()
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


def test_the_generated_manifest_is_always_the_same() -> None:
    """A second import adds nothing."""
    assert opened(contents()).images() == opened(contents()).images()


def test_a_shared_configuration_is_read_once() -> None:
    """Many images may name the same configuration."""
    files = {**contents(), "one.json": config(*[BASE] * 1000)}
    files["manifest.json"] = [{"Config": "one.json", "Layers": ["a/layer.tar"] * 1000}] * 50
    file = archived(files)
    assert len({image.descriptor for image in ImageArchive.open(file).images()}) == 1
    assert file.count < 2 * len(file.getbuffer())


def test_too_many_layers_are_refused() -> None:
    """They never fill the memory."""
    files = {**contents(), "one.json": config(*[BASE] * 1000)}
    files["manifest.json"] = [{"Config": "one.json", "Layers": ["a/layer.tar"] * 1000}] * 101
    with pytest.raises(ArchiveRefused, match="too many layers"):
        opened(files)


def test_configurations_that_are_too_large_together_are_refused() -> None:
    """They never fill the memory."""
    configs = {
        f"{number}.json": ONE.ljust(MAX_DOCUMENT_SIZE - number)
        for number in range(MAX_DOCUMENTS_SIZE // MAX_DOCUMENT_SIZE + 1)
    }
    images = [{"Config": name, "Layers": ["a/layer.tar", "b/layer.tar"]} for name in configs]
    with pytest.raises(ArchiveRefused, match="too large together"):
        opened({**contents(), **configs, "manifest.json": images})


def _flipped(files: dict[str, Any]) -> None:
    files["a/layer.tar"] = BASE[:-1] + b"!"


def _missing(files: dict[str, Any]) -> None:
    del files["b/layer.tar"]


def _no_config(files: dict[str, Any]) -> None:
    del files["one.json"]


def _another_config(files: dict[str, Any]) -> None:
    files["one.json"] = b"[]"


def _fewer_layers(files: dict[str, Any]) -> None:
    del files["manifest.json"][1]["Layers"][0]


def _no_list(files: dict[str, Any]) -> None:
    files["manifest.json"] = {"Config": 1}


def _none(files: dict[str, Any]) -> None:
    files["manifest.json"] = []


def _names_that_are_none(files: dict[str, Any]) -> None:
    files["manifest.json"][1]["RepoTags"] = 7


@pytest.mark.parametrize(
    "change",
    [_flipped, _missing, _no_config, _another_config, _fewer_layers, _no_list, _none, _names_that_are_none],
)
def test_a_malformed_archive_is_refused(change: Change) -> None:
    """Each row damages one thing."""
    files = contents()
    change(files)
    with pytest.raises(ArchiveRefused):
        taken(files)
