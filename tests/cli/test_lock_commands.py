"""Lock files from the command line."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import define, field
from zope.interface import implementer

from dockmirror.admission.lock_file import LockedImage, LockFile
from dockmirror.body.bodies import NoBody
from dockmirror.cli.lock_commands import ask_all
from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied
from dockmirror.oci.header_fields import CacheResult, CacheStatus
from dockmirror.oci.request import Manifest, RegistryRequest, Repository, Tag
from dockmirror.store.tag_history import TagHistoryFiles, TagRecord

from ..answering import now
from ..archive.packing import manifest
from ..shelf import UNUSUAL_PLATFORMS
from .shop import AMD, CONFIG, INDEX, NGINX, OTHER, USED, Shop

NEW = manifest(CONFIG, b"new")
DAY = 86_400.0


def read(file: Path) -> dict[str, LockedImage]:
    images = LockFile.parse(file.read_text()).images
    return {f"{repository}:{tag}": image for (repository, tag), image in images.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dockmirror.lock"


def move(shop: Shop) -> None:
    """Move the tag 1.27, whose first digest was seen for ten days."""
    shop.image(NGINX, "1.27", NEW, b"new", CONFIG)

    def see(record: TagRecord) -> TagRecord:
        for digest, day in ((AMD, 0), (AMD, 10), (NEW, 11)):
            record = record.with_sighting(Digest.of(digest), USED + day * DAY)
        return record

    TagHistoryFiles(shop.root).update(("docker", Repository("library/nginx"), Tag("1.27")), see)


def test_write(shop: Shop, file: Path) -> None:
    """Tags in the cache are written with their platforms, and a second run changes nothing."""
    said = shop.run("lock", "-f", str(file))
    assert said.stderr.endswith("dockmirror.lock: 2 images, 2 added, 0 moved\n")
    images = read(file)
    assert {name: each.digest for name, each in images.items()} == {
        f"{NGINX}:latest": Digest.of(INDEX),
        f"{NGINX}:1.27": Digest.of(AMD),
    }
    assert [str(each) for each in images[f"{NGINX}:latest"].platforms] == ["linux/amd64", "linux/arm64"]
    assert images[f"{NGINX}:latest"].first_seen == USED
    before = file.read_text()
    assert shop.json("lock", "-f", str(file)) == {
        "file": str(file), "images": 2, "added": [], "moved": [],
    }  # fmt: skip
    assert file.read_text() == before


@pytest.mark.parametrize("platform", UNUSUAL_PLATFORMS)
def test_platforms_that_a_lock_file_cannot_state_are_left_out(
    shop: Shop, file: Path, platform: dict[str, str]
) -> None:
    data = json.loads(INDEX)
    data["manifests"][1]["platform"] = platform
    shop.image(NGINX, "odd", json.dumps(data).encode())
    shop.run("lock", "-f", str(file), "*:odd")
    assert list(map(str, read(file)[f"{NGINX}:odd"].platforms)) == ["linux/amd64"]


def test_patterns(shop: Shop, file: Path) -> None:
    """Only images that match are added."""
    assert shop.json("lock", "-f", str(file), "*:latest")["images"] == 1
    assert shop.json("lock", "-f", str(file), "ghcr.io/*")["images"] == 1
    assert shop.json("lock", "-f", str(file), str(NGINX))["images"] == 2
    assert OTHER.first not in file.read_text()


def test_no_file_is_made_for_nothing(shop: Shop, file: Path) -> None:
    """An empty lock file refuses all tags; the pattern may be misspelled."""
    refused = shop.run("lock", "-f", str(file), "app", code=1).output
    assert "no image that may be served matches docker.io/library/app" in refused
    assert not file.exists()


def test_update(shop: Shop, file: Path) -> None:
    """Listed images move only with --update, after a question."""
    shop.run("lock", "-f", str(file))
    move(shop)
    shop.image(NGINX, "another", NEW)
    assert shop.json("lock", "-f", str(file), "--update", "*:latest")["moved"] == []
    asked = shop.run("lock", "-f", str(file), "--update", input="n\n", code=1).stdout
    assert f"{NGINX}:1.27" in asked
    assert read(file)[f"{NGINX}:1.27"].digest == Digest.of(AMD)
    shop.run("lock", "-f", str(file), "--update", "--yes")
    assert set(read(file)) == {f"{NGINX}:latest", f"{NGINX}:1.27"}
    image = read(file)[f"{NGINX}:1.27"]
    assert (image.digest, image.first_seen) == (Digest.of(NEW), USED + 11 * DAY)


def test_cool_down_and_recalls(shop: Shop, file: Path, tmp_path: Path) -> None:
    """A lock names what the cool-down has admitted, and nothing that is recalled."""
    move(shop)
    settings = tmp_path / "dockmirror.toml"
    settings.write_text(f'[[policy]]\nimages = "**"\nmin_age = "7d"\nlock = "{file}"\n')
    file.touch()
    shop.run("lock", "-c", str(settings), "*:1.27")
    assert read(file)[f"{NGINX}:1.27"].digest == Digest.of(AMD)
    file.write_text("")
    shop.run("recall", str(Digest.of(AMD)), "--reason", "CVE-1")
    shop.run("lock", "-c", str(settings), "*:1.27")
    assert read(file) == {}


def test_an_index_of_a_recalled_image_is_not_locked(shop: Shop, file: Path) -> None:
    shop.run("recall", str(Digest.of(AMD)), "--reason", "CVE-1")
    shop.run("lock", "-f", str(file))
    assert read(file) == {}


def test_the_file_keeps_its_place_and_its_permissions(shop: Shop, file: Path, tmp_path: Path) -> None:
    """If a link stands in its place, the file that the link names is written."""
    target, link = tmp_path / "reviewed" / "images.lock", tmp_path / "link.lock"
    target.parent.mkdir()
    target.touch()
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 65_534, 65_534)
    before = target.stat()
    link.symlink_to(target)
    shop.run("lock", "-f", str(link))
    after = target.stat()
    assert link.is_symlink()
    assert len(read(target)) == 2
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    shop.run("lock", "-f", str(file))
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_the_cool_down_refuses_is_not_locked(shop: Shop, file: Path, tmp_path: Path) -> None:
    """A lock file counts before the cool-down, so a refused digest in it would be served."""
    move(shop)
    settings = tmp_path / "dockmirror.toml"
    policy = f'[[policy]]\nimages = "**"\nmin_age = "30d"\nfirst_pull = "refuse"\nlock = "{file}"\n'
    settings.write_text(policy)
    file.touch()
    shop.run("lock", "-c", str(settings), "*:1.27")
    assert read(file) == {}
    until = datetime.now(UTC).date() + timedelta(days=7)
    exception = f'exceptions = [{{ image = "**", until = {until}, reason = "an urgent fix" }}]\n'
    settings.write_text(policy + exception)
    shop.run("lock", "-c", str(settings), "*:1.27")
    assert read(file)[f"{NGINX}:1.27"].digest == Digest.of(NEW)


def test_policies(shop: Shop, file: Path, tmp_path: Path) -> None:
    """'policy test' and 'export' follow the lock file, and refuse what is recalled."""
    settings = tmp_path / "dockmirror.toml"
    settings.write_text(f'[[policy]]\nimages = "docker.io/**"\nlock = "{file}"\n')
    shop.run("lock", "-f", str(file), "*:1.27")
    shop.image(NGINX, "1.27", NEW, b"new", CONFIG)
    test = ("-c", str(settings), "policy", "test")
    listed, unlisted = shop.json(*test, "nginx:1.27", "nginx:1.28", code=1)
    assert (listed["verdict"], listed["digest"]) == ("served", str(Digest.of(AMD)))
    assert (unlisted["verdict"], "is not in the lock file" in unlisted["why"]) == ("refused", True)
    assert f"  policy 1, docker.io/**: {file}, enforce" in shop.run(*test, "nginx:1.27").stdout

    archive = tmp_path / "nginx.tar"
    shop.run("export", "-c", str(settings), "nginx:1.27", "-o", str(archive))
    assert Digest.of(AMD).hex.encode() in archive.read_bytes()
    shop.run("export", "-c", str(settings), "nginx:latest", "-o", str(archive), code=1)

    shop.run("recall", str(Digest.of(AMD)), "--reason", "CVE-1")
    assert "CVE-1" in shop.run(*test, "nginx:1.27", code=1).stdout
    assert "CVE-1" in shop.run(*test, f"nginx@{Digest.of(AMD)}", code=1).stdout
    file.write_text("nonsense")
    assert "line 1" in shop.run(*test, "nginx:1.27", code=1).stdout


@pytest.mark.parametrize(("day", "named"), [(-1, None), (5, AMD), (10.9, AMD), (11, NEW), (30, NEW)])
def test_as_of(shop: Shop, file: Path, day: float, named: bytes | None) -> None:
    """The file has what tags named at that time."""
    move(shop)
    time = datetime.fromtimestamp(USED + day * DAY, UTC).isoformat()
    shop.run("lock", "-f", str(file), "--as-of", time)
    digests = {name: each.digest for name, each in read(file).items()}
    assert digests == ({} if named is None else {f"{NGINX}:1.27": Digest.of(named)})


def test_as_of_a_day(shop: Shop, file: Path) -> None:
    """A day counts to its end, and images that would move are shown before."""
    move(shop)
    shop.run("lock", "-f", str(file))
    day = datetime.fromtimestamp(USED + 10 * DAY, UTC).date().isoformat()
    assert len(shop.json("lock", "-f", str(file), "--as-of", day, "--yes")["moved"]) == 1
    assert read(file)[f"{NGINX}:1.27"].digest == Digest.of(AMD)
    shop.run("lock", "-f", str(file), "--as-of", "9999-12-31", "--yes")
    assert read(file)[f"{NGINX}:1.27"].digest == Digest.of(NEW)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--update", "--as-of", "2026-03-01"), 2, "exclude each other"),
        (("--as-of", "yesterday"), 2, "expected a date such as"),
        ((), 1, "line 1: expected an image"),
    ],
)
def test_errors(shop: Shop, file: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    file.write_text("nonsense\n")
    assert says in shop.run("lock", "-f", str(file), *arguments, code=code).output
    assert file.read_text() == "nonsense\n"


def test_refresh_goes_with_update(shop: Shop, file: Path) -> None:
    """The options that say how the mirror is reached go with it."""
    assert "--refresh goes with --update" in shop.run("lock", "-f", str(file), "--refresh", code=2).stderr
    alone = shop.run("lock", "-f", str(file), "--update", "--user", "alice", code=2)
    assert "go with --refresh" in alone.stderr


def test_an_offline_mirror_is_not_asked_to_refresh(shop: Shop, file: Path, tmp_path: Path) -> None:
    shop.run("lock", "-f", str(file), "nginx")
    environ = {"DOCKMIRROR_OFFLINE": "true"}
    said = shop.run("lock", "-f", str(file), "--update", "--refresh", code=1, environ=environ).stderr
    assert f"{NGINX}:latest is left as it was seen before: the mirror is offline" in said
    assert said.endswith("the mirror is offline, so no registry was asked\n")
    settings = tmp_path / "dockmirror.toml"
    settings.write_text("[upstreams.docker]\noffline = true\n")
    environ = {"DOCKMIRROR_CONFIG": str(settings)}
    said = shop.run("lock", "-f", str(file), "--update", "--refresh", code=1, environ=environ).stderr
    assert f"{NGINX}:latest is left as it was seen before: the upstream docker is offline" in said
    assert said.endswith("the upstream docker is offline, so no registry was asked\n")


@implementer(IRegistry)
@define
class Statuses:
    """A mirror that answers for each tag with the result of its name.

    :ivar asked: the requests so far.
    """

    asked: list[RegistryRequest] = field(factory=list)

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert isinstance(request.target, Manifest)
        self.asked.append(request)
        name = str(request.target.reference)
        if name == "denied":
            raise Denied("log in first")
        return Answer(NoBody(Descriptor()), cache=CacheStatus(CacheResult[name]))


def test_tags_that_the_registry_did_not_confirm_are_reported() -> None:
    """The mirror is to ask it, however fresh its copies are."""
    names = ("CONFIRMED", "STORED", "MISS", "BYPASS", "STALE", "HIT", "STALE_WHILE_REVALIDATE", "denied")
    registry = Statuses()
    problems = now(ask_all(registry, [(NGINX, Tag(name)) for name in names]))
    assert [each.partition(" is left as it was seen before: ")[::2] for each in problems] == [
        (f"{NGINX}:STALE", "the upstream gave no answer"),
        (f"{NGINX}:HIT", "the upstream was not asked"),
        (f"{NGINX}:STALE_WHILE_REVALIDATE", "the upstream was not asked"),
        (f"{NGINX}:denied", "log in first"),
    ]
    assert {(each.head, each.revalidate) for each in registry.asked} == {(True, True)}
