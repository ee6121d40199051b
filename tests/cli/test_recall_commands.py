"""Recalls from the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dockmirror.admission.recalls import EMPTY_BLOBS, Recall, explain
from dockmirror.history.tracker import PartState, make_number
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.tag_history import TagHistoryFiles, TagRecord

from ..history.kept import KeptHistory, report
from .shop import AMD, BASE, CONFIG, INDEX, LAYER, NGINX, OTHER, USED, Shop

BAD = Digest.of(AMD)


def test_recall(shop: Shop) -> None:
    """The manifest, its tags, its indexes and its own layers are named, and the bytes are gone."""
    output = shop.run("recall", str(BAD), "--reason", "CVE-2026-33634").stdout
    lines = output.splitlines()
    assert lines[0] == f"{BAD} is recalled: CVE-2026-33634"
    named = (f"{NGINX}:1.27 -> refused", f"{NGINX}:latest -> refused", Digest.of(INDEX), Digest.of(LAYER))
    assert {f"  {each}" for each in named} < set(lines)
    assert f"  {Digest.of(BASE)}" not in lines
    assert not shop.path(BAD).exists()
    assert not shop.path(Digest.of(LAYER)).exists()
    assert shop.path(Digest.of(BASE)).exists()
    assert "bucket" not in output

    (listed,) = shop.json("recall", "list")
    assert (listed["digest"], listed["reason"]) == (str(BAD), "CVE-2026-33634")
    assert listed["layers"] == [str(Digest.of(LAYER))]
    assert str(BAD) in shop.run("recall", "list").stdout
    assert "CVE-2026-33634" in shop.run("export", "nginx", "-o", "nginx.tar", code=1).output


def test_recall_as_json(shop: Shop) -> None:
    """Everything that the command says to people is in its JSON."""
    earlier = Digest.of(b"earlier")

    def see(record: TagRecord) -> TagRecord:
        return record.with_sighting(earlier, USED).with_sighting(BAD, USED + 60)

    TagHistoryFiles(shop.root).update(("docker", Repository("library/nginx"), Tag("1.27")), see)
    made = shop.json("recall", "--reason", "CVE-1", f"nginx@{BAD}")
    assert made["kind"] == "manifest"
    assert made["tags"] == {f"{NGINX}:1.27": str(earlier), f"{NGINX}:latest": None}
    assert made["referring"] == [str(Digest.of(INDEX))]
    assert made["freed"] == len(AMD + LAYER)
    assert made["in_bucket"] is False


@pytest.mark.parametrize(("min_age", "served"), [("7d", True), ("15d", False)])
def test_tags_under_a_cool_down(shop: Shop, tmp_path: Path, min_age: str, served: bool) -> None:
    """A tag that is served as an index of the image is named with the digest that was admitted before it."""
    first, young = Digest.of(b"first"), Digest.of(b"young")
    times = {first: (40, 25), Digest.of(INDEX): (24, 11), young: (1, 0)}

    def see(record: TagRecord) -> TagRecord:
        for digest, days in times.items():
            for each in days:
                record = record.with_sighting(digest, time.time() - each * 86_400)
        return record

    TagHistoryFiles(shop.root).update(("docker", Repository("library/nginx"), Tag("multi")), see)
    settings = tmp_path / "dockmirror.toml"
    settings.write_text(f'[[policy]]\nimages = "**"\nmin_age = "{min_age}"\nfirst_pull = "refuse"\n')
    made = shop.json("recall", "-c", str(settings), "--reason", "CVE-1", str(BAD))
    tags = {f"{NGINX}:1.27": None, f"{NGINX}:latest": None}
    assert made["tags"] == ({**tags, f"{NGINX}:multi": str(first)} if served else tags)
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:multi")
    assert told["digest"] == str(first)


@pytest.mark.parametrize("warned", ["", '[[policy]]\nimages = "**"\nmode = "warn"\nlock = "LOCK"\n'])
def test_a_tag_does_not_fall_back_to_what_is_too_young(shop: Shop, tmp_path: Path, warned: str) -> None:
    """Nor if a lock file names something for the tag and only warns."""
    first, young = Digest.of(b"first"), Digest.of(b"young")

    def see(record: TagRecord) -> TagRecord:
        for digest, days in ((first, 20), (first, 3), (young, 2), (BAD, 1)):
            record = record.with_sighting(digest, time.time() - days * 86_400)
        return record

    TagHistoryFiles(shop.root).update(("docker", Repository("library/nginx"), Tag("1.27")), see)
    settings = tmp_path / "dockmirror.toml"
    lock = tmp_path / "dockmirror.lock"
    lock.write_text(f"{NGINX}:1.27 {young} - 2026-11-30T01:12:45Z\n")
    cooled = '[[policy]]\nimages = "**"\nmin_age = "7d"\n'
    settings.write_text(warned.replace("LOCK", str(lock)) + cooled)
    made = shop.json("recall", "-c", str(settings), "--reason", "CVE-1", str(BAD))
    assert made["tags"][f"{NGINX}:1.27"] == str(first)


def test_pulls(shop: Shop, tmp_path: Path) -> None:
    """The history says who pulled it, by which tag, and who was refused since."""
    environ = {"DOCKMIRROR_HISTORY": str(tmp_path)}
    kept, began = KeptHistory(tmp_path), time.time()
    before, after = make_number(began - 60, 1, 1), make_number(began + 60, 1, 2)
    refusal = explain(Recall(BAD, "CVE-1", 0, 0), Digest.of(INDEX))
    pulled = report(before, digest=str(BAD), reference="1.27", state=PartState(began - 60), last=began - 60)
    refused = report(after, client="10.0.0.2", state=PartState(began + 60, reason=refusal), last=began + 60)
    kept.writer.write([pulled, refused], began)
    output = shop.run("recall", str(BAD), "--reason", "CVE-1", environ=environ).stdout
    row = next(line for line in output.splitlines() if f"{NGINX}:1.27" in line and "10.0.0.1" in line)
    assert row.endswith("served")
    listed = shop.run("recall", "list", environ=environ).stdout.splitlines()
    assert listed[1].split()[-2:] == ["1", "10.0.0.2"]
    kept.close()


def test_refused_pulls(shop: Shop, tmp_path: Path) -> None:
    """A pull counts that began before the recall and was refused after it, and none of an earlier recall."""
    environ = {"DOCKMIRROR_HISTORY": str(tmp_path)}
    kept, now = KeptHistory(tmp_path), time.time()
    refusal = explain(Recall(BAD, "CVE-1", 0, 0), BAD)
    ended = ((now - 30, refusal), (now + 30, refusal), (now + 30, "the registry does not answer"))
    for number, (last, reason) in enumerate(ended, 1):
        pull, state = make_number(now - 60, 1, number), PartState(last, reason=reason)
        refused = report(pull, client=f"10.0.0.{number}", state=state, last=last)
        kept.writer.write([refused], now)
    kept.close()
    shop.run("recall", str(BAD), "--reason", "CVE-1", environ=environ)
    (listed,) = json.loads(shop.run("recall", "list", "--json", environ=environ).stdout)
    assert [each["client"] for each in listed["refused"]] == ["10.0.0.2"]


def test_settings_file(shop: Shop, tmp_path: Path) -> None:
    """The settings file may stand before or after any of the words."""
    settings = tmp_path / "dockmirror.toml"
    settings.touch()
    named, recalled = ("-c", str(settings)), (str(BAD), "--reason", "CVE-1")
    for arguments in (
        (*named, "recall", *recalled), ("recall", *named, *recalled), ("recall", *recalled, *named),
        ("recall", "list", *named), ("recall", *named, "list"), ("recall", "lift", str(BAD), *named),
    ):  # fmt: skip
        shop.run(*arguments)


@pytest.mark.parametrize("reason", ["digest", "lift", "list"])
def test_a_reason_may_be_the_name_of_a_subcommand(shop: Shop, reason: str) -> None:
    for arguments in ((str(BAD), "--reason", reason), ("--reason", reason, str(BAD))):
        shop.run("recall", *arguments)
        assert [each["reason"] for each in shop.json("recall", "list")] == [reason]
        shop.run("recall", "lift", str(BAD))


def test_layer(shop: Shop) -> None:
    """A layer is recalled only after the images that share it were shown."""
    layer = Digest.of(CONFIG)
    asked = shop.run("recall", str(layer), "--reason", "CVE-1", input="n\n", code=1).output
    assert f"{layer} is a part of 2 images" in asked
    assert f"  {NGINX}@{BAD}" in asked
    assert f"  {OTHER}@" in asked
    assert shop.json("recall", "list") == []
    assert shop.path(layer).exists()
    shop.run("recall", str(layer), "--reason", "CVE-1", "--yes")
    assert [each["digest"] for each in shop.json("recall", "list")] == [str(layer)]
    assert not shop.path(layer).exists()


@pytest.mark.parametrize("digest", sorted(map(str, EMPTY_BLOBS)))
def test_empty_blobs(shop: Shop, digest: str) -> None:
    """The blobs of nothing are never recalled."""
    refused = shop.run("recall", digest, "--reason", "CVE-1", "--yes", code=1).output
    assert "is never recalled" in refused


def test_unknown(shop: Shop) -> None:
    """A digest that nobody has pulled yet is recalled as well."""
    digest = Digest.of(b"never seen")
    assert "this cache has no image with it" in shop.run("recall", str(digest), "--reason", "CVE-1").stdout
    assert [each["digest"] for each in shop.json("recall", "list")] == [str(digest)]


def test_lift(shop: Shop) -> None:
    """A lifted recall is not listed any more, and can be made again."""
    assert "nothing is recalled" in shop.run("recall", "list").stderr
    assert "is not recalled" in shop.run("recall", "lift", str(BAD), code=1).output
    generation = shop.root / layout.ADMISSION_GENERATION
    shop.run("recall", str(BAD), "--reason", "CVE-1")
    before = generation.read_bytes()
    shop.run("recall", "lift", str(BAD))
    assert shop.json("recall", "list") == []
    assert generation.read_bytes() != before
    assert "is not recalled" in shop.run("recall", "lift", str(BAD), code=1).output
    shop.run("recall", str(BAD), "--reason", "CVE-2")
    assert [each["reason"] for each in shop.json("recall", "list")] == ["CVE-2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("latest", "--reason", "CVE-1"), "expected a digest"),
        ((str(BAD),), "Missing option '--reason'"),
        ((str(BAD), "--reason", ""), "expected a reason"),
        ((str(BAD), "--reason", " "), "expected a reason"),
        (("lift",), "Missing argument"),
    ],
)
def test_usage(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    """A mistake in the command is an error of its usage, and recalls nothing."""
    assert says in shop.run("recall", *arguments, code=2).output
    assert shop.json("recall", "list") == []


def test_a_bucket_that_cannot_be_reached(shop: Shop) -> None:
    """The command fails, and the recall is in force on this machine."""
    environ = {"DOCKMIRROR_STORE": "s3://bucket", "DOCKMIRROR_STORE_ENDPOINT": "http://127.0.0.1:9"}
    failed = shop.run("recall", str(BAD), "--reason", "CVE-1", code=1, environ=environ)
    assert "cannot be written" in failed.output
    assert [each["digest"] for each in shop.json("recall", "list")] == [str(BAD)]
