"""Where everything lies, below the root of a directory or a bucket.

::

    docker/registry/v2/                           distribution's own: an ordinary registry serves it
      blobs/sha256/ab/<ab…>/data                  the bytes, verified, never changed
      repositories/docker.io/library/busybox/
        _layers/sha256/<hex>/link                 this repository has this blob
        _manifests/revisions/sha256/<hex>/link    … and this manifest
        _manifests/tags/latest/current/link       … under this tag, confirmed when the link was modified
        _manifests/tags/latest/index/sha256/<hex>/link
    dockmirror/                                   our own, outside that tree
      growing/docker.io/sha256-<hex>              a blob on its way in from there; locked by who fills it
      growing/docker.io/sha256-<hex>.size         … and how long it will be
      documents/<name>                            what lists said, what is public: small, replaced whole
      writing/<anything>                          on its way to a name; locked by who writes it
      writing/push-<name>                         a blob that is pushed, copied while it passes
      held                                        how much there is; locked by who walks and evicts
      pins/<name>                                 an image that stays, refreshed when this was modified
      refreshing                                  locked by who refreshes those
      usage                                       what each registry takes up; locked by who measures that
      owed/<anything>                             what a bucket is still to be given; not there without one
      giving                                      locked by who gives it
      uses/<anything>                             in a bucket: what was used, and when
      cleanings/<day>                             in a bucket: made by who cleans it on that day

A link holds ``sha256:<hex>`` and nothing else: a line's end after it makes an ordinary registry fail.
No part of a repository's name begins with ``_``, so a repository lies safely in the directory of another.

Source: distribution, registry/storage/paths.go.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePosixPath
from urllib.parse import quote

from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag

_REGISTRY = PurePosixPath("docker/registry/v2")
_OURS = PurePosixPath("dockmirror")

BLOBS = _REGISTRY / "blobs"
REPOSITORIES = _REGISTRY / "repositories"
GROWING = _OURS / "growing"
DOCUMENTS = _OURS / "documents"
WRITING = _OURS / "writing"
HELD = _OURS / "held"
PINS = _OURS / "pins"
REFRESHING = _OURS / "refreshing"
USAGE = _OURS / "usage"
OWED = _OURS / "owed"
GIVING = _OURS / "giving"
USES = _OURS / "uses"
CLEANINGS = _OURS / "cleanings"

LAYERS = PurePosixPath("_layers")
REVISIONS = PurePosixPath("_manifests/revisions")
TAGS = PurePosixPath("_manifests/tags")
CURRENT = PurePosixPath("current/link")
INDEX = PurePosixPath("index")
SIZE = ".size"

_LINKS = {ContentKind.BLOB: LAYERS, ContentKind.MANIFEST: REVISIONS}
_LONGEST = 200


def data(digest: Digest) -> PurePosixPath:
    """The bytes of a content."""
    return BLOBS / digest.algorithm / digest.hex[:2] / digest.hex / "data"


def link(repository: Repository, digest: Digest, kind: ContentKind) -> PurePosixPath:
    """What says that the repository has the content as that kind."""
    return REPOSITORIES / repository.name / _LINKS[kind] / entry(digest)


def tags(repository: Repository) -> PurePosixPath:
    """Return the directory of a repository's tags."""
    return REPOSITORIES / repository.name / TAGS


def tag(repository: Repository, tag: Tag) -> PurePosixPath:
    """The directory of a tag."""
    return tags(repository) / tag.name


def current(repository: Repository, name: Tag) -> PurePosixPath:
    """What a tag names."""
    return tag(repository, name) / CURRENT


def indexed(repository: Repository, name: Tag, digest: Digest) -> PurePosixPath:
    """What says that a tag has named this manifest."""
    return tag(repository, name) / INDEX / entry(digest)


def growing(registry: str, digest: Digest) -> PurePosixPath:
    """A blob on its way in from that registry."""
    return GROWING / registry / f"{digest.algorithm}-{digest.hex}"


def growing_size(registry: str, digest: Digest) -> PurePosixPath:
    """How long it will be."""
    part = growing(registry, digest)
    return part.with_name(part.name + SIZE)


def document(name: str) -> PurePosixPath:
    """A document of any name."""
    return DOCUMENTS / _escaped(name)


def pin(name: str) -> PurePosixPath:
    """What says that an image of that name stays."""
    return PINS / _escaped(name)


def _escaped(name: str) -> str:
    """Escaped or, where that grows too long, hashed: no two are the same file."""
    escaped = quote(name, safe="@+,=")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if not 0 < len(escaped) <= _LONGEST:
        escaped = f"{escaped[: _LONGEST // 2]}!{sha256(name.encode()).hexdigest()}"
    return escaped


def entry(digest: Digest) -> PurePosixPath:
    """The link to a digest, in a directory of such links."""
    return PurePosixPath(digest.algorithm, digest.hex, "link")
