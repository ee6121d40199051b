"""Uploaded archives, which may be malicious."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.archive import archive_files
from dockmirror.archive.archive_files import ArchiveRefused
from dockmirror.archive.archive_plan import blob_path
from dockmirror.archive.image_archive import ImageArchive
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_MANIFEST

from .packing import LAYER as LAYER_TYPE
from .packing import Counting, archive, described, files, index, make_member, manifest, packed, write_tar

CONFIG, LAYER = b'{"os":"linux"}', b"layer" * 200
IMAGE = manifest(CONFIG, LAYER)
NAME = "docker.io/library/nginx:1.27"
GOOD = archive(packed(NAME, IMAGE, blobs=(CONFIG, LAYER)), blobs=(CONFIG, LAYER))


def unpack(data: bytes) -> list[bytes]:
    """Return the contents of all images."""
    opened = ImageArchive.open(io.BytesIO(data))
    found = []
    for image in opened.images():
        for part, document in opened.parts(image.descriptor):
            found.append(document if document is not None else b"".join(opened.pieces(part)))
    return found


def test_referenced_contents_come_first() -> None:
    """Archives of every program are read in this order; other files, which docker adds, are ignored."""
    assert unpack(write_tar({**files(GOOD), "repositories": b"{}"})) == [CONFIG, LAYER, IMAGE]
    assert unpack(GOOD) == unpack(write_tar(files(GOOD))) == [CONFIG, LAYER, IMAGE]
    assert [image.name for image in ImageArchive.open(io.BytesIO(GOOD)).images()] == [NAME]


def test_only_complete_references_are_names() -> None:
    """A tag alone is no name."""
    for reference, name in (("1.27", None), (NAME, NAME)):
        contents = files(GOOD)
        annotations = {"org.opencontainers.image.ref.name": reference}
        one = {**json.loads(contents["index.json"])["manifests"][0], "annotations": annotations}
        contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [one]}).encode()
        assert [image.name for image in ImageArchive.open(io.BytesIO(write_tar(contents))).images()] == [name]


def test_an_index_needs_one_of_its_images() -> None:
    """docker saves one of several platforms; an index without any is refused."""
    both = index(amd64=IMAGE, arm64=manifest(b"elsewhere"))
    blobs = (CONFIG, LAYER)
    assert unpack(archive(packed(NAME, both, IMAGE, blobs=blobs), blobs=blobs)) == [
        CONFIG,
        LAYER,
        IMAGE,
        both,
    ]
    with pytest.raises(ArchiveRefused, match="none of its images"):
        unpack(archive(packed(NAME, both, blobs=blobs), blobs=blobs))


def test_each_content_is_read_once() -> None:
    """An archive may refer to it many times."""
    image = json.dumps({**json.loads(IMAGE), "layers": [described(LAYER, LAYER_TYPE)] * 1000}).encode()
    top = json.dumps({**json.loads(index()), "manifests": [described(image, OCI_MANIFEST)] * 1000}).encode()
    contents = files(archive(packed(NAME, top, image, blobs=(CONFIG, LAYER)), blobs=(CONFIG, LAYER)))
    named = json.loads(contents["index.json"])["manifests"] * 50
    contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": named}).encode()
    file = Counting(write_tar(contents))
    opened = ImageArchive.open(file)
    for each in opened.images():
        parts = [document for _, document in opened.parts(each.descriptor)]
        assert parts == [None, None, image, top]
    assert file.count < 2 * len(file.getbuffer())


def test_manifests_that_are_too_large_together_are_refused() -> None:
    """They never fill the memory."""
    padding = "x" * (archive_files.MAX_DOCUMENT_SIZE - 1000)
    images = [
        json.dumps({**json.loads(manifest(CONFIG)), "annotations": {"": f"{number}{padding}"}}).encode()
        for number in range(archive_files.MAX_DOCUMENTS_SIZE // archive_files.MAX_DOCUMENT_SIZE + 1)
    ]
    listed = [described(each, OCI_MANIFEST) for each in images]
    top = json.dumps({**json.loads(index()), "manifests": listed}).encode()
    with pytest.raises(ArchiveRefused, match="too large together"):
        unpack(archive(packed(NAME, top, *images, blobs=(CONFIG,)), blobs=(CONFIG,)))


HUGE = IMAGE.ljust(5_000_000)
LAYER_PATH, IMAGE_PATH = blob_path(Digest.of(LAYER)), blob_path(Digest.of(IMAGE))


@pytest.mark.parametrize(
    "change",
    [
        {LAYER_PATH: None},
        {LAYER_PATH: LAYER[:-1] + b"!"},
        {LAYER_PATH: LAYER + b"!"},
        {IMAGE_PATH: IMAGE[:-1] + b" "},
        {"index.json": b"[]"},
        {"index.json": files(GOOD)["index.json"].ljust(5_000_000)},
        {
            blob_path(Digest.of(HUGE)): HUGE,
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [described(HUGE, "a/b")]}).encode(),
        },
        {"oci-layout": None},
    ],
    ids=["missing", "flipped", "longer", "manifest", "index", "huge-index", "huge-manifest", "layout"],
)
def test_a_damaged_archive_is_refused(change: dict[str, bytes | None]) -> None:
    contents = {name: data for name, data in {**files(GOOD), **change}.items() if data is not None}
    with pytest.raises(ArchiveRefused):
        unpack(write_tar(contents))


@pytest.mark.parametrize(
    "member",
    [
        make_member("../../etc/passwd"),
        make_member("/etc/passwd"),
        make_member("blobs/../../x"),
        make_member("blobs/x", tarfile.SYMTYPE, "/etc/shadow"),
        make_member("blobs/x", tarfile.LNKTYPE, "index.json"),
        make_member("blobs/x", tarfile.FIFOTYPE),
        make_member("blobs/x", tarfile.CHRTYPE),
        make_member("index.json"),
    ],
    ids=lambda member: f"{member.name}-{member.type!r}",
)
def test_a_hostile_entry_refuses_the_archive(member: tarfile.TarInfo) -> None:
    with pytest.raises(ArchiveRefused):
        ImageArchive.open(io.BytesIO(write_tar(files(GOOD), member)))


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.REGTYPE])
def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch, kind: bytes) -> None:
    """Each entry takes memory, even one that is ignored."""
    monkeypatch.setattr(archive_files, "_MAX_ENTRIES", 100)
    blocks = (make_member(f"d{number}", kind, "x").tobuf(tarfile.GNU_FORMAT) for number in range(101))
    with pytest.raises(ArchiveRefused, match="too many"):
        ImageArchive.open(io.BytesIO(b"".join(blocks) + GOOD))


@pytest.mark.parametrize("size", [10**12, 2**62, -1024])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_false_sizes_of_files_and_headers_are_refused(size: int, kind: bytes) -> None:
    """Nothing is read beyond the end, and a negative size never makes the reader loop."""
    header = make_member("blobs/x", kind, size=size).tobuf(tarfile.GNU_FORMAT)
    for data in (header + GOOD, GOOD[:512] + header + bytes(1024)):
        with pytest.raises(ArchiveRefused):
            ImageArchive.open(io.BytesIO(data))


@pytest.mark.parametrize("data", [b"", b"no archive" * 100, GOOD[:1000], GOOD[:-2000]])
def test_a_file_that_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveRefused):
        unpack(data)


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
KNOWN_PATHS = ["oci-layout", "index.json", "manifest.json", "../x", "/etc/passwd", "blobs/sha256/../x"]
KEYS = ["manifests", "digest", "size", "mediaType", "annotations", "Config", "Layers", "RepoTags"]
LEAVES = st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.just(f"sha256:{'0' * 64}")
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=9,
)
DATA = st.binary(max_size=40) | TREES.map(lambda tree: json.dumps(tree).encode())


@given(st.dictionaries(NAMES | st.sampled_from(KNOWN_PATHS), DATA, max_size=5))
def test_any_archive_is_read_or_refused(held: dict[str, bytes]) -> None:
    """The names and contents of its files do not matter."""
    try:
        ImageArchive.open(io.BytesIO(write_tar(held))).images()
    except ArchiveRefused:
        return


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"manifests":' * 50_000, b"1" * 10_000, b"\xff", b"", b"null", b"[]"]
)
@pytest.mark.parametrize("name", ["index.json", "manifest.json", "oci-layout"])
def test_hostile_json_is_refused(name: str, data: bytes) -> None:
    """Deep nesting and long numbers are refused like other invalid documents."""
    held = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": b'{"manifests": []}', name: data}
    with pytest.raises(ArchiveRefused):
        ImageArchive.open(io.BytesIO(write_tar(held))).images()
