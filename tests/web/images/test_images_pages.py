"""The pages of images: what is held, as operators see it."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.pulls import HistoryError, Pull, PullFilter, PullSums, SumKey
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.tracker import PartState, make_number
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import store_files
from dockmirror.web.images import blocks
from dockmirror.web.images.catalog import PullFigures
from tests.archive.packing import described, manifest
from tests.cli.shop import AMD, BASE, CONFIG, INDEX, NGINX, OTHER, USED
from tests.history.kept import report
from tests.stacks import now
from tests.web.operations import NOW, Endpoint, page_text

PAGE = f"/images/{NGINX}"


class FakeHistory:
    """A history of two pulls of one tag."""

    def __init__(self, is_broken: bool = False) -> None:
        self._is_broken = is_broken
        self.counted: list[float] = []

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        if self._is_broken:
            raise HistoryError("the file is malformed")
        if filter.image not in ("", str(NGINX), f"{NGINX}:latest"):
            return []
        fields = (
            "",
            "",
            "mirror",
            "docker.io",
            "library/nginx",
            "latest",
            "",
            "",
            1,
            1,
            9,
            0,
            1,
            1,
            "served",
            "",
        )
        return [Pull(number, USED - number, 1.0, *fields) for number in (1, 2)][:limit]  # type: ignore[arg-type]

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        self.counted.append(filter.since)
        found = self.pulls(filter, limit)
        return [PullSums(str(NGINX), len(found), 0, 9, 0, 1, 1, 1.0, 1.0)] if found else []


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path, FakeHistory())


def test_the_list_has_registries_repositories_and_pulls(endpoint: Endpoint) -> None:
    text = endpoint.text("/images/")
    assert f"{NGINX} 2 7.3 kB 2 2026-09-21 14:13" in text
    assert "ghcr.io/o/r 0" in text
    assert "docker.io 7.3 kB ghcr.io" in text
    found = endpoint.text("/images/?q=NGINX")
    assert str(NGINX) in found
    assert "ghcr.io/o/r" not in found
    assert "No repository has such a name." in endpoint.text("/images/?q=nothing")


def test_a_repository_shows_its_tags(endpoint: Endpoint) -> None:
    """Each with its digest, since when it names that, its platforms, and its pulls."""
    now(
        endpoint.tag_history.record(
            "docker", Repository("library/nginx"), Tag("latest"), Digest.of(INDEX), USED
        )
    )
    text = endpoint.text(PAGE)
    short = str(Digest.of(INDEX))[:19]
    assert f"latest {short} 2026-09-21 14:13 linux/amd64 linux/arm64 incomplete" in text
    assert "2026-09-21 14:13 (2)" in text
    assert "1.27" in text
    assert "Without a tag Tag Digest" in endpoint.text(f"/images/{OTHER}")


def test_an_image_shows_what_it_consists_of(endpoint: Endpoint) -> None:
    text = endpoint.text(f"{PAGE}:latest")
    assert f"docker pull mirror.example/{NGINX}:latest" in text
    assert "Pulls, and the last one 2 · 2026-09-21 14:13" in text
    assert "linux/amd64 complete" in text
    assert "linux/arm64 incomplete Its manifest is not held." in text
    base = str(Digest.of(BASE))[:19]
    assert f"{base} 1.2 kB held ghcr.io/o/r" in text
    assert f"{str(Digest.of(CONFIG))[:19]} (configuration)" in text
    by_digest = endpoint.text(f"{PAGE}@{Digest.of(AMD)}")
    assert f"docker pull mirror.example/{NGINX}@{Digest.of(AMD)}" in by_digest


def test_an_image_lists_the_digests_that_its_tag_has_named(endpoint: Endpoint) -> None:
    repository, older = Repository("library/nginx"), Digest.of(b"older")
    for digest, seen in ((older, USED - 7200), (Digest.of(INDEX), USED - 3600), (Digest.of(INDEX), USED)):
        now(endpoint.tag_history.record("docker", repository, Tag("latest"), digest, seen))
    text = endpoint.text(f"{PAGE}:latest")
    newest, oldest = (str(each)[:19] for each in (Digest.of(INDEX), older))
    assert f"{newest} 2026-09-21 13:13 2026-09-21 14:13 {oldest} 2026-09-21 12:13 2026-09-21 12:13" in text


def test_artifacts_that_are_held_are_shown_with_their_image(endpoint: Endpoint) -> None:
    """By their tag, and by the subject that they state; their own tags are not listed."""
    signature = manifest(b"{}", b"signature").replace(
        b"application/vnd.oci.image.layer.v1.tar+gzip", b"application/vnd.dev.cosign.simplesigning.v1+json"
    )
    sbom = {
        **json.loads(manifest(b"{}", b"sbom")),
        "artifactType": "text/spdx+json",
        "subject": described(AMD, ""),
    }
    assert "signature" not in endpoint.text(f"{PAGE}:1.27")
    endpoint.shop.image(NGINX, f"sha256-{Digest.of(AMD).hex}.sig", signature, b"{}", b"signature")
    endpoint.shop.image(NGINX, "", json.dumps(sbom).encode(), b"sbom")
    endpoint.clock.advance(2)
    assert "Held with it SBOM signature" in endpoint.text(f"{PAGE}:1.27")
    listed = endpoint.text(PAGE)
    assert "sha256-" not in listed
    assert "Without a tag" not in listed


def test_pulls_are_counted_once_a_minute() -> None:
    """The days end at midnight UTC."""
    clock, history = Clock(), FakeHistory()
    clock.advance(100.5 * 86_400)
    figures = PullFigures(history, clock.seconds)
    for second in (0, 59, 60, -1):
        clock.rightNow = 100.5 * 86_400 + second
        assert (figures.of_repositories() or {})[str(NGINX)].pulls == 2
    assert history.counted == [71 * 86_400] * 3


def test_a_history_that_is_off_or_broken_shows_no_pulls(tmp_path: Path) -> None:
    for number, history in enumerate((None, FakeHistory(is_broken=True))):
        endpoint = Endpoint(tmp_path / str(number), history)
        assert f"{NGINX} 2 7.3 kB - -" in endpoint.text("/images/")
        assert "Pulls" not in endpoint.text(f"{PAGE}:latest")
        assert "latest" in endpoint.text(PAGE)


@pytest.mark.parametrize(
    "path",
    [
        "/images/docker.io/library/none", "/images/docker.io", f"{PAGE}:none", f"{PAGE}@sha256:{'0' * 64}",
        f"{PAGE}:", f"{PAGE}/", f"{PAGE}@x", "/images/..%2F..", "/images/%FF", f"{PAGE}:latest:latest",
        "/images/A",
    ],
)  # fmt: skip
def test_what_is_not_held_is_not_found(endpoint: Endpoint, path: str) -> None:
    expected = 200 if path == f"{PAGE}:" else 404
    assert endpoint.get(path).status == expected


def test_a_page_needs_no_script_and_says_so(endpoint: Endpoint) -> None:
    for path in ("/images/", PAGE, f"{PAGE}:latest"):
        answer = endpoint.get(path, "Accept-Language: zh")
        policy = str(answer["Content-Security-Policy"])
        assert "form-action 'self'" in policy
        assert "'unsafe" not in policy
        assert b'<html lang="zh">' in answer.body
        assert answer["Cache-Control"] == "no-store"
    moved = endpoint.get("/images")
    assert (moved.status, moved["Location"]) == (301, "/images/")
    assert endpoint.ask("PUT", "/images/").status == 405


def test_phrases_are_the_same_in_all_languages() -> None:
    english, *others = blocks._WORDS.values()
    for other in others:
        assert list(other.words) == list(english.words)
        for key, phrase in other.words.items():
            names = [text.split("}")[0] for text in phrase.split("{")[1:]]
            assert sorted(names) == sorted(text.split("}")[0] for text in english.words[key].split("{")[1:])


def test_the_page_of_a_digest_counts_the_pulls_of_the_digest(tmp_path: Path) -> None:
    """And leads to them."""
    path = tmp_path / "pulls.db"
    endpoint = Endpoint(tmp_path, SqliteHistory(path, lambda: NOW))
    number, state = make_number(USED, 1, 1), PartState(USED + 1)
    digest = str(Digest.of(AMD))
    writer = HistoryWriter(path, HistoryBounds())
    writer.write([report(number, state=state, last=USED + 1, digest=digest, reference=digest)], NOW)
    writer.close()
    address = f"{PAGE}@{Digest.of(AMD)}"
    assert "Pulls, and the last one 1 · 2026-09-21 14:13" in endpoint.text(address)
    link = f"/history?image={NGINX}%40{Digest.of(AMD)}&time=month"
    assert link in unescape(endpoint.get(address).body.decode())
    assert "1 pull of" in endpoint.text(link)


def test_a_page_of_a_large_cache_is_small(endpoint: Endpoint) -> None:
    """The rest is on further pages: a hundred repositories, and twenty tags."""
    for number in range(130):
        repository = Repository(f"quay.io/some-team/some-long-name-of-an-application-{number:03}")
        for data, kind in ((AMD, ContentKind.MANIFEST), (BASE, ContentKind.BLOB)):
            store_files.link_content(endpoint.root, repository, Digest.of(data), kind, USED)
        store_files.set_tag(endpoint.root, repository, Tag("latest"), Digest.of(AMD), USED)
    for number in range(45):
        store_files.set_tag(endpoint.root, NGINX, Tag(f"2.{number:02}"), Digest.of(INDEX), NOW)
    first = endpoint.get("/images/")
    assert len(first.body) < 150_000
    assert first.body.count(b"<tr>") == 101
    more = endpoint.text("/images/?q=&after=quay.io/some-team/some-long-name-of-an-application-097")
    assert "application-098" in more
    assert "application-097" not in more
    tags = endpoint.get(PAGE)
    assert len(tags.body) < 150_000
    assert b"after=2.18" in tags.body
    assert "2.19" in endpoint.text(f"{PAGE}?after=2.18")
    assert len(endpoint.get(f"{PAGE}:latest").body) < 150_000


def test_a_page_of_an_image_with_thousands_of_layers_is_small(endpoint: Endpoint) -> None:
    """Any client may pull one, and making the page would keep the mirror busy for seconds."""
    large = manifest(b"{}", *(b"%d" % number for number in range(3000)))
    endpoint.shop.image(NGINX, "large", large, b"{}")
    endpoint.clock.advance(2)
    body = endpoint.get(f"{PAGE}:large").body
    assert len(body) < 150_000
    assert "and 2801 more" in page_text(body)
