"""Lock files: their lines, and what tags are served as by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dockmirror.admission.admit import Unlisted
from dockmirror.admission.lock_file import (
    HEADER,
    LockedImage,
    LockFile,
    LockFileInvalid,
    LockReader,
    find_locked,
)
from dockmirror.config.field_types import SettingsFile
from dockmirror.config.image_rules import PolicySettings
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, Unreachable
from dockmirror.oci.manifest import Platform
from dockmirror.oci.request import Repository, Tag

from ..pullthrough.mirrors import NAME, header
from ..stacks import logged
from .gated import Gated

ONE = LockedImage(
    Repository(f"docker.io/{NAME}"),
    Tag("latest"),
    Digest.of(b"one"),
    (Platform("linux", "amd64"), Platform("linux", "arm", "v7")),
    1_796_000_000,
)
AT = "2026-11-30T00:53:20Z"
TWO = evolve(ONE, repository=Repository("ghcr.io_5000/o/r"), tag=Tag("1.0"), platforms=())


def test_round_trip() -> None:
    """A file is one sorted line for each image, and is read as it was written."""
    text = str(LockFile.of([TWO, ONE]))
    assert text == (
        f"{HEADER}docker.io/library/busybox:latest {ONE.digest} linux/amd64,linux/arm/v7 {AT}\n"
        f"ghcr.io_5000/o/r:1.0 {ONE.digest} - {AT}\n"
    )
    assert LockFile.parse(text) == LockFile.of([ONE, TWO])
    assert LockFile.parse(f"\n# a comment\n{text}") == LockFile.of([ONE, TWO])
    assert LockFile.parse("") == LockFile({})


@pytest.mark.parametrize(
    "line",
    [
        "docker.io/library/nginx",
        f"docker.io/library/nginx {ONE.digest} - {AT}",
        f"docker.io/library/nginx:latest sha256:12 - {AT}",
        f"docker.io/library/nginx:latest {ONE.digest} amd64 {AT}",
        f"docker.io/library/nginx:latest {ONE.digest} - yesterday",
        f"docker.io/library/nginx:latest {ONE.digest} - {AT} 5",
    ],
)
def test_malformed(line: str) -> None:
    """The error names the line."""
    with pytest.raises(LockFileInvalid, match="line 2: expected"):
        LockFile.parse(f"{ONE}\n{line}\n")


def test_listed_twice() -> None:
    """A tag cannot be two digests."""
    with pytest.raises(LockFileInvalid, match=r"line 3: docker\.io/library/busybox:latest is listed twice"):
        LockFile.parse(f"{ONE}\n{TWO}\n{ONE}\n")


def write(path: Path, *images: LockedImage) -> None:
    path.write_text(str(LockFile.of(images)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dockmirror.lock"
    path.touch()
    return path


def locked(file: Path, **policy: Any) -> Gated:
    return Gated({"lock": str(file), **policy})


def test_listed(file: Path) -> None:
    """A listed tag is its locked digest, whatever it names upstream, and while the upstream is down."""
    gated = locked(file, min_age="7d")
    first = gated.publish("1")
    write(file, evolve(ONE, digest=Digest.of(first)))
    assert gated.served() == first
    gated.fetch_blobs(first)
    second = gated.publish("2")
    gated.pass_days(30)
    assert gated.served() == first
    answer = gated.ask(f"{NAME}/manifests/latest", head=True)
    assert answer.body.descriptor.digest == Digest.of(first)
    assert header(answer, "Dockmirror-Newer-Digest") == str(Digest.of(second))
    assert gated.get(f"{NAME}/manifests/{Digest.of(second)}") == second, "a pin is a decision"
    gated.registry_behind.trouble = Unreachable("no route")
    gated.pass_days(1)
    assert gated.served() == first


def test_a_locked_digest_is_known(file: Path) -> None:
    """It can be pulled by digest, as clients do after HEAD, though no tag was served as it before."""
    gated = locked(file, digests="known", min_age="7d")
    first, second = gated.publish("1"), gated.publish("2")
    write(file, evolve(ONE, digest=Digest.of(first)), evolve(TWO, digest=Digest.of(second)))
    assert gated.get(f"{NAME}/manifests/{Digest.of(first)}") == first
    with pytest.raises(Denied, match="is not known"):
        gated.get(f"{NAME}/manifests/{Digest.of(second)}")


def test_lock_files_of_other_images_do_not_matter(file: Path, tmp_path: Path) -> None:
    """Nor do those of policies that are off, however malformed they are."""
    (tmp_path / "malformed").write_text("nonsense")
    write(file)
    other = {"lock": str(tmp_path / "malformed"), "images": "ghcr.io/**"}
    off = {"lock": str(tmp_path / "malformed"), "mode": "off"}
    gated = Gated(other, {"lock": str(file), "digests": "known", "min_age": "7d"}, off)
    with pytest.raises(Denied, match="is not known"):
        gated.get(f"{NAME}/manifests/{Digest.of(gated.publish('1'))}")


def test_changed(file: Path) -> None:
    """A change of the file counts within ten seconds, and an invalid file changes nothing."""
    gated = locked(file)
    first, second = gated.publish("1"), gated.publish("2")
    write(file, evolve(ONE, digest=Digest.of(first)))
    assert gated.served() == first
    write(file, evolve(ONE, digest=Digest.of(second)))
    os.utime(file, (1, 1))  # file systems may tell times only to some milliseconds
    gated.clock.advance(9.5)
    gated.served()
    gated.clock.advance(0.5)
    assert gated.served() == second
    for broken in ("nonsense\n", None):
        file.write_text(broken) if broken else file.unlink()
        gated.clock.advance(10)
        assert gated.served() == second


@pytest.mark.parametrize(
    ("policy", "text", "served"),
    [
        ({}, "", "library/busybox:latest is not in the lock file dockmirror.lock of this mirror"),
        ({"unlisted": "serve"}, "", None),
        ({"mode": "warn"}, "", None),
        ({}, "nonsense", "the rule lock cannot be checked: the reason is in the mirror's log"),
        ({"on_error": "serve"}, "nonsense", None),
        ({"images": "quay.io/**"}, "", None),
    ],
)
def test_unlisted(file: Path, policy: dict[str, Any], text: str, served: str | None) -> None:
    """A tag that is not listed is what the policy says; a file that was never valid refuses."""
    file.write_text(text)
    gated = locked(file, **policy)
    manifest = gated.publish("1")
    with logged() as texts:
        outcome = gated.served()
    assert outcome == manifest if served is None else served in str(outcome)
    assert str(file) not in str(outcome)
    assert (str(file) in "".join(texts)) == (text == "nonsense")


def test_reader_without_a_file(file: Path) -> None:
    """A file that is missing from the start is an error."""
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        LockReader(file).current()


def test_the_artifacts_of_a_locked_digest_need_no_line(file: Path) -> None:
    """A tag of a signature is served if the file lists the digest for a tag of its repository."""
    policy = PolicySettings(images="**", lock=SettingsFile(file))
    lock = LockFile.of([ONE])
    for suffix in ("", ".sig", ".att", ".sbom"):
        tag = Tag(f"sha256-{ONE.digest.hex}{suffix}")
        assert find_locked(lock, policy, ONE.repository, tag) is None
        assert find_locked(lock, policy, TWO.repository, tag) == Unlisted(file)
    other = Tag(f"sha256-{Digest.of(b'other').hex}.sig")
    assert find_locked(lock, policy, ONE.repository, other) == Unlisted(file)
    listed = evolve(ONE, tag=Tag(f"sha256-{ONE.digest.hex}.sig"), digest=Digest.of(b"signature"))
    assert find_locked(LockFile.of([ONE, listed]), policy, ONE.repository, listed.tag) == listed.digest
