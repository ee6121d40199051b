"""Tests of ``dockmirror export`` and ``dockmirror import``."""

from __future__ import annotations

import json
from pathlib import Path

from dockmirror.archive.archive_plan import IMAGE_NAME, blob_path
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository
from dockmirror.pullthrough.generations import tombstone_document
from dockmirror.pullthrough.grants import imported_document
from dockmirror.store import layout

from ..archive.packing import Counting, files, manifest, write_tar
from .shop import AMD, ARM, BASE, CONFIG, NGINX, OTHER, Shop


def test_a_complete_image_is_exported(shop: Shop, tmp_path: Path) -> None:
    """The output is a file or standard output, and any form of the name works."""
    file = tmp_path / "nginx.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    assert shop.run("export", "docker.io/library/nginx:1.27", "-o", "-").stdout_bytes == file.read_bytes()
    assert files(file.read_bytes())[blob_path(Digest.of(AMD))] == AMD
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["nginx.tar"]


def test_an_incomplete_image_is_not_exported(shop: Shop, tmp_path: Path) -> None:
    """The message lists the missing contents and the complete platforms; no archive is left."""
    file = tmp_path / "nginx.tar"
    refused = shop.run("export", "nginx", "-o", str(file), code=1).output
    assert str(Digest.of(ARM)) in refused
    assert "--platform linux/amd64" in refused
    shop.run("export", "nginx", "--platform", "linux/arm64", "-o", str(file), code=1)
    assert (
        "has no platform linux/s390x"
        in shop.run("export", "nginx", "--platform", "linux/s390x", "-o", "-", code=1).output
    )
    shop.run("export", "nginx", "--platform", "linux", "-o", str(file), code=2)
    assert "is not in the cache" in shop.run("export", "nginx:0", "-o", str(file), code=1).output
    assert not file.exists()
    shop.run("export", "nginx", "--platform", "linux/amd64", "-o", str(file))
    [described] = json.loads(files(file.read_bytes())["index.json"])["manifests"]
    assert described["digest"] == str(Digest.of(AMD))


def test_a_corrupt_blob_is_not_exported(shop: Shop, tmp_path: Path) -> None:
    """No archive is left."""
    shop.path(Digest.of(BASE)).write_bytes(bytes(len(BASE)))
    assert (
        str(Digest.of(BASE)) in shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"), code=1).output
    )
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_an_exported_image_can_be_imported(shop: Shop, tmp_path: Path) -> None:
    """It is complete under its names, and public while its registry is down."""
    file = tmp_path / "images.tar"
    digest = Digest.of(manifest(CONFIG, BASE))
    shop.run("export", "nginx:1.27", f"{OTHER}@{digest}", "-o", str(file))
    empty = Shop(tmp_path / "empty")
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


def test_the_layers_of_one_image_with_many_names_are_read_once(shop: Shop, tmp_path: Path) -> None:
    """An archive may name an image several times."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    contents = files(file.read_bytes())
    [named] = json.loads(contents["index.json"])["manifests"]
    names = [f"{NGINX}:{number}" for number in range(20)]
    listed = [{**named, "annotations": {IMAGE_NAME: name}} for name in names]
    contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    archive = Counting(write_tar(contents))
    empty = Shop(tmp_path / "empty")
    told = empty.run("import", "-", input=archive).stdout
    assert told.splitlines() == [f"imported {name}" for name in names]
    assert [each["complete"] for each in empty.json("ls")] == [True] * len(names)
    assert archive.count < 2 * len(archive.getbuffer())


def test_an_import_restores_deleted_images(shop: Shop, tmp_path: Path) -> None:
    """The operator's import overrides an earlier deletion through the mirror."""
    file = tmp_path / "images.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    deleted = [(Digest.of(BASE), ContentKind.BLOB), (Digest.of(AMD), ContentKind.MANIFEST)]
    documents = [shop.root / layout.document(tombstone_document(NGINX, *each)) for each in deleted]
    for document in documents:
        document.parent.mkdir(exist_ok=True)
        document.write_bytes(b"gone 1")
    shop.run("import", str(file))
    assert [document.exists() for document in documents] == [False, False]


def test_one_image_can_be_imported_under_another_name(shop: Shop, tmp_path: Path) -> None:
    """``--as`` is refused for an archive of several images."""
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    shop.run("export", "nginx:1.27", "-o", str(one))
    shop.run("export", "nginx:1.27", f"{OTHER}@{Digest.of(manifest(CONFIG, BASE))}", "-o", str(two))
    empty = Shop(tmp_path / "empty")
    empty.run("import", str(one), "--as", "ghcr.io/a/b:c")
    assert [each["repository"] for each in empty.json("ls")] == ["ghcr.io/a/b"]
    assert "the archives hold 2" in empty.run("import", str(two), "--as", "a", code=1).output
    empty.run("import", str(one), "--as", "No Name", code=2)


def test_an_image_of_an_unknown_registry_is_refused(shop: Shop, tmp_path: Path) -> None:
    """No client could pull it."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    empty = Shop(tmp_path / "empty")
    refused = empty.run("import", str(file), "--as", "localhost/app:1", code=1)
    assert "this mirror has no registry localhost" in refused.output
    assert empty.json("ls") == []


def test_a_refused_archive_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    """No image of it can be pulled, and no partial file is left."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    data = file.read_bytes()
    file.write_bytes(data.replace(BASE, bytes(len(BASE))))
    empty = Shop(tmp_path / "empty")
    assert "does not match its digest" in empty.run("import", str(file), code=1).output
    assert empty.json("ls") == []
    assert list((empty.root / layout.TEMPORARY).iterdir()) == []
    assert (
        f"{__file__}: this is not a readable, uncompressed tar file"
        in empty.run("import", str(file), __file__, code=1).output
    )


def test_a_write_error_names_the_output(shop: Shop, tmp_path: Path) -> None:
    """The message has the path as given and the reason."""
    nowhere = tmp_path / "nowhere" / "a.tar"
    result = shop.run("export", "nginx:1.27", "-o", str(nowhere), code=1)
    assert result.output == f"Error: {nowhere}: No such file or directory\n"
