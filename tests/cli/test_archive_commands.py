"""Tests of ``dockmirror export`` and ``dockmirror import``."""

from __future__ import annotations

import json
from pathlib import Path

from dockmirror.archive.archive_plan import IMAGE_NAME, blob_path
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.authorization import imported_document
from dockmirror.pullthrough.generations import tombstone_document
from dockmirror.store import layout

from ..archive.packing import Counting, files, manifest, write_tar
from .shop import AMD, ARM, BASE, CONFIG, NGINX, OTHER, Shop


def test_a_complete_image_is_exported(shop: Shop, archive: Path, tmp_path: Path) -> None:
    """The output is a file or standard output, and any form of the name works."""
    assert shop.run("export", "docker.io/library/nginx:1.27", "-o", "-").stdout_bytes == archive.read_bytes()
    assert files(archive.read_bytes())[blob_path(Digest.of(AMD))] == AMD
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"nginx.tar", "nginx.tar.sha256"}


def test_an_incomplete_image_is_not_exported(shop: Shop, tmp_path: Path) -> None:
    """The message lists the missing contents and the complete platforms; no archive is left."""
    file = tmp_path / "nginx.tar"
    refused = shop.run("export", "nginx", "-o", str(file), code=1).output
    assert str(Digest.of(ARM)) in refused
    assert "--platform linux/amd64" in refused
    shop.run("export", "nginx", "--platform", "linux/arm64", "-o", str(file), code=1)
    refused = shop.run("export", "nginx", "--platform", "linux/s390x", "-o", "-", code=1).output
    assert "has no platform linux/s390x" in refused
    shop.run("export", "nginx", "--platform", "linux", "-o", str(file), code=2)
    absent = shop.run("export", "nginx:0", "-o", str(file), code=1).output
    assert f"is not in the cache in {shop.root}" in absent
    assert not file.exists()
    shop.run("export", "nginx", "--platform", "linux/amd64", "-o", str(file))
    [described] = json.loads(files(file.read_bytes())["index.json"])["manifests"]
    assert described["digest"] == str(Digest.of(AMD))


def test_a_corrupt_blob_is_not_exported(shop: Shop, tmp_path: Path) -> None:
    shop.path(Digest.of(BASE)).write_bytes(bytes(len(BASE)))
    refused = shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"), code=1).output
    assert str(Digest.of(BASE)) in refused
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_an_exported_image_can_be_imported(shop: Shop, tmp_path: Path, empty: Shop) -> None:
    """It is complete under its names, and public while its registry is down."""
    file = tmp_path / "images.tar"
    digest = Digest.of(manifest(CONFIG, BASE))
    shop.run("export", "nginx:1.27", f"{OTHER}@{digest}", "-o", str(file))
    assert empty.run("import", str(file)).stdout.splitlines() == [
        f"imported {NGINX}:1.27",
        f"imported {OTHER}@{digest}",
    ]
    listed = [(each["repository"], each["tag"], each["complete"]) for each in empty.json("ls")]
    assert listed == [(str(NGINX), "1.27", True), (str(OTHER), None, True)]
    documents = [
        imported_document(entry, Repository("library/nginx"), each)
        for entry in ("docker", "docker-staging")
        for each in (None, Digest.of(CONFIG), Digest.of(BASE))
    ]
    assert all((empty.root / layout.document(each)).exists() for each in documents)
    assert empty.run("export", "nginx:1.27", f"{OTHER}@{digest}", "-o", "-").stdout_bytes == file.read_bytes()


def test_the_layers_of_one_image_with_many_names_are_read_once(archive: Path, empty: Shop) -> None:
    """An archive may name an image several times."""
    contents = files(archive.read_bytes())
    [named] = json.loads(contents["index.json"])["manifests"]
    names = [f"{NGINX}:{number}" for number in range(5)]
    listed = [{**named, "annotations": {IMAGE_NAME: name}} for name in names]
    contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    counting = Counting(write_tar(contents))
    printed = empty.run("import", "-", input=counting).stdout
    assert printed.splitlines() == [f"imported {name}" for name in names]
    assert [each["complete"] for each in empty.json("ls")] == [True] * len(names)
    assert counting.count < 2 * len(counting.getbuffer())


def test_an_import_restores_deleted_images(shop: Shop, archive: Path) -> None:
    """The operator's import overrides an earlier deletion through the mirror."""
    deleted = [(Digest.of(BASE), ContentKind.BLOB), (Digest.of(AMD), ContentKind.MANIFEST)]
    documents = [shop.root / layout.document(tombstone_document(NGINX, *each)) for each in deleted]
    for document in documents:
        document.parent.mkdir(exist_ok=True)
        document.write_bytes(b"gone 1")
    shop.run("import", str(archive))
    assert [document.exists() for document in documents] == [False, False]


def test_one_image_can_be_imported_under_another_name(
    shop: Shop, archive: Path, tmp_path: Path, empty: Shop
) -> None:
    """``--as`` is refused for an archive of several images."""
    two = tmp_path / "two.tar"
    shop.run("export", "nginx:1.27", f"{OTHER}@{Digest.of(manifest(CONFIG, BASE))}", "-o", str(two))
    empty.run("import", str(archive), "--as", "ghcr.io/a/b:c")
    assert [each["repository"] for each in empty.json("ls")] == ["ghcr.io/a/b"]
    assert "the archives hold 2" in empty.run("import", str(two), "--as", "a", code=1).output
    empty.run("import", str(archive), "--as", "No Name", code=2)


def test_an_image_of_an_unknown_registry_is_refused(archive: Path, empty: Shop) -> None:
    refused = empty.run("import", str(archive), "--as", "localhost/app:1", code=1)
    assert "this mirror has no registry localhost" in refused.output
    assert empty.json("ls") == []


def test_a_refused_archive_leaves_nothing(archive: Path, empty: Shop) -> None:
    archive.write_bytes(archive.read_bytes().replace(BASE, bytes(len(BASE))))
    assert "does not match its digest" in empty.run("import", str(archive), code=1).output
    assert empty.json("ls") == []
    assert list((empty.root / layout.TEMPORARY).iterdir()) == []
    refused = empty.run("import", str(archive), __file__, code=1).output
    assert f"{__file__}: this is not a tar file, plain or compressed with gzip or zstd" in refused


def test_a_write_error_names_the_output(shop: Shop, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "a.tar"
    result = shop.run("export", "nginx:1.27", "-o", str(nowhere), code=1)
    assert result.output == f"Error: {nowhere}: No such file or directory\n"
