"""``dockmirror export`` and ``dockmirror import``."""

from __future__ import annotations

import json
from pathlib import Path

from dockmirror.archive.images import IMAGE_NAME, path_of
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository
from dockmirror.pullthrough.generations import deletion_document
from dockmirror.pullthrough.grants import imported_document
from dockmirror.store import layout

from ..archive.packing import Counting, files, manifest, tar_of
from .shop import AMD, ARM, BASE, CONFIG, NGINX, OTHER, Shop


def test_whole(shop: Shop, tmp_path: Path) -> None:
    """What is held whole is exported, to a file or to standard output, by whichever name."""
    file = tmp_path / "nginx.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    assert shop.run("export", "docker.io/library/nginx:1.27", "-o", "-").stdout_bytes == file.read_bytes()
    assert files(file.read_bytes())[path_of(Digest.of(AMD))] == AMD
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["nginx.tar"]


def test_not_whole(shop: Shop, tmp_path: Path) -> None:
    """It is said what is missing, and which platform is not; there is no archive then."""
    file = tmp_path / "nginx.tar"
    refused = shop.run("export", "nginx", "-o", str(file), code=1).output
    assert str(Digest.of(ARM)) in refused
    assert "--platform linux/amd64" in refused
    shop.run("export", "nginx", "--platform", "linux/arm64", "-o", str(file), code=1)
    assert (
        "not made for" in shop.run("export", "nginx", "--platform", "linux/s390x", "-o", "-", code=1).output
    )
    shop.run("export", "nginx", "--platform", "linux", "-o", str(file), code=2)
    assert "is not held" in shop.run("export", "nginx:0", "-o", str(file), code=1).output
    assert not file.exists()
    shop.run("export", "nginx", "--platform", "linux/amd64", "-o", str(file))
    [described] = json.loads(files(file.read_bytes())["index.json"])["manifests"]
    assert described["digest"] == str(Digest.of(AMD))


def test_wrong_bytes(shop: Shop, tmp_path: Path) -> None:
    """Make no archive."""
    shop.path(Digest.of(BASE)).write_bytes(bytes(len(BASE)))
    assert (
        str(Digest.of(BASE)) in shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"), code=1).output
    )
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_there_and_back(shop: Shop, tmp_path: Path) -> None:
    """What was exported is imported under its names, whole, and said to be everybody's."""
    file = tmp_path / "images.tar"
    digest = Digest.of(manifest(CONFIG, BASE))
    shop.run("export", "nginx:1.27", f"{OTHER}@{digest}", "-o", str(file))
    empty = Shop(tmp_path / "empty")
    assert empty.run("import", str(file)).output.splitlines() == [
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


def test_one_image_by_many_names(shop: Shop, tmp_path: Path) -> None:
    """Its layers are read once."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    contents = files(file.read_bytes())
    [named] = json.loads(contents["index.json"])["manifests"]
    names = [f"{NGINX}:{number}" for number in range(20)]
    listed = [{**named, "annotations": {IMAGE_NAME: name}} for name in names]
    contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    archive = Counting(tar_of(contents))
    empty = Shop(tmp_path / "empty")
    told = empty.run("import", "-", input=archive).output
    assert told.splitlines() == [f"imported {name}" for name in names]
    assert [each["complete"] for each in empty.json("ls")] == [True] * len(names)
    assert archive.count < 2 * len(archive.getbuffer())


def test_what_was_deleted(shop: Shop, tmp_path: Path) -> None:
    """Through the mirror before is there again: an operator's word counts."""
    file = tmp_path / "images.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    deleted = [(Digest.of(BASE), ContentKind.BLOB), (Digest.of(AMD), ContentKind.MANIFEST)]
    documents = [shop.root / layout.document(deletion_document(NGINX, *each)) for each in deleted]
    for document in documents:
        document.parent.mkdir(exist_ok=True)
        document.write_bytes(b"gone 1")
    shop.run("import", str(file))
    assert [document.exists() for document in documents] == [False, False]


def test_under_another_name(shop: Shop, tmp_path: Path) -> None:
    """If it is one image."""
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    shop.run("export", "nginx:1.27", "-o", str(one))
    shop.run("export", "nginx:1.27", f"{OTHER}@{Digest.of(manifest(CONFIG, BASE))}", "-o", str(two))
    empty = Shop(tmp_path / "empty")
    empty.run("import", str(one), "--as", "ghcr.io/a/b:c")
    assert [each["repository"] for each in empty.json("ls")] == ["ghcr.io/a/b"]
    assert "there are 2" in empty.run("import", str(two), "--as", "a", code=1).output
    empty.run("import", str(one), "--as", "No Name", code=2)


def test_of_a_registry_that_is_not_mirrored(shop: Shop, tmp_path: Path) -> None:
    """Is refused: nobody could pull it."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    empty = Shop(tmp_path / "empty")
    refused = empty.run("import", str(file), "--as", "localhost/app:1", code=1)
    assert "localhost is not mirrored here" in refused.output
    assert empty.json("ls") == []


def test_refused(shop: Shop, tmp_path: Path) -> None:
    """Nothing of what is wrong can be pulled, nor is anything left of it on its way."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    data = file.read_bytes()
    file.write_bytes(data.replace(BASE, bytes(len(BASE))))
    empty = Shop(tmp_path / "empty")
    assert "is not the content of its name" in empty.run("import", str(file), code=1).output
    assert empty.json("ls") == []
    assert list((empty.root / layout.TEMPORARY).iterdir()) == []
    assert f"{__file__}: this is no tar file" in empty.run("import", str(file), __file__, code=1).output


def test_an_output_that_cannot_be_written(shop: Shop, tmp_path: Path) -> None:
    """It is named as it was given, and why."""
    nowhere = tmp_path / "nowhere" / "a.tar"
    result = shop.run("export", "nginx:1.27", "-o", str(nowhere), code=1)
    assert result.output == f"Error: {nowhere}: No such file or directory\n"
