"""Tests of what ``dockmirror export`` takes and writes; ``test_archive_commands.py`` has single images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dockmirror.admission.recalls import Recall, write_statement
from dockmirror.archive.archive_parts import ChecksumFiles, load_signer
from dockmirror.archive.archive_plan import blob_path
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.tag_history import TagHistoryFiles

from ..archive.packing import files, manifest, write_tar
from .shop import AMD, ARM, BASE, CONFIG, INDEX, LAYER, NGINX, OTHER, Shop

SIGNATURE = json.dumps(
    {
        **json.loads(manifest(b"{}", b"signature")),
        "subject": {"digest": str(Digest.of(AMD)), "size": len(AMD)},
    }
).encode()
PROVENANCE = json.dumps(
    {
        **json.loads(manifest(b"{}", b"provenance")),
        "subject": {"digest": str(Digest.of(SIGNATURE)), "size": len(SIGNATURE)},
    }
).encode()
NAME = f"{NGINX}:1.27"


def named(archive: Path) -> list[str]:
    """Return the names of an archive's images."""
    listed = json.loads(files(archive.read_bytes())["index.json"])["manifests"]
    return [each["annotations"]["io.containerd.image.name"] for each in listed]


def exported(shop: Shop, tmp_path: Path, *arguments: str) -> list[str]:
    """Export, and return the names of the archive's images."""
    shop.run("export", *arguments, "-o", str(tmp_path / "a.tar"))
    return named(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "text",
    [
        "nginx:1.27\n",
        f"# ours\n{NAME}\nnginx:1.27 # again\n",
        "kind: Pod\nspec:\n  containers:\n  - name: web\n    image: nginx:1.27\n",
        "services:\n  web:\n    image: nginx:1.27\n    ports: ['80:80']\n",
        "---\n# Source: a/b.yaml\nkind: A\n---\nspec: {initContainers: [{image: 'nginx:1.27'}]}\n",
        "kind: Pod\nmade: 2024-13-45\nreplicas: !!int many\nimage: nginx:1.27\nother: {image: null}\n",
        f"{NAME} {Digest.of(AMD)} linux/amd64 2026-11-30T01:12:45Z\n",
    ],
)
def test_a_file_names_the_images(shop: Shop, tmp_path: Path, text: str) -> None:
    """A list, a Kubernetes manifest, a compose file, what helm renders, impossible values, a lock file."""
    (tmp_path / "images").write_text(text)
    assert exported(shop, tmp_path, "-f", str(tmp_path / "images")) == [NAME]
    shop.run("export", "-f", "-", "-o", str(tmp_path / "b.tar"), input=text)
    assert named(tmp_path / "b.tar") == [NAME]


def test_a_lock_file_decides_which_digest_a_tag_is(shop: Shop, tmp_path: Path) -> None:
    """The tag of the cache may have moved since."""
    locked = manifest(CONFIG, BASE)
    shop.image(NGINX, "", locked)
    line = f"{NAME} {Digest.of(locked)} - 2026-11-30T01:12:45Z\n"
    (tmp_path / "lock").write_text(line)
    assert exported(shop, tmp_path, "-f", str(tmp_path / "lock")) == [NAME]
    [listed] = json.loads(files((tmp_path / "a.tar").read_bytes())["index.json"])["manifests"]
    assert listed["digest"] == str(Digest.of(locked))
    assert listed["annotations"]["org.opencontainers.image.ref.name"] == "1.27"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no images"),
        ("a: [\n", "line 2: it is neither a list of images nor YAML"),
        ('a: "\\U00110000"\n', "it is neither a list of images nor YAML"),
        ('a: "\\UFFFFFFFF"\n', "it is neither a list of images nor YAML"),
        ("a: {image: !!str {b: c}}\n", "it names no images"),
        ("services: {a: {image: 'nginx:${TAG}'}}\n", "nginx:${TAG} has a variable"),
    ],
)
def test_a_file_that_names_none_is_refused(shop: Shop, tmp_path: Path, text: str, message: str) -> None:
    """The message names the file."""
    (tmp_path / "images").write_text(text)
    refused = shop.run("export", "-f", str(tmp_path / "images"), "-o", str(tmp_path / "a.tar"), code=1)
    assert f"{tmp_path}/images: {message}" in refused.output.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize("pattern", ["nginx:1.*", "docker.io/library/*:1.27", "docker.io/**:1.?7", "*:1.27"])
def test_a_pattern_selects_tags(shop: Shop, tmp_path: Path, pattern: str) -> None:
    """Without a registry it is one of Docker Hub's official images."""
    assert exported(shop, tmp_path, pattern) == [NAME]


def test_a_pattern_that_matches_nothing_is_refused(shop: Shop, tmp_path: Path) -> None:
    refused = shop.run("export", "quay.io/**", "-o", str(tmp_path / "a.tar"), code=1)
    assert "no image in the cache matches quay.io/**" in refused.output


def test_a_platform_of_a_digest_has_its_own_name(shop: Shop, tmp_path: Path) -> None:
    """The archive lacks the index, and can be imported."""
    found = exported(shop, tmp_path, f"nginx@{Digest.of(INDEX)}", "--platform", "linux/amd64")
    assert found == [f"{NGINX}@{Digest.of(AMD)}"]
    other = Shop(tmp_path / "other")
    assert other.run("import", str(tmp_path / "a.tar")).stdout == f"imported {found[0]}\n"


def test_all_exports_the_platforms_that_are_held(shop: Shop, tmp_path: Path) -> None:
    """The index keeps its digest, so that its signatures stay valid; what is incomplete is left out."""
    shop.image(OTHER, "broken", manifest(b"gone"))
    done = shop.run("export", "--all", "-o", str(tmp_path / "a.tar"))
    assert f"left out: {OTHER}:broken is incomplete" in done.stderr
    assert named(tmp_path / "a.tar") == [NAME, f"{NGINX}:latest"]
    contents = files((tmp_path / "a.tar").read_bytes())
    for data in (INDEX, AMD, CONFIG, BASE, LAYER):
        assert contents[blob_path(Digest.of(data))] == data
    other = Shop(tmp_path / "other")
    other.run("import", str(tmp_path / "a.tar"))
    tags = {each["tag"]: each["digest"] for each in other.json("ls")}
    assert tags == {"1.27": str(Digest.of(AMD)), "latest": str(Digest.of(INDEX))}


def test_referrers_and_artifact_tags_belong_to_an_image(shop: Shop, tmp_path: Path) -> None:
    """And what belongs to them in turn, unless they are not wanted."""
    tag = f"sha256-{Digest.of(AMD).hex}.sig"
    shop.image(NGINX, "", SIGNATURE, b"{}", b"signature")
    shop.image(NGINX, "", PROVENANCE, b"provenance")
    shop.image(NGINX, tag, manifest(b"{}", b"cosign"), b"cosign")
    expected = {NAME, f"{NGINX}:{tag}", *(f"{NGINX}@{Digest.of(each)}" for each in (SIGNATURE, PROVENANCE))}
    found = exported(shop, tmp_path, "nginx:1.27")
    assert (found[0], set(found)) == (NAME, expected)
    other = Shop(tmp_path / "other")
    other.run("import", str(tmp_path / "a.tar"))
    assert set(exported(other, tmp_path, "nginx:1.27")) == expected
    assert exported(shop, tmp_path, "nginx:1.27", "--no-referrers") == [NAME]


def test_a_recalled_referrer_is_left_out(shop: Shop, tmp_path: Path) -> None:
    """And what belongs to it; the image is exported."""
    shop.image(NGINX, "", SIGNATURE, b"{}", b"signature")
    shop.image(NGINX, "", PROVENANCE, b"provenance")
    write_statement(shop.root, Recall(Digest.of(SIGNATURE), "CVE-1", 1.0, 1.0))
    done = shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"))
    assert f"left out: {NGINX}@{Digest.of(SIGNATURE)}: " in done.stderr
    assert named(tmp_path / "a.tar") == [NAME]


def test_an_incomplete_referrer_is_left_out(shop: Shop, tmp_path: Path) -> None:
    shop.image(NGINX, "", SIGNATURE, b"{}")
    assert exported(shop, tmp_path, "nginx:1.27") == [NAME]


def test_since_leaves_out_what_an_earlier_export_has(shop: Shop, tmp_path: Path) -> None:
    """Images that are unchanged, and the blobs of others; both archives together are complete."""
    first, second, third = (str(tmp_path / f"{number}.tar") for number in range(3))
    shop.run("export", "nginx:1.27", "-o", first)
    newer = manifest(CONFIG, BASE, b"new layer")
    shop.image(NGINX, "1.28", newer, b"new layer")
    done = shop.run("export", "nginx:1.*", "--since", first, "-o", second)
    assert "1 new images; 2 blobs are left to the earlier export:" in done.stderr
    assert str(Digest.of(BASE)) in done.stderr
    contents = files(Path(second).read_bytes())
    assert named(Path(second)) == [f"{NGINX}:1.28"]
    assert blob_path(Digest.of(BASE)) not in contents
    assert blob_path(Digest.of(b"new layer")) in contents
    assert json.loads(contents["manifest.json"]) == []

    site = Shop(tmp_path / "site")
    refused = site.run("import", second, code=1).output
    assert "is in an earlier export, which has to be imported first" in refused
    assert site.json("ls") == []
    site.run("import", first)
    site.run("import", second)
    assert [(each["tag"], each["complete"]) for each in site.json("ls")] == [("1.27", True), ("1.28", True)]

    nothing = json.loads(shop.run("export", "nginx:1.*", "--since", second, "-o", third, "--json").stdout)
    assert (nothing["images"], nothing["contents"]) == ([], 0)  # the second one knows of the first
    assert site.run("import", third).stdout == "nothing is new\n"


def test_since_exports_a_platform_that_the_cache_got_later(shop: Shop, tmp_path: Path) -> None:
    """Though the index is the same."""
    first, second = (str(tmp_path / f"{number}.tar") for number in range(2))
    shop.run("export", "--all", "-o", first)
    shop.image(NGINX, "", ARM, b'{"os":"arm"}', BASE)
    assert exported(shop, tmp_path, "--all", "--since", first) == [f"{NGINX}:latest"]
    shop.run("export", "--all", "--since", first, "-o", second)
    site = Shop(tmp_path / "site")
    site.run("import", first)
    site.run("import", second)
    platforms = {each["tag"]: each["platforms"] for each in site.json("ls")}
    assert platforms["latest"] == {"linux/amd64": True, "linux/arm64": True}


def test_the_earlier_export_may_have_any_form(shop: Shop, tmp_path: Path) -> None:
    """Parts of which one is named, a directory, a compressed file, and the list from it alone."""
    parts, directory, packed, listed = (
        tmp_path / name for name in ("parts", "layout", "a.tar.zst", "a.json")
    )
    parts.mkdir()
    shop.run("export", "nginx:1.27", "-o", str(parts / "a.tar"), "--max-size", "5kB")
    shop.run("export", "nginx:1.27", "-o", str(directory), "--layout")
    shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"))
    packed.write_bytes(zstandard.ZstdCompressor().compress((tmp_path / "a.tar").read_bytes()))
    listed.write_bytes((directory / "dockmirror.json").read_bytes())
    dated = [tmp_path / f"images.{day}" for day in (20240501, 20240508)]
    for each in dated:
        each.write_bytes(packed.read_bytes())
    for earlier in (parts / "a.tar.002", directory, packed, listed, dated[0]):
        assert exported(shop, tmp_path, "nginx:1.27", "--since", str(earlier)) == []


def test_since_needs_an_archive(shop: Shop, tmp_path: Path) -> None:
    refused = shop.run("export", "nginx:1.27", "--since", __file__, "-o", str(tmp_path / "a.tar"), code=1)
    assert "--since:" in refused.output


def test_since_needs_an_archive_of_this_command(shop: Shop, tmp_path: Path) -> None:
    """Others have no list of their contents: everything would be exported again."""
    shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a.tar"))
    other = files((tmp_path / "a.tar").read_bytes())
    del other["dockmirror.json"]
    (tmp_path / "other.tar").write_bytes(write_tar(other))
    more = "--since", str(tmp_path / "other.tar"), "-o", str(tmp_path / "b.tar")
    assert "it has no dockmirror.json" in shop.run("export", "nginx:1.27", *more, code=1).output


def test_checksums_are_written(shop: Shop, tmp_path: Path) -> None:
    """In the format of sha256sum."""
    file = tmp_path / "a.tar"
    shop.run("export", "nginx:1.27", "-o", str(file))
    expected = f"{hashlib.sha256(file.read_bytes()).hexdigest()}  a.tar\n"
    assert (tmp_path / "a.tar.sha256").read_text() == expected


def test_several_files_of_a_maximum_size(shop: Shop, tmp_path: Path) -> None:
    """They are imported together, and make up the whole archive; a missing one is named."""
    whole, parts = tmp_path / "whole.tar", tmp_path / "parts"
    parts.mkdir()
    shop.run("export", "nginx:1.27", "-o", str(whole))
    shop.run("export", "nginx:1.27", "-o", str(parts / "a.tar"), "--max-size", "5kB")
    found = sorted(path for path in parts.iterdir() if path.suffix != ".sha256")
    assert [path.name for path in found[:2]] == ["a.tar.001", "a.tar.002"]
    assert max(path.stat().st_size for path in found) == 5000
    assert b"".join(path.read_bytes() for path in found) == whole.read_bytes()
    assert len((parts / "a.tar.sha256").read_text().splitlines()) == len(found)
    other = Shop(tmp_path / "other")
    refused = other.run("import", str(found[0]), *map(str, found[2:]), code=1).output
    assert f"{parts}/a.tar.002 is missing" in refused
    assert (
        "copy it again, and name all of its parts"
        in other.run("import", *map(str, found[:-3]), code=1).output
    )
    assert "name the archives, too" in other.run("import", str(parts / "a.tar.sha256"), code=1).output
    everything = sorted(map(str, parts.iterdir()), reverse=True)
    assert other.run("import", *everything).stdout == f"imported {NAME}\n"


def test_parts_of_an_earlier_longer_archive_do_not_count(shop: Shop, tmp_path: Path) -> None:
    """They stay where they are; neither import nor the next export takes them for parts of the new one."""
    big, site = b"x" * 40_000, Shop(tmp_path / "site")
    shop.image(NGINX, "big", manifest(CONFIG, big), big)
    for image in ("nginx:big", "nginx:1.27"):
        shop.run("export", image, "--max-size", "10kB", "-o", str(tmp_path / "a.tar"))
    parts = sorted(tmp_path.glob("a.tar.0*"))
    done = site.run("import", *map(str, tmp_path.glob("a.tar.*")))
    assert done.stdout == f"imported {NAME}\n"
    assert [f"left out: {part} " in done.stderr for part in parts] == [False] * 2 + [True] * 3
    assert exported(shop, site.root, "nginx:1.27", "--since", str(parts[0])) == []


def test_a_maximum_size_is_no_share(shop: Shop, tmp_path: Path) -> None:
    """Nor does the message for another value offer one."""
    for size in ("20%", "4XB", "0"):
        words = shop.run("export", "nginx:1.27", "-o", str(tmp_path / "a"), "--max-size", size, code=2).output
        assert "expected a number of bytes, such as 500MB or 100GiB" in words
        assert "share" not in words


def test_a_corrupt_blob_leaves_no_part(shop: Shop, tmp_path: Path) -> None:
    """Also if it lies in two parts."""
    shop.path(Digest.of(LAYER)).write_bytes(bytes(len(LAYER)))
    parts = tmp_path / "parts"
    parts.mkdir()
    shop.run("export", "nginx:1.27", "-o", str(parts / "a.tar"), "--max-size", "4kB", code=1)
    assert list(parts.iterdir()) == []


def test_a_layout_directory(shop: Shop, tmp_path: Path) -> None:
    """It is imported like an archive; what it has already is not written again."""
    directory = tmp_path / "layout"
    for _ in range(2):
        shop.run("export", "nginx:1.27", "--layout", "-o", str(directory))
    assert (directory / blob_path(Digest.of(LAYER))).read_bytes() == LAYER
    assert json.loads((directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    listed = {line.split()[1] for line in (directory / "SHA256SUMS").read_text().splitlines()}
    assert {"index.json", "oci-layout", "dockmirror.json"} <= listed
    inode = (directory / blob_path(Digest.of(LAYER))).stat().st_ino
    shop.run("export", "nginx:1.27", "--layout", "-o", str(directory))
    assert (directory / blob_path(Digest.of(LAYER))).stat().st_ino == inode
    other = Shop(tmp_path / "other")
    assert other.run("import", str(directory)).stdout == f"imported {NAME}\n"


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_signed_checksums_are_checked_first(shop: Shop, tmp_path: Path, kind: str) -> None:
    """A changed archive or directory, another key and a missing signature are refused."""
    make: dict[str, Callable[[], Any]] = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    key = make[kind]()
    private, public, strange = (tmp_path / name for name in ("private", "public", "strange"))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    other_key = ed25519.Ed25519PrivateKey.generate().public_key()
    for path, each in ((public, key.public_key()), (strange, other_key)):
        path.write_bytes(each.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    archive, directory = tmp_path / "a.tar", tmp_path / "layout"
    shop.run("export", "nginx:1.27", "-o", str(archive), "--key", str(private))
    shop.run("export", "nginx:1.27", "-o", str(directory), "--layout", "--key", str(private))
    for path in (archive, directory):
        site = Shop(tmp_path / f"site {path.name}")
        refused = site.run("import", "--key", str(strange), str(path), code=1).output
        assert "its checksums are not signed with the given key" in refused
        assert site.json("ls") == []
        assert "imported" in site.run("import", "--key", str(public), str(path)).stdout
    for path in (archive, directory / "index.json"):
        path.write_bytes(path.read_bytes().replace(b"1.27", b"1.26"))
        given = directory if path.parent == directory else path
        refused = site.run("import", "--key", str(public), str(given), code=1).output
        assert f"{path.name} does not match its checksum" in refused
    shop.run("export", "nginx:1.27", "-o", str(archive))
    assert "it is not signed" in site.run("import", "--key", str(public), str(archive), code=1).output


class SignedSite:
    """A store outside, one inside, and the keys of what travels between them."""

    def __init__(self, outside: Shop, tmp_path: Path) -> None:
        self.outside, self.inside = outside, Shop(tmp_path / "inside")
        self.archive = tmp_path / "signed.tar"
        self._private, self._public = tmp_path / "site.key", tmp_path / "site.pub"
        key = ed25519.Ed25519PrivateKey.generate()
        self._private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._public.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def export(self, *options: str) -> None:
        self.outside.run("export", "nginx:1.27", "-o", str(self.archive), *options)

    def export_signed(self) -> None:
        self.export("--key", str(self._private))

    def export_directory(self) -> Path:
        """Export a signed directory, from which the import reads then."""
        self.archive = self.archive.with_suffix("")
        self.export("--layout", "--key", str(self._private))
        return self.archive

    def sign(self, checksums: ChecksumFiles, directory: Path, *names: str) -> None:
        """Sign the checksums of these files in a directory."""
        sums = {each: hashlib.sha256((directory / each).read_bytes()).hexdigest() for each in names}
        checksums.write(sums, load_signer(self._private.read_bytes()))

    def import_signed(self, *options: str, code: int = 0) -> str:
        key = ("--key", str(self._public))
        return self.inside.run("import", *key, *options, str(self.archive), code=code).output

    def record(self, shop: Shop, digest: Digest, first: float, last: float) -> None:
        """Record that the tag was seen as a digest for some time."""
        histories = TagHistoryFiles(shop.root)
        for seen in (first, last):
            histories.update(HISTORY, lambda record, seen=seen: record.with_sighting(digest, seen))  # type: ignore[misc]

    @property
    def imported(self) -> Sequence[tuple[Digest, float, float]]:
        """The digests that the tag is known inside to have named, with the first and last time of each."""
        sightings = TagHistoryFiles(self.inside.root).read(HISTORY).sightings
        return [(each.digest, each.first, each.last) for each in sightings]


HISTORY = ("docker", Repository("library/nginx"), Tag("1.27"))
OLD, NEW = Digest.of(b"old"), Digest.of(AMD)
WEEK = 7 * 86_400.0


@pytest.fixture
def signed(shop: Shop, tmp_path: Path) -> SignedSite:
    site, now = SignedSite(shop, tmp_path), time.time()
    site.record(shop, OLD, now - 3 * WEEK, now - 2 * WEEK)
    site.record(shop, NEW, now - 2 * WEEK, now + WEEK)
    return site


def test_a_signed_archive_brings_what_its_tags_have_named(signed: SignedSite) -> None:
    """The cool-down goes on inside where it was outside; no sighting is later than now."""
    signed.export_signed()
    signed.import_signed()
    (old, first, last), (new, _, latest) = signed.imported
    assert (old, new, last - first) == (OLD, NEW, WEEK)
    assert latest <= time.time()
    signed.import_signed()
    assert len(signed.imported) == 2


def test_what_was_seen_inside_stays(signed: SignedSite) -> None:
    """The histories of both are merged by time."""
    another, now = Digest.of(b"another"), time.time()
    signed.record(signed.inside, another, now - 5 * WEEK, now - 4 * WEEK)
    signed.export_signed()
    signed.import_signed()
    assert [digest for digest, _, _ in signed.imported] == [another, OLD, NEW]


def test_only_a_signed_archive_brings_a_history(signed: SignedSite) -> None:
    """Not one without a signature, whose bytes are the same as ever; nor under another name."""
    signed.export()
    unsigned = signed.archive.read_bytes()
    assert b'"tags"' not in unsigned
    signed.export_signed()
    assert b'"tags"' in signed.archive.read_bytes()
    signed.inside.run("import", str(signed.archive))
    signed.import_signed("--as", "nginx:1.28")
    assert signed.imported == []
    assert not list(TagHistoryFiles(signed.inside.root).iter_tags("docker"))
    signed.export()
    assert signed.archive.read_bytes() == unsigned


@pytest.mark.parametrize("history", [5, {}, {"sightings": [["sha256:x", 1, 2, False]], "pulled": 0}])
def test_a_malformed_history_is_refused(signed: SignedSite, history: object) -> None:
    """Nothing of its archive can be pulled, and no history of the archive counts."""
    signed.export("nginx:latest", "--platform", "linux/amd64")
    contents = files(signed.archive.read_bytes())
    valid = {"sightings": [[str(NEW), 1.0, 2.0, True]], "pulled": 0}
    histories = {NAME: valid, f"{NGINX}:latest": history}
    inventory = json.loads(contents["dockmirror.json"]) | {"tags": histories}
    signed.archive.write_bytes(write_tar(contents | {"dockmirror.json": json.dumps(inventory).encode()}))
    signed.sign(ChecksumFiles.of_archive(signed.archive), signed.archive.parent, signed.archive.name)
    assert "the history of a tag is malformed" in signed.import_signed(code=1)
    assert (signed.inside.json("ls"), signed.imported) == ([], [])


def test_a_history_comes_after_its_image(signed: SignedSite) -> None:
    """While the image cannot be published, its tag keeps the history that it had; a second import adds it."""
    signed.export_signed()
    place = signed.inside.root / layout.REPOSITORIES / NGINX.name
    place.parent.mkdir(parents=True)
    place.touch()
    assert "Not a directory" in signed.import_signed(code=1)
    assert signed.imported == []
    place.unlink()
    signed.import_signed()
    assert [digest for digest, _, _ in signed.imported] == [OLD, NEW]


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "dockmirror.json"])
@pytest.mark.parametrize("is_link", [False, True])
def test_a_signed_directory_has_all_files_that_were_signed(
    signed: SignedSite, tmp_path: Path, name: str, is_link: bool
) -> None:
    """In another form, blobs that no signature covers would be taken for layers; no link is followed."""
    directory = signed.export_directory()
    (directory / name).rename(tmp_path / name)
    if is_link:
        (directory / name).symlink_to(tmp_path / name)
    assert f"{name} is missing" in signed.import_signed(code=1)
    assert signed.inside.json("ls") == []
    (tmp_path / name).rename(directory / name)
    assert f"imported {NAME}" in signed.import_signed()


def test_only_a_layout_is_a_signed_directory(signed: SignedSite) -> None:
    """An archive of docker save is none, though its documents are signed; an unsigned mark does not count."""
    directory = signed.export_directory()
    signed.sign(
        ChecksumFiles.of_directory(directory), directory, "manifest.json", "index.json", "dockmirror.json"
    )
    assert "a signed directory has to be an OCI image layout" in signed.import_signed(code=1)
    assert signed.inside.json("ls") == []


def test_a_history_beside_a_signed_directory_does_not_count(signed: SignedSite) -> None:
    """Files that are not signed are left out."""
    directory = signed.export_directory()
    signed.sign(ChecksumFiles.of_directory(directory), directory, "oci-layout", "index.json")
    assert f"imported {NAME}" in signed.import_signed()
    assert signed.imported == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nginx:1.27", "-o", "-", "--json"),
        ("nginx:1.27", "-o", "-", "--layout"),
        ("nginx:1.27", "-o", "-", "--max-size", "1GB"),
        ("nginx:1.27", "-o", "a", "--max-size", "0"),
        ("nginx:1.27", "-o", "a", "--max-size", "much"),
        ("nginx:1.27", "-o", "a", "--max-size", "1GB", "--layout"),
        ("nginx:1.27", "-o", "a", "--key", __file__),
        ("-o", "a"),
    ],
)
def test_options_that_exclude_each_other(shop: Shop, arguments: tuple[str, ...]) -> None:
    shop.run("export", *arguments, code=2)
