"""What lies in a bucket, read from the names of its objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from attrs import frozen

from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from .. import layout
from .blocking_bucket import ListedObject

_DATA = len(layout.BLOBS.parts)


@frozen
class BucketLink:
    """A link to a content.

    :ivar tag: the directory of the tag that has named it, where it is of a tag.
    :ivar manifest: whether it is one of a repository's manifests.
    """

    key: str
    digest: Digest
    tag: PurePosixPath | None
    manifest: bool


def parse_contents(listed: Iterable[ListedObject]) -> Iterator[tuple[Digest, ListedObject]]:
    """The contents, of what lies below ``layout.BLOBS``."""
    for each in listed:
        parts = PurePosixPath(each.key).parts[_DATA:]
        if len(parts) == 4 and parts[3] == "data" and (digest := _digest(parts[0], parts[2])):
            yield digest, each


def parse_links(listed: Iterable[ListedObject]) -> Iterator[BucketLink]:
    """The links whose names say what they are to, of what lies below ``layout.REPOSITORIES``."""
    for each in listed:
        path = PurePosixPath(each.key)
        if path.name != "link" or len(path.parts) < 6:
            continue
        above, (algorithm, hexadecimal) = path.parents[2], path.parts[-3:-1]
        digest = _digest(algorithm, hexadecimal)
        if digest is not None:
            tag = above.parent if above.name == layout.INDEX.name else None
            yield BucketLink(each.key, digest, tag, above.name == layout.REVISIONS.name)


def _digest(algorithm: str, hexadecimal: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        return None
