"""Tests of ``dockmirror policy`` and of ``export`` under a cool-down."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.tag_history import TagHistoryFiles, TagRecord

from ..archive.packing import files, manifest
from .shop import AMD, BASE, CONFIG, LAYER, NGINX, Shop

DAY = 86_400.0
OLD, YOUNG, BAD = Digest.of(AMD), Digest.of(b"young"), Digest.of(b"bad")
HELD = [manifest(CONFIG, layer) for layer in (b"admitted", b"withheld")]
SETTINGS = """
[[policy]]
images = "docker.io/library/*"
min_age = "7d"
first_pull = "{first_pull}"
exceptions = [{{ image = "docker.io/library/urgent", until = 9999-12-31 }}]
"""


@pytest.fixture
def record(shop: Shop) -> Any:
    """Return a function that records what a tag of Docker Hub named, by days before now."""

    def record(name: str, tag: str, *sightings: tuple[Digest, float]) -> None:
        record = TagRecord()
        for digest, days in sightings:
            record = record.with_sighting(digest, time.time() - days * DAY)
        key = "docker", Repository(f"library/{name}"), Tag(tag)
        TagHistoryFiles(shop.root).update(key, lambda _: record)

    return record


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS.format(first_pull="serve"))
    return file


def test_decisions_have_reasons(shop: Shop, record: Any, settings: Path) -> None:
    record("nginx", "1.27", (OLD, 20), (OLD, 3), (YOUNG, 2), (YOUNG, 0))
    record("urgent", "latest", (OLD, 20), (YOUNG, 2))
    record("nginx", "ancient", (OLD, 500), (OLD, 450), (YOUNG, 449))
    images = ["nginx:1.27", "urgent", "nginx:other", f"nginx@{OLD}", "quay.io/a/b"]
    young, urgent, other, digest, quay = shop.json("-c", str(settings), "policy", "test", *images)
    assert (young["verdict"], young["digest"], young["current"]) == ("replaced", str(OLD), str(YOUNG))
    assert young["why"].endswith("is served in 5 d if the tag keeps it")
    assert (young["policy"], young["mode"], young["min_age"]) == (1, "enforce", 7 * DAY)
    assert (urgent["verdict"], urgent["why"]) == ("served", "an exception covers it")
    assert (other["verdict"], other["why"]) == ("served", 'the tag was never seen, and first_pull is "serve"')
    assert [each["why"] for each in (digest, quay)] == [
        "by digest nothing is cooled", "no cool-down holds for it",
    ]  # fmt: skip
    (ancient,) = shop.json("-c", str(settings), "policy", "test", "nginx:ancient")
    assert ancient["digest"] == str(OLD)
    lines = shop.run("policy", "test", "-c", str(settings), "nginx:1.27").stdout.splitlines()
    assert lines[0] == "docker.io/library/nginx:1.27: replaced"
    assert lines[1] == "  policy 1, docker.io/library/*: cool-down of 7 d, enforce"
    assert lines[3] == f"  served is {OLD}"


def test_a_refusal_fails(shop: Shop, record: Any, settings: Path) -> None:
    settings.write_text(SETTINGS.format(first_pull="refuse"))
    record("nginx", "1.27", (YOUNG, 2), (YOUNG, 0))
    stdout = shop.run("-c", str(settings), "policy", "test", "nginx:1.27", code=1).stdout
    assert "no version of it has been admitted yet; try again in 5 d" in stdout
    assert "never seen" in shop.run("-c", str(settings), "policy", "test", "nginx:2", code=1).stdout


def test_a_policy_that_warns_refuses_nothing(shop: Shop, record: Any, settings: Path) -> None:
    settings.write_text(SETTINGS.format(first_pull="refuse").replace("min_age", 'mode = "warn"\nmin_age'))
    record("nginx", "1.27", (YOUNG, 2), (YOUNG, 0))
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:1.27")
    assert (told["verdict"], told["digest"]) == ("served", str(YOUNG))
    assert "no version of it has been admitted yet" in told["warning"]
    assert "warning: " in shop.run("-c", str(settings), "policy", "test", "nginx:1.27").stdout


def test_the_report_names_frozen_tags(shop: Shop, record: Any, settings: Path) -> None:
    record("steady", "1", (OLD, 20), (OLD, 0))
    record("nginx", "1.27", (OLD, 50), (OLD, 20), (BAD, 19), (OLD, 18), (OLD, 3), (YOUNG, 2), (YOUNG, 0))
    nightly = [(Digest.of(str(night).encode()), float(night)) for night in range(28, -1, -1)]
    record("app", "nightly", (OLD, 50), (OLD, 29), *nightly)
    report = {each["image"]: each for each in shop.json("-c", str(settings), "policy", "report")["tags"]}
    assert set(report) == {"docker.io/library/nginx:1.27", "docker.io/library/app:nightly"}
    nginx, app = report["docker.io/library/nginx:1.27"], report["docker.io/library/app:nightly"]
    assert {key: nginx[key] for key in ("moves", "withheld", "withdrawn", "state")} == {
        "moves": 3, "withheld": 2, "withdrawn": 1, "state": "behind",
    }  # fmt: skip
    assert nginx["seconds_behind"] == pytest.approx(3 * DAY, abs=60)
    assert (app["state"], app["moves"], app["withdrawn"]) == ("frozen", 29, 28)
    result = shop.run("-c", str(settings), "policy", "report", "--all")
    assert "steady" in result.stdout
    assert "tags under a cool-down that were seen in the last 30 days: 3, 1 frozen" in result.stderr


@pytest.mark.parametrize(("admitted", "code"), [(OLD, 0), (YOUNG, 1)])
def test_export_writes_what_is_served(
    shop: Shop, record: Any, settings: Path, tmp_path: Path, admitted: Digest, code: int
) -> None:
    """The cache may have another digest for the tag."""
    shop.image(NGINX, "1.28", AMD, BASE, CONFIG, LAYER)
    record("nginx", "1.28", (admitted, 20), (admitted, 1), (OLD if code else YOUNG, 0))
    output = str(tmp_path / "image.tar")
    result = shop.run("export", "-c", str(settings), "nginx:1.28", "-o", output, code=code)
    if code:
        assert f"{YOUNG} in its place" in result.stderr
    else:
        assert Path(output).exists()


@pytest.fixture
def exported(shop: Shop, record: Any, settings: Path, tmp_path: Path) -> Any:
    """Return a function that exports a tag with an admitted digest, a younger one in the cache, and another.

    Given the tables of policies, it returns the digest that is exported.
    """
    admitted, withheld = map(Digest.of, HELD)
    shop.image(NGINX, "1.29", HELD[0], CONFIG, b"admitted")
    shop.image(NGINX, "1.29", HELD[1], CONFIG, b"withheld")
    record("nginx", "1.29", (admitted, 20), (admitted, 1), (withheld, 0.5), (YOUNG, 0.1))

    def exported(*policies: str) -> Digest:
        settings.write_text("".join(f'[[policy]]\nimages = "**"\n{each}\n' for each in policies))
        output = tmp_path / "image.tar"
        shop.run("export", "-c", str(settings), "nginx:1.29", "-o", str(output))
        index = json.loads(files(output.read_bytes())["index.json"])
        return Digest.parse(index["manifests"][0]["digest"])

    return exported


def test_an_exception_for_one_digest_admits_no_other(
    shop: Shop, exported: Any, settings: Path, tmp_path: Path
) -> None:
    """The tag names a digest with an exception, and the cache has another one, which was never admitted."""
    admitted, withheld = map(Digest.of, HELD)
    for excepted, served in ((YOUNG, admitted), (withheld, withheld)):
        exception = f'exceptions = [{{ image = "{excepted}", until = 9999-12-31 }}]'
        assert exported(f'min_age = "7d"\n{exception}') == served
        lock = tmp_path / f"{served.hex}.lock"
        shop.run("lock", "-c", str(settings), "-f", str(lock))
        assert str(served) in lock.read_text()


def test_a_lock_file_that_only_warns_leaves_the_cool_down_in_force(
    shop: Shop, exported: Any, settings: Path, tmp_path: Path
) -> None:
    """Also one that cannot be read, as in the running mirror; one that is enforced comes first."""
    admitted, withheld = map(Digest.of, HELD)
    lock = tmp_path / "dockmirror.lock"
    lock.write_text(f"docker.io/library/nginx:1.29 {withheld} - 2026-11-30T01:12:45Z\n")
    locked, cooled = f"lock = {json.dumps(str(lock))}\n", 'min_age = "7d"\n'
    warned = f'{locked}mode = "warn"\n'
    assert exported(locked, cooled) == withheld
    assert exported(warned, cooled) == admitted
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:1.29")
    assert (told["verdict"], told["digest"], told["policy"]) == ("replaced", str(admitted), 2)
    assert told["warning"] == "the lock file names this digest"
    assert exported(warned) == withheld
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:1.29")
    assert (told["verdict"], told["digest"], told["mode"]) == ("served", None, "warn")
    assert "warning" not in told
    lock.write_text("no lock file\n")
    assert exported(warned, cooled) == admitted
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:1.29")
    assert "the rule lock cannot be checked" in told["warning"]
    settings.write_text(f'[[policy]]\nimages = "**"\n{locked}')
    refused = shop.run("-c", str(settings), "policy", "test", "nginx:1.29", code=1).stdout
    assert "the rule lock cannot be checked" in refused
