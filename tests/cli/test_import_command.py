"""Tests of what ``dockmirror import`` reads; ``test_archive_commands.py`` has single archives."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dockmirror.app.naming import ImageName
from dockmirror.archive.archive_files import ArchiveRefused
from dockmirror.archive.archive_parts import find_parts, group_parts
from dockmirror.archive.archive_plan import blob_path
from dockmirror.archive.image_archive import ImageArchive
from dockmirror.cli.image_import import PlannedImport, add_contents, publish_images
from dockmirror.config.load import load
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Tag
from dockmirror.store import files as files_of_store
from dockmirror.store import layout

from ..archive.packing import files, manifest, write_tar
from .shop import AMD, BASE, CONFIG, LAYER, NGINX, Shop

NAME = f"{NGINX}:1.27"
COMPRESSIONS = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_archives_are_read(archive: Path, empty: Shop, tmp_path: Path, kind: str) -> None:
    """Damaged ones are refused; nothing temporary is left."""
    data = COMPRESSIONS[kind](archive.read_bytes())
    file = tmp_path / f"nginx.tar.{kind}"
    file.write_bytes(data[: len(data) // 2])
    empty.run("import", str(file), code=1)
    assert empty.json("ls") == []
    file.write_bytes(data)
    assert empty.run("import", str(file)).stdout == f"imported {NAME}\n"
    assert list((empty.root / layout.TEMPORARY).iterdir()) == []


def test_corrupt_compressed_data_is_refused(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """Its header is right, and no checksum was reached."""
    file = tmp_path / "nginx.tar.gz"
    file.write_bytes(gzip.compress(archive.read_bytes())[:10] + b"\xff" * 100)
    assert "it cannot be decompressed" in empty.run("import", str(file), code=1).output
    assert (
        "it cannot be decompressed"
        in empty.run("export", "--all", "--since", str(file), "-o", "-", code=1).output
    )


def test_a_number_at_the_end_need_not_be_that_of_a_part(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """The dates of files and of directories are none."""
    dated = [tmp_path / f"images.{day}" for day in (20240501, 20240508)]
    for each in dated:
        each.write_bytes(archive.read_bytes())
    directory = tmp_path / "images.001"
    empty.run("import", *map(str, dated))
    empty.run("export", "--all", "--layout", "-o", str(directory))
    assert empty.run("import", str(directory)).stdout == f"imported {NAME} (unchanged)\n"
    refused = empty.run("import", f"{archive}.sha256", code=1).output
    assert "name the archives, too" in refused


def test_parts_are_in_the_order_of_their_numbers(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """The thousandth comes after the 101st."""
    data, paths = archive.read_bytes(), []
    for number in range(1, 1002):
        paths.append(tmp_path / f"a.{number:03}")
        paths[-1].write_bytes(data[(number - 1) * 20 : number * 20 if number < 1001 else None])
    assert group_parts(paths[::-1]) == [paths]
    assert group_parts(find_parts(paths[500])) == [paths]
    assert empty.run("import", *map(str, paths)).stdout == f"imported {NAME}\n"
    with pytest.raises(ArchiveRefused, match=r"a\.007 is missing"):
        group_parts([*paths[:6], *paths[7:]])


def test_a_part_without_the_first_one_is_explained(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """Such a file may also be an archive with a date at its end, so it is tried."""
    data = archive.read_bytes()
    for number in (1, 2, 3):
        (tmp_path / f"a.tar.{number:03}").write_bytes(data[(number - 1) * 1000 : number * 1000])
    advice = "a.tar.002: this is not a tar file", "name all parts, from a.tar.001 on"
    for parts in ([2], [2, 3]):
        refused = empty.run("import", *(str(tmp_path / f"a.tar.{each:03}") for each in parts), code=1).output
        assert [each for each in advice if each not in refused] == []
    other = tmp_path / "b.tar"
    other.write_bytes(data[1000:])
    assert "parts" not in empty.run("import", str(other), code=1).output


class Pipe(io.BytesIO):
    """Standard input that cannot be read twice."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")


def test_an_archive_from_a_pipe(archive: Path, empty: Shop) -> None:
    assert empty.run("import", "-", input=Pipe(archive.read_bytes())).stdout == f"imported {NAME}\n"


def test_nothing_is_visible_before_everything_is_verified(
    shop: Shop, archive: Path, empty: Shop, tmp_path: Path
) -> None:
    """Neither is an image of the first archive when a later one is refused."""
    layer, broken = b"another" * 300, tmp_path / "broken.tar"
    shop.image(NGINX, "1.28", manifest(CONFIG, layer), layer)
    shop.run("export", "nginx:1.28", "-o", str(broken))
    broken.write_bytes(broken.read_bytes().replace(layer, bytes(len(layer))))
    for order in ([archive, broken], [broken, archive]):
        refused = empty.run("import", *map(str, order), code=1)
        assert f"Error: {NGINX}:1.28: blobs/" in refused.output
        assert "does not match its digest: copy its archive again" in refused.output
        assert empty.json("ls") == []


def test_images_that_would_be_evicted_at_once_are_refused(archive: Path, empty: Shop) -> None:
    """By the size of the cache, and by what must stay free on its disk; the message names the setting."""
    for setting, value in (("cache_size", "6kB"), ("min_free", "100%")):
        environ = {f"DOCKMIRROR_{setting.upper()}": value}
        refused = empty.run("import", str(archive), code=1, environ=environ).output
        assert "the images take 6.8 kB, and the cache" in refused
        assert setting in refused
        assert empty.json("ls") == []
    empty.run("import", str(archive), environ={"DOCKMIRROR_CACHE_SIZE": "7kB"})


def test_images_must_fit_when_others_are_evicted_for_them(archive: Path, empty: Shop) -> None:
    """An eviction leaves nine tenths of the cache's size; one that is not needed leaves all."""
    environ = {"DOCKMIRROR_CACHE_SIZE": "7kB"}
    for _ in range(2):
        empty.run("import", str(archive), environ=environ)
    empty.run("rm", "--yes", NAME)
    empty.image(NGINX, "1.28", manifest(CONFIG, b"other" * 300), b"other" * 300)
    empty.run("gc")  # counts it
    refused = empty.run("import", str(archive), code=1, environ=environ).output
    assert "the images take 6.8 kB, and the cache keeps 6.3 kB at most: raise cache_size" in refused


def test_images_of_several_archives_must_fit_together(
    shop: Shop, archive: Path, empty: Shop, tmp_path: Path
) -> None:
    """Contents that they share count once."""
    other = tmp_path / "other.tar"
    shop.image(NGINX, "1.28", manifest(CONFIG, LAYER))
    shop.run("export", "nginx:1.28", "-o", str(other))
    environ = {"DOCKMIRROR_CACHE_SIZE": "6.9kB"}
    assert "the images take" in empty.run("import", str(archive), str(other), code=1, environ=environ).output
    empty.run("import", str(archive), str(other), environ={"DOCKMIRROR_CACHE_SIZE": "8kB"})


def test_a_full_disk_is_named(archive: Path, empty: Shop) -> None:
    """The system allows no file of a layer's size here, as it allows none on a full disk."""
    program = str(Path(sys.executable).with_name("dockmirror"))
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", program, "import", str(archive)]
    environ = {**os.environ, "DOCKMIRROR_CACHE": str(empty.root), "DOCKMIRROR_MIN_FREE": "0B"}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert f"Error: {empty.root}: File too large\n" in ended.stderr


def test_joined_archives_are_refused(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """Only the images of the first one would be imported; the zeros behind an archive are no other one."""
    data, joined = archive.read_bytes(), tmp_path / "joined.tar"
    joined.write_bytes(data + data)
    refused = empty.run("import", str(joined), code=1).output
    assert "give each archive as a file of its own" in " ".join(refused.split())
    joined.write_bytes(data + bytes(20_000))
    assert empty.run("import", str(joined)).stdout == f"imported {NAME}\n"


def test_a_cut_archive_is_said_to_be_cut(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """In a file, or in a header."""
    cut, data = tmp_path / "cut.tar", archive.read_bytes()
    for size, message in ((4000, "cut off in 'blobs/"), (1100, "is damaged or ends at byte 1024")):
        cut.write_bytes(data[:size])
        assert message in empty.run("import", str(cut), code=1).output


def test_contents_of_an_earlier_archive_are_not_read_again(
    archive: Path, empty: Shop, tmp_path: Path
) -> None:
    """A later archive of the same image may be damaged."""
    broken = tmp_path / "broken.tar"
    broken.write_bytes(archive.read_bytes().replace(LAYER, bytes(len(LAYER))))
    done = empty.run("import", str(archive), str(broken))
    assert done.stdout.splitlines() == [f"imported {NAME}", f"imported {NAME} (unchanged)"]


def test_no_image_is_published_when_a_content_of_another_was_evicted(
    shop: Shop, archive: Path, empty: Shop, tmp_path: Path
) -> None:
    """All images are checked first."""
    shop.image(NGINX, "1.28", manifest(CONFIG, b"other"), b"other")
    shop.run("export", "nginx:1.28", "-o", str(tmp_path / "other.tar"))
    planned = []
    for path, tag in ((archive, "1.27"), (tmp_path / "other.tar", "1.28")):
        opened = ImageArchive.open(io.BytesIO(path.read_bytes()))
        [image] = opened.images()
        name = ImageName(NGINX, Tag(tag))
        planned.append(PlannedImport(opened, image, name, list(opened.parts(image.descriptor))))
    add_contents(empty.root, planned)
    empty.path(Digest.of(b"other")).unlink()
    with pytest.raises(ArchiveRefused, match="was evicted meanwhile"):
        publish_images(empty.root, planned, load({}, {}))
    assert empty.json("ls") == []


def test_an_interrupted_import_continues(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """Contents that were verified before are not read again."""
    broken = tmp_path / "broken.tar"
    broken.write_bytes(archive.read_bytes().replace(LAYER, bytes(len(LAYER))))
    empty.run("import", str(broken), code=1)
    done = empty.run("import", str(archive), "--json")
    found = json.loads(done.stdout)
    sizes = found["added_bytes"]
    assert (found["held"] > 0, sizes < len(AMD) + len(LAYER) + len(CONFIG) + len(BASE)) == (True, True)
    assert [each["complete"] for each in empty.json("ls")] == [True]


def test_a_stored_content_that_was_changed_is_replaced(archive: Path, empty: Shop) -> None:
    empty.run("import", str(archive))
    empty.path(Digest.of(LAYER)).write_bytes(bytes(len(LAYER)))
    empty.run("import", str(archive))
    assert empty.path(Digest.of(LAYER)).read_bytes() == LAYER


def test_an_import_is_a_use(archive: Path, empty: Shop) -> None:
    """Contents that were there already are as new as the others."""
    empty.run("import", str(archive))
    path = empty.path(Digest.of(LAYER))
    files_of_store.touch_sealed(path, 1_000_000.0)
    empty.run("import", str(archive))
    assert path.stat().st_mtime > 1_000_000_000


def test_it_says_what_changed(shop: Shop, archive: Path, empty: Shop, tmp_path: Path) -> None:
    """New images, moved tags, and those that were the same already."""
    first = empty.run("import", str(archive))
    assert first.stdout == f"imported {NAME}\n"
    assert "4 contents added (6.8 kB), 0 were there" in first.stderr
    again = empty.run("import", str(archive))
    assert again.stdout == f"imported {NAME} (unchanged)\n"
    assert "0 contents added (0 B), 4 were there" in again.stderr
    shop.image(NGINX, "1.27", manifest(CONFIG, BASE))
    shop.run("export", "nginx:1.27", "-o", str(archive))
    found = json.loads(empty.run("import", str(archive), "--json").stdout)
    assert found["changes"] == [
        {
            "image": NAME,
            "digest": str(Digest.of(manifest(CONFIG, BASE))),
            "before": str(Digest.of(AMD)),
            "change": "moved",
        }
    ]


def legacy(**changes: Any) -> bytes:
    """Return an archive of docker before version 1.10, of two layers and one image."""
    top = {"id": "b", "parent": "a", "os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]}}
    contents = {
        "repositories": json.dumps({"docker.io/library/old": {"1": "b"}}).encode(),
        "a/VERSION": b"1.0",
        "a/json": json.dumps({"id": "a", "created": "2015-01-01T00:00:00Z"}).encode(),
        "a/layer.tar": BASE,
        "b/VERSION": b"1.0",
        "b/json": json.dumps(top).encode(),
        "b/layer.tar": LAYER,
    }
    return write_tar({name: data for name, data in {**contents, **changes}.items() if data is not None})


def test_an_archive_of_docker_before_manifests(empty: Shop, tmp_path: Path) -> None:
    """Its manifest and its configuration are generated; the lowest layer comes first."""
    file = tmp_path / "old.tar"
    file.write_bytes(legacy())
    assert empty.run("import", str(file)).stdout == "imported docker.io/library/old:1\n"
    empty.run("export", "old:1", "-o", str(tmp_path / "new.tar"))
    contents = files((tmp_path / "new.tar").read_bytes())
    [listed] = json.loads(contents["index.json"])["manifests"]
    image = json.loads(contents[blob_path(Digest.parse(listed["digest"]))])
    layers = [each["digest"] for each in image["layers"]]
    assert layers == [str(Digest.of(BASE)), str(Digest.of(LAYER))]
    config = json.loads(contents[blob_path(Digest.parse(image["config"]["digest"]))])
    assert (config["rootfs"]["diff_ids"], config["config"]) == (layers, {"Cmd": ["sh"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a/layer.tar": None}, "a/layer.tar is missing"),
        ({"a/json": None}, "a/json is missing"),
        ({"a/json": b'{"parent": "b"}'}, "is its own parent"),
        ({"a/json": b"[]"}, "repositories does not follow the format"),
        ({"repositories": b"[]"}, "repositories does not follow the format"),
    ],
)
def test_a_malformed_archive_of_old_docker_is_refused(
    empty: Shop, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "old.tar").write_bytes(legacy(**changes))
    assert message in empty.run("import", str(tmp_path / "old.tar"), code=1).output
    assert empty.json("ls") == []


def test_chains_of_layers_are_counted_as_they_are_read(empty: Shop, tmp_path: Path) -> None:
    """A small archive whose images share a long chain would fill the memory."""
    contents = {f"{n}/json": json.dumps({"parent": str(n - 1) if n else None}).encode() for n in range(500)}
    tops = {**{str(n): str(n) for n in range(500)}, "last": "gone"}
    contents["repositories"] = json.dumps({"a": tops}).encode()
    contents |= {f"{n}/layer.tar": b"" for n in range(500)}
    (tmp_path / "old.tar").write_bytes(write_tar(contents))
    assert "too many layers" in empty.run("import", str(tmp_path / "old.tar"), code=1).output


def test_an_archive_without_images_is_refused(archive: Path, empty: Shop) -> None:
    """Unless it is an export, in which nothing was new."""
    contents = files(archive.read_bytes())
    contents["index.json"] = b'{"schemaVersion": 2, "manifests": []}'
    archive.write_bytes(write_tar(contents))
    assert empty.run("import", str(archive)).stdout == "nothing is new\n"
    for changed in ({"dockmirror.json": None}, {"index.json": manifest(CONFIG)}):
        left = {name: data for name, data in {**contents, **changed}.items() if data is not None}
        archive.write_bytes(write_tar(left))
        assert "index.json names no images" in empty.run("import", str(archive), code=1).output


def test_links_in_a_directory_are_not_followed(empty: Shop, shop: Shop, tmp_path: Path) -> None:
    """A content that is a link is missing."""
    directory = tmp_path / "layout"
    shop.run("export", "nginx:1.27", "--layout", "-o", str(directory))
    blob = directory / blob_path(Digest.of(LAYER))
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    assert "is missing" in empty.run("import", str(directory), code=1).output


def test_a_directory_without_images_is_refused(empty: Shop, tmp_path: Path) -> None:
    assert "not an archive of images" in empty.run("import", str(tmp_path / "empty"), code=1).output


def test_a_malformed_inventory_is_refused(archive: Path, empty: Shop) -> None:
    contents = files(archive.read_bytes())
    for text in (b"{}", b'{"version": 2}', b"["):
        archive.write_bytes(write_tar({**contents, "dockmirror.json": text}))
        assert "dockmirror.json: expected" in empty.run("import", str(archive), code=1).output


def test_a_name_with_another_digest_is_refused(archive: Path, empty: Shop, tmp_path: Path) -> None:
    """Given by the user or by the archive; a name with the image's own digest is taken."""
    other, own = Digest.of(b"other"), Digest.of(AMD)
    refused = empty.run("import", str(archive), "--as", f"nginx@{other}", code=1)
    assert f"{NGINX}@{other}: the digest of this image is {own}" in refused.output
    members = files(archive.read_bytes())
    members["index.json"] = members["index.json"].replace(NAME.encode(), f"{NGINX}@{other}".encode())
    lying = tmp_path / "lying.tar"
    lying.write_bytes(write_tar(members))
    assert "the digest of this image is" in empty.run("import", str(lying), code=1).output
    assert empty.json("ls") == []
    assert not empty.path(own).exists()
    found = json.loads(empty.run("import", str(lying), "--as", f"nginx@{own}", "--json").stdout)
    assert found["imported"] == [f"{NGINX}@{own}"]
