"""Recalls: digests that must not be served any more, and the rules that follow from them.

1. A recalled digest is refused at every address: as a manifest by digest or tag, and as a blob.
2. A manifest that refers to a recalled digest is refused: an index that lists it, an image that needs it.
3. A tag that names a refused manifest falls back to the last digest that it named before and that is not
   refused.
4. The blobs that only a recalled image needed are refused for ten minutes, so that a pull that was cut off
   fails and is not resumed.
5. Of two statements about one digest the later counts; of two at the same time, the recall.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from ..oci.digest import Digest
from ..oci.errors import Denied, DigestInvalid
from ..oci.manifest import ManifestReferences
from ..system.times import format_timestamp

LAYER_SECONDS = 600.0
"""Seconds for which the blobs that only a recalled image needed are refused."""

MAX_FALLBACKS = 5
"""Earlier digests of a tag that are tried."""
EMPTY_BLOBS = frozenset(
    Digest("sha256", each)
    for each in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # no bytes
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # {}, the empty configuration
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",  # an empty tar archive
        "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",  # the same, gzipped by docker
        "4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1",  # the same, gzipped by BuildKit
    )
)
"""Blobs that images of every origin share, and that hold nothing."""


class Recalled(Denied):
    """The digest, or a manifest that refers to it, was recalled by the operator."""


@frozen
class Recall:
    """A statement that a digest is recalled, or that its recall was lifted.

    :ivar reason: the operator's words.
    :ivar since: when it was recalled, in seconds since the epoch.
    :ivar changed: when this statement was made.
    :ivar layers: the blobs that only this manifest needed.
    """

    digest: Digest
    reason: str
    since: float
    changed: float
    is_lifted: bool = False
    layers: tuple[Digest, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Recall | None:
        """Parse a recall's document; None if it is malformed."""
        try:
            fields = json.loads(data)
            return cls(
                Digest.parse(fields["digest"]),
                str(fields["reason"]),
                float(fields["since"]),
                float(fields["changed"]),
                bool(fields["lifted"]),
                tuple(map(Digest.parse, fields["layers"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, DigestInvalid):
            return None

    def __bytes__(self) -> bytes:
        fields = {
            "digest": str(self.digest),
            "reason": self.reason,
            "since": self.since,
            "changed": self.changed,
            "lifted": self.is_lifted,
            "layers": [str(each) for each in self.layers],
        }
        return json.dumps(fields, indent=1).encode()

    def fields(self) -> dict[str, str]:
        """Return what clients of the command line and of the API are told, as JSON."""
        return {"digest": str(self.digest), "reason": self.reason, "since": format_timestamp(self.since)}

    def supersedes(self, other: Recall | None) -> bool:
        """Return whether this statement counts, and not the other one about the same digest."""
        if other is None or self.changed != other.changed:
            return other is None or self.changed > other.changed
        return other.is_lifted and not self.is_lifted

    def lift(self, now: float) -> Recall:
        """Return the statement that ends this recall."""
        return evolve(self, is_lifted=True, changed=max(now, self.changed + 1))


@frozen
class Recalls:
    """The recalls in force."""

    by_digest: Mapping[Digest, Recall] = field(factory=dict)

    @classmethod
    def of(cls, statements: Iterable[Recall]) -> Recalls:
        """Return those of the statements that are in force."""
        return cls({each.digest: each for each in statements if not each.is_lifted})

    def __bool__(self) -> bool:
        return bool(self.by_digest)

    def find(self, digest: Digest, references: ManifestReferences | None = None) -> Recall | None:
        """Return the recall of a content, or of something that this manifest refers to; see rules 1 and 2."""
        if not self.by_digest:
            return None
        referenced = (*references.manifests, *references.blobs) if references else ()
        return next((self.by_digest[each] for each in (digest, *referenced) if each in self.by_digest), None)

    def find_blob(self, digest: Digest, now: float) -> Recall | None:
        """Return the recall because of which a blob is refused; see rules 1 and 4."""
        if digest in self.by_digest:
            return self.by_digest[digest]
        recent = (each for each in self.by_digest.values() if now - each.since < LAYER_SECONDS)
        return next((each for each in recent if digest in each.layers), None)


def explain(recall: Recall, digest: Digest | None) -> str:
    """Return the sentence for a client that is refused this digest."""
    if digest is None or digest == recall.digest:
        what = f"{recall.digest} was"
    elif digest in recall.layers:
        what = f"{digest} belongs to {recall.digest}, which was"
    else:
        what = f"{digest} refers to {recall.digest}, which was"
    return (
        f"{what} recalled by the operator of this mirror: {recall.reason}."
        " Use another version, or ask the operator"
    )


def fallbacks(named: Sequence[Digest], find: Callable[[Digest], Recall | None]) -> list[Digest]:
    """Return the digests that a tag may fall back to, the best first; see rule 3.

    :param named: the digests that the tag has named, oldest first.
    """
    return [each for each in dict.fromkeys(reversed(named)) if find(each) is None][:MAX_FALLBACKS]
