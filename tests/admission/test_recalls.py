"""The rules of recalls, and recalls in a directory: what is read, concerned and removed."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest
from attrs import evolve

from dockmirror.admission.recall_enforcement import is_stored, remove_recalled
from dockmirror.admission.recall_filter import RecalledContentFilter
from dockmirror.admission.recalls import (
    EMPTY_BLOBS,
    LAYER_SECONDS,
    REREAD_SECONDS,
    Generation,
    Recall,
    RecallReader,
    Recalls,
    explain,
    fallbacks,
    find_scope,
    read_statements,
    write_statement,
)
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestReferences
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST
from dockmirror.oci.request import Tag
from dockmirror.store import layout

from ..answering import now
from ..stacks import logged
from ..store.stocked import ELSEWHERE, EPOCH, HERE, Stocked, read, read_tag

BAD, GOOD, LAYER, OTHER = (Digest.of(name) for name in (b"bad", b"good", b"layer", b"other"))
AT = 1_790_000_000.5
RECALL = Recall(BAD, "CVE-2026-33634", AT, AT, layers=(LAYER,))
RECALLS = Recalls.of([RECALL, Recall(GOOD, "mistaken", AT, AT).lift(AT + 5)])


@pytest.mark.parametrize("recall", [RECALL, RECALL.lift(AT + 60), Recall(BAD, "Ä\n", 0.1, 0.2)])
def test_round_trip(recall: Recall) -> None:
    """A document is parsed to the statement that wrote it."""
    assert Recall.parse(bytes(recall)) == recall


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"\xff", b"[" * 100_000, bytes(RECALL).replace(b"sha256", b"md5"), b'{"digest": 1}'
    ],
)  # fmt: skip
def test_malformed(data: bytes) -> None:
    """A malformed document is no statement."""
    assert Recall.parse(data) is None


@pytest.mark.parametrize(
    ("digest", "references", "recalled"),
    [
        (BAD, None, True),
        (GOOD, None, False),
        (OTHER, None, False),
        (LAYER, None, False),
        (OTHER, ManifestReferences(OCI_INDEX, manifests=(GOOD, BAD)), True),
        (OTHER, ManifestReferences(OCI_INDEX, manifests=(GOOD,)), False),
        (OTHER, ManifestReferences(OCI_MANIFEST, blobs=(BAD,)), True),
        (OTHER, ManifestReferences(OCI_MANIFEST, blobs=(LAYER,)), False),
    ],
)
def test_find(digest: Digest, references: ManifestReferences | None, recalled: bool) -> None:
    """The digest and every manifest that refers to it are recalled."""
    assert RECALLS.find(digest, references) == (RECALL if recalled else None)
    assert Recalls().find(digest, references) is None


@pytest.mark.parametrize(
    ("digest", "age", "recalled"),
    [
        (BAD, 0, True),
        (BAD, 10 * LAYER_SECONDS, True),
        (LAYER, 0, True),
        (LAYER, LAYER_SECONDS - 1, True),
        (LAYER, LAYER_SECONDS, False),
        (OTHER, 0, False),
    ],
)
def test_find_blob(digest: Digest, age: float, recalled: bool) -> None:
    """The layers that only a recalled image needs are refused for a while."""
    assert RECALLS.find_blob(digest, AT + age) == (RECALL if recalled else None)


def test_later_counts() -> None:
    """The later statement counts, and of two at the same time the recall."""
    lifted = RECALL.lift(AT + 60)
    again = evolve(RECALL, changed=AT + 61)
    assert [each.supersedes(RECALL) for each in (RECALL, lifted, again)] == [False, True, True]
    assert not RECALL.supersedes(lifted)
    assert again.supersedes(lifted)
    assert RECALL.supersedes(None)
    together = evolve(lifted, changed=AT)
    assert RECALL.supersedes(together)
    assert not together.supersedes(RECALL)
    assert RECALL.lift(AT - 3600).supersedes(RECALL), "a clock that was set back loses no statement"


@pytest.mark.parametrize(
    ("named", "chosen"),
    [([], []), ([GOOD, OTHER, BAD], [OTHER, GOOD]), ([GOOD, BAD, GOOD, BAD], [GOOD]), ([BAD], [])],
)
def test_fallbacks(named: list[Digest], chosen: list[Digest]) -> None:
    """A tag falls back to the last digest before that is not recalled."""
    assert fallbacks(named, RECALLS.find) == chosen


def test_explain() -> None:
    """The refusal names the digest, the reason, and what to do."""
    assert explain(RECALL, BAD) == (
        f"{BAD} was recalled by the operator of this mirror: CVE-2026-33634."
        " Use another version, or ask the operator"
    )
    assert explain(RECALL, OTHER).startswith(f"{OTHER} refers to {BAD}, which was recalled")
    assert explain(RECALL, LAYER).startswith(f"{LAYER} belongs to {BAD}, which was recalled")


def test_empty_blobs() -> None:
    """The blobs of nothing, as everybody writes them."""
    assert {Digest.of(data) for data in (b"", b"{}", bytes(1024))} < EMPTY_BLOBS


@pytest.fixture
def stocked(tmp_path: Path) -> Stocked:
    return Stocked(tmp_path)


def recall(digest: Digest, *layers: Digest) -> Recall:
    return Recall(digest, "CVE-1", EPOCH, EPOCH, layers=layers)


def test_reader(stocked: Stocked) -> None:
    """Every process sees a change at once, and a file that is no statement is left out."""
    reader = RecallReader(stocked.root, stocked.clock)
    assert reader.current() == Recalls()
    times = count(2)

    def write(recall: Recall) -> None:
        """Write at a time of its own, as file systems may tell times only to some milliseconds."""
        write_statement(stocked.root, recall)
        os.utime(stocked.root / layout.RECALLS, (next(times),) * 2)

    bad, worse = recall(Digest.of(b"bad")), recall(Digest.of(b"worse"))
    write(bad)
    assert reader.current() == Recalls.of([bad])
    (stocked.root / layout.RECALLS / "README").write_text("not a recall")
    write(worse)
    assert reader.current() == Recalls.of([bad, worse])
    write(bad.lift(EPOCH + 1))
    assert reader.current() == Recalls.of([worse])
    assert read_statements(stocked.root)[bad.digest].is_lifted


def test_reader_reads_once(stocked: Stocked) -> None:
    """A directory that has not changed is read once more after a second, and then no more."""
    write_statement(stocked.root, recall(Digest.of(b"bad")))
    reader = RecallReader(stocked.root, stocked.clock)
    first = reader.current()
    path = stocked.root / layout.recall(Digest.of(b"bad"))
    path.write_bytes(b"changed in the same tick of the clock")
    assert reader.current() is first
    stocked.clock.advance(REREAD_SECONDS)
    second = reader.current()
    assert second != first
    path.write_bytes(bytes(recall(Digest.of(b"bad"))))
    stocked.clock.advance(60)
    assert reader.current() is second


@pytest.mark.parametrize("data", [b"", b"{", bytes(recall(Digest.of(b"another")))])
def test_a_statement_that_cannot_be_read_is_a_recall(stocked: Stocked, data: bytes) -> None:
    """Even one that was lifted; a statement from elsewhere takes its place."""
    bad = recall(Digest.of(b"bad"))
    write_statement(stocked.root, bad.lift(EPOCH + 1))
    (stocked.root / layout.recall(bad.digest)).write_bytes(data)
    with logged() as texts:
        (found,) = RecallReader(stocked.root, stocked.clock).current().by_digest.values()
    assert (found.digest, found.reason) == (bad.digest, "its statement cannot be read")
    assert f"about {bad.digest} cannot be read, and count as recalls" in texts[0]
    assert bad.supersedes(found)
    assert not found.supersedes(bad)


def test_reader_keeps_the_last_recalls(stocked: Stocked) -> None:
    """Recalls that cannot be read any more stay in force."""
    write_statement(stocked.root, recall(Digest.of(b"bad")))
    reader = RecallReader(stocked.root, stocked.clock)
    before = reader.current()
    directory = stocked.root / layout.RECALLS
    directory.rename(directory.with_name("moved"))
    directory.write_text("a file")
    assert reader.current() == before != Recalls()


def test_scope(stocked: Stocked) -> None:
    """References to a digest are found in all repositories, and which layers nothing else needs."""
    config, base, own = stocked.blob(b"{}"), stocked.blob(b"base"), stocked.blob(b"own")
    bad = stocked.image(config, base, own, tag="1.0")
    good = stocked.image(config, base, tag="0.9")
    index = stocked.index(bad, good, tag="latest")
    stocked.image(stocked.blob(b"{}", repository=ELSEWHERE), own, tag="other", repository=ELSEWHERE)

    found = find_scope(stocked.root, bad)
    assert found.is_manifest
    assert found.users == {HERE: {index}}
    assert set(found.tags) == {(HERE, Tag("1.0")), (HERE, Tag("latest"))}
    assert found.layers == ()

    layer = find_scope(stocked.root, own)
    assert not layer.is_manifest
    assert layer.sharing == 2
    assert set(layer.tags) == {(HERE, Tag("1.0")), (ELSEWHERE, Tag("other"))}
    unknown = find_scope(stocked.root, Digest.of(b"never seen"))
    assert (unknown.is_manifest, unknown.sharing, unknown.tags) == (False, 0, ())


def test_layers_of_its_own(stocked: Stocked) -> None:
    """Layers that only the recalled image needs are listed, shared ones are not."""
    shared, own = stocked.blob(b"shared"), stocked.blob(b"own")
    bad = stocked.image(shared, own, tag="1.0")
    stocked.image(shared, tag="0.9")
    assert find_scope(stocked.root, bad).layers == (own,)


def test_remove(stocked: Stocked) -> None:
    """The image, its tags and what only it needs are removed; everything else stays."""
    shared, own = stocked.blob(b"shared"), stocked.blob(b"own")
    bad = stocked.image(shared, own, tag="latest")
    good = stocked.image(shared, tag="0.9")
    size = len(b"own") + (stocked.root / layout.data(bad)).stat().st_size
    assert remove_recalled(stocked.root, [bad]) == size
    assert not any(is_stored(stocked.root, each) for each in (bad, own))
    assert all(is_stored(stocked.root, each) for each in (good, shared))
    assert read_tag(stocked.tags) is None
    assert read_tag(stocked.tags, Tag("0.9")) == good
    assert remove_recalled(stocked.root, [bad]) == 0


def test_remove_a_layer(stocked: Stocked) -> None:
    """A layer is removed with its links, and the images that need it stay."""
    layer = stocked.blob(b"layer")
    image = stocked.image(stocked.blob(b"{}"), layer, tag="latest")
    assert remove_recalled(stocked.root, [layer]) == len(b"layer")
    assert not (stocked.root / layout.link(HERE, layer, ContentKind.BLOB)).exists()
    assert is_stored(stocked.root, image)


def test_filter(stocked: Stocked) -> None:
    """Recalled contents are neither stored nor linked, for any repository; held ones are still found."""
    bad, layer, good = stocked.blob(b"bad"), stocked.blob(b"layer"), stocked.blob(b"good")
    contents = RecalledContentFilter(
        stocked.contents, RecallReader(stocked.root, stocked.clock).current, stocked.clock
    )
    assert now(read_all(contents, bad)) == b"bad"
    write_statement(stocked.root, recall(bad, layer))
    for digest, data in ((bad, b"bad"), (layer, b"layer"), (good, b"good")):
        assert now(read_all(contents, digest)) == now(read(now(contents.peek(digest)))) == data
        assert now(contents.holds(digest))
        assert now(contents.link(ELSEWHERE, digest, ContentKind.BLOB)) == (digest == good)
    assert not now(contents.add(HERE, bad, ContentKind.MANIFEST, b"bad"))
    assert now(contents.add(HERE, good, ContentKind.MANIFEST, b"good"))
    now(contents.unlink(HERE, good, ContentKind.BLOB))
    assert now(read_all(contents, good)) is None


async def read_all(contents: RecalledContentFilter, digest: Digest) -> bytes | None:
    return await read(await contents.open(HERE, digest, ContentKind.BLOB))


def test_generations_differ(tmp_path: Path) -> None:
    """Other processes see a new one at once."""
    one, other = Generation(tmp_path), Generation(tmp_path)
    assert one.number == other.number == 0
    seen = [one.advance(100.0), other.advance(50.0), one.advance(50.0)]
    assert seen == sorted(set(seen))
    assert one.number == other.number == seen[-1]
