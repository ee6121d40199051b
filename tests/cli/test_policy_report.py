"""``dockmirror policy report``: the rules that the pulls of the last 30 days would have met."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockmirror.admission import recalls
from dockmirror.admission.recalls import Recall
from dockmirror.admission.signatures import PublicKey
from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.tracker import PartState, make_number
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.tag_history import TagHistoryFiles, TagRecord

from ..admission.test_signatures import EC
from ..history.kept import report
from .shop import AMD, ARM, INDEX, LAYER, NGINX, Shop

DAY = 86_400.0
OLD, YOUNG = Digest.of(AMD), Digest.of(b"young")
COOL = 'min_age = "7d"'


class Reported:
    """A store with a history of pulls, and a command that reports on it."""

    def __init__(self, shop: Shop, directory: Path) -> None:
        self.shop = shop
        self.settings = directory / "settings.toml"
        self._path = directory / "history" / "pulls.db"
        self._path.parent.mkdir()
        self._directory = directory
        self._pulls = 0

    def pull(self, days: float, digest: Digest | None, reference: str = "1.27", **fields: Any) -> None:
        """Record a pull that began so many days ago."""
        self._pulls += 1
        began = time.time() - days * DAY
        number, text = make_number(began, 1, self._pulls), "" if digest is None else str(digest)
        writer = HistoryWriter(self._path, HistoryBounds())
        given = report(
            number, state=PartState(began), last=began + 1, reference=reference, digest=text, **fields
        )
        writer.write([given], time.time())
        writer.close()

    def sight(self, *sightings: tuple[Digest, float], tag: str = "1.27") -> None:
        """Record what a tag named, by days before now."""
        record = TagRecord()
        for digest, days in sightings:
            record = record.with_sighting(digest, time.time() - days * DAY)
        key = "docker", Repository("library/nginx"), Tag(tag)
        TagHistoryFiles(self.shop.root).update(key, lambda _: record)

    def configure(self, *policies: str) -> None:
        tables = "\n".join(f'[[policy]]\nimages = "**"\n{each}' for each in policies)
        gate = '[gate]\nurl = "https://policy.example/"\n'
        self.settings.write_text(f"history = {json.dumps(str(self._path.parent))}\n{gate}{tables}\n")

    def rules(self, *policies: str) -> list[tuple[str, str, str, str, int]]:
        """Return the rules that pulls have met under these policies."""
        self.configure(*policies)
        rows = self.shop.json("-c", str(self.settings), "policy", "report")["rules"]
        return [
            (row["image"].partition("nginx")[2][:8], row["rule"], row["mode"], row["outcome"], row["pulls"])
            for row in rows
        ]


@pytest.fixture
def reported(shop: Shop, tmp_path: Path) -> Reported:
    return Reported(shop, tmp_path)


def test_a_young_digest_is_met_until_it_is_old_enough(reported: Reported) -> None:
    """Each pull is decided by what the mirror had seen then; the mode does not matter."""
    reported.sight((OLD, 60), (OLD, 21), (YOUNG, 20), (YOUNG, 13), (YOUNG, 0))
    for days in (25, 19, 18, 13.5, 12, 5):
        reported.pull(days, OLD if days > 20 else YOUNG)
    for mode in ("enforce", "warn"):
        assert reported.rules(f'{COOL}\nmode = "{mode}"') == [(":1.27", "min_age", mode, "replaced", 3)]
    assert reported.rules(f'{COOL}\nmode = "off"') == []
    assert reported.rules('min_age = "6d"') == [(":1.27", "min_age", "enforce", "replaced", 2)]
    assert reported.rules('min_age = "20d"') == [(":1.27", "min_age", "enforce", "replaced", 5)]
    exception = f'exceptions = [{{ image = "{YOUNG}", until = 9999-12-31 }}]'
    assert reported.rules(f"{COOL}\n{exception}") == []


def test_tags_without_an_admitted_digest(reported: Reported) -> None:
    """They are refused; of one that the mirror had not seen yet, that cannot be said."""
    reported.sight((OLD, 3), (OLD, 0))
    reported.pull(2, OLD)
    reported.pull(5, OLD)
    refuse = f'{COOL}\nfirst_pull = "refuse"'
    assert reported.rules(refuse) == [
        (":1.27", "min_age", "enforce", "refused", 1),
        (":1.27", "min_age", "enforce", "unknown", 1),
    ]
    assert reported.rules(COOL) == []


def test_lock(reported: Reported, tmp_path: Path) -> None:
    """A listed tag is the locked digest, and another is refused."""
    lock = tmp_path / "dockmirror.lock"
    lock.write_text(f"docker.io/library/nginx:1.27 {OLD} - 2026-11-30T01:12:45Z\n")
    reported.pull(1, YOUNG)
    reported.pull(2, OLD)
    reported.pull(3, OLD, "other")
    assert reported.rules(f"lock = {json.dumps(str(lock))}") == [
        (":1.27", "lock", "enforce", "replaced", 1),
        (":other", "lock", "enforce", "refused", 1),
    ]
    reported.sight((OLD, 60), (OLD, 2.5), (YOUNG, 1.5), (YOUNG, 0))
    assert reported.rules(f'lock = {json.dumps(str(lock))}\nmode = "warn"', COOL) == [
        (":1.27", "lock", "warn", "replaced", 1),
        (":1.27", "min_age", "enforce", "replaced", 1),
        (":other", "lock", "warn", "refused", 1),
    ]


def test_only_known_digests(reported: Reported) -> None:
    """By the policy that has the cool-down."""
    reported.pull(1, OLD, str(OLD))
    rules = reported.rules("max_size = 1000000000", f'{COOL}\ndigests = "known"\nmode = "warn"')
    assert rules == [("@sha256:", "digests", "warn", "refused", 1)]


def test_limits_and_signatures(reported: Reported, tmp_path: Path) -> None:
    """Nobody is asked: an image that the cache does not have is unknown."""
    key = tmp_path / "team.pub"
    key.write_bytes(EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    signer = PublicKey.parse(key.name, key.read_bytes())
    reported.pull(1, OLD)
    reported.pull(2, YOUNG)
    reported.pull(3, None, str(OLD))
    assert reported.rules("max_size = 100") == [
        (":1.27", "max_size", "enforce", "refused", 1),
        (":1.27", "max_size", "enforce", "unknown", 1),
        (f"@{OLD}"[:8], "max_size", "enforce", "refused", 1),
    ]
    signed = f'signed_by = [{json.dumps(str(key))}]\non_error = "serve"'
    assert {row[1:4] for row in reported.rules(signed)} == {("signed_by", "enforce", "unknown")}
    assert reported.rules('max_size = 100\nmode = "warn"', signed)[0] == (
        ":1.27", "signed_by", "enforce", "unknown", 2,
    )  # fmt: skip
    document = reported.shop.root / layout.document(f"signed/{YOUNG.algorithm}/{YOUNG.hex}")
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(json.dumps({signer.id: "team.pub"}))
    assert [row[4] for row in reported.rules(signed)] == [1, 1]


@pytest.mark.parametrize(("allow", "outcome"), [(True, None), (False, "refused"), (None, "unknown")])
def test_kept_verdicts(reported: Reported, allow: bool | None, outcome: str | None) -> None:
    """They count for images that are not held, too."""
    server = Digest.of(b"https://policy.example/").hex[:16]
    name = f"verdicts/{server}/docker.io/library/nginx/{YOUNG.algorithm}/{YOUNG.hex}"
    path = reported.shop.root / layout.document(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if allow is not None:
        path.write_text(json.dumps([time.time() - 60, time.time() + 600, allow, "flaws"]))
    reported.pull(1, YOUNG)
    assert [row[3] for row in reported.rules("hook = true")] == ([] if outcome is None else [outcome])


def test_recalls(reported: Reported) -> None:
    """Also of what an image refers to."""
    reported.pull(1, OLD)
    reported.pull(2, Digest.of(INDEX), "latest")
    for recalled, count in ((LAYER, 1), (AMD, 2)):
        now = time.time()
        recalls.write_statement(reported.shop.root, Recall(Digest.of(recalled), "CVE-1", now, now))
        refused = [row for row in reported.rules() if row[3] == "refused"]
        assert [row[1:] for row in refused] == [("recall", "enforce", "refused", 1)] * count


def test_the_image_of_an_index_that_was_pulled_is_judged(reported: Reported) -> None:
    """Without its platform, the outcome is unknown if some images are refused, and refused if all are."""
    reported.shop.image(NGINX, "latest", INDEX, manifests=[AMD, ARM])
    for platform in ("linux/amd64", "linux/arm64", ""):
        reported.pull(1, Digest.of(INDEX), "latest", platform=platform)
    assert reported.rules("max_size = 100") == [(":latest", "max_size", "enforce", "refused", 3)]
    assert reported.rules("max_size = 100\nmode = 'warn'") == [(":latest", "max_size", "warn", "refused", 3)]
    assert sorted(reported.rules("max_size = 3000")) == [
        (":latest", "max_size", "enforce", "refused", 1),
        (":latest", "max_size", "enforce", "unknown", 1),
    ]
    reported.shop.path(Digest.of(ARM)).unlink()
    assert reported.rules("max_size = 3000") == [
        (":latest", "max_size", "enforce", "unknown", 2),
        (":latest", "max_size", "enforce", "refused", 1),
    ]


def test_the_report_is_a_table(reported: Reported) -> None:
    reported.sight((OLD, 60), (OLD, 3), (YOUNG, 2), (YOUNG, 0))
    reported.pull(1, YOUNG)
    reported.pull(29, OLD)
    reported.pull(31, OLD)
    reported.configure(COOL)
    result = reported.shop.run("-c", str(reported.settings), "policy", "report")
    rules, tags = result.stdout.split("\n\n")
    assert rules.splitlines()[0].split() == ["image", "rule", "mode", "outcome", "pulls", "last", "why"]
    assert "min_age  enforce  replaced      1" in rules
    assert "too new for the cool-down" in rules
    assert tags.splitlines()[1].endswith("behind")
    assert "pulls in the last 30 days, under the policies as they are now: 2, 0 refused, 1 replaced" in (
        result.stderr
    )


def test_without_a_history_tags_are_reported(reported: Reported) -> None:
    reported.sight((OLD, 60), (OLD, 3), (YOUNG, 2), (YOUNG, 0))
    reported.configure(COOL)
    result = reported.shop.run("-c", str(reported.settings), "policy", "report")
    assert "pulls are not reported: there is no history in" in result.stderr
    assert "behind" in result.stdout
    assert reported.shop.json("-c", str(reported.settings), "policy", "report")["pulls"] is None
