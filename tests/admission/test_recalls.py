"""The rules of recalls, as tables."""

from __future__ import annotations

import pytest
from attrs import evolve

from dockmirror.admission.recalls import EMPTY_BLOBS, LAYER_SECONDS, Recall, Recalls, explain, fallbacks
from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import ManifestReferences
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST

BAD, GOOD, LAYER, OTHER = (Digest.of(name) for name in (b"bad", b"good", b"layer", b"other"))
AT = 1_790_000_000.5
RECALL = Recall(BAD, "CVE-2026-33634", AT, AT, layers=(LAYER,))
RECALLS = Recalls.of([RECALL, Recall(GOOD, "mistaken", AT, AT).lift(AT + 5)])


@pytest.mark.parametrize("recall", [RECALL, RECALL.lift(AT + 60), Recall(BAD, "Ä\n", 0.1, 0.2)])
def test_round_trip(recall: Recall) -> None:
    """A document is parsed to the statement that wrote it."""
    assert Recall.parse(bytes(recall)) == recall


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", bytes(RECALL).replace(b"sha256", b"md5"), b'{"digest": 1}']
)
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
